"""Which calibrator: by name, or the one that predicts held-out documents best.

Parametric calibrators keep the order of the scores; isotonic regression makes ties, so rank by score and decide by
probability. Loading and applying need numpy alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..core.errors import UserError
from ..data.semantic_types import TypeHierarchy
from .calibrator import Calibrator, Sample, Types
from .choice import choice_log_odds, list_owner, log_sums
from .families import (
    BetaCalibrator,
    IsotonicCalibrator,
    ListwiseCalibrator,
    PlattCalibrator,
    QuadraticCalibrator,
    TemperatureCalibrator,
)
from .hierarchical import HierarchicalBetaCalibrator, HierarchicalPlattCalibrator
from .logistic import checked_scores, sigmoid
from .reliability import document_index, log_loss

__all__ = [
    "CALIBRATORS",
    "BetaCalibrator",
    "Calibrator",
    "HeldOutLoss",
    "HierarchicalBetaCalibrator",
    "HierarchicalPlattCalibrator",
    "IsotonicCalibrator",
    "ListwiseCalibrator",
    "PlattCalibrator",
    "QuadraticCalibrator",
    "TemperatureCalibrator",
    "cross_validated_losses",
    "document_folds",
    "fit_calibrator",
    "make_calibrator",
]

CALIBRATORS: dict[str, type[Calibrator]] = dict(Calibrator.kinds)
FOLDS = 5


@dataclass
class HeldOutLoss:
    """Mean negative log-likelihoods in nats on documents that were not fitted on.

    Attributes:
        log_loss: per candidate, or per list where the calibrator works inside lists: what "auto" goes by.
        top1_log_loss: of whether the first candidate of a list is right; None without lists.
    """

    log_loss: float = 0.0
    top1_log_loss: float | None = None


def make_calibrator(method: str, hierarchy: TypeHierarchy | None = None, shrinkage: float = 1000.0) -> Calibrator:
    """An unfitted calibrator by name; an unknown name is a `UserError` that gives the nearest one.

    Args:
        hierarchy, shrinkage: of the hierarchical ones.
    """
    calibrator = Calibrator.of(method)
    if isinstance(calibrator, HierarchicalPlattCalibrator):
        return type(calibrator)(hierarchy, shrinkage)
    return calibrator


def fit_calibrator(
    method: str,
    scores: np.ndarray,
    labels: np.ndarray,
    groups: Sequence | None = None,
    *,
    offsets: np.ndarray | None = None,
    inside_lists: bool = False,
    types: Types | None = None,
    hierarchy: TypeHierarchy | None = None,
    shrinkage: float = 1000.0,
    seed: int = 0,
    report: dict[str, HeldOutLoss] | None = None,
) -> Calibrator:
    """Fit one method, or with "auto" the one of lowest log-loss in cross-validation by document.

    Args:
        method: a key of `CALIBRATORS`, or "auto".
        scores: (n,) raw log-odds of candidates; inside lists, against "none of these".
        labels: (n,) 0 or 1.
        groups: (n,) document of each row; "auto" needs them.
        offsets: (lists + 1,) where each list's candidates start; needed inside lists, and for the top-1 loss.
        inside_lists: whether a list's probabilities are a choice of one of its candidates or none (see `choice`).
        types: n semantic types (ids or names) of each row's mention.
        hierarchy, shrinkage: of the hierarchical ones.
        report: receives the cross-validated losses of each method when `method` is "auto".

    Raises:
        UserError: what `Calibrator.fit` raises, or a method that cannot work inside lists.
    """
    if method == "auto":
        if groups is None:
            raise ValueError("method 'auto' needs the document of each row (groups)")
        losses = cross_validated_losses(
            _eligible(inside_lists),
            scores,
            labels,
            groups,
            offsets=offsets,
            inside_lists=inside_lists,
            types=types,
            hierarchy=hierarchy,
            shrinkage=shrinkage,
            seed=seed,
        )
        if report is not None:
            report.update(losses)
        method = min(losses, key=lambda name: losses[name].log_loss)
    calibrator = make_calibrator(method, hierarchy, shrinkage)
    if inside_lists and not calibrator.fits_lists:
        raise UserError(
            f"calibrator: {method} works on the cross-encoder's logits alone; set `evidence: []`, or choose from "
            f"{', '.join(_eligible(True))}"
        )
    return calibrator.fit(scores, labels, offsets=offsets if inside_lists else None, types=types)


def cross_validated_losses(
    methods: Sequence[str],
    scores: np.ndarray,
    labels: np.ndarray,
    groups: Sequence,
    *,
    offsets: np.ndarray | None = None,
    inside_lists: bool = False,
    types: Types | None = None,
    hierarchy: TypeHierarchy | None = None,
    shrinkage: float = 1000.0,
    seed: int = 0,
) -> dict[str, HeldOutLoss]:
    """Held-out losses of each method in `FOLDS` folds; no document is on both sides of one.

    Held-out probabilities are kept `1 / (2 n_fit)` away from 0 and 1, the most that n_fit rows can speak for: a single
    surprise where isotonic regression says 0 would otherwise cost it an infinite loss. A method that cannot be fitted
    on a fold has an infinite loss.

    Args:
        As of `fit_calibrator`.

    Raises:
        UserError: fewer than two documents, or no method that can be fitted on every fold.
    """
    sample = Sample(*checked_scores(scores, labels, None), offsets, types)
    fold = document_folds(groups, seed)
    if not fold.any():
        raise UserError("method 'auto' needs at least 2 documents in the calibration split; name a method instead")
    losses = {method: HeldOutLoss(0.0, None if offsets is None else 0.0) for method in methods}
    failure: UserError | None = None
    for number in range(fold.max() + 1):
        fitted, held_out = sample.take(fold != number), sample.take(fold == number)
        for method in methods:
            try:
                calibrator = make_calibrator(method, hierarchy, shrinkage).fit(
                    fitted.scores, fitted.labels, offsets=fitted.offsets if inside_lists else None, types=fitted.types
                )
            except UserError as error:
                failure = error
                losses[method].log_loss = np.inf
                continue
            _add_losses(losses[method], calibrator, held_out, inside_lists, 0.5 / len(fitted.scores))
    if failure is not None and not any(np.isfinite(loss.log_loss) for loss in losses.values()):
        raise failure
    for loss in losses.values():
        loss.log_loss /= len(offsets) - 1 if inside_lists and offsets is not None else len(scores)
        if loss.top1_log_loss is not None and offsets is not None:
            loss.top1_log_loss /= np.count_nonzero(np.diff(offsets))
    return losses


def document_folds(groups: Sequence, seed: int = 0) -> np.ndarray:
    """(n,) fold of each row, `FOLDS` in all or as many as there are documents; a document is in one fold."""
    index, documents = document_index(groups)
    return (np.random.default_rng(seed).permutation(documents) % min(FOLDS, documents))[index]


def _eligible(inside_lists: bool) -> list[str]:
    """All methods that work inside lists; or, of candidates that stand alone, all that change anything."""
    kinds = CALIBRATORS.items()
    return [name for name, kind in kinds if (kind.fits_lists if inside_lists else kind is not ListwiseCalibrator)]


def _add_losses(loss: HeldOutLoss, calibrator: Calibrator, sample: Sample, inside_lists: bool, eps: float) -> None:
    """Add the sums over a sample, none of whose lists is empty."""
    if inside_lists:
        utility = calibrator.log_odds(sample.scores, sample.types)
        none = np.zeros(len(sample.offsets) - 1)
        loss.log_loss += float(log_sums(utility, none, sample.offsets).sum() - sample.labels @ utility)
        p = sigmoid(choice_log_odds(utility, none, sample.offsets, np.arange(len(utility))))
    else:
        p = calibrator(sample.scores, sample.types)
        loss.log_loss += log_loss(p, sample.labels, eps) * len(p)
    if sample.offsets is not None:
        first = np.lexsort((-sample.scores, list_owner(sample.offsets)))[sample.offsets[:-1]]
        loss.top1_log_loss += log_loss(p[first], sample.labels[first], eps) * len(first)
