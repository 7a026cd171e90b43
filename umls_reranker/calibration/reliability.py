"""How far probabilities are from the truth: ECE, Brier score, log-loss, and intervals that respect documents.

Probabilities ``p`` are float arrays of shape (n,) in [0, 1]; labels ``y`` are (n,) with values 0 and 1.
"""

from collections.abc import Callable, Sequence

import numpy as np

__all__ = [
    "bootstrap_by_document",
    "bootstrap_sums",
    "brier",
    "calibration_report",
    "debiased_ece",
    "document_index",
    "document_sums",
    "ece",
    "log_loss",
    "reliability_curve",
]


def brier(p: np.ndarray, y: np.ndarray) -> float:
    """Mean squared distance between probability and label (Brier 1950), in [0, 1]."""
    p, y = _checked(p, y)
    return float(np.mean((p - y) ** 2))


def log_loss(p: np.ndarray, y: np.ndarray, eps: float | None = None) -> float:
    """Mean negative log-likelihood in nats; `p` is kept in [eps, 1 - eps] (float64 rounding unless given)."""
    p, y = _checked(p, y)
    return float(np.mean(_negative_log_likelihood(p, y, eps)))


def ece(p: np.ndarray, y: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error over `bins` equal-width bins (Guo et al. 2017): the figure papers quote.

    The plug-in estimate is biased upward: noise inside a bin counts as miscalibration. See `debiased_ece`.
    """
    p, y = _checked(p, y)
    return float(_absolute_gap(_bin_sums(p, y, _equal_width(p, bins), bins)))


def debiased_ece(p: np.ndarray, y: np.ndarray, bins: int = 15) -> float:
    """ECE over equal-mass bins with its sampling noise taken out; 0 when the gaps are no larger than noise.

    Equal-mass bins follow Roelofs et al. 2022 (equal probabilities are never split over two bins). Kumar et al. 2019
    give an unbiased estimate of the *squared* calibration error: from each bin's squared gap, subtract the
    variance ``ybar (1 - ybar) / (n_bin - 1)`` of its mean label. The plug-in ECE is scaled by the square root of the
    share of its squared error that this leaves, so the figure stays in the units of `ece`.
    """
    p, y = _checked(p, y)
    index, count = _equal_mass(p, bins)
    return float(_debiased_gap(_bin_sums(p, y, index, count)))


def reliability_curve(p: np.ndarray, y: np.ndarray, bins: int = 15) -> dict[str, np.ndarray]:
    """The points of a reliability diagram, one per equal-width bin that holds any pair.

    Returns:
        dict with arrays of equal length: ``lower`` and ``upper`` (bin edges), ``count``, ``mean_probability``,
        ``positive_rate``, and ``standard_error`` of the positive rate under perfect calibration (binomial).
    """
    p, y = _checked(p, y)
    index = _equal_width(p, bins)
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
    p: np.ndarray, y: np.ndarray, groups: Sequence, *, bins: int = 15, resamples: int = 1000, seed: int = 0
) -> dict[str, dict[str, float]]:
    """ECE, debiased ECE, Brier score and log-loss, each as ``{"value", "low", "high"}`` with 95 % by document.

    A resample is off the truth by the noise of the data and, once more, by that of resampling; both push an ECE up.
    So the intervals of the two ECEs come from resamples with twice the noise taken out (see `debiased_ece`), and are
    stretched to hold the value where needed.

    Args:
        groups: (n,) document of each pair, strings or integers.
    """
    p, y = _checked(p, y)
    index, documents = document_index(groups)

    def binned(bin_index: np.ndarray, count: int, gap: Callable) -> dict[str, float]:
        cells = document_sums(index, documents, [np.ones_like(p), p, y], bin_index, count)

        def resampled(sums: np.ndarray) -> np.ndarray:
            return _debiased_gap(np.moveaxis(sums.reshape(-1, 3, count), 1, 0), noises=2)

        value = float(gap(cells.sum(axis=0)))
        low, high = bootstrap_sums(cells.reshape(documents, -1), resampled, resamples=resamples, seed=seed)
        return {"value": value, "low": min(low, value), "high": max(high, value)}

    report = {
        "ece": binned(_equal_width(p, bins), bins, _absolute_gap),
        "debiased_ece": binned(*_equal_mass(p, bins), _debiased_gap),
    }
    for name, losses in (("brier", (p - y) ** 2), ("log_loss", _negative_log_likelihood(p, y))):
        low, high = bootstrap_by_document(losses, index, resamples=resamples, seed=seed)
        report[name] = {"value": float(losses.mean()), "low": low, "high": high}
    return report


def document_index(groups: Sequence) -> tuple[np.ndarray, int]:
    """Documents as integers: ((n,) int64 index of each row's document, number of documents)."""
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    return index.reshape(-1), len(names)


def document_sums(
    index: np.ndarray,
    documents: int,
    columns: Sequence[np.ndarray],
    cell: np.ndarray | None = None,
    cells: int = 1,
) -> np.ndarray:
    """Per-document sums of each column, split by cell (a bin, say) when one is given.

    Args:
        index: (n,) document of each row, from `document_index`.
        columns: k arrays of shape (n,).
        cell: (n,) int in [0, cells).

    Returns:
        (documents, k) float64, or (documents, k, cells) when `cell` is given.
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
    """Interval of a statistic of additive sums, drawing whole documents with replacement.

    Pairs of one document resemble each other, so rows drawn one by one would give intervals that are too narrow.

    Args:
        sums: (documents, k) sums of each document.
        statistic: maps sums (..., k) to values (...,).

    Returns:
        (low, high) percentiles; both NaN when the statistic is undefined on every resample.
    """
    rng = np.random.default_rng(seed)
    documents = len(sums)
    counts = rng.multinomial(documents, np.full(documents, 1.0 / documents), size=resamples).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        replicates = np.asarray(statistic(counts @ sums), dtype=np.float64)
    replicates = replicates[np.isfinite(replicates)]
    if not len(replicates):
        return float("nan"), float("nan")
    tail = (1.0 - confidence) / 2
    low, high = np.quantile(replicates, [tail, 1.0 - tail])
    return float(low), float(high)


def bootstrap_by_document(
    values: np.ndarray,
    groups: Sequence,
    statistic: Callable[[np.ndarray], np.ndarray] | None = None,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Interval of the mean of `values` (n,), or of `statistic` of the column sums of `values` (n, k), by document.

    Returns:
        (low, high) percentiles; see `bootstrap_sums`.
    """
    values = np.asarray(values, dtype=np.float64)
    columns = [values, np.ones(len(values))] if values.ndim == 1 else list(values.T)
    if statistic is None:
        if values.ndim != 1:
            raise ValueError("values of shape (n, k) need a statistic of their sums")
        statistic = _mean
    sums = document_sums(*document_index(groups), columns)
    return bootstrap_sums(sums, statistic, resamples=resamples, confidence=confidence, seed=seed)


def _checked(p: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    p = np.asarray(p, dtype=np.float64)
    y = np.asarray(y, dtype=np.float64)
    if p.ndim != 1 or p.shape != y.shape or not len(p):
        raise ValueError(f"expected probabilities and labels of one shape (n,), n > 0; found {p.shape} and {y.shape}")
    if not (np.all(p >= 0) and np.all(p <= 1)):
        raise ValueError("probabilities must lie in [0, 1]; pass raw logits through a calibrator first")
    if not np.all((y == 0) | (y == 1)):
        raise ValueError("labels must be 0 or 1")
    return p, y


def _negative_log_likelihood(p: np.ndarray, y: np.ndarray, eps: float | None = None) -> np.ndarray:
    eps = np.finfo(np.float64).eps if eps is None else eps
    clipped = np.clip(p, eps, 1.0 - eps)
    return -np.log(np.where(y == 1, clipped, 1.0 - clipped))


def _mean(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


def _equal_width(p: np.ndarray, bins: int) -> np.ndarray:
    return np.minimum((p * bins).astype(np.int64), bins - 1)


def _equal_mass(p: np.ndarray, bins: int) -> tuple[np.ndarray, int]:
    ordered = np.sort(p)
    cuts = np.unique(ordered[(np.arange(1, bins) * len(p)) // bins])
    return np.searchsorted(cuts, p, side="right"), len(cuts) + 1


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
    kept = np.maximum(plain - noises * (share * noise).sum(axis=-1), 0.0)
    return _absolute_gap(cells) * np.sqrt(kept / np.where(plain > 0, plain, 1.0))
