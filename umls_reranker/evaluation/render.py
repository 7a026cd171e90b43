"""The page of a report and its charts, also those of the model card.

All can be drawn again from ``metrics.json`` alone: it holds the points of the charts, which the
template ``charts.svg`` draws. No chart library, no script, no network; light or dark.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from ..calibration.thresholds import ThresholdTable
from .formatting import number
from .tables import report_tables, title_of

TEMPLATES = Path(__file__).parent.parent / "templates"

# Up to this coverage the precision does not set the scale: that of a few answers is mostly noise.
NOISY_COVERAGE = 0.025
# Points of a curve that have a tooltip.
MARKS = 12
# Ticks of an axis from 0 to 1.
FIFTHS = [(fifth / 5, f"{fifth / 5:.1f}") for fifth in range(6)]
PERCENT_FIFTHS = [(fifth / 5, f"{20 * fifth} %") for fifth in range(6)]


@dataclass(frozen=True)
class Axes:
    """The plot area of a chart in pixels: linear scales, x from 0 to 1, y from `low` to `high`.

    Attributes:
        low: value at the lower end of the y axis.
        high: value at its upper end.
        x_ticks: values and their labels.
        y_ticks: values and their labels.
        height: height of the chart in pixels.
        width: its width, small, so that text stays readable on a phone.
        left: where the plot area begins, right of the labels of the y axis.
        top: where it begins, from above.
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
        """Where the plot area ends."""
        return self.width - 20

    @property
    def bottom(self) -> int:
        """Where it ends, above the labels of the x axis."""
        return self.height - 40

    def x(self, value: float) -> float:
        """Pixel of a value."""
        return self.left + value * (self.right - self.left)

    def y(self, value: float) -> float:
        """Pixel of a value; values below the scale are drawn at its lower end."""
        height = max(0.0, value - self.low) / (self.high - self.low)
        return self.bottom - height * (self.bottom - self.top)


# The axes of all charts of `reliability_points`.
RELIABILITY_AXES = Axes(low=0.0, high=1.0, x_ticks=FIFTHS, y_ticks=FIFTHS, height=360)


def risk_axes(curves: Iterable[Mapping[str, Any]], target: float) -> Axes:
    """Axes for some `risk_coverage`, with the precision `target`."""
    lowest = target
    for curve in curves:
        for coverage, precision in zip(curve["coverage"], curve["precision"], strict=True):
            if coverage > NOISY_COVERAGE:
                lowest = min(lowest, precision)
    # A long axis has a tick at every other tenth.
    step = 1 if lowest >= 0.4 else 2
    tenths = range(int(lowest * 10), 11, step)
    y_ticks = [(tenth / 10, f"{10 * tenth} %") for tenth in tenths]
    return Axes(low=tenths[0] / 10, high=1.0, x_ticks=PERCENT_FIFTHS, y_ticks=y_ticks)


def marked_points(curve: Mapping[str, Any]) -> list[tuple[float, float]]:
    """Coverage and precision of about `MARKS` points of a `risk_coverage`, and of its end."""
    points = list(zip(curve["coverage"], curve["precision"], strict=True))
    step = max(1, len(points) // MARKS)
    return [*points[::step], points[-1]]


def histogram_axes(counts: Mapping[str, Sequence[int]]) -> Axes:
    """Axes for a `histogram`, with ticks at every 1, 2, 5, 10, 20, 50, ..."""
    highest_bar = 1
    for correct, incorrect in zip(counts["correct"], counts["incorrect"], strict=True):
        highest_bar = max(highest_bar, correct + incorrect)
    # The first step with which the bar has four ticks or fewer above 0.
    steps = (factor * 10**power for power in range(20) for factor in (1, 2, 5))
    step = next(step for step in steps if step >= highest_bar / 4)
    y_ticks = [(value, f"{value:,}") for value in range(0, highest_bar + 1, step)]
    # Some room above the highest bar.
    return Axes(low=0.0, high=highest_bar * 1.08, x_ticks=FIFTHS, y_ticks=y_ticks, height=240)


def report_page(metrics: Mapping[str, Any], title: str, thresholds: ThresholdTable) -> str:
    """Write the page.

    Args:
        metrics: content of ``metrics.json``.
        title: name of the run.
        thresholds: those of the model; the default threshold of acceptance is marked in the
            histogram of the scores.

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
        risk_curves=_by_title(metrics["curves"]["risk_coverage"]),
        pair_curves=_pair_curves(metrics["curves"]),
    )


def card_charts(metrics: Mapping[str, Any], target_precision: float) -> tuple[str, str]:
    """Reliability and risk-coverage charts as SVG files for the model card."""
    pair_curves = _pair_curves(metrics["curves"])
    legend = {"after calibration": "series1"}
    if len(pair_curves) > 1:
        legend["before calibration"] = "series2"
    legend["perfect calibration"] = "ideal"
    reliability = _chart_file(
        "Reliability of candidate probabilities", legend, RELIABILITY_AXES, pair_curves
    )
    systems = _by_title(metrics["curves"]["risk_coverage"])
    legend = {}
    for position, (name, curve) in enumerate(systems.items(), start=1):
        if curve["coverage"]:
            precision = curve["precision"][-1]
            name += f": precision {precision:.1%} at coverage {curve['coverage'][-1]:.0%}"
        legend[name] = f"series{position}"
    axes = risk_axes(systems.values(), target_precision)
    return reliability, _chart_file(
        "Precision-coverage curve", legend, axes, systems, target_precision
    )


def _chart_file(
    title: str,
    legend: Mapping[str, str],
    axes: Axes,
    curves: Mapping[str, Any],
    target_precision: float | None = None,
) -> str:
    """A chart with a title and a legend above it: label -> class of its element."""
    return (
        rendered(
            "chart_file.svg",
            title=title,
            legend=legend,
            axes=axes,
            curves=curves,
            target_precision=target_precision,
        ).strip()
        + "\n"
    )


def rendered(template: str, /, **content: Any) -> str:
    """A template of the package; a name that it lacks is an error. HTML and SVG are escaped."""
    return _environment().get_template(template).render(content)


@cache
def _environment() -> Environment:
    """The templates, which are compiled once."""
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
        "reliability_axes": RELIABILITY_AXES,
        "risk_axes": risk_axes,
        "style": (TEMPLATES / "chart.css").read_text(encoding="utf-8"),
    }
    return environment


def _pair_curves(curves: Mapping[str, Any]) -> dict[str, Any]:
    """Points of the reliability diagram of candidates, by their names in legends."""
    points = curves["reliability"]
    names = {"raw": "before calibration", "calibrated": "after calibration"}
    return {name: points[key] for key, name in names.items() if key in points}


def _by_title(systems: Mapping[str, Any]) -> dict[str, Any]:
    """The same values by the titles of the systems, for legends."""
    return {title_of(name): values for name, values in systems.items()}
