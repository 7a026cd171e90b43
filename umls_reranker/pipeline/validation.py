"""The checks of a finished run as it is deployed, and the process in which `run` ends.

python -m umls_reranker.pipeline.validation RECIPE [--KEY VALUE ...] calibrates, evaluates and
validates a run with one loaded model.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from ..core.files import write_json
from ..core.run_arguments import RunArguments
from ..evaluation.arguments import USUAL_MARGIN
from ..evaluation.checklist import check_targets, format_table, parse_targets
from ..evaluation.comparison import compare
from ..evaluation.metrics import read_metrics
from ..evaluation.outcomes import OUTCOMES_FILE, Outcomes
from ..hub.model_folder import METRICS, verify_files
from ..hub.publish import find_outcomes
from ..lists.candidate_lists import AnnotatedLists
from ..serving.reranker import UMLSReranker
from .command import MISSED_TARGET, run_script, would_make
from .model import calibrate_run, evaluate_run
from .recipe import Recipe, parse_recipe
from .stages import RunFolder

REPLAYED_MENTIONS = 200
REPLAYED_SINGLY = 20
# Batches differ in padding, so bfloat16 rounds differently.
LARGEST_GAP = 0.02


def validate(
    recipe: Recipe,
    run: RunFolder,
    against: str | None = None,
    *,
    margin: float = USUAL_MARGIN,
    reranker: UMLSReranker | None = None,
) -> bool:
    """Check the targets of the recipe and the model folder; print and write the results.

    Args:
        recipe: the recipe.
        run: the finished run.
        against: a previous version to compare with, as for `find_outcomes`; None: no comparison.
        margin: as for `compare`.
        reranker: the model of the run; None: it is loaded.

    Returns:
        Whether no check failed, and the model is not inferior to the previous version.
    """
    report_key = run.key_of("report", "evaluate")
    targets = parse_targets(recipe.evaluation.targets)
    # A new model has none until it is evaluated; until then the report is that of the previous one.
    verify_files(run.path / "model", [METRICS])
    checks = check_targets(targets, read_metrics(run.path / "report" / METRICS)["figures"])
    comparison = None
    if against:
        former = Outcomes.load(find_outcomes(against))
        present = Outcomes.load(run.path / "report" / OUTCOMES_FILE)
        comparison = compare(present, former, margin=margin)
    if recipe.run.dry_run:
        would_make("checklist", run.path / "checklist.json")
        return True
    with run.locked():
        if reranker is None:
            reranker = UMLSReranker.from_pretrained(run.path / "model", **recipe.run.scoring)
        lists = run.lists("test")
        checks = replay_checks(reranker, lists) + checks
        content = {
            "schema_version": 4,
            "report_key": report_key,
            "checks": checks,
            "against": against,
        }
        write_json(
            run.path / "checklist.json", content | {"comparison": comparison and asdict(comparison)}
        )
    print(f"{format_table(checks)}\n\n{verdict(checks)}")
    if comparison:
        print(f"\n{comparison.text(str(against))}")
    failed = any(check["result"] == "FAIL" for check in checks)
    return not failed and (comparison is None or comparison.passes)


def verdict(checks: list[dict[str, Any]]) -> str:
    """How many checks passed and failed, and the names of those that did not pass."""
    names: dict[str, list[str]] = {"PASS": [], "FAIL": [], "INCONCLUSIVE": []}
    for check in checks:
        names[check["result"]].append(check["name"])
    failed = f": {', '.join(names['FAIL'])}" if names["FAIL"] else ""
    undecided = (
        f"; inconclusive: {', '.join(names['INCONCLUSIVE'])}" if names["INCONCLUSIVE"] else ""
    )
    return f"{len(names['PASS'])} passed, {len(names['FAIL'])} failed{failed}{undecided}"


def replay_checks(reranker: UMLSReranker, lists: AnnotatedLists) -> list[dict[str, Any]]:
    """Replay test mentions as a service does: one at a time, and in one batch.

    Every candidate is returned with a probability, in order, with the same score alone as in a
    batch.

    Args:
        reranker: loaded as by a user.
        lists: the lists of a split.

    Returns:
        the checks, as of `check_targets`.
    """
    lists = lists.take(np.arange(0, len(lists), max(1, len(lists) // REPLAYED_MENTIONS)))
    batch = reranker.decide(lists, "replaying test mentions")
    count = min(len(lists), REPLAYED_SINGLY)
    single = [reranker.decide(lists.take(np.array([row]))).probabilities for row in range(count)]
    gap = float(
        np.abs(np.concatenate(single) - batch.probabilities[: lists.offsets[count]]).max(
            initial=0.0
        )
    )
    ranked = batch.probabilities[batch.order]
    whole = np.array_equal(np.sort(batch.order), np.arange(len(lists.names)))
    in_range = ((ranked >= 0.0) & (ranked <= 1.0)).all()
    ordered = (np.diff(ranked) <= 0)[np.diff(lists.owner) == 0].all()
    sound = {
        "value": float(whole and in_range and ordered),
        "n": len(lists),
        "population": "replayed mentions",
    }
    figures = {
        "every_candidate_ranked_with_probability": sound,
        "largest_score_gap_single_vs_batch": {
            "value": gap,
            "n": count,
            "population": "replayed mentions",
        },
    }
    return check_targets(dict(zip(figures, (">= 1", f"<= {LARGEST_GAP}"), strict=True)), figures)


def main() -> int:
    """Calibrate, evaluate and validate the run of a recipe."""
    recipe = parse_recipe(__doc__ or "", (RunArguments,))
    run = RunFolder(recipe.run.run_dir)
    calibrate_run(recipe, run)
    reranker = evaluate_run(recipe, run)
    return 0 if validate(recipe, run, reranker=reranker) else MISSED_TARGET


if __name__ == "__main__":
    run_script(main)
