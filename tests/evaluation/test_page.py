"""The page of a report: whole, self-contained, readable without colors, pictures or a network."""

from html.parser import HTMLParser

import numpy as np
import pytest
from outcome_fixtures import make_metrics, make_outcomes
from tiny_reranker import HIERARCHY, fit_thresholds

from umls_reranker.core.files import read_json, write_json
from umls_reranker.evaluation.render import as_markdown, report_page, report_tables

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
