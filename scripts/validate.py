#!/usr/bin/env python
"""Check a finished run like a deployment: load its model folder, rerank held-out mentions, compare with targets.

    umls-reranker validate quickstart
    umls-reranker validate quickstart --against org/my-reranker@v1.0.0

Prints each target of the recipe with the measured value, its 95 % interval, what it was measured on, and PASS, FAIL or
CANNOT TELL. With --against, also says whether the model is worse than a former version on the same mentions, or as
good within --margin. Writes checklist.json into the run folder. The exit code is 1 if a check fails, or if the model
is worse than the former version or not shown to be as good.
"""

from dataclasses import asdict, dataclass

from umls_reranker.core.arguments import EvaluationArguments, RunArguments, recipe_key
from umls_reranker.core.files import write_json
from umls_reranker.core.recipe import parse_recipe
from umls_reranker.core.script import run_script, would_make
from umls_reranker.core.stage_keys import key_of_lists
from umls_reranker.core.stages import RunFolder


@dataclass
class ValidationOptions:
    """Validation: options of this script only."""

    against: str | None = recipe_key(
        None,
        "former version to compare with: a run, report or model folder, an outcomes.parquet, or a Hub repo as "
        "NAMESPACE/NAME or NAMESPACE/NAME@REVISION",
    )


def main() -> int:
    recipe, options = parse_recipe(__doc__, (RunArguments, EvaluationArguments), extra=ValidationOptions)
    run = RunFolder(recipe.run.run_dir)
    report_key = run.key_of("report", "evaluate")
    from umls_reranker.data.concepts import ConceptTable
    from umls_reranker.evaluation.checklist import check_targets, format_table, measured_figures, parse_targets
    from umls_reranker.evaluation.comparison import compare
    from umls_reranker.evaluation.figures import read_metrics
    from umls_reranker.evaluation.outcomes import OUTCOMES_FILE, Outcomes
    from umls_reranker.hub.model_folder import METRICS, verify_files
    from umls_reranker.hub.publish import find_outcomes
    from umls_reranker.serving.replay import replay_checks
    from umls_reranker.serving.reranker import UMLSReranker

    targets = parse_targets(recipe.evaluation.targets)
    # A model that was made anew has none until it is evaluated; the report is then of the former one.
    verify_files(run.path / "model", [METRICS])
    checks = check_targets(targets, measured_figures(read_metrics(run.path / "report" / METRICS)))
    comparison = None
    if options.against:
        former = Outcomes.load(find_outcomes(options.against))
        present = Outcomes.load(run.path / "report" / OUTCOMES_FILE)
        comparison = compare(present, former, margin=recipe.evaluation.margin)
    if recipe.run.dry_run:
        would_make("checklist", run.path / "checklist.json")
        return 0
    with run.locked():
        reranker = UMLSReranker.from_pretrained(run.path / "model", **recipe.run.scoring)
        replayed = [run.splits(name)["test"] for name in ("mentions", "candidates")]
        concepts = ConceptTable.load(run.path / "concepts")
        checks = replay_checks(reranker, *replayed, concepts, key_of_lists(run.path)) + checks
        content = {
            "schema_version": 3,
            "report_key": report_key,
            "checks": [asdict(check) for check in checks],
            "against": options.against,
            "comparison": comparison and asdict(comparison),
        }
        write_json(run.path / "checklist.json", content)
    print(format_table(checks))
    counts = {result: [c.name for c in checks if c.result == result] for result in ("PASS", "FAIL", "CANNOT TELL")}
    passed, failed, open_ = counts.values()
    print(
        f"\n{len(passed)} passed, {len(failed)} failed"
        + (f": {', '.join(failed)}" if failed else "")
        + (f"; too little support to tell: {', '.join(open_)}" if open_ else "")
    )
    if comparison:
        print(f"\n{comparison.table()}\n\ncompared with {options.against}: {comparison.sentence()}")
    return 1 if failed or (comparison and not comparison.passes) else 0


if __name__ == "__main__":
    run_script(main)
