"""The choice of a calibrator: the one with the lowest cross-validated loss."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from threadpoolctl import threadpool_limits

from ..core.errors import TooLittleData
from .calibrators import CALIBRATORS, Calibrator
from .labelled_scores import LabelledScores
from .logistic import log_sums
from .reliability import document_folds, log_loss


def choose_calibrator(
    method: str, sample: LabelledScores, groups: Sequence | np.ndarray, seed: int = 0
) -> tuple[str, dict[str, float]]:
    """The method, or for "auto" the one with the lowest cross-validated loss that fits all data.

    Args:
        method: a key of `CALIBRATORS`, or "auto".
        sample: the rows to fit on.
        groups: (n,) document of each row.
        seed: seed of the folds.

    Returns:
        Its name, and with "auto" the cross-validated loss of each method.

    Raises:
        TooLittleData: no method can be fitted.
    """
    if method != "auto":
        return method, {}
    # Threads of matrix products would only wait for each other: the problems are small.
    with threadpool_limits(1, "blas"):
        losses = cross_validated_losses(sample, groups, seed)
    ascending = sorted(losses, key=losses.__getitem__)
    # The best on every fold may not fit all data: slopes diverge if scores separate the labels.
    for name in ascending:
        if np.isfinite(losses[name]):
            with suppress(TooLittleData):
                CALIBRATORS[name]().fit(sample)
                return name, losses
    return ascending[0], losses


def cross_validated_losses(
    sample: LabelledScores, groups: Sequence | np.ndarray, seed: int = 0
) -> dict[str, float]:
    """Held-out loss of each method in nats per list, or per row without lists, by document.

    Held-out probabilities of single rows are kept `1 / (2 n_fit)` away from 0 and 1, the most that
    n_fit rows can support: a single surprise where isotonic regression says 0 would otherwise cost
    it an infinite loss. A method that cannot be fitted on a fold has an infinite loss.

    Args:
        sample: the rows.
        groups: (n,) document of each row.
        seed: seed of the folds.

    Raises:
        TooLittleData: fewer than two documents, or no method that can be fitted on every fold.
    """
    if sample.offsets is None:
        methods = [name for name, kind in CALIBRATORS.items() if kind.fits_logits]
        unit_count = len(sample.scores)
    else:
        methods = [name for name, kind in CALIBRATORS.items() if kind.fits_lists]
        unit_count = len(sample.offsets) - 1
    losses = dict.fromkeys(methods, 0.0)
    fold_of_row = document_folds(groups, seed)
    if not fold_of_row.any():
        raise TooLittleData(
            "method 'auto' needs at least 2 documents in the calibration split; "
            "choose a method instead"
        )
    failure = None
    for fold in range(fold_of_row.max() + 1):
        rest = sample.take(fold_of_row != fold)
        held_out = sample.take(fold_of_row == fold)
        eps = 0.5 / len(rest.scores)
        for method in losses:
            try:
                fitted = CALIBRATORS[method]().fit(rest)
            except TooLittleData as error:
                losses[method] = np.inf
                failure = error
            else:
                losses[method] += _summed_loss(fitted, held_out, eps)
    if failure is not None and np.isinf(list(losses.values())).all():
        raise failure
    return {method: loss / unit_count for method, loss in losses.items()}


def _summed_loss(calibrator: Calibrator, sample: LabelledScores, eps: float) -> float:
    """Loss in nats, summed over a sample without empty lists.

    Args:
        calibrator: a calibrator that was fitted on other rows.
        sample: the rows.
        eps: how far probabilities of single rows are kept away from 0 and 1.
    """
    if sample.offsets is None:
        mean_loss = log_loss(calibrator(sample.scores), sample.labels, eps)
        return mean_loss * len(sample.scores)
    utility = calibrator.log_odds(sample.scores)
    return float(log_sums(utility, sample.offsets).sum() - sample.labels @ utility)
