"""Calibrator and thresholds from the scored candidate lists of the calibration split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .calibrators import Calibrator, fit_calibrator
from .thresholds import ThresholdTable

if TYPE_CHECKING:
    from ..arguments import CalibrationArguments
    from ..data.semantic_types import TypeHierarchy
    from ..evaluation.candidate_lists import CandidateLists

__all__ = ["fit_parts"]


def fit_parts(
    lists: CandidateLists, logits: np.ndarray, settings: CalibrationArguments, hierarchy: TypeHierarchy, seed: int
) -> tuple[Calibrator, ThresholdTable, dict[str, Any]]:
    """Fit both parts on real lists, whose class balance is what serving sees.

    Args:
        lists: the calibration split.
        logits: (m,) float32 raw scores of its candidates.
        settings: the recipe's section.
        hierarchy: type tree that thresholds fall back along.
        seed: of the cross-validation of ``auto``.

    Returns:
        calibrator, thresholds, and what they were fitted on (for ``calibrator.json``).
    """
    labels, rows = lists.labels, lists.mention_of
    documents = np.asarray(lists.documents)
    losses: dict[str, float] = {}
    calibrator = fit_calibrator(settings.calibrator, logits, labels, documents[rows], seed=seed, report=losses)
    probabilities = calibrator(logits)
    top = lists.top(logits, probabilities)
    thresholds = ThresholdTable.fit(
        probabilities,
        labels,
        rows,
        top.score,
        top.correct,
        list(lists.mentions["semantic_types"]),
        hierarchy,
        groups=documents,
        min_positives=settings.min_type_positives,
        min_mentions=settings.min_type_mentions,
        shrinkage=settings.threshold_shrinkage,
        target_precision=settings.target_precision,
        confidence=settings.confidence,
    )
    fitted = {
        "split": "calibration",
        "mentions": len(lists.gold),
        "pairs": len(labels),
        "positives": int(labels.sum()),
    }
    if losses:
        fitted["cross_validated_log_loss"] = losses
    return calibrator, thresholds, fitted
