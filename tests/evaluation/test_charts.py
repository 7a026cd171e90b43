"""Charts as separate files: complete, well-formed SVG that names its lines."""

from xml.etree import ElementTree

import numpy as np

from umls_reranker.evaluation.charts import reliability_points, risk_axes, risk_coverage
from umls_reranker.evaluation.page import card_charts


def test_the_charts_of_the_card_are_files_with_a_legend_of_what_they_show():
    rng = np.random.default_rng(0)
    p = rng.beta(0.5, 2, 800)
    y = rng.random(800) < p
    points = {name: reliability_points(q, y, np.arange(800) // 10) for name, q in (("raw", p**0.5), ("calibrated", p))}
    systems = {"reranker": risk_coverage(p, y), "retriever": risk_coverage(np.full(800, -np.inf), y)}
    charts = card_charts({"curves": {"reliability": points, "risk_coverage": systems}}, 0.95)
    legends = (
        ["after calibration", "before calibration", "perfect calibration", "95 % of perfectly calibrated models"],
        [f"this model: {y.mean():.1%} right of 100% answered", "retriever alone"],
    )
    for chart, legend in zip(charts, legends, strict=True):
        root = ElementTree.fromstring(chart)
        assert root.tag == "{http://www.w3.org/2000/svg}svg" and root.find("{*}style") is not None
        assert [text.text for text in root.findall("{*}text")][1:] == legend
        used = {
            mark.get("class").split()[-1] for mark in root.iter() if mark.get("class", "").startswith(("line", "band"))
        }
        assert {"ideal", "series1"} <= used
        # Below title and legend, and inside the file.
        width, height = map(float, root.get("viewBox").split()[2:])
        inner = root.find("{*}svg")
        assert float(inner.get("y")) + float(inner.get("height")) == height and float(inner.get("width")) == width


def tips(curve, name):
    """Tooltips and labels of the chart of one system."""
    points = reliability_points(np.array([0.5]), np.array([1]), ["d"])
    curves = {"reliability": {"raw": points, "calibrated": points}, "risk_coverage": {name: curve}}
    root = ElementTree.fromstring(card_charts({"curves": curves}, 0.95)[1])
    return {element.text for element in root.iter() if element.text}


def test_a_curve_of_few_points_shows_what_was_measured():
    drawn = tips(risk_coverage(np.ones(200), np.arange(200) < 110), "retriever")
    assert {"retriever alone: 100% answered, 55.0% of them right", "50 %"} <= drawn


def test_a_point_below_the_chart_still_says_what_was_measured():
    curve = risk_coverage(np.linspace(1, 0, 2000), np.arange(2000) % 5 > 0)
    assert curve["precision"][0] == 0.0 and risk_axes([curve], 0.95).low > 0.5
    assert risk_axes([curve], 0.95).y(0.0) == risk_axes([curve], 0.95).bottom
    assert "this model: 0% answered, 0.0% of them right" in tips(curve, "reranker")
