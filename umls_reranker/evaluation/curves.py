"""The points of all charts, which ``metrics.json`` holds under ``curves``."""

from typing import Any

import numpy as np

from ..calibration.reliability import equal_width

# Of a reliability diagram, and of the calibration error before and after calibration.
BINS = 15
HISTOGRAM_BINS = 20
# Maximum number of points of a risk-coverage curve: more would not be visible.
CURVE_POINTS = 200


def reliability_points(p: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """Points of a reliability diagram: share of correct pairs in each non-empty equal-width bin.

    Args:
        p: (n,) probabilities.
        y: (n,) labels.

    Returns:
        Lists of equal length: ``lower``, ``upper``, ``count``, ``mean_probability``,
        ``positive_rate``.
    """
    p = np.asarray(p, dtype=np.float64)
    y = np.asarray(y, dtype=np.float64)
    bin_of = equal_width(p, BINS)
    count = np.bincount(bin_of, minlength=BINS)
    # Empty bins are left out below; until then they must not be divided by.
    divisor = np.maximum(count, 1)
    edges = np.linspace(0.0, 1.0, BINS + 1)
    points = {
        "lower": edges[:-1],
        "upper": edges[1:],
        "count": count,
        "mean_probability": np.bincount(bin_of, weights=p, minlength=BINS) / divisor,
        "positive_rate": np.bincount(bin_of, weights=y, minlength=BINS) / divisor,
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
    if not len(order):
        return {"coverage": [], "precision": [], "area": float("nan")}
    descending = score[order]
    # Equal scores are answered together, so each score has one point: at the last of its answers.
    is_last_of_tie = np.append(descending[1:] < descending[:-1], True)
    ends = np.flatnonzero(is_last_of_tie)
    answers = ends + 1
    coverage = answers / len(score)
    correct_answers = np.cumsum(np.asarray(correct, dtype=np.float64)[order])[ends]
    precision = correct_answers / answers
    answers_of_score = np.diff(ends, prepend=-1)
    area = float(np.average(1.0 - precision, weights=answers_of_score))
    even = np.linspace(0, coverage[-1], CURVE_POINTS)
    points = np.unique(np.searchsorted(coverage, even))
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
