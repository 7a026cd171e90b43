"""Points of a report's charts: reliability, risk against coverage, histograms.

They are part of ``metrics.json``, so the charts can be redrawn from it alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..calibration.reliability import equal_width, reliability_curve
from ..calibration.resampling import document_index, document_sums

__all__ = ["BINS", "histogram", "reliability_points", "risk_coverage"]

BINS = 15
HISTOGRAM_BINS = 20
# Maximum number of points of a risk-coverage curve: more cannot be seen.
CURVE_POINTS = 200


def reliability_points(p: np.ndarray, y: np.ndarray, groups: Sequence | np.ndarray) -> dict[str, Any]:
    """A reliability diagram: how often the pairs of each non-empty equal-width bin are right.

    A perfectly calibrated model would lie in the noise band (``band_low`` to ``band_high``, 95 %). Its width counts
    documents, not pairs, because errors within a document are correlated.

    Args:
        p, y: (n,) probabilities and labels. groups: (n,) document of each.

    Returns:
        lists of equal length: ``lower``, ``upper``, ``count``, ``mean_probability``, ``positive_rate``, ``band_low``,
        ``band_high``.
    """
    points = reliability_curve(p, y, BINS)
    index, documents = document_index(groups)
    cell = equal_width(np.asarray(p), BINS)
    sums = document_sums(index, documents, [np.ones(len(cell)), np.asarray(y) - np.asarray(p)], cell, BINS)
    n, gap = sums[:, 0], sums[:, 1]
    total = np.maximum(n.sum(axis=0), 1)
    surprise = gap - n * (gap.sum(axis=0) / total)
    clustered = np.sqrt(documents / max(documents - 1, 1) * (surprise**2).sum(axis=0)) / total
    used = np.flatnonzero(n.sum(axis=0))
    error = 1.96 * np.maximum(points.pop("standard_error"), clustered[used])
    mean = points["mean_probability"]
    bands = {"band_low": np.maximum(mean - error, 0.0), "band_high": np.minimum(mean + error, 1.0)}
    return {name: values.tolist() for name, values in (points | bands).items()}


def risk_coverage(score: np.ndarray, correct: np.ndarray) -> dict[str, Any]:
    """Precision of the answers against the share of mentions answered, most confident first; ties are one point.

    Args:
        score: (n,) -inf or NaN for no answer. correct: (n,) whether it is right.

    Returns:
        lists ``coverage`` and ``precision``, at most `CURVE_POINTS` evenly spaced points, the last one always; and
        ``area``, the mean share of wrong answers over all coverages up to the last (AURC, Geifman et al. 2019).
    """
    score = np.asarray(score, dtype=np.float64)
    answered = np.flatnonzero(score > -np.inf)
    order = answered[np.argsort(-score[answered], kind="stable")]
    ends = np.flatnonzero(np.append(score[order][1:] < score[order][:-1], len(order) > 0))
    right = np.cumsum(np.asarray(correct, dtype=np.float64)[order])[ends]
    coverage, precision = (ends + 1) / max(len(score), 1), right / (ends + 1)
    area = float(np.average(1.0 - precision, weights=np.diff(ends, prepend=-1))) if len(ends) else float("nan")
    kept = np.unique(np.searchsorted(coverage, np.linspace(0, coverage[-1], CURVE_POINTS))) if len(ends) else ends
    return {"coverage": coverage[kept].tolist(), "precision": precision[kept].tolist(), "area": area}


def histogram(values: np.ndarray, correct: np.ndarray) -> dict[str, list]:
    """Counts of right and of wrong answers by equal-width bins of a value in [0, 1]; NaN is left out."""
    kept = ~np.isnan(values)
    edges = np.linspace(0.0, 1.0, HISTOGRAM_BINS + 1)
    right, wrong = (np.histogram(values[kept & part], edges)[0] for part in (correct, ~correct))
    return {"edges": edges.tolist(), "right": right.tolist(), "wrong": wrong.tolist()}
