"""The page of a report and the charts of the model card, from the templates of the package."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from ..calibration.thresholds import ThresholdTable
from .charts import Axes, histogram_axes, marked_points, reliability_axes, risk_axes
from .render import number, report_tables, title_of

TEMPLATES = Path(__file__).parent.parent / "templates"


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
        risk_curves=_named(metrics["curves"]["risk_coverage"]),
        pair_curves=_pair_curves(metrics["curves"]),
    )


def card_charts(metrics: Mapping[str, Any], target_precision: float) -> tuple[str, str]:
    """Reliability and risk-coverage charts as SVG files for the model card."""
    pair_curves = _pair_curves(metrics["curves"])
    legend = {"after calibration": "series1"}
    if len(pair_curves) > 1:
        legend["before calibration"] = "series2"
    legend |= {"perfect calibration": "ideal", "95 % band of perfect calibration": "noise"}
    reliability = _chart_file(
        "Reliability of candidate probabilities", legend, reliability_axes(), pair_curves
    )
    systems = _named(metrics["curves"]["risk_coverage"])
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
    chart = rendered(
        "chart_file.svg",
        title=title,
        legend=legend,
        axes=axes,
        curves=curves,
        target_precision=target_precision,
    )
    return chart.strip() + "\n"


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
        "reliability_axes": reliability_axes,
        "risk_axes": risk_axes,
        "style": (TEMPLATES / "chart.css").read_text(encoding="utf-8"),
    }
    return environment


def _pair_curves(curves: Mapping[str, Any]) -> dict[str, Any]:
    """Points of the reliability diagram of candidates, by their names in legends."""
    points = curves["reliability"]
    names = {"raw": "before calibration", "calibrated": "after calibration"}
    return {name: points[key] for key, name in names.items() if key in points}


def _named(systems: Mapping[str, Any]) -> dict[str, Any]:
    return {title_of(name): values for name, values in systems.items()}
