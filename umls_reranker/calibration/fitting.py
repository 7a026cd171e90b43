"""Calibrator and thresholds from the scored candidate lists of the calibration split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import UserError
from .acceptance import AcceptanceRule
from .calibrators import HeldOutLoss, document_folds, fit_calibrator
from .evidence import CalibratedScores, Calibration, ScoredLists, fit_fusions
from .string_counts import StringCounts
from .thresholds import ThresholdTable

if TYPE_CHECKING:
    from datasets import Dataset

    from ..core.arguments import CalibrationArguments
    from ..data.semantic_types import TypeHierarchy
    from .candidate_lists import CandidateLists

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

    Thresholds and certificates rest on probabilities of held-out documents: each fold's are those of a fusion and a
    calibrator of the same kind that were fitted on the other folds. What is served is fitted on all.

    Args:
        lists: the calibration split.
        logits: (m,) float32 raw scores of its candidates.
        train_mentions: of which strings and concepts are counted.
        settings: the recipe's section.
        hierarchy: type tree that thresholds fall back along.
        seed: of the folds of documents.

    Returns:
        calibration, thresholds, and what they were fitted on (for ``calibrator.json``).
    """
    labels, rows = lists.labels, lists.mention_of
    documents = np.asarray(lists.documents)
    losses: dict[str, HeldOutLoss] = {}
    scored = lists.scored(logits)
    columns = (train_mentions[name] for name in ("mention", "cui", "semantic_types"))
    counts = StringCounts.fit(zip(*columns, strict=True))

    def fit(inside: np.ndarray, method: str, richest_only: bool = False) -> Calibration:
        return _fit_calibration(
            scored.take(inside),
            lists.gold[inside],
            labels[inside[rows]],
            documents[inside],
            counts,
            replace(settings, calibrator=method),
            hierarchy,
            seed,
            losses,
            richest_only,
        )

    calibration = fit(np.ones(len(documents), bool), settings.calibrator)
    method = calibration.calibrator.method
    decided, held_out = _held_out(lambda inside: fit(inside, method, True), calibration, scored, documents, seed)
    probabilities = decided.probabilities
    top = lists.top(decided.log_odds, probabilities)
    thresholds = ThresholdTable.fit(
        probabilities,
        labels,
        rows,
        top.score,
        top.correct,
        lists.types,
        hierarchy,
        groups=documents,
        complete=decided.complete,
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
        "thresholds_on_held_out_documents": held_out,
    }
    if losses:
        fitted["cross_validated_losses"] = {name: asdict(loss) for name, loss in losses.items()}
    return calibration, thresholds, fitted


def _fit_calibration(
    scored: ScoredLists,
    gold: np.ndarray,
    labels: np.ndarray,
    documents: np.ndarray,
    counts: StringCounts,
    settings: CalibrationArguments,
    hierarchy: TypeHierarchy,
    seed: int,
    losses: dict[str, HeldOutLoss],
    richest_only: bool,
) -> Calibration:
    """Fusion and calibrator; `losses` receives those of ``auto``."""
    evidence = settings.evidence or (["cross_encoder"] if settings.calibrator == "listwise" else [])
    calibration, log_odds = Calibration(), scored.logits
    if evidence:
        calibration = fit_fusions(evidence, scored, gold, counts, richest_only=richest_only)
        log_odds, _ = calibration.utilities(scored)
    calibration.calibrator = fit_calibrator(
        settings.calibrator,
        log_odds,
        labels,
        documents[scored.mention_of],
        offsets=scored.offsets,
        inside_lists=bool(evidence),
        types=scored.candidate_types,
        hierarchy=hierarchy,
        shrinkage=settings.calibrator_shrinkage,
        seed=seed,
        report=losses,
    )
    return calibration


def _held_out(
    fit: Callable[[np.ndarray], Calibration],
    calibration: Calibration,
    scored: ScoredLists,
    documents: np.ndarray,
    seed: int,
) -> tuple[CalibratedScores, bool]:
    """Scores of every list by what was fitted on other documents, and True.

    Where some fold has too little to fit on: those of `calibration`, and False.
    """
    fold = document_folds(documents, seed)
    parts = []
    try:
        for number in range(fold.max() + 1) if fold.any() else ():
            parts.append((fold == number, fit(fold != number)(scored.take(fold == number))))
    except UserError:
        parts = []
    if not parts:
        return calibration(scored), False
    log_odds, probabilities = np.empty(len(scored.names)), np.empty(len(scored.names))
    complete = np.empty(len(documents), bool)
    for inside, decided in parts:
        rows = inside[scored.mention_of]
        log_odds[rows], probabilities[rows], complete[inside] = (
            decided.log_odds,
            decided.probabilities,
            decided.complete,
        )
    return CalibratedScores(log_odds, probabilities, complete), True
