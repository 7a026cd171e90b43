import re

import numpy as np
import pytest
from outcome_fixtures import make_outcomes, make_report
from tiny_reranker import HIERARCHY, fit_thresholds

from umls_reranker.core.errors import UserError
from umls_reranker.core.files import write_json
from umls_reranker.core.recipe import Recipe
from umls_reranker.data.semantic_types import SemanticType, TypeHierarchy
from umls_reranker.evaluation import figures
from umls_reranker.evaluation.checklist import measured_figures
from umls_reranker.evaluation.figures import SMALLEST_SLICE, WITHOUT_TYPE, Figure
from umls_reranker.evaluation.linking import Documents
from umls_reranker.evaluation.page import report_page
from umls_reranker.evaluation.tables import figures_table
from umls_reranker.hub.card import model_card
from umls_reranker.serving.monitoring.reference import Reference


def slice_figures(outcomes):
    return figures.slice_figures(outcomes, Documents.of(outcomes.document, 50), "test")


def group_slices(outcomes, hierarchy=HIERARCHY):
    return figures.group_slices(outcomes, Documents.of(outcomes.document, 50), hierarchy, "test")


def type_slices(outcomes):
    return figures.type_slices(outcomes, Documents.of(outcomes.document, 50), HIERARCHY, "test")


def test_figures_by_hand():
    measured = slice_figures(
        make_outcomes(
            4,
            rank=np.array([0, 0, 2, -1]),
            in_dictionary=np.array([True, True, True, False]),
            score=np.array([0.9, 0.8, 0.5, np.nan]),
            tier=np.array(["high", "high", "medium", "reject"]),
            accepted=np.array([True, True, True, False]),
        ),
    )
    assert {name: entry["value"] for name, entry in measured.items() if isinstance(entry, dict)} == {
        "acc@1": 0.5,
        "acc@1_in_dictionary": pytest.approx(2 / 3),
        "accepted_share": 0.75,
        "accepted_precision": pytest.approx(2 / 3),
        "high_confidence_share": 0.5,
        "high_confidence_precision": 1.0,
        # The scores predict 3 - 2.2 errors among the three answers; there was one.
        "excess_error": pytest.approx((2.2 - 2) / 3),
    }
    assert measured["mentions"] == 4 and measured["high_confidence_precision"]["support"] == 2
    assert measured["acc@1_in_dictionary"]["population"] == "3 test mentions with gold in the dictionary"


def test_every_group_is_there_and_a_mention_counts_in_each_of_its_groups():
    types = [["T047", "T121"], ["T047", "T046"], ["T121"], [], ["unheard of"]]
    groups = group_slices(make_outcomes(5, types=types))
    assert {name: part["mentions"] for name, part in groups.items()} == {
        "group:CHEM": 2,
        "group:DISO": 2,
        WITHOUT_TYPE: 2,
    }
    assert groups["group:DISO"]["name"] == "DISO"


def test_without_groups_the_broadest_types_stand_for_them():
    hierarchy = TypeHierarchy([SemanticType("A", "Organ"), SemanticType("B", "Heart", "A")])
    groups = group_slices(make_outcomes(3, types=[["B"], ["A"], ["B"]]), hierarchy)
    assert [(name, part["name"], part["mentions"]) for name, part in groups.items()] == [("A", "Organ", 3)]


def test_the_type_that_is_surest_to_be_too_sure_comes_first():
    outcomes = make_outcomes(2000, seed=1)
    drugs = np.array([types == ["T121"] for types in outcomes.types])
    too_sure = make_outcomes(2000, seed=1, score=np.where(drugs, np.sqrt(outcomes.score), outcomes.score))
    types = type_slices(too_sure)
    assert list(types) == ["T121", "T047"]
    assert types["T121"]["excess_error"]["low"] > 0.05 and types["T121"]["debiased_ece"]["value"] > 0.05
    assert types["T047"]["excess_error"]["low"] < 0 < types["T047"]["excess_error"]["high"]


def test_a_type_without_candidates_comes_last():
    outcomes = make_outcomes(400, types=[["T121"] if row % 2 else ["T047"] for row in range(400)])
    untold = make_outcomes(400, types=outcomes.types, score=np.where(np.arange(400) % 2, 0.3, np.nan))
    types = type_slices(untold)
    assert list(types) == ["T121", "T047"] and np.isnan(types["T047"]["excess_error"]["low"])


def test_types_with_too_few_mentions_are_not_listed():
    few = SMALLEST_SLICE - 1
    outcomes = make_outcomes(200, types=[["T121"] if row < few else ["T047"] for row in range(200)])
    assert list(type_slices(outcomes)) == ["T047"]
    assert "debiased_ece" not in slice_figures(outcomes.select(np.arange(few)))
    enough = make_outcomes(200, types=[["T121"] if row <= few else ["T047"] for row in range(200)])
    drugs = type_slices(enough)["T121"]
    assert drugs["mentions"] == SMALLEST_SLICE and "debiased_ece" in drugs


def test_a_figure_of_ones_own_is_in_all_tables(monkeypatch):
    """Declared here and registered, it needs nothing else."""
    surprise = Figure(
        "surprise_share",
        "share of surprises",
        ("serving", "slices"),
        lambda outcomes: ((outcomes.score_or_0 < 0.5) & outcomes.correct, outcomes.has_candidates),
        population="with candidates",
    )
    monkeypatch.setattr(figures, "FIGURES", list(figures.FIGURES))
    figures.register(surprise)
    outcomes = make_outcomes(400)
    report = make_report(outcomes, HIERARCHY)
    expected = (outcomes.correct & (outcomes.score < 0.5)).mean()
    assert report["serving"]["surprise_share"]["value"] == expected
    target = measured_figures(report)["surprise_share"]
    assert (target.value, target.support, target.population) == (expected, 400, "400 test mentions with candidates")
    row = f"share of surprises | {expected:.3f} ("
    assert row in re.sub(" +", " ", model_card(report, Recipe.from_values({"run_name": "x"}).to_dict()))
    assert "share of surprises" in figures_table(report).columns[0]._cells
    assert report_page(report, "run", fit_thresholds()).count('<th scope="col">share of surprises</th>') == 4
    reference = Reference.fit(outcomes.score, outcomes.types, outcomes.document, report["serving"], 0.95)
    assert reference.figures["surprise_share"]["value"] == expected


def test_a_figure_that_exists_is_not_registered_again():
    with pytest.raises(ValueError, match="^figure acc@1 is already registered$"):
        figures.register(figures.FIGURES[0])


def test_metrics_of_another_format_are_refused_with_the_way_out(tmp_path):
    for content, command in (({"schema_version": 1}, "evaluate"), ({"schema_version": 1, "lists": {}}, "calibrate")):
        write_json(tmp_path / "metrics.json", content)
        with pytest.raises(
            UserError, match=f"metrics.json has schema_version 1, not 2; run umls-reranker {command} again"
        ):
            figures.read_metrics(tmp_path / "metrics.json")


# Answering or abstaining


def answering_metrics(outcomes):
    return figures.answering_metrics(outcomes, Documents.of(outcomes.document, 50))


def values(report):
    return {name: [part[key]["value"] for key in ("precision", "recall", "f1")] for name, part in report.items()}


def test_the_three_readings_by_hand():
    # Answered: 0 rightly, 1 wrongly, 2 out of the dictionary. Not answered: 3 could have been, 4 is out of it.
    outcomes = make_outcomes(
        5,
        in_dictionary=np.array([True, True, False, True, False]),
        accepted=np.array([True, True, True, False, False]),
        rank=np.array([0, 3, -1, 0, -1]),
    )
    report = answering_metrics(outcomes)
    assert values(report) == {
        "answering": [pytest.approx(2 / 3), pytest.approx(2 / 3), pytest.approx(2 / 3)],
        "abstaining": [pytest.approx(1 / 2), pytest.approx(1 / 2), pytest.approx(1 / 2)],
        "correct_answers": [pytest.approx(1 / 3), pytest.approx(1 / 3), pytest.approx(1 / 3)],
    }
    assert [report["correct_answers"][count] for count in ("true_positives", "predicted", "actual")] == [1, 3, 3]


def test_a_model_that_never_answers_has_no_precision():
    report = answering_metrics(make_outcomes(20, accepted=np.zeros(20, bool)))
    assert np.isnan(report["answering"]["precision"]["value"]) and report["answering"]["recall"]["value"] == 0.0
    assert report["abstaining"]["recall"]["value"] == 1.0


def test_intervals_hold_the_value():
    for part in answering_metrics(make_outcomes()).values():
        for figure in (part["precision"], part["recall"], part["f1"]):
            assert figure["low"] <= figure["value"] <= figure["high"]
