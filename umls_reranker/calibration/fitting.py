"""Calibrator and thresholds from the scored candidate lists of the calibration split.

The calibrator is given by name, or is the one that predicts held-out documents best.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.arrays import top_two
from ..core.errors import UserError
from .choice import log_sums
from .features import default_features
from .probabilities import CalibratedScores, Calibration, fit_fusions
from .reliability import log_loss
from .resampling import document_index
from .score_maps import Calibrator, Sample, Types
from .string_counts import StringCounts
from .thresholds import ThresholdTable

if TYPE_CHECKING:
    from datasets import Dataset

    from ..core.arguments import CalibrationArguments
    from ..data.candidate_lists import AnnotatedLists
    from ..data.semantic_types import TypeHierarchy

__all__ = ["cross_validated_losses", "document_folds", "fit_calibrator", "fit_parts", "fit_with_counts"]

FOLDS = 5


def fit_parts(
    lists: AnnotatedLists, logits: np.ndarray, train_mentions: Dataset, *options: Any
) -> tuple[Calibration, ThresholdTable, dict[str, Any]]:
    """`fit_with_counts` of the strings and concepts of the training split."""
    columns = (train_mentions[name] for name in ("mention", "cui", "semantic_types"))
    return fit_with_counts(lists, logits, StringCounts.fit(zip(*columns, strict=True)), *options)


def fit_with_counts(
    lists: AnnotatedLists,
    logits: np.ndarray,
    counts: StringCounts,
    settings: CalibrationArguments,
    hierarchy: TypeHierarchy,
    seed: int,
    reads: Sequence[str] = (),
) -> tuple[Calibration, ThresholdTable, dict[str, Any]]:
    """Fit fusion, calibrator and thresholds on real lists, whose class balance is what serving sees.

    Thresholds and certificates rest on probabilities of held-out documents: each fold's are those of a fusion and a
    calibrator of the same kind that were fitted on the other folds. What is served is fitted on all.

    Args:
        lists: the calibration split.
        logits: (m,) float32 raw scores of its candidates.
        counts: of the training split.
        settings: the recipe's section.
        hierarchy: type tree that thresholds fall back along.
        seed: of the folds of documents.
        reads: as for `decisions.rank`.

    Returns:
        calibration, thresholds, and what they were fitted on (for ``calibrator.json``).
    """
    labels, rows = lists.labels, lists.owner
    documents, gold = lists.annotations.documents, lists.annotations.gold
    names = default_features(lists) if settings.features is None else settings.features

    def fit(inside: np.ndarray, method: str, **kinds: bool) -> tuple[Calibration, dict[str, float]]:
        return _fit_calibration(
            names or (["cross_encoder"] if method == "listwise" else []),
            method,
            lists.take(inside),
            logits[inside[rows]],
            gold[inside],
            labels[inside[rows]],
            documents[inside],
            counts,
            hierarchy,
            seed,
            **kinds,
        )

    calibration, losses = fit(np.ones(len(documents), bool), settings.calibrator)
    method = calibration.calibrator.method
    decided, held_out = _held_out(
        lambda inside: fit(inside, method, full_only=True)[0], calibration, lists, logits, reads, seed
    )
    probabilities = decided.probabilities
    first, _ = top_two(decided.log_odds, lists.offsets)
    thresholds = ThresholdTable.fit(
        probabilities,
        labels,
        rows,
        np.where(first >= 0, probabilities[first], np.nan),
        lists.is_right(first),
        lists.types,
        hierarchy,
        groups=documents,
        complete=decided.complete,
        target_precision=settings.target_precision,
        confidence=settings.confidence,
    )
    fitted = {
        "split": "calibration",
        "mentions": len(lists),
        "pairs": len(labels),
        "positives": int(labels.sum()),
        "thresholds_on_held_out_documents": held_out,
    }
    if losses:
        fitted["cross_validated_losses"] = losses
    return calibration, thresholds, fitted


def fit_calibrator(
    method: str,
    scores: np.ndarray,
    labels: np.ndarray,
    groups: Sequence | np.ndarray | None = None,
    *,
    offsets: np.ndarray | None = None,
    types: Types | None = None,
    hierarchy: TypeHierarchy | None = None,
    seed: int = 0,
) -> tuple[Calibrator, dict[str, float]]:
    """Fit one method, or with "auto" the one of lowest log-loss in cross-validation by document.

    Args:
        method: a key of `Calibrator.kinds`, or "auto".
        scores, labels, offsets, types, hierarchy: as of `Calibrator.fit`.
        groups: (n,) document of each row; "auto" needs them.
        seed: of the folds.

    Returns:
        the calibrator, and with "auto" the cross-validated loss of each method.

    Raises:
        UserError: what `Calibrator.fit` raises.
    """
    losses = {}
    if method == "auto":
        if groups is None:
            raise ValueError("method 'auto' needs the document of each row (groups)")
        sample = Sample(np.asarray(scores, np.float64), np.asarray(labels, np.float64), offsets, types, hierarchy)
        losses = cross_validated_losses(sample, groups, seed)
        method = min(losses, key=losses.__getitem__)
    fitted = Calibrator.of(method).fit(scores, labels, offsets=offsets, types=types, hierarchy=hierarchy)
    return fitted, losses


def cross_validated_losses(sample: Sample, groups: Sequence | np.ndarray, seed: int = 0) -> dict[str, float]:
    """Held-out loss in nats of each method, in `FOLDS` folds by document: per list, or per row that stands alone.

    Held-out probabilities of single rows are kept `1 / (2 n_fit)` away from 0 and 1, the most that n_fit rows can
    support: a single surprise where isotonic regression says 0 would otherwise cost it an infinite loss. A method that
    cannot be fitted on a fold has an infinite loss.

    Args:
        groups: (n,) document of each row.

    Raises:
        UserError: fewer than two documents, or no method that can be fitted on every fold.
    """
    inside_lists = sample.offsets is not None
    # Outside lists "listwise" changes nothing.
    methods = [n for n, kind in Calibrator.kinds.items() if (kind.fits_lists if inside_lists else n != "listwise")]
    fold = document_folds(groups, seed)
    if not fold.any():
        raise UserError("method 'auto' needs at least 2 documents in the calibration split; name a method instead")
    losses, failure = dict.fromkeys(methods, 0.0), None
    for number in range(fold.max() + 1):
        rest, held_out = sample.take(fold != number), sample.take(fold == number)
        for method in methods:
            try:
                fitted = Calibrator.of(method).fit(
                    rest.scores, rest.labels, offsets=rest.offsets, types=rest.types, hierarchy=rest.hierarchy
                )
            except UserError as error:
                losses[method], failure = np.inf, error
            else:
                losses[method] += _loss(fitted, held_out, 0.5 / len(rest.scores))
    if failure is not None and np.isinf(list(losses.values())).all():
        raise failure
    number = len(sample.scores) if sample.offsets is None else len(sample.offsets) - 1
    return {method: loss / number for method, loss in losses.items()}


def _loss(calibrator: Calibrator, sample: Sample, eps: float) -> float:
    """The sum over a sample, none of whose lists is empty."""
    if sample.offsets is None:
        return log_loss(calibrator(sample.scores, sample.types), sample.labels, eps) * len(sample.scores)
    utility = calibrator.log_odds(sample.scores, sample.types)
    none = np.zeros(len(sample.offsets) - 1)
    return float(log_sums(utility, none, sample.offsets).sum() - sample.labels @ utility)


def document_folds(groups: Sequence | np.ndarray, seed: int) -> np.ndarray:
    """(n,) fold of each row, `FOLDS` in all or as many as there are documents; a document is in one fold."""
    index, documents = document_index(groups)
    return (np.random.default_rng(seed).permutation(documents) % min(FOLDS, documents))[index]


def _fit_calibration(
    names: Sequence[str],
    method: str,
    lists: AnnotatedLists,
    logits: np.ndarray,
    gold: np.ndarray,
    labels: np.ndarray,
    documents: np.ndarray,
    counts: StringCounts,
    hierarchy: TypeHierarchy,
    seed: int,
    full_only: bool = False,
) -> tuple[Calibration, dict[str, float]]:
    """Fusion and calibrator, and what `fit_calibrator` returns with it."""
    calibration, log_odds = Calibration(), logits
    if names:
        calibration = fit_fusions(names, lists, logits, gold, counts, full_only=full_only)
        log_odds, _ = calibration.utilities(lists, logits)
    calibration.calibrator, losses = fit_calibrator(
        method,
        log_odds,
        labels,
        documents[lists.owner],
        offsets=lists.offsets if names else None,
        types=lists.types.take(lists.owner),
        hierarchy=hierarchy,
        seed=seed,
    )
    return calibration, losses


def _held_out(
    fit: Callable[[np.ndarray], Calibration],
    calibration: Calibration,
    lists: AnnotatedLists,
    logits: np.ndarray,
    reads: Sequence[str],
    seed: int,
) -> tuple[CalibratedScores, bool]:
    """Scores of every list by what was fitted on other documents, and True.

    Where some fold has too little to fit on: those of `calibration`, and False.
    """
    fold = document_folds(lists.annotations.documents, seed)
    parts = []
    try:
        for number in range(fold.max() + 1) if fold.any() else ():
            inside = fold == number
            parts.append((inside, fit(~inside)(lists.take(inside), logits[inside[lists.owner]], reads)))
    except UserError:
        parts = []
    if not parts:
        return calibration(lists, logits, reads), False
    log_odds, probabilities = np.empty(len(logits)), np.empty(len(logits))
    complete = np.empty(len(lists), bool)
    for inside, decided in parts:
        rows = inside[lists.owner]
        log_odds[rows], probabilities[rows], complete[inside] = (
            decided.log_odds,
            decided.probabilities,
            decided.complete,
        )
    return CalibratedScores(log_odds, probabilities, complete), True
