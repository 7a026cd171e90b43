"""``report.html``: one file, made from metrics.json, that a browser opens without a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree.ElementTree import Element, tostring

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .charts import (
    TEMPLATES,
    chart_file,
    chart_style,
    histogram_chart,
    reliability_chart,
    risk_coverage_chart,
)
from .figures import figures_of
from .formats import FORMATS, figure_name

__all__ = ["TEMPLATES", "card_charts", "report_page"]

LISTED_TYPES = 15


def report_page(report: Mapping[str, Any], title: str, target_precision: float, accept: float) -> str:
    """Write the page.

    Args:
        report: content of ``metrics.json``.
        title: name of the run.
        target_precision: certified precision of the high tier.
        accept: default threshold of acceptance, marked in the histogram of the scores.

    Returns:
        HTML text without external references.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= FORMATS
    curves = report["curves"]
    of_top = {"after": curves["reliability"]["top1"]}
    charts = {
        "risk": risk_coverage_chart("risk", _named(curves["risk_coverage"]), target_precision),
        "pairs": _reliability(curves),
        "top": reliability_chart("top", of_top, "best candidates"),
        "score": histogram_chart("score", curves["score"], "score of the best candidate", {"accepted from": accept}),
        "margin": histogram_chart("margin", curves["margin"], "margin over the second", {}),
    }
    return environment.get_template("report.html").render(
        report=report,
        title=title,
        style=chart_style(),
        target_precision=target_precision,
        charts={name: tostring(chart, encoding="unicode") for name, chart in charts.items()},
        slice_figures=figures_of("slices"),
        worst_types=list(report["types"].items())[:LISTED_TYPES],
        subset_figures=[(name, subset["figures"]) for name, subset in report["subsets"].items()],
        systems=_named(report["linking"]),
    )


def card_charts(report: Mapping[str, Any], target_precision: float) -> tuple[str, str]:
    """Reliability and risk-coverage charts as SVG files for the model card, which cannot hold a page."""
    curves = report["curves"]
    legend = {
        "after calibration": "series1",
        "before calibration": "series2",
        "perfect calibration": "ideal",
        "95 % of perfectly calibrated models": "noise",
    }
    reliability = chart_file(_reliability(curves), "How often is a candidate of this probability right?", legend)
    systems = _named(curves["risk_coverage"])
    legend = {}
    for number, (name, curve) in enumerate(systems.items(), start=1):
        if curve["coverage"]:
            name += f": {curve['precision'][-1]:.1%} right of {curve['coverage'][-1]:.0%} answered"
        legend[name] = f"series{number}"
    risk = risk_coverage_chart("risk", systems, target_precision)
    return reliability, chart_file(risk, "What answering only the confident mentions buys", legend)


def _reliability(curves: Mapping[str, Any]) -> Element:
    points = curves["reliability"]
    return reliability_chart(
        "pairs", {"before calibration": points["raw"], "after": points["calibrated"]}, "candidates"
    )


def _named(systems: Mapping[str, Any]) -> dict[str, Any]:
    return {figure_name(name): values for name, values in systems.items()}
