"""``report.html``: one file, made from metrics.json, that a browser opens without a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .charts import STYLE, chart_file, histogram_chart, reliability_chart, risk_coverage_chart, whisker
from .tables import figure_name, inputs_label, is_there, number, recall_in_list

__all__ = ["card_charts", "report_page"]

TEMPLATES = Path(__file__).parent.parent / "templates"
SHOWN_TYPES = 15


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
    environment.filters |= {"number": number, "percent": _percent, "interval": _interval, "name": figure_name}
    environment.filters |= {"recall_in_list": recall_in_list, "inputs_label": inputs_label}
    environment.globals["whisker"] = whisker
    curves = report["curves"]
    charts = {
        "risk": risk_coverage_chart("risk", _labelled(curves["risk_coverage"]), target_precision),
        "pairs": _reliability(curves),
        "top": reliability_chart("top", {"after": curves["reliability"]["top1"]}, "best candidates"),
        "score": histogram_chart("score", curves["score"], "score of the best candidate", {"accepted from": accept}),
        "margin": histogram_chart("margin", curves["margin"], "margin over the second", {}),
    }
    return environment.get_template("report.html").render(
        report=report,
        title=title,
        style=STYLE,
        target_precision=target_precision,
        charts=charts,
        worst_types=list(report["types"].items())[:SHOWN_TYPES],
        systems=_labelled(report["linking"]),
        calibration_rows=_calibration_rows(report["calibration"]),
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
    systems = _labelled(curves["risk_coverage"])
    shown = {name: (curve["precision"][-1:], curve["coverage"][-1:]) for name, curve in systems.items()}
    legend = {
        f"{name}: {precision[0]:.1%} right of {coverage[0]:.0%} answered" if coverage else name: f"series{place}"
        for place, (name, (precision, coverage)) in enumerate(shown.items(), start=1)
    }
    risk = risk_coverage_chart("risk", systems, target_precision)
    return reliability, chart_file(risk, "What answering only the confident mentions buys", legend)


def _reliability(curves: Mapping[str, Any]) -> str:
    points = curves["reliability"]
    return reliability_chart(
        "pairs", {"before calibration": points["raw"], "after": points["calibrated"]}, "candidates"
    )


def _labelled(systems: Mapping[str, Any]) -> dict[str, Any]:
    return {figure_name(name): part for name, part in systems.items()}


def _calibration_rows(calibration: Mapping[str, Any]) -> list[tuple[str, Any, Any, Any]]:
    """Figure, of pairs before, of pairs after, of top candidates."""
    names = [name for name in calibration if f"{name}_raw" in calibration]
    return [(n, calibration[f"{n}_raw"], calibration[n], calibration.get(f"top1_{n}")) for n in names]


def _percent(figure: Mapping[str, Any] | float | None, digits: int = 1) -> str:
    value = figure["value"] if isinstance(figure, Mapping) else figure
    return f"{100 * value:.{digits}f}\u00a0%" if is_there(value) else "–"


def _interval(figure: Mapping[str, Any], digits: int = 1, scale: float = 100.0) -> str:
    ends = [end for end in (figure.get("low"), figure.get("high")) if is_there(end)]
    return " – ".join(f"{scale * end:.{digits}f}" for end in ends) if len(ends) == 2 else ""
