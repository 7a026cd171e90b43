"""The page of a report: whole, self-contained, readable without colors, pictures or a network."""

import io
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from outcome_fixtures import make_outcomes, make_report
from rich.console import Console
from tiny_reranker import HIERARCHY, fit_thresholds

from umls_reranker.core.files import read_json, write_json
from umls_reranker.evaluation.checklist import measured_figures
from umls_reranker.evaluation.page import report_page
from umls_reranker.evaluation.tables import examples_table, linking_table

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
def report():
    return make_report(make_outcomes(2000), HIERARCHY)


@pytest.fixture(scope="module")
def text(report):
    return report_page(report, "a <run>", fit_thresholds())


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_nothing_comes_from_outside(text, page):
    assert "url(" not in text and "@import" not in text and "<script" not in text
    links = [value for _, attributes in page.tags for name, value in attributes.items() if name in LINKS]
    assert links == [] and "http" not in text


def test_it_adapts_to_light_and_dark_and_to_a_phone(text, page):
    assert "prefers-color-scheme: dark" in text
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags
    colors = re.findall(r"#[0-9a-f]{3,6}\b", text.split("@media (prefers-color-scheme: dark)")[1].split("}\n}", 1)[1])
    assert colors == ["#fff"]  # only what is printed; all else goes through the variables


def test_what_is_shown_is_escaped(page, text):
    assert "a <run>" in page.words and "<run>" not in text


def test_every_chart_says_what_it_shows_and_its_numbers_stand_beside_it(page):
    charts = [attributes for tag, attributes in page.tags if tag == "svg" and attributes.get("class") == "chart"]
    assert len(charts) == 5
    ids = {attributes["id"]: tag for tag, attributes in page.tags if "id" in attributes}
    assert len(ids) == 10
    for chart in charts:
        title, description = chart["aria-labelledby"].split()
        assert chart["role"] == "img" and (ids[title], ids[description]) == ("title", "desc")
    assert sum(tag == "details" for tag, _ in page.tags) == 3
    assert all("scope" in attributes for tag, attributes in page.tags if tag == "th")


def test_groups_types_and_baselines_are_listed(page):
    for word in (
        "DISO",
        "CHEM",
        "Disease or Syndrome",
        "string seen",
        "exact name match",
        "retriever alone",
    ):
        assert word in page.words


def test_incorrect_types_have_a_row_a_level_where_there_are_types(report, page):
    assert "Incorrect semantic types" in page.words
    assert re.search(r"10\s+%\s+7\s+" + f"{100 * report['linking']['reranker']['acc@1']['value']:.1f}", page.words)
    assert "Incorrect semantic types" not in report_page(report | {"incorrect_types": {}}, "run", fit_thresholds())


def test_figures_are_those_of_the_report(report, page):
    high = report["tiers"]["high"]
    assert f" {100 * high['precision']['value']:.1f}\u00a0%" in page.words
    assert f"{100 * high['precision']['low']:.1f} – {100 * high['precision']['high']:.1f}" in page.words
    assert f"{report['curves']['risk_coverage']['reranker']['area']:.3f}" in page.words


def test_the_page_can_be_drawn_again_from_the_file(report, text, tmp_path):
    write_json(tmp_path / "metrics.json", report)
    assert report_page(read_json(tmp_path / "metrics.json"), "a <run>", fit_thresholds()) == text


def test_figures_that_could_not_be_measured_are_dashes(tmp_path):
    outcomes = make_outcomes(60, tier=np.full(60, "low"), accepted=np.zeros(60, bool))
    write_json(tmp_path / "metrics.json", make_report(outcomes, HIERARCHY))
    words = Page(report_page(read_json(tmp_path / "metrics.json"), "run", fit_thresholds())).words
    assert "nan" not in words.lower() and "–" in words and "None" not in words


def test_a_whisker_stays_inside_its_scale(report):
    far = {"value": 5.0, "low": -3.0, "high": 9.0}
    group = report["groups"]["group:CHEM"]
    for excess, count in ((far, 3), (far | {"low": math.nan}, 2)):
        drawn = report_page(report | {"groups": {"x": group | {"excess_error": excess}}}, "run", fit_thresholds())
        section = drawn.split("<h2>Semantic groups</h2>")[1].split("</section>")[0]
        places = re.findall(r' (?:x1|x2|cx)="([\d.]+)"', section)
        assert len(places) == 3 * (count - 1) + 2 * (count > 2) and all(2 <= float(place) <= 78 for place in places)


def test_recall_is_named_by_the_length_of_the_lists(report):
    # Whole lists have the same recall under any name; a shorter k comes first in the file.
    systems = {
        name: {key.replace("@32", "@16"): value for key, value in row.items()}
        for name, row in report["linking"].items()
    }
    table = linking_table(report | {"linking": systems})
    assert [column.header for column in table.columns][4] == "recall@16"
    assert f"{systems['retriever']['recall@16']['value']:.3f}" in list(table.columns[4].cells)


def test_names_with_brackets_are_shown_as_they_are():
    names = ["benzo[a]pyrene", "[d]oedema", "mg [/kg]", ":a: antigen"]
    best = {"cui": "C1", "score": 0.5, "margin": 0.1, "tier": "low", "accepted": False}
    console = Console(file=io.StringIO(), width=160)
    console.print(examples_table(names, ["C1"] * len(names), [[best | {"name": name}] for name in names]))
    assert [console.file.getvalue().count(name) for name in names] == [2] * len(names)


# Figures that targets name


def test_every_figure_has_value_population_and_support(report):
    figures = measured_figures(json.loads(json.dumps(report)))
    assert {"f1", "acc@1", "ece", "ece_raw", "top1_debiased_ece", "correct_answers_f1", "abstaining_recall"} <= set(
        figures
    )
    for found in figures.values():
        assert found.population and found.support is not None
    assert figures["high_confidence_precision"].support == report["tiers"]["high"]["count"]
    assert figures["accepted_precision"].support == report["answering"]["answering"]["predicted"]
    assert "candidates" in figures["ece"].population and "mentions" in figures["top1_ece"].population


def test_the_worst_group_counts_only_with_enough_mentions(report):
    worst = measured_figures(report)["worst_group_top1_debiased_ece"]
    assert worst.population == "1,500 mentions of DISO"
    small = measured_figures(report | {"groups": {"group:CHEM": report["groups"]["group:CHEM"]}})
    assert np.isnan(small["worst_group_acc@1"].value)
    assert small["worst_group_acc@1"].population == "no semantic group has 1,000 mentions"
