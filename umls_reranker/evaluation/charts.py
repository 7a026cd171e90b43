"""Charts of a report as SVG, inside the page or as files: no library, no script, no network; light or dark.

Every chart is an image with a title and a description for screen readers; the page shows its numbers next to it.
Points and bars have a tooltip.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

__all__ = ["STYLE", "chart_file", "histogram_chart", "reliability_chart", "risk_coverage_chart", "whisker"]

# Drawn small, so that text stays readable on a phone.
WIDTH, HEIGHT = 420, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 20, 12, 40
MARK_RADIUS = 3.2
# Share answered up to which the precision does not set the scale.
FEW = 0.025
# Height of a line of title and legend above a chart in its own file.
LINE_HEIGHT = 18
# Two colors that color-blind readers can tell apart (after Okabe & Ito).
STYLE = """\
:root {
  --page: #f6f7f9; --card: #ffffff; --text: #1b1f24; --quiet: #57606a; --rule: #d9dee4; --grid: #e8ebef;
  --one: #0066a6; --two: #c04a00; --band: #8b949e; --good: #e7f3ec;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #0f1318; --card: #171c23; --text: #e6eaef; --quiet: #9aa5b1; --rule: #2d3540; --grid: #262d37;
    --one: #63b8f2; --two: #f0a04b; --band: #8b949e; --good: #16291f;
  }
}
.chart text { fill: var(--text); font-size: 12px; }
.chart .tick { fill: var(--quiet); font-size: 11px; }
.grid { stroke: var(--grid); stroke-width: 1; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.series1.line { stroke: var(--one); } .series1.mark, .series1.bar { fill: var(--one); }
.series2.line { stroke: var(--two); stroke-dasharray: 5 3; } .series2.mark, .series2.bar { fill: var(--two); }
.ideal { stroke: var(--quiet); stroke-width: 1; stroke-dasharray: 3 3; }
.noise { fill: var(--band); opacity: .28; }"""


class _Axes:
    """A plot area with linear scales, collecting SVG elements."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float], height: int = HEIGHT) -> None:
        self.x_range, self.y_range, self.height = x, y, height
        self.elements: list[str] = []

    def x(self, value: float) -> float:
        low, high = self.x_range
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return self.height - BOTTOM - (value - low) / (high - low) * (self.height - TOP - BOTTOM)

    def grid(self, x_ticks: Iterable[tuple[float, str]], y_ticks: Iterable[tuple[float, str]]) -> None:
        for value, label in y_ticks:
            y = self.y(value)
            self.add(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            self.text(LEFT - 6, y + 4, label, anchor="end")
        for value, label in x_ticks:
            self.text(self.x(value), self.height - BOTTOM + 16, label, anchor="middle")

    def labels(self, x: str, y: str) -> None:
        middle = (LEFT + WIDTH - RIGHT) / 2
        self.text(middle, self.height - 6, x, anchor="middle", kind="label")
        place = (TOP + self.height - BOTTOM) / 2
        self.add(
            f'<text class="label" text-anchor="middle" transform="translate(11 {place:.1f}) rotate(-90)">'
            f"{escape(y)}</text>"
        )

    def line(self, x: Sequence[float], y: Sequence[float], kind: str) -> None:
        points = " ".join(f"{self.x(a):.1f},{self.y(b):.1f}" for a, b in zip(x, y, strict=True))
        self.add(f'<polyline class="line {kind}" points="{points}"/>')

    def band(self, x: Sequence[float], low: Sequence[float], high: Sequence[float], kind: str) -> None:
        there = [f"{self.x(a):.1f},{self.y(b):.1f}" for a, b in zip(x, low, strict=True)]
        back = [f"{self.x(a):.1f},{self.y(b):.1f}" for a, b in zip(x, high, strict=True)][::-1]
        self.add(f'<polygon class="band {kind}" points="{" ".join(there + back)}"/>')

    def mark(self, x: float, y: float, kind: str, tip: str) -> None:
        self.add(
            f'<circle class="mark {kind}" cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="{MARK_RADIUS}">'
            f"<title>{escape(tip)}</title></circle>"
        )

    def bar(self, x: tuple[float, float], y: tuple[float, float], kind: str, tip: str) -> None:
        left, width = self.x(x[0]) + 0.5, self.x(x[1]) - self.x(x[0]) - 1
        top, tall = self.y(y[1]), self.y(y[0]) - self.y(y[1])
        self.add(
            f'<rect class="bar {kind}" x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{tall:.1f}">'
            f"<title>{escape(tip)}</title></rect>"
        )

    def text(self, x: float, y: float, text: str, anchor: str, kind: str = "tick") -> None:
        self.add(f'<text class="{kind}" text-anchor="{anchor}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>')

    def add(self, element: str) -> None:
        self.elements.append(element)

    def svg(self, key: str, title: str, description: str) -> str:
        return (
            f'<svg class="chart" viewBox="0 0 {WIDTH} {self.height}" role="img" '
            f'aria-labelledby="{key}-title {key}-text">'
            f'<title id="{key}-title">{escape(title)}</title><desc id="{key}-text">{escape(description)}</desc>'
            f"{''.join(self.elements)}</svg>"
        )


def chart_file(chart: str, title: str, legend: Mapping[str, str]) -> str:
    """A chart as the content of an SVG file, with a title and a legend above it.

    Args:
        chart: from one of the functions below.
        legend: label -> class of its element: ``series1``, ``series2``, ``ideal`` or ``noise``.
    """
    height = int(re.findall(r'viewBox="0 0 \d+ (\d+)"', chart)[0])
    top = LINE_HEIGHT * (len(legend) + 1) + TOP
    rows = [f'<text x="{TOP}" y="{LINE_HEIGHT}" font-weight="600">{escape(title)}</text>']
    for row, (label, kind) in enumerate(legend.items(), start=1):
        y = LINE_HEIGHT * (row + 1)
        rows.append(
            f'<rect class="{kind}" x="{TOP}" y="{y - 9}" width="24" height="9"/>'
            if kind == "noise"
            else f'<line class="line {kind}" x1="{TOP}" x2="{TOP + 24}" y1="{y - 4}" y2="{y - 4}"/>'
        )
        rows.append(f'<text x="{TOP + 32}" y="{y}">{escape(label)}</text>')
    inner = chart.replace("<svg ", f'<svg y="{top}" width="{WIDTH}" height="{height}" ', 1)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 0 {WIDTH} {top + height}" '
        f'width="{1.5 * WIDTH:.0f}" height="{1.5 * (top + height):.0f}" font-family="system-ui, sans-serif">'
        f'<style>{STYLE}</style><rect width="100%" height="100%" style="fill: var(--card)"/>'
        f"{''.join(rows)}{inner}</svg>\n"
    )


def reliability_chart(key: str, curves: Mapping[str, Mapping[str, Any]], what: str) -> str:
    """Share of right pairs against predicted probability, with the noise band of the last curve.

    Args:
        key: id of the chart in the page.
        curves: label -> `curves.reliability_points`, the last one drawn strongest.
        what: what the pairs are.
    """
    axes = _Axes((0, 1), (0, 1), height=360)
    ticks = [(value / 5, f"{value / 5:.1f}") for value in range(6)]
    axes.grid(ticks, ticks)
    last = list(curves.values())[-1]
    axes.band(last["mean_probability"], last["band_low"], last["band_high"], "noise")
    axes.line([0, 1], [0, 1], "ideal")
    for place, (label, points) in enumerate(curves.items()):
        kind = f"series{len(curves) - place}"
        axes.line(points["mean_probability"], points["positive_rate"], kind)
        for x, y, count in zip(points["mean_probability"], points["positive_rate"], points["count"], strict=True):
            axes.mark(x, y, kind, f"{label}: predicted {x:.3f}, right {y:.3f}, {count:,} {what}")
    axes.labels("predicted probability", "share that is right")
    return axes.svg(
        key,
        f"Reliability of {what}",
        "On the diagonal, probabilities are true. The band is where 95 % of perfectly calibrated models would lie.",
    )


def risk_coverage_chart(key: str, curves: Mapping[str, Mapping[str, Any]], target: float) -> str:
    """Precision of the answers against the share answered, most confident first.

    Args:
        key: id of the chart in the page.
        curves: label -> `curves.risk_coverage`, the first one drawn strongest.
        target: precision to mark.
    """
    points = {label: list(zip(curve["coverage"], curve["precision"], strict=True)) for label, curve in curves.items()}
    # What is right of a few answers is chance.
    lowest = min([target, *(y for shown in points.values() for x, y in shown if x > FEW)])
    floor = max(0.0, int(lowest * 10) / 10)
    axes = _Axes((0, 1), (floor, 1))
    tenths = range(round(10 * floor), 11, 1 if floor >= 0.4 else 2)
    axes.grid([(v / 5, f"{v * 20} %") for v in range(6)], [(v / 10, f"{10 * v} %") for v in tenths])
    axes.line([0, 1], [target, target], "ideal")
    axes.text(WIDTH - RIGHT, axes.y(target) - 4, f"{100 * target:g}%", anchor="end")
    for place, (label, shown) in reversed(list(enumerate(points.items(), start=1))):
        kind = f"series{place}"
        if not shown:
            continue
        xs, ys = zip(*shown, strict=True)
        axes.line(xs, [max(y, floor) for y in ys], kind)
        for x, y in [*shown[:: max(1, len(shown) // 12)], shown[-1]]:
            axes.mark(x, max(y, floor), kind, f"{label}: {x:.0%} answered, {y:.1%} of them right")
    axes.labels("mentions answered, most confident first", "right among the answered")
    return axes.svg(
        key,
        "Risk and coverage",
        f"How right the answers are when only the most confident share of mentions is answered; the dashed line marks "
        f"{100 * target:g}%.",
    )


def histogram_chart(key: str, counts: Mapping[str, Sequence], what: str, marks: Mapping[str, float]) -> str:
    """Right and wrong answers, stacked, by bins of a value in [0, 1].

    Args:
        key: id of the chart in the page.
        counts: `curves.histogram`.
        what: name of the value.
        marks: label -> value to mark by a line.
    """
    edges, right, wrong = counts["edges"], counts["right"], counts["wrong"]
    most = max([r + w for r, w in zip(right, wrong, strict=True)] + [1])
    step = _round_step(most / 4)
    axes = _Axes((0, 1), (0, most * 1.08), height=240)
    axes.grid(
        [(value / 5, f"{value / 5:.1f}") for value in range(6)],
        [(value * step, f"{value * step:,}") for value in range(int(most / step) + 1)],
    )
    for low, high, r, w in zip(edges, edges[1:], right, wrong, strict=False):
        tip = f"{what} {low:.2f} .. {high:.2f}: {r:,} right, {w:,} wrong"
        if r:
            axes.bar((low, high), (0, r), "series1", tip)
        if w:
            axes.bar((low, high), (r, r + w), "series2", tip)
    for label, value in marks.items():
        x = axes.x(value)
        axes.add(f'<line class="line ideal" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{axes.y(0):.1f}"/>')
        axes.text(x - 4, TOP + 10, label, anchor="end")
    axes.labels(what, "mentions")
    return axes.svg(key, f"Histogram of the {what}", f"Counts of right and wrong best candidates by {what}.")


def whisker(figure: Mapping[str, float | None], lowest: float = 0.0, highest: float = 1.0) -> str:
    """A dot for a value and a line for its interval, on a scale from `lowest` to `highest`; decorates a number."""
    low, value, high = (figure.get(key) for key in ("low", "value", "high"))
    if low is None or value is None or high is None or not math.isfinite(low + value + high):
        return ""

    def place(value: float) -> float:
        return 2 + 76 * (min(max(value, lowest), highest) - lowest) / (highest - lowest)

    low, value, high = place(low), place(value), place(high)
    zero = f'<line class="grid" x1="{place(0):.1f}" x2="{place(0):.1f}" y1="1" y2="11"/>' if lowest < 0 else ""
    return (
        f'<svg class="whisker" viewBox="0 0 80 12" aria-hidden="true">{zero}'
        f'<line class="line series1" x1="{low:.1f}" x2="{high:.1f}" y1="6" y2="6"/>'
        f'<circle class="mark series1" cx="{value:.1f}" cy="6" r="2.4"/></svg>'
    )


def _round_step(step: float) -> int:
    """The next of 1, 2, 5, 10, 20, 50, ..."""
    return next(found for power in range(20) for factor in (1, 2, 5) if (found := factor * 10**power) >= step)
