"""Charts of a report: their points, which ``metrics.json`` holds, and their scales.

The template ``charts.svg`` draws them. No chart library, no script, no network; light or dark. All
can be drawn again from ``metrics.json`` alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from ..calibration.reliability import equal_width
from ..calibration.resampling import document_index, document_sums

BINS = 15
HISTOGRAM_BINS = 20
# Maximum number of points of a risk-coverage curve: more would not be visible.
CURVE_POINTS = 200
# Coverage up to which the precision does not set the scale.
FEW = 0.025
# Ticks of an axis from 0 to 1.
FIFTHS = [(fifth / 5, f"{fifth / 5:.1f}") for fifth in range(6)]
PERCENT_FIFTHS = [(fifth / 5, f"{20 * fifth} %") for fifth in range(6)]


def reliability_points(
    p: np.ndarray, y: np.ndarray, groups: Sequence | np.ndarray
) -> dict[str, Any]:
    """Points of a reliability diagram: share of correct pairs in each non-empty equal-width bin.

    A perfectly calibrated model would lie in the noise band (``band_low`` to ``band_high``, 95 %).
    Its width counts documents, not pairs, because errors within a document are correlated.

    Args:
        p: (n,) probabilities.
        y: (n,) labels.
        groups: (n,) document of each pair.

    Returns:
        Lists of equal length: ``lower``, ``upper``, ``count``, ``mean_probability``,
        ``positive_rate``, ``band_low``, ``band_high``.
    """
    p = np.asarray(p, dtype=np.float64)
    y = np.asarray(y, dtype=np.float64)
    cell = equal_width(p, BINS)
    index, documents = document_index(groups)
    sums = document_sums(index, documents, [np.ones(len(p)), y - p], cell, BINS)
    n, gap = np.moveaxis(sums, 1, 0)
    count = n.sum(axis=0)
    total = np.maximum(count, 1)
    surprise = gap - n * (gap.sum(axis=0) / total)
    clustered = np.sqrt(documents / max(documents - 1, 1) * (surprise**2).sum(axis=0)) / total
    binomial = np.sqrt(np.bincount(cell, weights=p * (1 - p), minlength=BINS)) / total
    error = 1.96 * np.maximum(binomial, clustered)
    mean = np.bincount(cell, weights=p, minlength=BINS) / total
    edges = np.linspace(0.0, 1.0, BINS + 1)
    points = {
        "lower": edges[:-1],
        "upper": edges[1:],
        "count": count.astype(np.int64),
        "mean_probability": mean,
        "positive_rate": np.bincount(cell, weights=y, minlength=BINS) / total,
        "band_low": np.maximum(mean - error, 0.0),
        "band_high": np.minimum(mean + error, 1.0),
    }
    return {name: values[count > 0].tolist() for name, values in points.items()}


def risk_coverage(score: np.ndarray, correct: np.ndarray) -> dict[str, Any]:
    """Precision against the share of mentions answered, most confident first; ties are one point.

    Args:
        score: (n,) score of each answer; -inf or NaN for no answer.
        correct: (n,) whether it is correct.

    Returns:
        Lists ``coverage`` and ``precision``, at most `CURVE_POINTS` evenly spaced points, including
        the last; and ``area``, the mean share of incorrect answers over all coverages up to the
        last (AURC, Geifman et al. 2019).
    """
    score = np.asarray(score, dtype=np.float64)
    answered = np.flatnonzero(score > -np.inf)
    order = answered[np.argsort(-score[answered], kind="stable")]
    ends = np.flatnonzero(np.append(score[order][1:] < score[order][:-1], len(order) > 0))
    if not len(ends):
        return {"coverage": [], "precision": [], "area": float("nan")}
    coverage = (ends + 1) / len(score)
    precision = np.cumsum(np.asarray(correct, dtype=np.float64)[order])[ends] / (ends + 1)
    area = float(np.average(1.0 - precision, weights=np.diff(ends, prepend=-1)))
    points = np.unique(np.searchsorted(coverage, np.linspace(0, coverage[-1], CURVE_POINTS)))
    return {
        "coverage": coverage[points].tolist(),
        "precision": precision[points].tolist(),
        "area": area,
    }


def histogram(values: np.ndarray, correct: np.ndarray) -> dict[str, list]:
    """Correct and incorrect answers by equal-width bins of a value in [0, 1], without NaN."""
    edges = np.linspace(0.0, 1.0, HISTOGRAM_BINS + 1)
    is_number = ~np.isnan(values)
    return {
        "edges": edges.tolist(),
        "correct": np.histogram(values[correct & is_number], edges)[0].tolist(),
        "incorrect": np.histogram(values[~correct & is_number], edges)[0].tolist(),
    }


@dataclass(frozen=True)
class Axes:
    """The plot area of a chart in pixels: linear scales, x from 0 to 1, y from `low` to `high`.

    Attributes:
        x_ticks: values and their labels.
        y_ticks: values and their labels.
        width: width in pixels, small, so that text stays readable on a phone.
        height: height in pixels.
    """

    low: float
    high: float
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    height: int = 300
    width: int = 420
    left: int = 58
    top: int = 12

    @property
    def right(self) -> int:
        return self.width - 20

    @property
    def bottom(self) -> int:
        return self.height - 40

    def x(self, value: float) -> float:
        return self.left + value * (self.right - self.left)

    def y(self, value: float) -> float:
        """Pixel of a value; values below the scale are drawn at its lower end."""
        height = max(0.0, value - self.low) / (self.high - self.low)
        return self.bottom - height * (self.bottom - self.top)


def reliability_axes() -> Axes:
    """Axes for `reliability_points`."""
    return Axes(low=0.0, high=1.0, x_ticks=FIFTHS, y_ticks=FIFTHS, height=360)


def risk_axes(curves: Iterable[Mapping[str, Any]], target: float) -> Axes:
    """Axes for some `risk_coverage`, with the precision `target`."""
    points = [zip(curve["coverage"], curve["precision"], strict=True) for curve in curves]
    # The precision of a few answers is mostly noise.
    precisions = [precision for coverage, precision in chain(*points) if coverage > FEW]
    lowest = min([target, *precisions])
    tenths = range(int(lowest * 10), 11, 1 if lowest >= 0.4 else 2)
    y_ticks = [(tenth / 10, f"{10 * tenth} %") for tenth in tenths]
    return Axes(low=tenths[0] / 10, high=1.0, x_ticks=PERCENT_FIFTHS, y_ticks=y_ticks)


def marked_points(curve: Mapping[str, Any]) -> list[tuple[float, float]]:
    """Coverage and precision of about twelve points of a `risk_coverage`, and of its end."""
    points = list(zip(curve["coverage"], curve["precision"], strict=True))
    return [*points[:: max(1, len(points) // 12)], points[-1]]


def histogram_axes(counts: Mapping[str, Sequence[int]]) -> Axes:
    """Axes for a `histogram`, with ticks at every 1, 2, 5, 10, 20, 50, ..."""
    most = max(1, *map(sum, zip(counts["correct"], counts["incorrect"], strict=True)))
    steps = (factor * 10**power for power in range(20) for factor in (1, 2, 5))
    step = next(step for step in steps if step >= most / 4)
    y_ticks = [(value, f"{value:,}") for value in range(0, most + 1, step)]
    return Axes(low=0.0, high=most * 1.08, x_ticks=FIFTHS, y_ticks=y_ticks, height=240)
