"""Points of charts by hand; charts as separate files: complete, well-formed SVG that names its lines."""

from xml.etree import ElementTree

import numpy as np
import pytest

from umls_reranker.evaluation.page import (
    BINS,
    CURVE_POINTS,
    card_charts,
    histogram,
    reliability_points,
    risk_axes,
    risk_coverage,
)


def test_the_charts_of_the_card_are_files_with_a_legend_of_what_they_show():
    rng = np.random.default_rng(0)
    p = rng.beta(0.5, 2, 800)
    y = rng.random(800) < p
    points = {name: reliability_points(q, y, np.arange(800) // 10) for name, q in (("raw", p**0.5), ("calibrated", p))}
    systems = {"reranker": risk_coverage(p, y), "lists_order": risk_coverage(np.full(800, -np.inf), y)}
    charts = card_charts({"curves": {"reliability": points, "risk_coverage": systems}}, 0.95)
    legends = (
        ["after calibration", "before calibration", "perfect calibration", "95 % band of perfect calibration"],
        [f"this model: precision {y.mean():.1%} at coverage 100%", "original order"],
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
    drawn = tips(risk_coverage(np.ones(200), np.arange(200) < 110), "lists_order")
    assert {"original order: coverage 100%, precision 55.0%", "50 %"} <= drawn


def test_a_point_below_the_chart_still_says_what_was_measured():
    curve = risk_coverage(np.linspace(1, 0, 2000), np.arange(2000) % 5 > 0)
    assert curve["precision"][0] == 0.0 and risk_axes([curve], 0.95).low > 0.5
    assert risk_axes([curve], 0.95).y(0.0) == risk_axes([curve], 0.95).bottom
    assert "this model: coverage 0%, precision 0.0%" in tips(curve, "reranker")


def test_risk_coverage_by_hand():
    curve = risk_coverage(np.array([0.9, 0.5, 0.5, -np.inf, np.nan]), [1, 1, 0, 1, 1])
    assert curve["coverage"] == pytest.approx([0.2, 0.6]) and curve["precision"] == pytest.approx([1.0, 2 / 3])
    # One mention answered without risk, two at a risk of one third.
    assert curve["area"] == pytest.approx((0 + 1 / 3 + 1 / 3) / 3)


def test_risk_coverage_of_a_system_that_never_answers():
    curve = risk_coverage(np.array([-np.inf, np.nan]), [0, 0])
    assert curve["coverage"] == curve["precision"] == [] and np.isnan(curve["area"])


def test_a_long_curve_is_thinned_and_keeps_its_end():
    rng = np.random.default_rng(0)
    score = rng.random(5000)
    curve = risk_coverage(score, rng.random(5000) < score)
    assert len(curve["coverage"]) <= CURVE_POINTS and curve["coverage"][-1] == 1.0
    assert curve["coverage"] == sorted(set(curve["coverage"]))
    # At a coverage of c the answers are wrong at a rate of c / 2, over all coverages one in four.
    assert curve["area"] == pytest.approx(1 / 4, abs=0.02)


def test_reliability_by_hand():
    points = reliability_points(np.array([0.01, 0.03, 0.99]), np.array([0, 1, 1]), ["a", "b", "b"])
    assert points["count"] == [2, 1]
    assert points["mean_probability"] == pytest.approx([0.02, 0.99]) and points["positive_rate"] == [0.5, 1.0]
    assert points["lower"] == pytest.approx([0, 1 - 1 / BINS])


def test_the_noise_band_holds_a_calibrated_model_as_often_as_it_says_though_documents_resemble():
    rng = np.random.default_rng(0)
    inside = total = 0
    for _ in range(60):
        # All mentions of a document share one fate, at a probability of one half.
        documents = np.repeat(np.arange(150), 10)
        p = np.full(1500, 0.5)
        y = np.repeat(rng.random(150) < 0.5, 10)
        points = reliability_points(p, y, documents)
        inside += points["band_low"][0] <= points["positive_rate"][0] <= points["band_high"][0]
        total += 1
    assert inside / total > 0.88


def test_histogram_leaves_out_mentions_without_candidates():
    counts = histogram(np.array([0.0, 0.049, 1.0, np.nan]), np.array([True, False, True, True]))
    assert counts["correct"][0] == counts["incorrect"][0] == counts["correct"][-1] == 1
    assert sum(counts["correct"]) + sum(counts["incorrect"]) == 3 and len(counts["edges"]) == 21
