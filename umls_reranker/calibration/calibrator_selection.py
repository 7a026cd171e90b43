"""Which calibrator fits best: losses in cross-validation by document."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from threadpoolctl import threadpool_limits

from ..core.errors import TooLittleData
from .calibrators import CALIBRATORS, Calibrator, LabelledScores
from .logistic import log_sums
from .reliability import log_loss
from .resampling import document_folds


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
    has_lists = sample.offsets is not None
    usable = [n for n, kind in CALIBRATORS.items() if kind.fits_lists or not has_lists]
    losses = {name: 0.0 for name in usable if CALIBRATORS[name].fits_logits or has_lists}
    fold = document_folds(groups, seed)
    if not fold.any():
        raise TooLittleData(
            "method 'auto' needs at least 2 documents in the calibration split; "
            "choose a method instead"
        )
    failure = None
    for number in range(fold.max() + 1):
        rest = sample.take(fold != number)
        held_out = sample.take(fold == number)
        for method in losses:
            try:
                fitted = CALIBRATORS[method]().fit(rest)
            except TooLittleData as error:
                losses[method] = np.inf
                failure = error
            else:
                losses[method] += _loss(fitted, held_out, 0.5 / len(rest.scores))
    if failure is not None and np.isinf(list(losses.values())).all():
        raise failure
    number = len(sample.scores) if sample.offsets is None else len(sample.offsets) - 1
    return {method: loss / number for method, loss in losses.items()}


def _loss(calibrator: Calibrator, sample: LabelledScores, eps: float) -> float:
    """Loss summed over a sample without empty lists."""
    if sample.offsets is None:
        return log_loss(calibrator(sample.scores), sample.labels, eps) * len(sample.scores)
    utility = calibrator.log_odds(sample.scores)
    return float(log_sums(utility, sample.offsets).sum() - sample.labels @ utility)
