"""Calibration of probabilities: ECE, Brier score and its parts, log loss, reliability diagrams, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .resampling import (
    bootstrap_by_document,
    bootstrap_sums,
    document_index,
    document_sums,
    random_signs,
)

# Rounding of float64: probabilities of 0 and 1 have a finite logarithm.
EPSILON = np.finfo(np.float64).eps


@dataclass(frozen=True)
class Bins:
    """Bins of n probabilities: the bin of each, (n,) int64, and the number of bins."""

    index: np.ndarray
    count: int


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
    _, index, count = np.unique(p, return_inverse=True, return_counts=True)
    rate = np.bincount(index, weights=y) / count
    recalibrated = isotonic_regression(rate, sample_weight=count.astype(np.float64))[index]
    after = float(np.mean((recalibrated - y) ** 2))
    base = y.mean()
    uncertainty = float(base * (1 - base))
    return {
        "miscalibration": float(np.mean((p - y) ** 2)) - after,
        "discrimination": uncertainty - after,
        "uncertainty": uncertainty,
    }


def log_loss(p: np.ndarray, y: np.ndarray, eps: float = EPSILON) -> float:
    """Mean negative log-likelihood in nats; `p` is kept in [eps, 1 - eps]."""
    p, y = _checked(p, y)
    return float(np.mean(_negative_log_likelihood(p, y, eps)))


def ece(p: np.ndarray, y: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error over `bins` equal-width bins (Guo et al. 2017), the figure quoted in papers.

    The plug-in estimate is biased upward: noise inside a bin counts as miscalibration. ``debiased_ece`` of
    `calibration_report` is corrected for it.
    """
    p, y = _checked(p, y)
    return float(_absolute_gap(_bin_sums(p, y, Bins(equal_width(p, bins), bins))))


def reliability_curve(p: np.ndarray, y: np.ndarray, bins: int = 15) -> dict[str, np.ndarray]:
    """The points of a reliability diagram, one per non-empty equal-width bin.

    Returns:
        Arrays of equal length by name: ``lower`` and ``upper`` (bin edges), ``count``, ``mean_probability``,
        ``positive_rate``, and ``standard_error`` of the positive rate under perfect calibration (binomial).
    """
    p, y = _checked(p, y)
    index = equal_width(p, bins)
    count, sum_p, sum_y = _bin_sums(p, y, Bins(index, bins))
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

    ``ece`` is that of `ece`. ``debiased_ece`` has bins of equal mass (Roelofs et al. 2022; equal probabilities are
    never split over two bins, and a bin holds at least two rows) and is corrected for the noise inside a bin
    (`_debiased_gap`). A resample contains the noise of the data and the noise of resampling; both raise an ECE. So the
    intervals of the two ECEs come from resamples corrected for twice the noise, and are extended to contain the value
    if necessary.

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
    mass = _equal_mass(p, bins)
    count, sum_p, sum_y = _bin_sums(p, y, mass)
    bin_error = (sum_y - sum_p) / np.maximum(count, 1)
    pairs = _Pairs(
        p=p,
        y=y,
        index=index,
        documents=documents,
        noise=(y - p) - bin_error[mass.index],
        resamples=resamples,
        seed=seed,
    )
    clipped = np.clip(p, EPSILON, 1)
    clipped_rest = np.clip(1 - p, EPSILON, 1)
    odds = np.log(clipped_rest) - np.log(clipped)
    entropy = -(p * np.log(clipped) + (1 - p) * np.log(clipped_rest))
    report = {
        "ece": pairs.binned(Bins(equal_width(p, bins), bins), _absolute_gap),
        "debiased_ece": pairs.binned(mass, _debiased_gap),
        "brier": pairs.mean((p - y) ** 2, p * (1 - p), 1 - 2 * p),
        "log_loss": pairs.mean(_negative_log_likelihood(p, y, EPSILON), entropy, odds),
    }
    for name, value in brier_decomposition(p, y).items():
        report[f"brier_{name}"] = {"value": value}
    return report


@dataclass(frozen=True)
class _Pairs:
    """n pairs and how their documents are resampled.

    Attributes:
        p: (n,) probabilities.
        y: (n,) labels.
        index: (n,) document of each pair.
        documents: number of documents.
        noise: (n,) what remains of ``y - p`` after subtracting each bin's error.
        resamples: number of resamples.
        seed: their seed.
    """

    p: np.ndarray
    y: np.ndarray
    index: np.ndarray
    documents: int
    noise: np.ndarray
    resamples: int
    seed: int

    def binned(self, bins: Bins, gap: Callable[[np.ndarray], np.ndarray]) -> dict[str, float]:
        """An ECE: ``gap`` of counts, sums of probabilities and sums of labels by bin, (3, ..., bins)."""
        columns = [np.ones_like(self.p), self.p, self.y]
        cells = document_sums(self.index, self.documents, columns, bins.index, bins.count)

        def resampled(sums: np.ndarray) -> np.ndarray:
            return _debiased_gap(np.moveaxis(sums.reshape(-1, 3, bins.count), 1, 0), noises=2)

        low, high = bootstrap_sums(
            cells.reshape(self.documents, -1), resampled, resamples=self.resamples, seed=self.seed
        )
        total = cells.sum(axis=0)
        value = float(gap(total))
        chance = self._by_chance(self.noise, bins)
        sizes = np.broadcast_to(total[0], chance.shape)
        expected = np.broadcast_to(total[1], chance.shape)
        labels = np.clip(expected + chance, 0.0, sizes)
        perfect = gap(np.stack([sizes, expected, labels]))
        return {"value": value, "low": min(low, value), "high": max(high, value)} | _perfect(
            perfect
        )

    def mean(
        self, losses: np.ndarray, expected: np.ndarray, factor: np.ndarray
    ) -> dict[str, float]:
        """A mean loss that is linear in the label.

        Args:
            losses: (n,) loss of each pair.
            expected: (n,) its mean under perfect calibration.
            factor: (n,) by how much the loss rises with the label.
        """
        low, high = bootstrap_by_document(
            losses, self.index, resamples=self.resamples, seed=self.seed
        )
        chance = self._by_chance(factor * self.noise)[:, 0] / len(self.p)
        return {"value": float(losses.mean()), "low": low, "high": high} | _perfect(
            expected.mean() + chance
        )

    def _by_chance(self, column: np.ndarray, bins: Bins | None = None) -> np.ndarray:
        """Totals of a column (n,) by bin, each document's with random signs, (resamples, bins)."""
        if bins is None:
            bins = Bins(np.zeros(len(column), np.int64), 1)
        sums = document_sums(self.index, self.documents, [column], bins.index, bins.count)
        return random_signs(sums[:, 0], draws=self.resamples, seed=self.seed)


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


def _equal_mass(p: np.ndarray, bins: int) -> Bins:
    bins = max(1, min(bins, len(p) // 2))
    edges = np.unique(np.sort(p)[(np.arange(1, bins) * len(p)) // bins])
    return Bins(np.searchsorted(edges, p, side="right"), len(edges) + 1)


def _bin_sums(p: np.ndarray, y: np.ndarray, bins: Bins) -> np.ndarray:
    """(3, bins): counts, sums of probabilities, sums of labels."""
    return np.stack(
        [np.bincount(bins.index, weights=column, minlength=bins.count) for column in (None, p, y)]
    )


def _absolute_gap(cells: np.ndarray) -> np.ndarray:
    """ECE of (3, ..., bins) counts, probability sums and label sums."""
    count, sum_p, sum_y = cells
    return np.abs(sum_p - sum_y).sum(axis=-1) / count.sum(axis=-1)


def _debiased_gap(cells: np.ndarray, noises: int = 1) -> np.ndarray:
    """`_absolute_gap` corrected for sampling noise, `noises` times; 0 if the gaps are no larger than noise.

    Kumar et al. 2019 give an unbiased estimate of the *squared* calibration error: from each bin's squared gap,
    subtract the variance ``ybar (1 - ybar) / (n_bin - 1)`` of its mean label. The plug-in ECE is scaled by the square
    root of the share of its squared error that this leaves, so the figure stays in the units of `ece`.
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
