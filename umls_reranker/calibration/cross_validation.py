"""Choice of the calibrator: by name, or the one with the lowest loss on held-out documents."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from ..core.errors import UserError
from ..core.progress import progress
from ..core.settings import CALIBRATORS
from .logistic import log_sums
from .reliability import log_loss
from .resampling import document_index
from .score_maps import Calibrator, Sample

FOLDS = 5


def fit_calibrator(
    method: str, sample: Sample, groups: Sequence | np.ndarray, seed: int = 0
) -> tuple[Calibrator, dict[str, float]]:
    """Fit one method, or with "auto" the one with the lowest log loss in cross-validation by document.

    Args:
        method: a key of `CALIBRATORS`, or "auto".
        sample: the rows to fit on.
        groups: (n,) document of each row.
        seed: seed of the folds.

    Returns:
        The calibrator, and with "auto" the cross-validated loss of each method.

    Raises:
        UserError: as for `Calibrator.fit`.
    """
    if method != "auto":
        return CALIBRATORS[method]().fit(sample), {}
    losses = cross_validated_losses(sample, groups, seed)
    best, *others = sorted(losses, key=losses.__getitem__)
    # The best method on every fold may not fit all data: where scores separate the labels, slopes diverge.
    for method in (best, *(name for name in others if np.isfinite(losses[name]))):
        with suppress(UserError):
            return CALIBRATORS[method]().fit(sample), losses
    return CALIBRATORS[best]().fit(sample), losses


def cross_validated_losses(sample: Sample, groups: Sequence | np.ndarray, seed: int = 0) -> dict[str, float]:
    """Held-out loss of each method in nats per list, or per row without lists, in `FOLDS` folds by document.

    Held-out probabilities of single rows are kept `1 / (2 n_fit)` away from 0 and 1, the most that n_fit rows can
    support: a single surprise where isotonic regression says 0 would otherwise cost it an infinite loss. A method that
    cannot be fitted on a fold has an infinite loss.

    Args:
        sample: the rows.
        groups: (n,) document of each row.
        seed: seed of the folds.

    Raises:
        UserError: fewer than two documents, or no method that can be fitted on every fold.
    """
    inside_lists = sample.offsets is not None
    methods = [name for name, kind in CALIBRATORS.items() if (kind.fits_lists if inside_lists else kind.fits_logits)]
    fold = document_folds(groups, seed)
    if not fold.any():
        raise UserError("method 'auto' needs at least 2 documents in the calibration split; choose a method instead")
    losses, failure = dict.fromkeys(methods, 0.0), None
    for number in progress(range(fold.max() + 1), desc="comparing calibrators", unit=" folds"):
        rest, held_out = sample.take(fold != number), sample.take(fold == number)
        for method in methods:
            try:
                fitted = CALIBRATORS[method]().fit(rest)
            except UserError as error:
                losses[method], failure = np.inf, error
            else:
                losses[method] += _loss(fitted, held_out, 0.5 / len(rest.scores))
    if failure is not None and np.isinf(list(losses.values())).all():
        raise failure
    number = len(sample.scores) if sample.offsets is None else len(sample.offsets) - 1
    return {method: loss / number for method, loss in losses.items()}


def _loss(calibrator: Calibrator, sample: Sample, eps: float) -> float:
    """Loss summed over a sample without empty lists."""
    if sample.offsets is None:
        return log_loss(calibrator(sample.scores, sample.types), sample.labels, eps) * len(sample.scores)
    utility = calibrator.log_odds(sample.scores, sample.types)
    return float(log_sums(utility, sample.offsets).sum() - sample.labels @ utility)


def document_folds(groups: Sequence | np.ndarray, seed: int) -> np.ndarray:
    """(n,) fold of each row, `FOLDS` in all or as many as there are documents; a document is in one fold."""
    index, documents = document_index(groups)
    return (np.random.default_rng(seed).permutation(documents) % FOLDS)[index]


def sampled_documents(groups: Sequence | np.ndarray, rows: int, seed: int) -> np.ndarray:
    """The rows of documents drawn at random from all folds until they have this number of rows, (n,) bool."""
    index, documents = document_index(groups)
    # In the order by which documents are dealt to the folds of this seed.
    order = np.random.default_rng(seed).permutation(documents)[index]
    before = np.cumsum(np.bincount(order, minlength=documents)) - np.bincount(order, minlength=documents)
    return before[order] < rows
