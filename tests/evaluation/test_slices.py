import numpy as np
import pytest
from outcome_fixtures import make_outcomes
from tiny_reranker import HIERARCHY

from umls_reranker.data.semantic_types import SemanticType, TypeHierarchy
from umls_reranker.evaluation.charts import whisker
from umls_reranker.evaluation.slices import SMALLEST_SLICE, WITHOUT_TYPE, group_slices, slice_figures, type_slices

OPTIONS = {"resamples": 50, "seed": 0}


def test_figures_by_hand():
    figures = slice_figures(
        make_outcomes(
            4,
            rank=np.array([0, 0, 2, -1]),
            in_dictionary=np.array([True, True, True, False]),
            score=np.array([0.9, 0.8, 0.5, np.nan]),
            tier=np.array(["high", "high", "medium", "reject"]),
            accepted=np.array([True, True, True, False]),
        ),
        **OPTIONS,
    )
    assert {name: entry["value"] for name, entry in figures.items() if isinstance(entry, dict)} == {
        "acc@1": 0.5,
        "acc@1_in_dictionary": pytest.approx(2 / 3),
        "accepted_share": 0.75,
        "accepted_precision": pytest.approx(2 / 3),
        "high_share": 0.5,
        "high_precision": 1.0,
        # The scores predict 3 - 2.2 errors among the three answers; there was one.
        "excess_error": pytest.approx((2.2 - 2) / 3),
    }
    assert {k: v for k, v in figures.items() if isinstance(v, int)} == {
        "mentions": 4,
        "documents": 1,
        "in_dictionary": 3,
        "accepted": 3,
        "high": 2,
    }


def test_every_group_is_there_and_a_mention_counts_in_each_of_its_groups():
    types = [["T047", "T121"], ["T047", "T046"], ["T121"], [], ["unheard of"]]
    groups = group_slices(make_outcomes(5, types=types), HIERARCHY, **OPTIONS)
    assert {name: part["mentions"] for name, part in groups.items()} == {
        "group:CHEM": 2,
        "group:DISO": 2,
        WITHOUT_TYPE: 2,
    }
    assert groups["group:DISO"]["name"] == "DISO"


def test_without_groups_the_broadest_types_stand_for_them():
    hierarchy = TypeHierarchy([SemanticType("A", "Organ"), SemanticType("B", "Heart", "A")])
    groups = group_slices(make_outcomes(3, types=[["B"], ["A"], ["B"]]), hierarchy, **OPTIONS)
    assert [(name, part["name"], part["mentions"]) for name, part in groups.items()] == [("A", "Organ", 3)]


def test_the_type_that_is_surest_to_be_too_sure_comes_first():
    outcomes = make_outcomes(2000, seed=1)
    drugs = np.array([types == ["T121"] for types in outcomes.types])
    too_sure = make_outcomes(2000, seed=1, score=np.where(drugs, np.sqrt(outcomes.score), outcomes.score))
    types = type_slices(too_sure, HIERARCHY, **OPTIONS)
    assert list(types) == ["T121", "T047"]
    assert types["T121"]["excess_error"]["low"] > 0.05 and types["T121"]["debiased_ece"]["value"] > 0.05
    assert types["T047"]["excess_error"]["low"] < 0 < types["T047"]["excess_error"]["high"]


def test_a_type_without_candidates_comes_last():
    outcomes = make_outcomes(400, types=[["T121"] if row % 2 else ["T047"] for row in range(400)])
    untold = make_outcomes(400, types=outcomes.types, score=np.where(np.arange(400) % 2, 0.3, np.nan))
    types = type_slices(untold, HIERARCHY, **OPTIONS)
    assert list(types) == ["T121", "T047"] and whisker(types["T047"]["excess_error"]) == ""


def test_types_with_too_few_mentions_are_not_listed():
    few = SMALLEST_SLICE - 1
    outcomes = make_outcomes(200, types=[["T121"] if row < few else ["T047"] for row in range(200)])
    assert list(type_slices(outcomes, HIERARCHY, **OPTIONS)) == ["T047"]
    assert "debiased_ece" not in slice_figures(outcomes.select(np.arange(few)), **OPTIONS)
    enough = make_outcomes(200, types=[["T121"] if row <= few else ["T047"] for row in range(200)])
    drugs = type_slices(enough, HIERARCHY, **OPTIONS)["T121"]
    assert drugs["mentions"] == SMALLEST_SLICE and "debiased_ece" in drugs
