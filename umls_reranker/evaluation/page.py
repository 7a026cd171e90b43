"""Charts of a report: their points, which ``metrics.json`` holds, and their scales; the template ``charts.svg`` draws.

No chart library, no script, no network; light or dark. All can be drawn again from ``metrics.json`` alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from ..calibration.reliability import equal_width, reliability_curve
from ..calibration.resampling import document_index, document_sums
from ..calibration.thresholds import ThresholdTable
from .render import number, report_tables, title_of

BINS = 15
HISTOGRAM_BINS = 20
# Maximum number of points of a risk-coverage curve: more would not be visible.
CURVE_POINTS = 200
# Coverage up to which the precision does not set the scale.
FEW = 0.025
FIFTHS = [(fifth / 5, f"{fifth / 5:.1f}") for fifth in range(6)]


def reliability_points(
    p: np.ndarray, y: np.ndarray, groups: Sequence | np.ndarray
) -> dict[str, Any]:
    """Points of a reliability diagram: share of correct pairs in each non-empty equal-width bin.

    A perfectly calibrated model would lie in the noise band (``band_low`` to ``band_high``, 95 %). Its width counts
    documents, not pairs, because errors within a document are correlated.

    Args:
        p: (n,) probabilities.
        y: (n,) labels.
        groups: (n,) document of each pair.

    Returns:
        Lists of equal length: ``lower``, ``upper``, ``count``, ``mean_probability``, ``positive_rate``, ``band_low``,
        ``band_high``.
    """
    points = reliability_curve(p, y, BINS)
    index, documents = document_index(groups)
    cell = equal_width(np.asarray(p), BINS)
    sums = document_sums(
        index, documents, [np.ones(len(cell)), np.asarray(y) - np.asarray(p)], cell, BINS
    )
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
        score: (n,) score of each answer; -inf or NaN for no answer.
        correct: (n,) whether it is correct.

    Returns:
        Lists ``coverage`` and ``precision``, at most `CURVE_POINTS` evenly spaced points, including the last; and
        ``area``, the mean share of incorrect answers over all coverages up to the last (AURC, Geifman et al. 2019).
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
    """Counts of correct and incorrect answers by equal-width bins of a value in [0, 1]; NaN is left out."""
    edges = np.linspace(0.0, 1.0, HISTOGRAM_BINS + 1)
    counts = {"edges": edges.tolist()}
    for name, part in (("correct", correct), ("incorrect", ~correct)):
        counts[name] = np.histogram(values[part & ~np.isnan(values)], edges)[0].tolist()
    return counts


@dataclass(frozen=True)
class Axes:
    """The plot area of a chart, in pixels, with linear scales: x from 0 to 1, y from `low` to `high`.

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
        return self.bottom - max(0.0, value - self.low) / (self.high - self.low) * (
            self.bottom - self.top
        )


def reliability_axes() -> Axes:
    """Axes for `reliability_points`."""
    return Axes(0.0, 1.0, FIFTHS, FIFTHS, height=360)


def risk_axes(curves: Iterable[Mapping[str, Any]], target: float) -> Axes:
    """Axes for some `risk_coverage`, with the precision `target`."""
    # The precision of a few answers is mostly noise.
    answered = (zip(curve["coverage"], curve["precision"], strict=True) for curve in curves)
    lowest = min(
        [
            target,
            *(precision for points in answered for coverage, precision in points if coverage > FEW),
        ]
    )
    tenths = range(int(lowest * 10), 11, 1 if lowest >= 0.4 else 2)
    y_ticks = [(tenth / 10, f"{10 * tenth} %") for tenth in tenths]
    return Axes(
        tenths[0] / 10, 1.0, [(fifth / 5, f"{20 * fifth} %") for fifth in range(6)], y_ticks
    )


def marked_points(curve: Mapping[str, Any]) -> list[tuple[float, float]]:
    """Coverage and precision of about twelve points of a `risk_coverage`, and of its end."""
    points = list(zip(curve["coverage"], curve["precision"], strict=True))
    return [*points[:: max(1, len(points) // 12)], points[-1]]


def histogram_axes(counts: Mapping[str, Sequence[int]]) -> Axes:
    """Axes for a `histogram`, with ticks at every 1, 2, 5, 10, 20, 50, ..."""
    most = max(1, *map(sum, zip(counts["correct"], counts["incorrect"], strict=True)))
    step = next(
        factor * 10**power
        for power in range(20)
        for factor in (1, 2, 5)
        if factor * 10**power >= most / 4
    )
    return Axes(
        0.0,
        most * 1.08,
        FIFTHS,
        [(value, f"{value:,}") for value in range(0, most + 1, step)],
        height=240,
    )


TEMPLATES = Path(__file__).parent.parent / "templates"


def report_page(metrics: Mapping[str, Any], title: str, thresholds: ThresholdTable) -> str:
    """Write the page.

    Args:
        metrics: content of ``metrics.json``.
        title: name of the run.
        thresholds: those of the model; the default threshold of acceptance is marked in the histogram of the scores.

    Returns:
        HTML text without external references.
    """
    return rendered(
        "report.html",
        metrics=metrics,
        curves=metrics["curves"],
        tables=report_tables(metrics),
        title=title,
        target_precision=thresholds.target_precision,
        is_certified=thresholds.is_certified,
        accept=thresholds.for_type().accept,
        risk_curves=_named(metrics["curves"]["risk_coverage"]),
        pair_curves=_pair_curves(metrics["curves"]),
    )


def card_charts(metrics: Mapping[str, Any], target_precision: float) -> tuple[str, str]:
    """Reliability and risk-coverage charts as SVG files for the model card."""
    curves = metrics["curves"]
    pair_curves, legend = _pair_curves(curves), {"after calibration": "series1"}
    if len(pair_curves) > 1:
        legend["before calibration"] = "series2"
    legend |= {"perfect calibration": "ideal", "95 % band of perfect calibration": "noise"}
    title = "Reliability of candidate probabilities"
    reliability = _chart_file(
        title, legend, reliability_axes(), curves=pair_curves, target_precision=None
    )
    systems = _named(curves["risk_coverage"])
    legend = {}
    for position, (name, curve) in enumerate(systems.items(), start=1):
        if curve["coverage"]:
            name += (
                f": precision {curve['precision'][-1]:.1%} at coverage {curve['coverage'][-1]:.0%}"
            )
        legend[name] = f"series{position}"
    title, axes = "Precision-coverage curve", risk_axes(systems.values(), target_precision)
    return reliability, _chart_file(
        title, legend, axes, curves=systems, target_precision=target_precision
    )


def _chart_file(title: str, legend: Mapping[str, str], axes: Axes, **content: Any) -> str:
    """A chart with a title and a legend above it: label -> class of its element."""
    return (
        rendered("chart_file.svg", title=title, legend=legend, axes=axes, **content).strip() + "\n"
    )


def rendered(template: str, /, **content: Any) -> str:
    """A template of the package with its content; a name that it lacks is an error. HTML and SVG are escaped."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(("html", "svg")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "zip": zip,
        "number": number,
        "histogram_axes": histogram_axes,
        "marked_points": marked_points,
        "reliability_axes": reliability_axes,
        "risk_axes": risk_axes,
        "style": (TEMPLATES / "chart.css").read_text(encoding="utf-8"),
    }
    return environment.get_template(template).render(content)


def _pair_curves(curves: Mapping[str, Any]) -> dict[str, Any]:
    points = curves["reliability"]
    names = {"raw": "before calibration", "calibrated": "after calibration"}
    return {name: points[key] for key, name in names.items() if key in points}


def _named(systems: Mapping[str, Any]) -> dict[str, Any]:
    return {title_of(name): values for name, values in systems.items()}
