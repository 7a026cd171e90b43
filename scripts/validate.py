#!/usr/bin/env python
"""Check a finished run as it is deployed: load the model folder, rerank held-out mentions, compare with targets.

    umls-reranker validate quickstart
    umls-reranker validate quickstart --against org/my-reranker@v1.0.0

Prints each target of the recipe with the measured value, its 95 % interval, what it was measured on, and PASS, FAIL or
INCONCLUSIVE. --against also compares the model with a previous version on the same mentions: it passes if it is not
inferior within --margin. Writes checklist.json into the run folder. The exit code is 1 if a check fails, or if the
model is worse than the previous version or not shown to be non-inferior.
"""

from dataclasses import asdict, dataclass

from umls_reranker.core.files import write_json
from umls_reranker.core.keys import recipe_key
from umls_reranker.evaluation.arguments import EvaluationArguments
from umls_reranker.models.arguments import RunArguments
from umls_reranker.pipeline.command import run_script, would_make
from umls_reranker.pipeline.recipe import parse_recipe
from umls_reranker.pipeline.stages import RunFolder

REPLAYED_MENTIONS = 200
REPLAYED_SINGLY = 20
# Batches differ in padding, so bfloat16 rounds differently.
LARGEST_GAP = 0.02


@dataclass
class ValidationOptions:
    """Validation: options of this script only."""

    against: str | None = recipe_key(
        None,
        "previous version to compare with: a run, report or model folder, an outcomes.parquet, or a Hub repo as "
        "NAMESPACE/NAME or NAMESPACE/NAME@REVISION",
    )


def main() -> int:
    recipe, options = parse_recipe(__doc__, (RunArguments, EvaluationArguments), extra=ValidationOptions)
    run = RunFolder(recipe.run.run_dir)
    report_key = run.key_of("report", "evaluate")
    from umls_reranker.evaluation.checklist import check_targets, format_table, parse_targets
    from umls_reranker.evaluation.comparison import compare
    from umls_reranker.evaluation.metrics import read_metrics
    from umls_reranker.evaluation.outcomes import OUTCOMES_FILE, Outcomes
    from umls_reranker.hub.model_folder import METRICS, verify_files
    from umls_reranker.hub.publish import find_outcomes
    from umls_reranker.lists.labels import read_run_lists
    from umls_reranker.serving.reranker import UMLSReranker
    from umls_reranker.vocab.concepts import ConceptTable

    targets = parse_targets(recipe.evaluation.targets)
    # A new model has none until it is evaluated; until then the report is that of the previous one.
    verify_files(run.path / "model", [METRICS])
    checks = check_targets(targets, read_metrics(run.path / "report" / METRICS)["figures"])
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
        lists = read_run_lists(run.path, "test", ConceptTable.load(run.path / "concepts"))
        checks = replay_checks(reranker, lists) + checks
        content = {"schema_version": 4, "report_key": report_key, "checks": checks, "against": options.against}
        write_json(run.path / "checklist.json", content | {"comparison": comparison and asdict(comparison)})
    print(format_table(checks))
    results = ("PASS", "FAIL", "INCONCLUSIVE")
    passed, failed, open_ = ([check["name"] for check in checks if check["result"] == result] for result in results)
    named = f": {', '.join(failed)}" if failed else ""
    undecided = f"; inconclusive: {', '.join(open_)}" if open_ else ""
    print(f"\n{len(passed)} passed, {len(failed)} failed{named}{undecided}")
    if comparison:
        print(f"\n{comparison.text(options.against)}")
    return 1 if failed or (comparison and not comparison.passes) else 0


def replay_checks(reranker, lists):
    """Replay test mentions as a service does: one at a time, and in one batch.

    Every candidate is returned with a probability, in order, and with the same score alone as in a batch.

    Args:
        reranker: loaded as by a user.
        lists: the lists of a split.

    Returns:
        the checks, as of `check_targets`.
    """
    import numpy as np

    from umls_reranker.evaluation.checklist import check_targets

    lists = lists.take(np.arange(0, len(lists), max(1, len(lists) // REPLAYED_MENTIONS)))
    batch = reranker.decide(lists, "replaying test mentions")
    count = min(len(lists), REPLAYED_SINGLY)
    single = [reranker.decide(lists.take(np.array([row]))).probabilities for row in range(count)]
    gap = float(np.abs(np.concatenate(single) - batch.probabilities[: lists.offsets[count]]).max(initial=0.0))
    ranked = batch.probabilities[batch.order]
    whole = np.array_equal(np.sort(batch.order), np.arange(len(lists.names)))
    in_range = ((ranked >= 0.0) & (ranked <= 1.0)).all()
    ordered = (np.diff(ranked) <= 0)[np.diff(lists.owner) == 0].all()
    sound = {"value": float(whole and in_range and ordered), "n": len(lists), "population": "replayed mentions"}
    figures = {
        "every_candidate_ranked_with_probability": sound,
        "largest_score_gap_single_vs_batch": {"value": gap, "n": count, "population": "replayed mentions"},
    }
    return check_targets(dict(zip(figures, (">= 1", f"<= {LARGEST_GAP}"), strict=True)), figures)


if __name__ == "__main__":
    run_script(main)
