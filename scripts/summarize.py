#!/usr/bin/env python
"""Show a finished run on one screen: what was made, results next to the baselines, examples, and how to use it.

    umls-reranker summarize quickstart

Reads the output of the other stages and changes nothing.
"""

import textwrap
import warnings

from umls_reranker.core.arguments import EvaluationArguments, RunArguments
from umls_reranker.core.files import read_json
from umls_reranker.core.recipe import parse_recipe
from umls_reranker.core.script import run_script, table_console
from umls_reranker.core.stage_keys import key_of_lists
from umls_reranker.core.stages import RunFolder, read_manifest

# Test mentions shown with their candidates.
EXAMPLES = 3
# What the example prints of each candidate.
EXAMPLE_LINE = "{item.score:.3f}  {item.tier:6}  {item.name}"


def main() -> None:
    recipe = parse_recipe(__doc__, (RunArguments, EvaluationArguments))
    run = RunFolder(recipe.run.run_dir)
    run.key_of("report", "evaluate")
    from umls_reranker.evaluation.figures import read_metrics
    from umls_reranker.evaluation.tables import examples_table, figures_table, linking_table
    from umls_reranker.hub.model_folder import METRICS

    report = read_metrics(run.path / "report" / METRICS)
    console = table_console()
    # Some mentions have no type, and the call below gives no retrieval scores, on purpose.
    warnings.simplefilter("ignore", UserWarning)
    texts, golds, ranked = example_mentions(recipe, run)
    console.print(examples_table(texts, golds, ranked))
    console.print(linking_table(report))
    console.print(figures_table(report))
    console.print(f"\n{what_was_made(run)}", markup=False, highlight=False)
    console.print(checklist_line(run), markup=False, highlight=False)
    console.print(
        f"Model folder, ready for the Hub: {run.path / 'model'}    figures, plots: {run.path / 'report'}", markup=False
    )
    console.print(
        f"A page to look at: {run.path / 'report' / 'report.html'}\n", markup=False, highlight=False, soft_wrap=True
    )
    lines, printed = example_call(run.path / "model", texts, ranked)
    for title, text in (("Use it:", lines), ("This prints:", printed)):
        console.print(f"{title}\n", style="bold")
        console.print(textwrap.indent(text, "    "), markup=False, highlight=False, soft_wrap=True)


def what_was_made(run) -> str:
    """Sizes and minutes, from the stages' manifests."""
    found = next(stage for stage in ("index", "candidates") if (run.path / stage).is_dir())
    made = {stage: read_manifest(run.path / stage)["summary"] for stage in (found, "checkpoints")}
    training = made["checkpoints"]
    if found == "index":
        index = f"Made: an index of {made['index']['names']:,} names of {made['index']['concepts']:,} concepts;"
    else:
        index = f"Made from {sum(made['candidates']['mentions'].values()):,} candidate lists:"
    minutes = {stage: seconds / 60 for stage, seconds in run.seconds().items()}
    steps = ", ".join(f"{stage} {value:.1f}" for stage, value in minutes.items() if value >= 0.05)
    return (
        f"{index} a cross-encoder trained on {training['train_pairs']:,} pairs in {training['steps']:,} steps "
        f"({training['dtype']}).\n"
        f"Minutes: {sum(minutes.values()):.1f} ({steps})"
    )


def checklist_line(run) -> str:
    """The results of umls-reranker validate, if it has run."""
    path = run.path / "checklist.json"
    if not path.is_file():
        return "Targets: not checked yet, run umls-reranker validate"
    checks = read_json(path)["checks"]
    named = {
        result: [c["name"] for c in checks if c["result"] == result] for result in ("PASS", "FAIL", "CANNOT TELL")
    }
    words = {"FAIL": "missed", "CANNOT TELL": "too little to tell"}
    rest = [f"{words[result]}: {', '.join(named[result])}" for result in words if named[result]]
    return "; ".join([f"Targets: {len(named['PASS'])} of {len(checks)} met", *rest])


def example_mentions(recipe, run) -> tuple[list[str], list[str], list[list[dict]]]:
    """Test mentions from the most to the least confident, reranked by the model folder loaded as by a user."""
    from umls_reranker.data.candidate_lists import CandidateLists
    from umls_reranker.data.concepts import ConceptTable
    from umls_reranker.serving.ranked_candidates import ranked_column
    from umls_reranker.serving.reranker import UMLSReranker

    reranker = UMLSReranker.from_pretrained(
        run.path / "model", device=recipe.run.device, dtype=recipe.run.scoring_dtype
    )
    mentions = run.splits("mentions")["test"]
    candidates = run.splits("candidates")["test"]
    count = min(EXAMPLES, len(mentions))
    drawn = min(20 * count, len(mentions))
    rows = [len(mentions) * (2 * i + 1) // (2 * drawn) for i in range(drawn)]
    concepts, fields = ConceptTable.load(run.path / "concepts"), reranker.scorer.template.candidate_fields
    parts = candidates.select(rows), mentions.select(rows)
    lists = CandidateLists.from_run(*parts, concepts, fields, key_of_lists(run.path))
    ranked = ranked_column(lists, reranker.rank(lists), reranker.input_names).to_pylist()
    order = sorted(range(drawn), key=lambda row: -ranked[row][0]["score"] if ranked[row] else 0.0)
    shown = [order[drawn * (2 * i + 1) // (2 * count)] for i in range(count)]
    golds = lists.annotations.cuis
    return [lists.mentions[i] for i in shown], [golds[i] for i in shown], [ranked[i] for i in shown]


def example_call(model, texts: list[str], ranked: list[list[dict]]) -> tuple[str, str]:
    """Lines to paste that rerank three names for an accepted example, if there is one; and what they print."""
    from umls_reranker.serving.reranker import UMLSReranker

    chosen = next((row for row, items in enumerate(ranked) if items and items[0]["accepted"]), 0)
    names = sorted(dict.fromkeys(item["name"] for item in ranked[chosen][:3]))
    listed = "".join(f"    {name!r},\n" for name in names)
    lines = (
        "from umls_reranker import UMLSReranker\n\n"
        f"reranker = UMLSReranker.from_pretrained({str(model)!r})\n"
        f"candidates = [\n{listed}]\n"
        f"for item in reranker.rerank({texts[chosen]!r}, candidates):\n"
        f"    print(f'{EXAMPLE_LINE}')\n"
    )
    items = UMLSReranker.from_pretrained(model).rerank(texts[chosen], names)
    return lines, "".join(EXAMPLE_LINE.format(item=item) + "\n" for item in items)


if __name__ == "__main__":
    run_script(main)
