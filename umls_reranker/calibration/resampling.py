"""Resampling of documents: sums by document, folds, intervals, and noise by random signs.

Rows of a document are correlated (strings recur), so resampling single rows would give intervals
that are too narrow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

FOLDS = 5
NO_INTERVAL = (float("nan"), float("nan"))


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


def random_signs(sums: np.ndarray, *, draws: int = 1000, seed: int = 0) -> np.ndarray:
    """Noise of the total of `sums`: each document's sums get a random sign (Liu 1988).

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
def document_draws(documents: int, resamples: int, seed: int) -> np.ndarray:
    """How often each document is drawn, (resamples, documents) float64."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(documents, np.full(documents, 1.0 / documents), size=resamples).astype(
        np.float64
    )


@lru_cache(maxsize=2)
def _signs(documents: int, draws: int, seed: int) -> np.ndarray:
    """Random signs, (draws, documents) float64, 1 or -1."""
    return 2.0 * np.random.default_rng(seed).integers(0, 2, (draws, documents), dtype=np.int8) - 1.0
