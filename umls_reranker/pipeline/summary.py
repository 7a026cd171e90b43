"""The summary of a finished run on one screen."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..core.files import read_json
from ..evaluation.metrics import read_metrics
from ..evaluation.render import as_text, report_tables
from ..hub.model_folder import METRICS
from ..serving.reranker import UMLSReranker
from ..serving.rows import ranked_column
from .command import table_console
from .recipe import Recipe
from .stages import RunFolder

# Number of test mentions shown, and of their candidates.
EXAMPLES = 3
# Number of tables of the report that are shown: comparison, ranking and tiers.
TABLES = 3


class Example(NamedTuple):
    """A test mention, its gold concepts, and its ranked candidates as rows."""

    mention: str
    gold: tuple[str, ...]
    ranked: list[dict[str, Any]]

    def __str__(self) -> str:
        """The mention with its top candidates; the gold concept is marked."""
        lines = [f"{self.mention!r}, gold {'|'.join(self.gold)}:"]
        for item in self.ranked[:EXAMPLES]:
            mark = "*" if item["cui"] in self.gold else " "
            lines.append(
                f"  {mark} {item['score']:.3f}  {item['tier']:6}  {item['cui']}  {item['name']}"
            )
        return "\n".join(lines)


def summarize(recipe: Recipe, run: RunFolder) -> None:
    """Print examples, results and baselines, targets, and where the model is."""
    metrics = read_metrics(run.path / "report" / METRICS)
    console = table_console()
    print_plain = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    for example in examples(recipe, run):
        print_plain(str(example))
    for table in report_tables(metrics)[:TABLES]:
        console.print(f"\n{table.title}\n", style="bold")
        print_plain(as_text(table))
    model = run.path / "model"
    report = run.path / "report"
    print_plain(f"\n{checklist_line(run)}")
    print_plain(f"Model folder, ready for the Hub: {model}    metrics, plots: {report}")
    print_plain(f"Report to open in a browser: {report / 'report.html'}\n")
    if recipe.mentions.candidate_lists is None:
        print_plain(f"Use it: ConceptLinker.from_run({str(run.path)!r}).link(mention)")
    else:
        print_plain(
            f"Use it: UMLSReranker.from_pretrained({str(model)!r}).rerank(mention, candidates)"
        )


def checklist_line(run: RunFolder) -> str:
    """The results of umls-reranker validate, if it has run."""
    path = run.path / "checklist.json"
    if not path.is_file():
        return "Targets: not checked yet; run umls-reranker validate"
    checks = read_json(path)["checks"]
    rest = ", ".join(
        f"{check['name']} ({check['result']})" for check in checks if check["result"] != "PASS"
    )
    met = sum(check["result"] == "PASS" for check in checks)
    return f"Targets: {met} of {len(checks)} met" + (f"; not met: {rest}" if rest else "")


def examples(recipe: Recipe, run: RunFolder) -> list[Example]:
    """Test mentions, most confident first, reranked by the model folder loaded as a user would."""
    reranker = UMLSReranker.from_pretrained(run.path / "model", **recipe.run.scoring)
    lists = run.lists("test")
    count = min(EXAMPLES, len(lists))
    drawn = min(20 * count, len(lists))
    lists = lists.take(np.array([len(lists) * (2 * i + 1) // (2 * drawn) for i in range(drawn)]))
    with warnings.catch_warnings():
        # Some mentions have no type.
        warnings.simplefilter("ignore", UserWarning)
        decisions = reranker.decide(lists)
    ranked = ranked_column(lists, decisions, reranker.model_names).to_pylist()
    golds = lists.annotations.alternatives
    all_examples = [Example(*row) for row in zip(lists.mentions, golds, ranked, strict=True)]
    all_examples.sort(key=lambda example: -example.ranked[0]["score"] if example.ranked else 0.0)
    return [all_examples[drawn * (2 * i + 1) // (2 * count)] for i in range(count)]
