"""Figures of a model's answers, over all mentions and parts of them."""

import re
from dataclasses import replace

import numpy as np
import pytest
from list_fixtures import make_lists
from outcome_fixtures import make_metrics, make_outcomes
from tiny_reranker import HIERARCHY, fit_thresholds

from umls_reranker.calibration.decisions import CandidateScores, Decisions
from umls_reranker.core.arrays import best_candidates, list_offsets
from umls_reranker.core.errors import UserError
from umls_reranker.evaluation import metrics
from umls_reranker.evaluation.metrics import (
    SCHEMA,
    SMALLEST_SLICE,
    WITHOUT_TYPE,
    Documents,
    Figure,
    Outcomes,
    coverage_at_precision,
    gold_ranks,
)
from umls_reranker.evaluation.render import as_markdown, report_page, report_tables
from umls_reranker.vocab.types import SemanticType, TypeHierarchy


def measured(outcomes, hierarchy=HIERARCHY, **options):
    slices = metrics.mention_slices(outcomes, ["mention"] * len(outcomes), hierarchy, **options)
    return metrics.measure_slices(outcomes, Documents.of(outcomes.document, 50), slices)


def test_figures_by_hand():
    outcomes = make_outcomes(
        4,
        rank=np.array([0, 0, 2, -1]),
        in_dictionary=np.array([True, True, True, False]),
        score=np.array([0.9, 0.8, 0.5, np.nan]),
        margin=np.array([0.5, 0.4, 0.0, np.nan]),
        tier=np.array(["high", "high", "medium", "reject"]),
        accepted=np.array([True, True, True, False]),
    )
    figures = metrics.measure_figures(outcomes, Documents.of(outcomes.document, 50))
    assert {name: entry["value"] for name, entry in figures.items()} == pytest.approx(
        {
            "acc@1": 0.5,
            "acc@1_in_dictionary": 2 / 3,
            "accepted_coverage": 0.75,
            "accepted_precision": 2 / 3,
            "high_confidence_coverage": 0.5,
            "high_confidence_precision": 1.0,
            "correct_answers_f1": 2 / 3,
            "abstaining_recall": 1.0,
            "without_candidates_share": 0.25,
            "mean_top_score": 2.2 / 3,
            "mean_margin": 0.3,
            # The scores predict 3 - 2.2 errors among the three answers; there was one.
            "overconfidence": (2.2 - 2) / 3,
            "brier_of_top": (0.01 + 0.04 + 0.25) / 4,
        }
    )
    assert figures["high_confidence_precision"]["n"] == 2
    known = figures["acc@1_in_dictionary"]
    assert (known["n"], known["population"]) == (3, "mentions with gold in the dictionary")


def test_parents_and_children_are_told_from_other_errors():
    outcomes = make_outcomes(
        5,
        rank=np.array([0, -1, -1, -1, 0]),
        relation=np.array(["", "parent", "child", "other", ""], object),
        tier=np.array(["high", "medium", "high", "medium", "low"]),
    )
    figures = metrics.measure_figures(outcomes, Documents.of(outcomes.document, 50))
    names = ("parent_answers", "child_answers")
    assert [figures[name]["value"] for name in names] == pytest.approx([0.2, 0.2])
    of_slices, _ = measured(outcomes)
    assert of_slices["tiers/high/child_answers"]["value"] == 0.5
    without = metrics.measure_figures(make_outcomes(5), Documents.of(["d"] * 5, 50))
    assert without.keys().isdisjoint(names)


def test_a_model_that_never_answers_has_no_precision():
    outcomes = make_outcomes(20, accepted=np.zeros(20, bool))
    figures = metrics.measure_figures(outcomes, Documents.of(outcomes.document, 50))
    assert (
        np.isnan(figures["accepted_precision"]["value"])
        and figures["abstaining_recall"]["value"] == 1.0
    )


def test_every_group_is_there_and_a_mention_counts_in_each_of_its_groups():
    types = [["T047", "T121"], ["T047", "T046"], ["T121"], [], ["unheard of"]]
    figures, rows = measured(make_outcomes(5, types=types))
    assert rows["groups"] == {
        "group:CHEM": "CHEM",
        "group:DISO": "DISO",
        WITHOUT_TYPE: WITHOUT_TYPE,
    }
    assert [figures[f"groups/{group}/acc@1"]["n"] for group in rows["groups"]] == [2, 2, 2]


def test_without_groups_the_broadest_types_stand_for_them():
    hierarchy = TypeHierarchy([SemanticType("A", "Organ"), SemanticType("B", "Heart", "A")])
    figures, rows = measured(make_outcomes(3, types=[["B"], ["A"], ["B"]]), hierarchy)
    assert rows["groups"] == {"A": "Organ"} and figures["groups/A/acc@1"]["n"] == 3


def test_the_type_that_is_surest_to_be_overconfident_comes_first():
    outcomes = make_outcomes(2000, seed=1)
    drugs = np.array([types == ["T121"] for types in outcomes.types])
    figures, rows = measured(
        make_outcomes(2000, seed=1, score=np.where(drugs, np.sqrt(outcomes.score), outcomes.score))
    )
    assert list(rows["types"]) == ["T121", "T047"]
    assert figures["types/T121/overconfidence"]["low"] > 0.05
    assert figures["types/T121/top1_debiased_ece"]["value"] > 0.05
    assert (
        figures["types/T047/overconfidence"]["low"]
        < 0
        < figures["types/T047/overconfidence"]["high"]
    )


@pytest.mark.parametrize(
    ("count", "listed"), [(SMALLEST_SLICE - 1, ["T047"]), (SMALLEST_SLICE, ["T121", "T047"])]
)
def test_types_with_too_few_mentions_are_not_listed(count, listed):
    figures, rows = measured(
        make_outcomes(200, types=[["T121"] if row < count else ["T047"] for row in range(200)])
    )
    assert {*rows["types"]} == {*listed}
    assert ("groups/group:CHEM/top1_debiased_ece" in figures) == ("T121" in listed)


def test_tiers_and_what_was_seen_in_training_are_parts():
    gold = np.array([f"C9999999|C{row:07d}" for row in range(40)])
    outcomes = make_outcomes(40, types=[[]] * 40, gold=gold)
    figures, rows = measured(outcomes, known=[("Mention", "C0000003")])
    assert list(rows) == ["tiers", "subsets"] and list(rows["subsets"]) == [
        "seen_string",
        "seen_cui",
        "unseen_cui",
    ]
    assert (
        figures["subsets/seen_cui/acc@1"]["n"] == 1
        and figures["subsets/seen_string/acc@1"]["n"] == 40
    )
    is_medium = outcomes.tier == "medium"
    assert figures["tiers/medium/acc@1"]["value"] == pytest.approx(
        outcomes.correct[is_medium].mean()
    )
    assert figures["tiers/medium/coverage"]["value"] == pytest.approx(is_medium.mean())


def test_the_worst_group_counts_only_with_enough_mentions():
    figures = make_metrics(make_outcomes(2000), HIERARCHY)["figures"]
    worst = figures["worst_group_top1_debiased_ece"]
    assert (worst["n"], worst["population"]) == (1500, "mentions of DISO")
    small = metrics.worst_groups(figures, {"group:CHEM": "CHEM"})["worst_group_acc@1"]
    assert np.isnan(small["value"]) and small["n"] == 0


def test_a_figure_of_ones_own_is_in_all_tables():
    """Declared here and registered, it needs nothing else."""
    surprise = Figure(
        "surprise_share",
        "share of surprises",
        lambda outcomes: ((outcomes.score_or_0 < 0.5) & outcomes.correct, outcomes.has_candidates),
        population="with candidates",
        in_slices=True,
    )
    metrics.register(surprise)
    try:
        outcomes = make_outcomes(400)
        report = make_metrics(outcomes, HIERARCHY)
        figure = report["figures"]["surprise_share"]
        assert figure["value"] == pytest.approx((outcomes.correct & (outcomes.score < 0.5)).mean())
        assert (figure["n"], figure["population"]) == (400, "mentions with candidates")
        row = (
            rf"share of surprises +\| {100 * figure['value']:.1f}\u00a0% \(.*\| 400 test mentions "
            r"with candidates"
        )
        assert re.search(row, as_markdown(report_tables(report)[-1]))
        page = report_page(report, "run", fit_thresholds())
        assert page.count('<th scope="col">share of surprises</th>') == 3
    finally:
        metrics.FIGURES.remove(surprise)


def assert_equal(left, right):
    for field in SCHEMA:
        a = getattr(left, field.name)
        b = getattr(right, field.name)
        if field.name == "types":
            assert [list(types) for types in a] == [list(types) for types in b]
        else:
            np.testing.assert_array_equal(a, b)


def test_outcomes_are_the_decisions_about_top_candidates():
    # The second candidate comes first; nothing is retrieved; and two probabilities of 1 hide which
    # is better.
    items = [[{"name": name, "cui": f"C{name}"} for name in names] for names in ("ab", "", "cd")]
    given = make_lists(
        ["x", "y", "z"], items, ["T047", None, "T121"], gold=[0, -1, 1], documents=["d", "d", "e"]
    )
    given = replace(given, parents={("C1", "Cb")})
    decided = Decisions(
        offsets=given.offsets,
        concepts=given.concepts,
        models=np.zeros(3, int),
        complete=np.ones(3, bool),
        missing={},
        scores=CandidateScores(
            np.zeros(4, np.float32),
            np.array([-1.0, 1.0, 40.0, 41.0]),
            np.array([0.25, 0.75, 1.0, 1.0]),
            np.full(4, np.nan),
        ),
        edges=np.array([[0.5, 0.6, 0.9]] * 3),
        accept_tier="high",
    )
    found = Outcomes.of(given, decided)
    np.testing.assert_array_equal(found.score, [0.75, np.nan, 1.0])
    np.testing.assert_array_equal(found.margin, [0.5, np.nan, 0.0])
    assert found.answer.tolist() == ["Cb", "", "Cd"] and found.rank.tolist() == [1, -1, 0]
    assert found.tier.tolist() == ["medium", "reject", "high"] and found.accepted.tolist() == [
        False,
        False,
        True,
    ]
    assert found.relation.tolist() == ["parent", "", ""]
    assert found.document.tolist() == ["d", "d", "e"] and list(found.types) == [
        ("T047",),
        (),
        ("T121",),
    ]


def test_what_is_saved_comes_back(tmp_path):
    outcomes = make_outcomes(
        5, score=np.array([0.1, np.nan, 0.3, 1.0, 0.0]), types=[["T047", "T121"], [], *[["T1"]] * 3]
    )
    outcomes.save(tmp_path / "outcomes.parquet")
    assert_equal(Outcomes.load(tmp_path / "outcomes.parquet"), outcomes)
    assert [path.name for path in tmp_path.iterdir()] == ["outcomes.parquet"]


def test_the_file_holds_no_text_of_a_vocabulary():
    assert set(SCHEMA.names).isdisjoint({"mention", "name", "left", "right"})


def test_files_that_cannot_be_read(tmp_path):
    path = tmp_path / "outcomes.parquet"
    path.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(UserError, match=r"outcomes\.parquet"):
        Outcomes.load(path)


# Four mentions with 3, 0, 1 and 2 candidates.
OFFSETS = list_offsets([3, 0, 1, 2])
SCORES = np.array([0.1, 2.0, 1.0, -3.0, 0.5, 0.5])


def test_the_first_of_short_lists_and_ties():
    np.testing.assert_array_equal(best_candidates(SCORES, OFFSETS), [1, -1, 3, 4])


def test_gold_ranks():
    for correct, ranks in (
        ([1, 0, 0, 1, 0, 1], [2, -1, 0, 1]),
        ([0, 1, 1, 0, 1, 1], [0, -1, -1, 0]),
    ):
        np.testing.assert_array_equal(gold_ranks(SCORES, OFFSETS, np.array(correct, bool)), ranks)


def coverage(score, correct, precision):
    documents = Documents.of(range(len(score)), 1)
    return coverage_at_precision(score, correct, precision, documents)["value"]


def test_coverage_at_precision_by_hand():
    score = [0.9, 0.8, 0.7, 0.6, 0.5]
    correct = [1, 1, 0, 1, 0]
    assert coverage(score, correct, 1.0) == 0.4
    assert coverage(score, correct, 0.75) == 0.8
    assert coverage(score, correct, 0.9) == 0.4
    assert coverage(score, [0, 0, 0, 0, 1], 0.5) == 0.0
    # 0.55 * 100 is more than 55 by a rounding error.
    assert coverage(-np.arange(100), np.arange(100) < 55, 0.55) == 1.0


def test_coverage_takes_ties_together_and_skips_missing_answers():
    assert coverage([0.9, 0.9, 0.1], [1, 0, 0], 1.0) == 0.0
    assert coverage([0.9, -np.inf, np.nan, -np.inf], [1, 1, 1, 1], 0.5) == 0.25
    assert coverage([0.9, np.nan], [1, 1], 0.5) == 0.5


def test_coverage_interval_agrees_with_resampling_by_hand():
    rng = np.random.default_rng(1)
    documents = np.repeat(np.arange(12), rng.integers(1, 9, 12))
    score = rng.random(len(documents))
    correct = rng.random(len(documents)) < (score + documents / 12) / 2
    found = coverage_at_precision(score, correct, 0.7, Documents.of(documents, 100, 3))
    rng = np.random.default_rng(3)
    draws = []
    for _ in range(100):
        rows = np.repeat(np.arange(len(score)), rng.multinomial(12, np.full(12, 1 / 12))[documents])
        draws.append(coverage(score[rows], correct[rows], 0.7))
    assert [found["low"], found["high"]] == pytest.approx(np.quantile(draws, [0.025, 0.975]))


def share_of(correct, documents):
    return Documents.of(documents, resamples=50).measure(
        [np.asarray(correct), np.ones(len(correct))]
    )


def test_no_error_in_a_few_documents_is_no_certainty():
    few = share_of(np.ones(5), np.arange(5))
    many = share_of(np.ones(200), np.arange(200))
    none = share_of([0] * 5, range(5))
    assert few == {"value": 1.0, "low": pytest.approx(0.025 ** (1 / 5)), "high": 1.0, "n": 5}
    assert many["low"] == pytest.approx(0.025 ** (1 / 200))
    assert (none["low"], none["high"]) == (0.0, pytest.approx(1 - 0.025 ** (1 / 5)))


def test_one_document_has_no_interval():
    found = share_of(np.arange(40) > 0, ["d"] * 40)
    assert found["value"] == 0.975 and np.isnan([found["low"], found["high"]]).all()
    found = share_of([1, 0], list("ab"))
    assert (found["low"], found["high"]) == (0.0, 1.0)
