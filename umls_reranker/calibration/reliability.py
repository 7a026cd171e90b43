"""How reliable probabilities and figures are: calibration errors, and intervals by document.

Rows of a document are correlated (strings recur), so resampling single rows would give intervals
that are too narrow.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

FOLDS = 5
NO_INTERVAL = (float("nan"), float("nan"))
# Rounding of float64: probabilities of 0 and 1 have a finite logarithm.
EPSILON = np.finfo(np.float64).eps


def brier(p: np.ndarray, y: np.ndarray) -> float:
    """Mean squared distance between probability and label (Brier 1950), in [0, 1]."""
    p, y = _checked_probabilities(p, y)
    return float(np.mean((p - y) ** 2))


def log_loss(p: np.ndarray, y: np.ndarray, eps: float = EPSILON) -> float:
    """Mean negative log-likelihood in nats; `p` is kept in [eps, 1 - eps]."""
    p, y = _checked_probabilities(p, y)
    return float(np.mean(_negative_log_likelihood(p, y, eps)))


def ece(p: np.ndarray, y: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error over equal-width bins (Guo et al. 2017), as quoted in papers.

    The plug-in estimate is biased upward: noise inside a bin counts as miscalibration.
    ``debiased_ece`` of `calibration_report` is corrected for it.
    """
    p, y = _checked_probabilities(p, y)
    return float(_absolute_gap(_bin_sums(p, y, equal_width(p, bins), bins)))


def calibration_report(
    p: np.ndarray,
    y: np.ndarray,
    groups: Sequence | np.ndarray,
    *,
    bins: int = 15,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """All estimates with 95 % intervals by document.

    ``ece`` is that of `ece`. ``debiased_ece`` has bins of equal mass (Roelofs et al. 2022; equal
    probabilities are never split over two bins, and a bin holds at least two rows) and is corrected
    for the noise inside a bin (`_debiased_gap`). A resample contains the noise of the data and the
    noise of resampling; both raise an ECE. So the intervals of the two ECEs come from resamples
    corrected for twice the noise, and are extended to contain the value if necessary.

    Args:
        p: (n,) probabilities.
        y: (n,) labels.
        groups: (n,) document of each pair, strings or integers.
        bins: number of bins.
        resamples: number of bootstrap resamples.
        seed: seed of the resamples.

    Returns:
        ``ece``, ``debiased_ece``, ``brier`` and ``log_loss``, each with ``value``, ``low`` and
        ``high``.
    """
    p, y = _checked_probabilities(p, y)
    index, documents = document_index(groups)
    mass = _equal_mass(p, bins)
    mass_bins = mass.max() + 1

    def binned(cell: np.ndarray, cells: int, gap: Callable) -> dict[str, float]:
        """An ECE: `gap` of counts, sums of probabilities and sums of labels, (3, ..., cells)."""
        sums = document_sums(index, documents, [np.ones_like(p), p, y], cell, cells)
        value = float(gap(sums.sum(axis=0)))

        def resampled(sums: np.ndarray) -> np.ndarray:
            return _debiased_gap(np.moveaxis(sums.reshape(-1, 3, cells), 1, 0), noises=2)

        flat = sums.reshape(documents, -1)
        low, high = bootstrap_sums(flat, resampled, resamples=resamples, seed=seed)
        return {"value": value, "low": min(low, value), "high": max(high, value)}

    def mean(losses: np.ndarray) -> dict[str, float]:
        """A mean loss."""
        sums = document_sums(index, documents, [losses, np.ones_like(p)])
        low, high = bootstrap_sums(sums, ratio, resamples=resamples, seed=seed)
        return {"value": float(losses.mean()), "low": low, "high": high}

    return {
        "ece": binned(equal_width(p, bins), bins, _absolute_gap),
        "debiased_ece": binned(mass, mass_bins, _debiased_gap),
        "brier": mean((p - y) ** 2),
        "log_loss": mean(_negative_log_likelihood(p, y, EPSILON)),
    }


def _checked_probabilities(p: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    p = np.asarray(p, dtype=np.float64)
    y = np.asarray(y, dtype=np.float64)
    if p.ndim != 1 or p.shape != y.shape or not len(p):
        raise ValueError(
            "expected probabilities and labels of the same shape (n,), n > 0; "
            f"found {p.shape} and {y.shape}"
        )
    if not (np.all(p >= 0) and np.all(p <= 1)):
        raise ValueError(
            "probabilities must lie in [0, 1]; pass raw logits through a calibrator first"
        )
    if not np.all((y == 0) | (y == 1)):
        raise ValueError("labels must be 0 or 1")
    return p, y


def _negative_log_likelihood(p: np.ndarray, y: np.ndarray, eps: float) -> np.ndarray:
    clipped = np.clip(p, eps, 1.0 - eps)
    return -np.log(np.where(y == 1, clipped, 1.0 - clipped))


def equal_width(p: np.ndarray, bins: int) -> np.ndarray:
    """(n,) int64, the bin of equal width of each probability."""
    return np.minimum((p * bins).astype(np.int64), bins - 1)


def _equal_mass(p: np.ndarray, bins: int) -> np.ndarray:
    """(n,) int64, the bin of about equal mass of each probability; the last bin has rows."""
    bins = max(1, min(bins, len(p) // 2))
    edges = np.unique(np.sort(p)[(np.arange(1, bins) * len(p)) // bins])
    return np.searchsorted(edges, p, side="right")


def _bin_sums(p: np.ndarray, y: np.ndarray, index: np.ndarray, bins: int) -> np.ndarray:
    """(3, bins): counts, sums of probabilities, sums of labels."""
    return np.stack([np.bincount(index, weights=each, minlength=bins) for each in (None, p, y)])


def _absolute_gap(cells: np.ndarray) -> np.ndarray:
    """ECE of (3, ..., bins) counts, probability sums and label sums."""
    count, sum_p, sum_y = cells
    return np.abs(sum_p - sum_y).sum(axis=-1) / count.sum(axis=-1)


def _debiased_gap(cells: np.ndarray, noises: int = 1) -> np.ndarray:
    """`_absolute_gap` corrected `noises` times for sampling noise; 0 if gaps are no larger than it.

    Kumar et al. 2019 give an unbiased estimate of the *squared* calibration error: from each bin's
    squared gap, subtract the variance ``ybar (1 - ybar) / (n_bin - 1)`` of its mean label. The
    plug-in ECE is scaled by the square root of the share of its squared error that this leaves, so
    the figure stays in the units of `ece`.
    """
    count, sum_p, sum_y = cells
    filled = np.maximum(count, 1)
    square = ((sum_p - sum_y) / filled) ** 2
    rate = sum_y / filled
    noise = rate * (1 - rate) / np.maximum(count - 1, 1)
    weight = count / count.sum(axis=-1, keepdims=True)
    plain = (weight * square).sum(axis=-1)
    corrected = np.maximum(plain - noises * (weight * noise).sum(axis=-1), 0.0)
    return _absolute_gap(cells) * np.sqrt(corrected / np.where(plain > 0, plain, 1.0))


def document_index(groups: Sequence | np.ndarray) -> tuple[np.ndarray, int]:
    """Documents as integers: the document of each row, (n,) int64, and the number of documents."""
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    return index.reshape(-1), len(names)


def document_folds(groups: Sequence | np.ndarray, seed: int) -> np.ndarray:
    """(n,) fold of each row, at most `FOLDS` and one for each document."""
    index, documents = document_index(groups)
    return (np.random.default_rng(seed).permutation(documents) % FOLDS)[index]


def document_sums(
    index: np.ndarray,
    documents: int,
    columns: Sequence[np.ndarray],
    cell: np.ndarray | None = None,
    cells: int = 1,
) -> np.ndarray:
    """Sums of each column by document, and by cell (such as a bin) if there is one.

    Args:
        index: (n,) document of each row, from `document_index`.
        documents: number of documents.
        columns: k arrays of shape (n,).
        cell: (n,) int in [0, cells).
        cells: number of cells.

    Returns:
        (documents, k) float64, or (documents, k, cells) with `cell`.
    """
    key = index if cell is None else index * cells + cell
    sums = [np.bincount(key, weights=column, minlength=documents * cells) for column in columns]
    stacked = np.stack(sums).reshape(len(columns), documents, cells).swapaxes(0, 1)
    return stacked[:, :, 0] if cell is None else stacked


def bootstrap_sums(
    sums: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Bootstrap interval of a statistic of additive sums, resampling whole documents.

    Args:
        sums: (documents, k) sums of each document.
        statistic: maps sums (..., k) to values (...,).
        resamples: number of resamples.
        confidence: confidence of the interval.
        seed: seed of the resamples.

    Returns:
        Lower and upper percentile; both NaN if the statistic is undefined on every resample.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        replicates = np.asarray(
            statistic(document_draws(len(sums), resamples, seed) @ sums), dtype=np.float64
        )
    replicates = replicates[np.isfinite(replicates)]
    if not len(replicates):
        return NO_INTERVAL
    tail = (1.0 - confidence) / 2
    low, high = np.quantile(replicates, [tail, 1.0 - tail])
    return float(low), float(high)


def jackknife_sums(
    sums: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], *, confidence: float = 0.95
) -> tuple[float, float]:
    """Interval of a statistic of additive sums, leaving out one document at a time.

    The jackknife's standard error with Student's t of one degree of freedom less than there are
    documents (MacKinnon, Nielsen & Webb 2023, "Fast and reliable jackknife and bootstrap methods
    for cluster-robust inference"). It keeps its confidence with few documents, for which
    percentiles of `bootstrap_sums` are too narrow.

    Args:
        sums: (documents, k) sums of each document.
        statistic: maps sums (..., k) to values (...,).
        confidence: confidence of the interval.

    Returns:
        Lower and upper end; both NaN with one document, or if the statistic is undefined without
        one of them.
    """
    from scipy.stats import t

    documents = len(sums)
    if documents < 2:
        return NO_INTERVAL
    total = sums.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = statistic(total)
        without_one = np.asarray(statistic(total - sums), dtype=np.float64)
    error = np.sqrt((documents - 1) / documents * ((without_one - value) ** 2).sum())
    reach = t.ppf((1.0 + confidence) / 2, documents - 1) * error
    return float(value - reach), float(value + reach)


def ratio(sums: np.ndarray) -> np.ndarray:
    """First over second column of sums (..., 2); NaN where the second is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return sums[..., 0] / sums[..., 1]


# Many figures of the same documents need the same draws.
@lru_cache(maxsize=2)
def document_draws(documents: int, resamples: int, seed: int) -> np.ndarray:
    """How often each document is drawn, (resamples, documents) float64."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(documents, np.full(documents, 1.0 / documents), size=resamples).astype(
        np.float64
    )
