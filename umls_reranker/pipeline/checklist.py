"""The checklist of a run: its model as users load it, and the targets of the recipe."""

from dataclasses import asdict
from typing import Any

import numpy as np

from ..core.json_files import write_json
from ..core.keys import NON_INFERIORITY_MARGIN
from ..evaluation.metrics import read_metrics
from ..evaluation.targets import (
    FAIL,
    check_targets,
    format_table,
    parse_targets,
    verdict_on_targets,
)
from ..hub.file_names import METRICS_FILE
from ..hub.manifest import verify_files
from ..hub.versions import compare_versions
from ..lists.annotated_lists import AnnotatedLists
from ..serving.reranker import UMLSReranker
from .command import would_make
from .recipe import Recipe
from .run_folder import RunFolder, tell_other_settings

# Test mentions that are ranked again in one batch, and those of them also alone.
REPLAYED_MENTIONS = 200
REPLAYED_SINGLY = 20
REPLAYED = "replayed mentions"
# Between probabilities alone and in a batch: batches differ in padding, so bfloat16 rounds
# differently.
LARGEST_SCORE_GAP = 0.02
CHECKLIST = "checklist.json"


def validate(
    recipe: Recipe,
    against: str | None = None,
    *,
    margin: float = NON_INFERIORITY_MARGIN,
    reranker: UMLSReranker | None = None,
) -> bool:
    """Check the targets of the recipe and the model folder; print and write the results.

    Args:
        recipe: the recipe.
        against: a previous version to compare with, as for `compare_versions`; None: none.
        margin: as for `compare_versions`.
        reranker: the model of the run; None: it is loaded.

    Returns:
        Whether no check failed, and the model is not inferior to the previous version.
    """
    run = RunFolder(recipe.run.run_dir)
    report_key = run.key_of("report", "evaluate")
    tell_other_settings(recipe, run, ["report"])
    targets = parse_targets(recipe.evaluation.targets)
    # A new model has no metrics until it is evaluated: the report is that of the model before it.
    verify_files(run.path / "model", [METRICS_FILE])
    checks = check_targets(targets, read_metrics(run.path / "report" / METRICS_FILE)["figures"])
    comparison = None
    if against:
        comparison = compare_versions(run.path / "report", against, margin)
    if recipe.run.dry_run:
        would_make("checklist", run.path / CHECKLIST)
        return True
    with run.locked():
        if reranker is None:
            reranker = UMLSReranker.from_pretrained(run.path / "model", **recipe.run.scoring)
        checks = replay_checks(reranker, run.lists("test")) + checks
        write_json(
            run.path / CHECKLIST,
            {
                "schema_version": 4,
                "report_key": report_key,
                "checks": checks,
                "against": against,
                "comparison": comparison and asdict(comparison),
            },
        )
    print(f"{format_table(checks)}\n\n{verdict_on_targets(checks)}")
    if comparison:
        print(f"\n{comparison.text(str(against))}")
    if any(check["result"] == FAIL for check in checks):
        return False
    return comparison is None or comparison.passes


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
    step = max(1, len(lists) // REPLAYED_MENTIONS)
    lists = lists.take(np.arange(0, len(lists), step))
    batch = reranker.decide(lists, "replaying test mentions")
    count = min(len(lists), REPLAYED_SINGLY)
    alone = [reranker.decide(lists.take(np.array([row]))).probabilities for row in range(count)]
    in_batch = batch.probabilities[: lists.offsets[count]]
    largest_gap = np.abs(np.concatenate(alone) - in_batch).max(initial=0.0)
    ranked = batch.probabilities[batch.order]
    has_all_candidates = np.array_equal(np.sort(batch.order), np.arange(len(lists.names)))
    in_range = ((ranked >= 0.0) & (ranked <= 1.0)).all()
    # Of two candidates one after the other in the same list, the second is not more probable.
    is_same_list = np.diff(lists.owner) == 0
    is_ordered = (np.diff(ranked) <= 0)[is_same_list].all()
    figures = {
        "every_candidate_ranked_with_probability": {
            "value": float(has_all_candidates and in_range and is_ordered),
            "n": len(lists),
            "population": REPLAYED,
        },
        "largest_score_gap_single_vs_batch": {
            "value": float(largest_gap),
            "n": count,
            "population": REPLAYED,
        },
    }
    targets = {
        "every_candidate_ranked_with_probability": ">= 1",
        "largest_score_gap_single_vs_batch": f"<= {LARGEST_SCORE_GAP}",
    }
    return check_targets(targets, figures)
