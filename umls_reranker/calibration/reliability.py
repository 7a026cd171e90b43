"""Resampling of documents: sums by document, intervals, and noise by random signs.

Rows of a document are correlated (strings recur), so resampling single rows would give intervals that are too narrow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

FOLDS = 5


def document_index(groups: Sequence | np.ndarray) -> tuple[np.ndarray, int]:
    """Documents as integers: the index of each row's document, (n,) int64, and the number of documents."""
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    return index.reshape(-1), len(names)


def document_folds(groups: Sequence | np.ndarray, seed: int) -> np.ndarray:
    """(n,) fold of each row, `FOLDS` in all or as many as there are documents; a document is in one fold."""
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
        replicates = np.asarray(statistic(_draws(len(sums), resamples, seed) @ sums), dtype=np.float64)
    replicates = replicates[np.isfinite(replicates)]
    if not len(replicates):
        return float("nan"), float("nan")
    tail = (1.0 - confidence) / 2
    low, high = np.quantile(replicates, [tail, 1.0 - tail])
    return float(low), float(high)


def bootstrap_by_document(
    values: np.ndarray, groups: Sequence | np.ndarray, *, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of the mean of `values` (n,) by document.

    Returns:
        Lower and upper percentile; see `bootstrap_sums`.
    """
    sums = document_sums(*document_index(groups), [np.asarray(values, dtype=np.float64), np.ones(len(values))])
    return bootstrap_sums(sums, ratio, resamples=resamples, seed=seed)


def jackknife_sums(
    sums: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], *, confidence: float = 0.95
) -> tuple[float, float]:
    """Interval of a statistic of additive sums, leaving out one document at a time.

    The jackknife's standard error with Student's t of one degree of freedom less than there are documents (MacKinnon,
    Nielsen & Webb 2023, "Fast and reliable jackknife and bootstrap methods for cluster-robust inference"). It keeps
    its confidence with few documents, for which percentiles of `bootstrap_sums` are too narrow.

    Args:
        sums: (documents, k) sums of each document.
        statistic: maps sums (..., k) to values (...,).
        confidence: confidence of the interval.

    Returns:
        Lower and upper end; both NaN with one document, or if the statistic is undefined without one of them.
    """
    from scipy.stats import t

    documents, total = len(sums), sums.sum(axis=0)
    if documents < 2:
        return float("nan"), float("nan")
    with np.errstate(divide="ignore", invalid="ignore"):
        value, without_one = statistic(total), np.asarray(statistic(total - sums), dtype=np.float64)
    error = np.sqrt((documents - 1) / documents * ((without_one - value) ** 2).sum())
    reach = t.ppf((1.0 + confidence) / 2, documents - 1) * error
    return float(value - reach), float(value + reach)


def random_signs(sums: np.ndarray, *, draws: int = 1000, seed: int = 0) -> np.ndarray:
    """Noise of the total of `sums`: each document's part gets a random sign (Liu 1988).

    Args:
        sums: (documents, k) sums of residuals of mean zero.
        draws: number of draws.
        seed: seed of the draws.

    Returns:
        (draws, k) totals, distributed as the total of `sums` by chance.
    """
    return _signs(len(sums), draws, seed) @ sums


def ratio(sums: np.ndarray) -> np.ndarray:
    """First over second column of sums (..., 2); NaN where the second is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return sums[..., 0] / sums[..., 1]


# Many figures of the same documents need the same draws.
@lru_cache(maxsize=2)
def _draws(documents: int, resamples: int, seed: int) -> np.ndarray:
    """How often each document is drawn, (resamples, documents) float64."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(documents, np.full(documents, 1.0 / documents), size=resamples).astype(np.float64)


@lru_cache(maxsize=2)
def _signs(documents: int, draws: int, seed: int) -> np.ndarray:
    """Random signs, (draws, documents) float64, 1 or -1."""
    return 2.0 * np.random.default_rng(seed).integers(0, 2, (draws, documents), dtype=np.int8) - 1.0


def brier(p: np.ndarray, y: np.ndarray) -> float:
    """Mean squared distance between probability and label (Brier 1950), in [0, 1]."""
    p, y = _checked(p, y)
    return float(np.mean((p - y) ** 2))


def brier_decomposition(p: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Brier score = miscalibration - discrimination + uncertainty, without bins (Dimitriadis et al. 2021).

    Uses the isotonic regression of `y` on `p` instead of bins. ``miscalibration`` is what recalibration would save,
    ``discrimination`` what the recalibrated probabilities save compared with the base rate, and ``uncertainty`` the
    Brier score of the base rate.
    """
    from sklearn.isotonic import isotonic_regression

    p, y = _checked(p, y)
    # Equal probabilities share one value of the regression.
    values, index, count = np.unique(p, return_inverse=True, return_counts=True)
    rate = np.bincount(index, weights=y) / count
    recalibrated = isotonic_regression(rate, sample_weight=count.astype(np.float64))[index]
    base = y.mean()
    after, uncertainty = float(np.mean((recalibrated - y) ** 2)), float(base * (1 - base))
    return {
        "miscalibration": float(np.mean((p - y) ** 2)) - after,
        "discrimination": uncertainty - after,
        "uncertainty": uncertainty,
    }


def log_loss(p: np.ndarray, y: np.ndarray, eps: float | None = None) -> float:
    """Mean negative log-likelihood in nats; `p` is kept in [eps, 1 - eps] (by default float64 rounding)."""
    p, y = _checked(p, y)
    return float(np.mean(_negative_log_likelihood(p, y, eps)))


def ece(p: np.ndarray, y: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error over `bins` equal-width bins (Guo et al. 2017), the figure quoted in papers.

    The plug-in estimate is biased upward: noise inside a bin counts as miscalibration. See `debiased_ece`.
    """
    p, y = _checked(p, y)
    return float(_absolute_gap(_bin_sums(p, y, equal_width(p, bins), bins)))


def debiased_ece(p: np.ndarray, y: np.ndarray, bins: int = 15) -> float:
    """ECE over equal-mass bins, corrected for sampling noise; 0 if the gaps are no larger than noise.

    Equal-mass bins follow Roelofs et al. 2022 (equal probabilities are never split over two bins). Kumar et al. 2019
    give an unbiased estimate of the *squared* calibration error: from each bin's squared gap, subtract the
    variance ``ybar (1 - ybar) / (n_bin - 1)`` of its mean label. A single row shows no variance, so there are fewer
    bins if they would hold less than two rows. The plug-in ECE is scaled by the square root of the
    share of its squared error that this leaves, so the figure stays in the units of `ece`.
    """
    p, y = _checked(p, y)
    index, count = _equal_mass(p, bins)
    return float(_debiased_gap(_bin_sums(p, y, index, count)))


def reliability_curve(p: np.ndarray, y: np.ndarray, bins: int = 15) -> dict[str, np.ndarray]:
    """The points of a reliability diagram, one per non-empty equal-width bin.

    Returns:
        Arrays of equal length by name: ``lower`` and ``upper`` (bin edges), ``count``, ``mean_probability``,
        ``positive_rate``, and ``standard_error`` of the positive rate under perfect calibration (binomial).
    """
    p, y = _checked(p, y)
    index = equal_width(p, bins)
    count, sum_p, sum_y = _bin_sums(p, y, index, bins)
    variance = np.bincount(index, weights=p * (1 - p), minlength=bins)
    used = np.flatnonzero(count)
    edges = np.linspace(0.0, 1.0, bins + 1)
    return {
        "lower": edges[used],
        "upper": edges[used + 1],
        "count": count[used].astype(np.int64),
        "mean_probability": sum_p[used] / count[used],
        "positive_rate": sum_y[used] / count[used],
        "standard_error": np.sqrt(variance[used]) / count[used],
    }


def calibration_report(
    p: np.ndarray,
    y: np.ndarray,
    groups: Sequence | np.ndarray,
    *,
    bins: int = 15,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """All estimates with 95 % intervals by document, and their values under perfect calibration.

    A resample contains the noise of the data and the noise of resampling; both raise an ECE. So the intervals of the
    two ECEs come from resamples corrected for twice the noise (see `debiased_ece`), and are extended to contain the
    value if necessary.

    Args:
        p: (n,) probabilities.
        y: (n,) labels.
        groups: (n,) document of each pair, strings or integers.
        bins: number of bins.
        resamples: number of bootstrap resamples.
        seed: seed of the resamples.

    Returns:
        ``ece``, ``debiased_ece``, ``brier`` and ``log_loss``, each with ``value``, ``low``, ``high``, and ``perfect``
        and ``perfect_high``: mean and 95 % quantile of what a perfectly calibrated model with these probabilities
        would show on as many rows of as many documents, errors resembling each other within a document as they do
        here.
        ``brier_miscalibration``, ``brier_discrimination`` and ``brier_uncertainty`` have a ``value`` alone (see
        `brier_decomposition`).
    """
    p, y = _checked(p, y)
    index, documents = document_index(groups)
    width, mass = (equal_width(p, bins), bins), _equal_mass(p, bins)
    count, sum_p, sum_y = _bin_sums(p, y, *mass)
    # Noise: what remains after subtracting each bin's error.
    noise = (y - p) - ((sum_y - sum_p) / np.maximum(count, 1))[mass[0]]

    def signed(column: np.ndarray, cell: np.ndarray | None = None, cells: int = 1) -> np.ndarray:
        sums = document_sums(index, documents, [column], cell, cells).reshape(documents, -1)
        return random_signs(sums, draws=resamples, seed=seed)

    def binned(bin_index: np.ndarray, count: int, gap: Callable) -> dict[str, float]:
        cells = document_sums(index, documents, [np.ones_like(p), p, y], bin_index, count)

        def resampled(sums: np.ndarray) -> np.ndarray:
            return _debiased_gap(np.moveaxis(sums.reshape(-1, 3, count), 1, 0), noises=2)

        total = cells.sum(axis=0)
        value = float(gap(total))
        low, high = bootstrap_sums(cells.reshape(documents, -1), resampled, resamples=resamples, seed=seed)
        chance = signed(noise, bin_index, count)
        sizes, expected = (np.broadcast_to(column, chance.shape) for column in total[:2])
        labels = np.clip(expected + chance, 0.0, sizes)
        return {"value": value, "low": min(low, value), "high": max(high, value)} | _perfect(
            gap(np.stack([sizes, expected, labels]))
        )

    report = {"ece": binned(*width, _absolute_gap), "debiased_ece": binned(*mass, _debiased_gap)}
    eps = np.finfo(np.float64).eps
    odds = np.log(np.clip(1 - p, eps, 1)) - np.log(np.clip(p, eps, 1))
    entropy = -(p * np.log(np.clip(p, eps, 1)) + (1 - p) * np.log(np.clip(1 - p, eps, 1)))
    # A loss is linear in the label: its mean under perfect calibration, and the noise around it, follow from y - p.
    for name, losses, expected, factor in (
        ("brier", (p - y) ** 2, p * (1 - p), 1 - 2 * p),
        ("log_loss", _negative_log_likelihood(p, y), entropy, odds),
    ):
        low, high = bootstrap_by_document(losses, index, resamples=resamples, seed=seed)
        chance_losses = expected.mean() + signed(factor * noise)[:, 0] / len(p)
        report[name] = {"value": float(losses.mean()), "low": low, "high": high} | _perfect(chance_losses)
    return report | {f"brier_{name}": {"value": part} for name, part in brier_decomposition(p, y).items()}


def _perfect(values: np.ndarray) -> dict[str, float]:
    return {"perfect": float(values.mean()), "perfect_high": float(np.quantile(values, 0.95))}


def _checked(p: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    p = np.asarray(p, dtype=np.float64)
    y = np.asarray(y, dtype=np.float64)
    if p.ndim != 1 or p.shape != y.shape or not len(p):
        raise ValueError(
            f"expected probabilities and labels of the same shape (n,), n > 0; found {p.shape} and {y.shape}"
        )
    if not (np.all(p >= 0) and np.all(p <= 1)):
        raise ValueError("probabilities must lie in [0, 1]; pass raw logits through a calibrator first")
    if not np.all((y == 0) | (y == 1)):
        raise ValueError("labels must be 0 or 1")
    return p, y


def _negative_log_likelihood(p: np.ndarray, y: np.ndarray, eps: float | None = None) -> np.ndarray:
    eps = np.finfo(np.float64).eps if eps is None else eps
    clipped = np.clip(p, eps, 1.0 - eps)
    return -np.log(np.where(y == 1, clipped, 1.0 - clipped))


def equal_width(p: np.ndarray, bins: int) -> np.ndarray:
    """(n,) int64, the bin of equal width of each probability."""
    return np.minimum((p * bins).astype(np.int64), bins - 1)


def _equal_mass(p: np.ndarray, bins: int) -> tuple[np.ndarray, int]:
    ordered, bins = np.sort(p), max(1, min(bins, len(p) // 2))
    edges = np.unique(ordered[(np.arange(1, bins) * len(p)) // bins])
    return np.searchsorted(edges, p, side="right"), len(edges) + 1


def _bin_sums(p: np.ndarray, y: np.ndarray, index: np.ndarray, bins: int) -> np.ndarray:
    """(3, bins): counts, sums of probabilities, sums of labels."""
    return np.stack([np.bincount(index, weights=column, minlength=bins) for column in (None, p, y)])


def _absolute_gap(cells: np.ndarray) -> np.ndarray:
    """ECE of (3, ..., bins) counts, probability sums and label sums."""
    count, sum_p, sum_y = cells
    return np.abs(sum_p - sum_y).sum(axis=-1) / count.sum(axis=-1)


def _debiased_gap(cells: np.ndarray, noises: int = 1) -> np.ndarray:
    """`_absolute_gap` with the binomial noise of the bins' label means taken out, `noises` times."""
    count, sum_p, sum_y = cells
    filled = np.maximum(count, 1)
    square = ((sum_p - sum_y) / filled) ** 2
    rate = sum_y / filled
    noise = rate * (1 - rate) / np.maximum(count - 1, 1)
    share = count / count.sum(axis=-1, keepdims=True)
    plain = (share * square).sum(axis=-1)
    corrected = np.maximum(plain - noises * (share * noise).sum(axis=-1), 0.0)
    return _absolute_gap(cells) * np.sqrt(corrected / np.where(plain > 0, plain, 1.0))
