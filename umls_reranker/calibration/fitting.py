"""Calibrator and thresholds from the scored candidate lists of the calibration split."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from .acceptance import AcceptanceRule
from .calibrators import HeldOutLoss, fit_calibrator
from .evidence import Calibration, fit_fusions
from .string_counts import StringCounts
from .thresholds import ThresholdTable

if TYPE_CHECKING:
    from datasets import Dataset

    from ..arguments import CalibrationArguments
    from ..data.semantic_types import TypeHierarchy
    from ..evaluation.candidate_lists import CandidateLists

__all__ = ["fit_parts"]


def fit_parts(
    lists: CandidateLists,
    logits: np.ndarray,
    train_mentions: Dataset,
    settings: CalibrationArguments,
    hierarchy: TypeHierarchy,
    seed: int,
) -> tuple[Calibration, ThresholdTable, dict[str, Any]]:
    """Fit fusion, calibrator and thresholds on real lists, whose class balance is what serving sees.

    Args:
        lists: the calibration split.
        logits: (m,) float32 raw scores of its candidates.
        train_mentions: of which strings and concepts are counted.
        settings: the recipe's section.
        hierarchy: type tree that thresholds fall back along.
        seed: of the cross-validation of ``auto``.

    Returns:
        calibration, thresholds, and what they were fitted on (for ``calibrator.json``).
    """
    labels, rows = lists.labels, lists.mention_of
    documents = np.asarray(lists.documents)
    losses: dict[str, HeldOutLoss] = {}
    scored = lists.scored(logits)
    evidence = settings.evidence or (["cross_encoder"] if settings.calibrator == "listwise" else [])
    calibration, log_odds = Calibration(), logits
    if evidence:
        columns = (train_mentions[name] for name in ("mention", "cui", "semantic_types"))
        counts = StringCounts.fit(zip(*columns, strict=True))
        calibration = fit_fusions(evidence, scored, lists.gold, counts)
        log_odds, _ = calibration.utilities(scored)
    calibration.calibrator = fit_calibrator(
        settings.calibrator,
        log_odds,
        labels,
        documents[rows],
        offsets=lists.offsets,
        inside_lists=bool(evidence),
        types=scored.candidate_types,
        hierarchy=hierarchy,
        shrinkage=settings.calibrator_shrinkage,
        seed=seed,
        report=losses,
    )
    decided = calibration(scored)
    probabilities = decided.probabilities
    top = lists.top(decided.log_odds, probabilities)
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
        rule=AcceptanceRule(
            settings.accept_by, settings.accept_precision, settings.wrong_answer_cost, settings.missed_answer_cost
        ),
    )
    fitted = {
        "split": "calibration",
        "mentions": len(lists.gold),
        "pairs": len(labels),
        "positives": int(labels.sum()),
    }
    if losses:
        fitted["cross_validated_losses"] = {name: asdict(loss) for name, loss in losses.items()}
    return calibration, thresholds, fitted
