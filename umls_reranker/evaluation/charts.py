"""Charts of a report: their points, which ``metrics.json`` holds, and their drawing as SVG, in the page or as files.

No chart library, no script, no network; light or dark. Every chart is an image with a title and a description for
screen readers; the page shows its numbers next to it. Points and bars have a tooltip. All can be drawn again from
``metrics.json`` alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

import numpy as np

from ..calibration.reliability import equal_width, reliability_curve
from ..calibration.resampling import document_index, document_sums

__all__ = [
    "BINS",
    "TEMPLATES",
    "chart_file",
    "chart_style",
    "histogram",
    "histogram_chart",
    "reliability_chart",
    "reliability_points",
    "risk_coverage",
    "risk_coverage_chart",
]

TEMPLATES = Path(__file__).parent.parent / "templates"
BINS = 15
HISTOGRAM_BINS = 20
# Maximum number of points of a risk-coverage curve: more cannot be seen.
CURVE_POINTS = 200
# Drawn small, so that text stays readable on a phone.
WIDTH, HEIGHT = 420, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 20, 12, 40
MARK_RADIUS = 3.2
# Share answered up to which the precision does not set the scale.
FEW = 0.025
# Height of a line of title and legend above a chart in its own file.
LINE_HEIGHT = 18
FIFTHS = [(fifth / 5, f"{fifth / 5:.1f}") for fifth in range(6)]


def reliability_points(p: np.ndarray, y: np.ndarray, groups: Sequence | np.ndarray) -> dict[str, Any]:
    """A reliability diagram: how often the pairs of each non-empty equal-width bin are correct.

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
        score: (n,) -inf or NaN for no answer. correct: (n,) whether it is correct.

    Returns:
        lists ``coverage`` and ``precision``, at most `CURVE_POINTS` evenly spaced points, the last one always; and
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
    return {"coverage": coverage[points].tolist(), "precision": precision[points].tolist(), "area": area}


def histogram(values: np.ndarray, correct: np.ndarray) -> dict[str, list]:
    """Counts of correct and incorrect answers by equal-width bins of a value in [0, 1]; NaN is left out."""
    edges = np.linspace(0.0, 1.0, HISTOGRAM_BINS + 1)
    counts = {"edges": edges.tolist()}
    for name, part in (("correct", correct), ("incorrect", ~correct)):
        counts[name] = np.histogram(values[part & ~np.isnan(values)], edges)[0].tolist()
    return counts


def _draw(
    parent: Element, tag: str, kind: str = "", text: str | None = None, tip: str | None = None, **attributes: Any
) -> Element:
    """Add an element; `kind` is its class, numbers of `attributes` are rounded to a tenth of a pixel."""
    element = SubElement(parent, tag, {"class": kind} if kind else {})
    for name, value in attributes.items():
        element.set(name.replace("_", "-"), f"{value:.1f}" if isinstance(value, float) else str(value))
    element.text = text
    if tip is not None:
        SubElement(element, "title").text = tip
    return element


class _Axes:
    """A plot area with linear scales, drawn into the SVG element `svg`."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float], height: int = HEIGHT) -> None:
        self.x_range, self.y_range, self.height = x, y, height
        self.svg = Element("svg", {"class": "chart", "viewBox": f"0 0 {WIDTH} {height}", "role": "img"})

    def describe(self, key: str, title: str, description: str) -> None:
        """Say what the chart is, to screen readers; `key` is its id in the page."""
        self.svg.set("aria-labelledby", f"{key}-title {key}-text")
        _draw(self.svg, "title", text=title, id=f"{key}-title")
        _draw(self.svg, "desc", text=description, id=f"{key}-text")

    def x(self, value: float) -> float:
        low, high = self.x_range
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return self.height - BOTTOM - (value - low) / (high - low) * (self.height - TOP - BOTTOM)

    def points(self, x: Iterable[float], y: Iterable[float]) -> str:
        return " ".join(f"{self.x(a):.1f},{self.y(b):.1f}" for a, b in zip(x, y, strict=True))

    def grid(self, x_ticks: Iterable[tuple[float, str]], y_ticks: Iterable[tuple[float, str]]) -> None:
        for value, label in y_ticks:
            y = self.y(value)
            _draw(self.svg, "line", "grid", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y)
            self.text(LEFT - 6, y + 4, label, "end")
        for value, label in x_ticks:
            self.text(self.x(value), self.height - BOTTOM + 16, label, "middle")

    def labels(self, x: str, y: str) -> None:
        self.text((LEFT + WIDTH - RIGHT) / 2, self.height - 6, x, "middle", "label")
        turned = f"translate(11 {(TOP + self.height - BOTTOM) / 2:.1f}) rotate(-90)"
        _draw(self.svg, "text", "label", y, text_anchor="middle", transform=turned)

    def line(self, x: Iterable[float], y: Iterable[float], kind: str) -> None:
        _draw(self.svg, "polyline", f"line {kind}", points=self.points(x, y))

    def band(self, x: Sequence[float], low: Sequence[float], high: Sequence[float], kind: str) -> None:
        outline = f"{self.points(x, low)} {self.points(x[::-1], high[::-1])}"
        _draw(self.svg, "polygon", f"band {kind}", points=outline)

    def mark(self, x: float, y: float, kind: str, tip: str) -> None:
        _draw(self.svg, "circle", f"mark {kind}", tip=tip, cx=self.x(x), cy=self.y(y), r=MARK_RADIUS)

    def bar(self, x: tuple[float, float], y: tuple[float, float], kind: str, tip: str) -> None:
        left, width = self.x(x[0]) + 0.5, self.x(x[1]) - self.x(x[0]) - 1
        top, tall = self.y(y[1]), self.y(y[0]) - self.y(y[1])
        _draw(self.svg, "rect", f"bar {kind}", tip=tip, x=left, y=top, width=width, height=tall)

    def text(self, x: float, y: float, text: str, anchor: str, kind: str = "tick") -> None:
        _draw(self.svg, "text", kind, text, text_anchor=anchor, x=float(x), y=float(y))


def chart_style() -> str:
    """Colors and lines of the charts, as CSS."""
    return (TEMPLATES / "chart.css").read_text(encoding="utf-8")


def chart_file(chart: Element, title: str, legend: Mapping[str, str]) -> str:
    """A chart as the content of an SVG file, with a title and a legend above it.

    Args:
        chart: from one of the functions below.
        legend: label -> class of its element: ``series1``, ``series2``, ``ideal`` or ``noise``.
    """
    inner_height = int(chart.attrib["viewBox"].split()[3])
    top = LINE_HEIGHT * (len(legend) + 1) + TOP
    height = top + inner_height
    file = Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "class": "chart"})
    file.attrib |= {"viewBox": f"0 0 {WIDTH} {height}", "font-family": "system-ui, sans-serif"}
    file.attrib |= {"width": f"{1.5 * WIDTH:.0f}", "height": f"{1.5 * height:.0f}"}
    _draw(file, "style", text=chart_style())
    _draw(file, "rect", width="100%", height="100%", style="fill: var(--card)")
    _draw(file, "text", text=title, x=TOP, y=LINE_HEIGHT, font_weight="600")
    for row, (label, kind) in enumerate(legend.items(), start=1):
        y = LINE_HEIGHT * (row + 1)
        if kind == "noise":
            _draw(file, "rect", kind, x=TOP, y=y - 9, width=24, height=9)
        else:
            _draw(file, "line", f"line {kind}", x1=TOP, x2=TOP + 24, y1=y - 4, y2=y - 4)
        _draw(file, "text", text=label, x=TOP + 32, y=y)
    chart.attrib |= {"y": str(top), "width": str(WIDTH), "height": str(inner_height)}
    file.append(chart)
    return tostring(file, encoding="unicode") + "\n"


def reliability_chart(key: str, curves: Mapping[str, Mapping[str, Any]], what: str) -> Element:
    """Share of correct pairs against predicted probability, with the noise band of the last curve.

    Args:
        key: id of the chart in the page.
        curves: label -> `reliability_points`, the last one drawn strongest.
        what: what the pairs are.
    """
    axes = _Axes((0, 1), (0, 1), height=360)
    axes.describe(
        key,
        f"Reliability of {what}",
        "On the diagonal, probabilities are true. The band is where 95 % of perfectly calibrated models would lie.",
    )
    axes.grid(FIFTHS, FIFTHS)
    strongest = list(curves.values())[-1]
    axes.band(strongest["mean_probability"], strongest["band_low"], strongest["band_high"], "noise")
    axes.line([0, 1], [0, 1], "ideal")
    for number, (label, points) in enumerate(curves.items()):
        kind = f"series{len(curves) - number}"
        axes.line(points["mean_probability"], points["positive_rate"], kind)
        for x, y, count in zip(points["mean_probability"], points["positive_rate"], points["count"], strict=True):
            axes.mark(x, y, kind, f"{label}: predicted {x:.3f}, right {y:.3f}, {count:,} {what}")
    axes.labels("predicted probability", "share that is right")
    return axes.svg


def risk_coverage_chart(key: str, curves: Mapping[str, Mapping[str, Any]], target: float) -> Element:
    """Precision of the answers against the share answered, most confident first.

    Args:
        key: id of the chart in the page.
        curves: label -> `risk_coverage`, the first one drawn strongest.
        target: precision to mark.
    """
    points = {label: list(zip(curve["coverage"], curve["precision"], strict=True)) for label, curve in curves.items()}
    # What is correct of a few answers is chance.
    lowest = min([target, *(y for curve in points.values() for x, y in curve if x > FEW)])
    floor = max(0.0, int(lowest * 10) / 10)
    axes = _Axes((0, 1), (floor, 1))
    axes.describe(
        key,
        "Risk and coverage",
        f"How right the answers are when only the most confident share of mentions is answered; the dashed line marks "
        f"{100 * target:g}%.",
    )
    tenths = range(round(10 * floor), 11, 1 if floor >= 0.4 else 2)
    axes.grid([(v / 5, f"{v * 20} %") for v in range(6)], [(v / 10, f"{10 * v} %") for v in tenths])
    axes.line([0, 1], [target, target], "ideal")
    axes.text(WIDTH - RIGHT, axes.y(target) - 4, f"{100 * target:g}%", "end")
    for number, (label, curve) in reversed(list(enumerate(points.items(), start=1))):
        if not curve:
            continue
        kind = f"series{number}"
        axes.line([x for x, _ in curve], [max(y, floor) for _, y in curve], kind)
        for x, y in [*curve[:: max(1, len(curve) // 12)], curve[-1]]:
            axes.mark(x, max(y, floor), kind, f"{label}: {x:.0%} answered, {y:.1%} of them right")
    axes.labels("mentions answered, most confident first", "right among the answered")
    return axes.svg


def histogram_chart(key: str, counts: Mapping[str, Sequence], what: str, marks: Mapping[str, float]) -> Element:
    """Correct and incorrect answers, stacked, by bins of a value in [0, 1].

    Args:
        key: id of the chart in the page.
        counts: `histogram`.
        what: name of the value.
        marks: label -> value to mark by a line.
    """
    edges, correct, incorrect = counts["edges"], counts["correct"], counts["incorrect"]
    most = max(1, *map(sum, zip(correct, incorrect, strict=True)))
    step = _round_step(most / 4)
    axes = _Axes((0, 1), (0, most * 1.08), height=240)
    axes.describe(key, f"Histogram of the {what}", f"Counts of right and wrong best candidates by {what}.")
    axes.grid(FIFTHS, [(value, f"{value:,}") for value in range(0, most + 1, step)])
    for bin_edges, right, wrong in zip(zip(edges, edges[1:], strict=False), correct, incorrect, strict=True):
        tip = f"{what} {bin_edges[0]:.2f} .. {bin_edges[1]:.2f}: {right:,} right, {wrong:,} wrong"
        if right:
            axes.bar(bin_edges, (0, right), "series1", tip)
        if wrong:
            axes.bar(bin_edges, (right, right + wrong), "series2", tip)
    for label, value in marks.items():
        x = axes.x(value)
        _draw(axes.svg, "line", "line ideal", x1=x, x2=x, y1=TOP, y2=axes.y(0))
        axes.text(x - 4, TOP + 10, label, "end")
    axes.labels(what, "mentions")
    return axes.svg


def _round_step(step: float) -> int:
    """The next of 1, 2, 5, 10, 20, 50, ..."""
    return next(factor * 10**power for power in range(20) for factor in (1, 2, 5) if factor * 10**power >= step)
