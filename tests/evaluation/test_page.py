"""The page of a report: whole, self-contained, readable without colors, pictures or a network."""

from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from outcome_fixtures import make_metrics, make_outcomes
from tiny_reranker import HIERARCHY, fit_thresholds

from umls_reranker.core.json_files import read_json, write_json
from umls_reranker.evaluation.curves import BINS, CURVE_POINTS, reliability_points, risk_coverage
from umls_reranker.evaluation.formatting import cell
from umls_reranker.evaluation.render import card_charts, report_page
from umls_reranker.evaluation.tables import as_markdown, report_tables

LINKS = {"src", "href", "xlink:href", "srcset"}
VOID = {"meta", "br", "link", "img"}


class Page(HTMLParser):
    """Checks that tags close in order, and keeps what the tests ask for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words += f" {data}"


@pytest.fixture(scope="module")
def metrics():
    return make_metrics(make_outcomes(2000), HIERARCHY)


@pytest.fixture(scope="module")
def text(metrics):
    return report_page(metrics, "a <run>", fit_thresholds())


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_nothing_comes_from_outside(text, page):
    assert "url(" not in text and "@import" not in text and "<script" not in text
    links = [
        value for _, attributes in page.tags for name, value in attributes.items() if name in LINKS
    ]
    assert links == [] and "http" not in text


def test_what_is_shown_is_escaped(page, text):
    assert "a <run>" in page.words and "<run>" not in text


def test_every_chart_says_what_it_shows(page):
    charts = [
        attributes
        for tag, attributes in page.tags
        if tag == "svg" and attributes.get("class") == "chart"
    ]
    assert len(charts) == 5
    ids = {attributes["id"]: tag for tag, attributes in page.tags if "id" in attributes}
    assert len(ids) == 10
    for chart in charts:
        title, description = chart["aria-labelledby"].split()
        assert chart["role"] == "img" and (ids[title], ids[description]) == ("title", "desc")
    assert all("scope" in attributes for tag, attributes in page.tags if tag == "th")


def test_tables_are_those_of_the_terminal_and_the_card(metrics, page):
    tables = report_tables(metrics)
    titles = [table.title for table in tables]
    assert len(titles) == 7 and titles[0] == "Comparison with the original order"
    cells = [
        text for table in tables for row in table.rows for cell in row for text in cell if text
    ]
    assert len(cells) > 100 and all(text in page.words for text in cells)
    for table in tables:
        for text in (value for row in table.rows for value, _ in row):
            assert text in as_markdown(table)


def test_figures_are_those_of_the_report(metrics, page):
    precision = metrics["figures"]["high_confidence_precision"]
    assert f" {100 * precision['value']:.1f}\u00a0%" in page.words
    assert f"{100 * precision['low']:.1f}–{100 * precision['high']:.1f}" in page.words
    assert f"{metrics['curves']['risk_coverage']['reranker']['area']:.3f}" in page.words
    assert metrics["verdict"] in page.words and "a note" in page.words


def test_figures_that_could_not_be_measured_are_dashes(tmp_path):
    outcomes = make_outcomes(60, tier=np.full(60, "low"), accepted=np.zeros(60, bool))
    write_json(tmp_path / "metrics.json", make_metrics(outcomes, HIERARCHY))
    words = Page(report_page(read_json(tmp_path / "metrics.json"), "run", fit_thresholds())).words
    assert "nan" not in words.lower() and "–" in words and "None" not in words


def test_figures_and_bands_of_an_earlier_version_do_no_harm(metrics):
    earlier = {
        "brier_miscalibration": {"value": 0.01},
        "parent_answers": metrics["figures"]["acc@1"],
    }
    points = metrics["curves"]["reliability"]["calibrated"]
    bands = points | {"band_low": points["lower"], "band_high": points["upper"]}
    curves = metrics["curves"] | {"reliability": dict.fromkeys(("calibrated", "top1"), bands)}
    content = metrics | {"figures": metrics["figures"] | earlier, "curves": curves}
    words = Page(report_page(content, "run", fit_thresholds())).words
    assert "parent answers" in words and "band" not in words
    assert all("band" not in chart for chart in card_charts(content, 0.95))


# Points of charts by hand; charts as separate files: complete, well-formed SVG that names its


def test_a_zero_has_no_sign():
    assert cell({"value": -1e-9, "low": -1e-8, "high": 0.0}, "percent") == (
        "0.0\u00a0%",
        "0.0 to 0.0",
    )


def test_the_charts_of_the_card_are_files_with_a_legend_of_what_they_show():
    rng = np.random.default_rng(0)
    p = rng.beta(0.5, 2, 800)
    y = rng.random(800) < p
    points = {name: reliability_points(q, y) for name, q in (("raw", p**0.5), ("calibrated", p))}
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
            if mark.get("class", "").startswith("line")
        }
        assert {"ideal", "series1"} <= used
        # Below title and legend, and inside the file.
        width, height = map(float, root.get("viewBox").split()[2:])
        inner = root.find("{*}svg")
        inner_y, inner_height, inner_width = (
            float(inner.get(name)) for name in ("y", "height", "width")
        )
        assert (inner_y + inner_height, inner_width) == (height, width)


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
    points = reliability_points(np.array([0.01, 0.03, 0.99]), np.array([0, 1, 1]))
    assert points["count"] == [2, 1]
    assert points["mean_probability"] == pytest.approx([0.02, 0.99])
    assert points["positive_rate"] == [0.5, 1.0]
    assert points["lower"] == pytest.approx([0, 1 - 1 / BINS])
    assert points["upper"] == pytest.approx([1 / BINS, 1])
