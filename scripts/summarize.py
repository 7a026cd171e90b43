#!/usr/bin/env python
"""Summarize a finished run on one screen: examples, results and baselines, targets, and where the model is.

    umls-reranker summarize quickstart

Reads the output of the other stages and changes nothing.
"""

import warnings
from functools import partial

from umls_reranker.core.files import read_json
from umls_reranker.evaluation.arguments import EvaluationArguments
from umls_reranker.models.arguments import RunArguments
from umls_reranker.pipeline.command import run_script, table_console
from umls_reranker.pipeline.recipe import parse_recipe
from umls_reranker.pipeline.stages import RunFolder

# Number of test mentions shown with their candidates.
EXAMPLES = 3
# Number of tables of the report that are shown: comparison, ranking and tiers.
TABLES = 3


def main() -> None:
    recipe = parse_recipe(__doc__, (RunArguments, EvaluationArguments))
    run = RunFolder(recipe.run.run_dir)
    run.key_of("report", "evaluate")
    from umls_reranker.evaluation.metrics import read_metrics
    from umls_reranker.evaluation.render import as_text, report_tables
    from umls_reranker.hub.model_folder import METRICS

    metrics = read_metrics(run.path / "report" / METRICS)
    console = table_console()
    print_plain = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    # Some mentions have no type.
    warnings.simplefilter("ignore", UserWarning)
    texts, golds, ranked = example_mentions(recipe, run)
    print_plain(example_lines(texts, golds, ranked))
    for table in report_tables(metrics)[:TABLES]:
        console.print(f"\n{table.title}\n", style="bold")
        print_plain(as_text(table))
    print_plain(f"\n{checklist_line(run)}")
    print_plain(f"Model folder, ready for the Hub: {run.path / 'model'}    metrics, plots: {run.path / 'report'}")
    print_plain(f"Report to open in a browser: {run.path / 'report' / 'report.html'}\n")
    use = f"UMLSReranker.from_pretrained({str(run.path / 'model')!r}).rerank(mention, candidates)"
    if recipe.mentions.candidate_lists is None:
        use = f"ConceptLinker.from_run({str(run.path)!r}).link(mention)"
    print_plain(f"Use it: {use}")


def example_lines(texts: list[str], golds: list[tuple[str, ...]], ranked: list[list[dict]]) -> str:
    """The top candidates of some mentions; the gold concept is marked."""
    lines = []
    for text, gold, items in zip(texts, golds, ranked, strict=True):
        lines.append(f"{text!r}, gold {'|'.join(gold)}:")
        for item in items[:EXAMPLES]:
            mark = "*" if item["cui"] in gold else " "
            lines.append(f"  {mark} {item['score']:.3f}  {item['tier']:6}  {item['cui']}  {item['name']}")
    return "\n".join(lines)


def checklist_line(run) -> str:
    """The results of umls-reranker validate, if it has run."""
    path = run.path / "checklist.json"
    if not path.is_file():
        return "Targets: not checked yet; run umls-reranker validate"
    checks = read_json(path)["checks"]
    rest = ", ".join(f"{check['name']} ({check['result']})" for check in checks if check["result"] != "PASS")
    met = sum(check["result"] == "PASS" for check in checks)
    return f"Targets: {met} of {len(checks)} met" + (f"; not met: {rest}" if rest else "")


def example_mentions(recipe, run) -> tuple[list[str], list[tuple[str, ...]], list[list[dict]]]:
    """Test mentions from the most to the least confident, reranked by the model folder loaded as by a user."""
    import numpy as np

    from umls_reranker.lists.labels import read_run_lists
    from umls_reranker.serving.reranker import UMLSReranker
    from umls_reranker.serving.rows import ranked_column
    from umls_reranker.vocab.concepts import ConceptTable

    reranker = UMLSReranker.from_pretrained(run.path / "model", **recipe.run.scoring)
    lists = read_run_lists(run.path, "test", ConceptTable.load(run.path / "concepts"))
    count = min(EXAMPLES, len(lists))
    drawn = min(20 * count, len(lists))
    lists = lists.take(np.array([len(lists) * (2 * i + 1) // (2 * drawn) for i in range(drawn)]))
    ranked = ranked_column(lists, reranker.decide(lists), reranker.model_names).to_pylist()
    order = sorted(range(drawn), key=lambda row: -ranked[row][0]["score"] if ranked[row] else 0.0)
    examples = [order[drawn * (2 * i + 1) // (2 * count)] for i in range(count)]
    golds = lists.annotations.alternatives
    return [lists.mentions[i] for i in examples], [golds[i] for i in examples], [ranked[i] for i in examples]


if __name__ == "__main__":
    run_script(main)
