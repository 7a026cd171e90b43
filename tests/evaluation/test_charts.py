"""Points of charts by hand; charts as separate files: complete, well-formed SVG that names its
lines.
"""

from xml.etree import ElementTree

import numpy as np
import pytest

from umls_reranker.evaluation.render import (
    BINS,
    CURVE_POINTS,
    card_charts,
    reliability_points,
    risk_coverage,
)


def test_the_charts_of_the_card_are_files_with_a_legend_of_what_they_show():
    rng = np.random.default_rng(0)
    p = rng.beta(0.5, 2, 800)
    y = rng.random(800) < p
    points = {
        name: reliability_points(q, y, np.arange(800) // 10)
        for name, q in (("raw", p**0.5), ("calibrated", p))
    }
    systems = {
        "reranker": risk_coverage(p, y),
        "lists_order": risk_coverage(np.full(800, -np.inf), y),
    }
    charts = card_charts({"curves": {"reliability": points, "risk_coverage": systems}}, 0.95)
    legends = (
        [
            "after calibration",
            "before calibration",
            "perfect calibration",
            "95 % band of perfect calibration",
        ],
        [f"this model: precision {y.mean():.1%} at coverage 100%", "original order"],
    )
    for chart, legend in zip(charts, legends, strict=True):
        root = ElementTree.fromstring(chart)
        assert root.tag == "{http://www.w3.org/2000/svg}svg" and root.find("{*}style") is not None
        assert [text.text for text in root.findall("{*}text")][1:] == legend
        used = {
            mark.get("class").split()[-1]
            for mark in root.iter()
            if mark.get("class", "").startswith(("line", "band"))
        }
        assert {"ideal", "series1"} <= used
        # Below title and legend, and inside the file.
        width, height = map(float, root.get("viewBox").split()[2:])
        inner = root.find("{*}svg")
        assert (
            float(inner.get("y")) + float(inner.get("height")) == height
            and float(inner.get("width")) == width
        )


def test_risk_coverage_by_hand():
    curve = risk_coverage(np.array([0.9, 0.5, 0.5, -np.inf, np.nan]), [1, 1, 0, 1, 1])
    assert curve["coverage"] == pytest.approx([0.2, 0.6]) and curve["precision"] == pytest.approx(
        [1.0, 2 / 3]
    )
    # One mention answered without risk, two at a risk of one third.
    assert curve["area"] == pytest.approx((0 + 1 / 3 + 1 / 3) / 3)


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
    assert points["mean_probability"] == pytest.approx([0.02, 0.99])
    assert points["positive_rate"] == [0.5, 1.0]
    assert points["lower"] == pytest.approx([0, 1 - 1 / BINS])
    assert points["upper"] == pytest.approx([1 / BINS, 1])
    # Two documents differ by 0.98 in the first bin; in the second a single pair has its own noise.
    assert points["band_high"] == pytest.approx([0.02 + 1.96 * 0.49, 1])
    assert points["band_low"] == pytest.approx([0, 0.99 - 1.96 * np.sqrt(0.99 * 0.01)])


def test_the_noise_band_is_wider_where_mentions_of_a_document_share_one_fate():
    p = np.full(1500, 0.5)
    y = np.repeat(np.random.default_rng(0).random(150) < 0.5, 10)
    bands = [reliability_points(p, y, np.arange(1500) // size) for size in (10, 1)]
    widths = [band["band_high"][0] - band["band_low"][0] for band in bands]
    # Ten mentions are worth one: the square root of 10.
    assert widths[0] / widths[1] == pytest.approx(np.sqrt(10), rel=0.25)
