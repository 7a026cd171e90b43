"""Figures of a model's answers, over all mentions and parts of them."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from list_fixtures import ReadsEverything, make_lists
from outcome_fixtures import make_metrics, make_outcomes
from tiny_reranker import HIERARCHY, fit_thresholds

from umls_reranker.calibration.calibrated_model import CalibratedModel
from umls_reranker.calibration.calibration import Calibration
from umls_reranker.calibration.candidate_scores import CandidateScores
from umls_reranker.calibration.decisions import Decisions
from umls_reranker.calibration.fusion import FeatureFusion
from umls_reranker.calibration.ranking import rank_scored
from umls_reranker.calibration.reliability import ece, ratio
from umls_reranker.core.arrays import best_candidates, list_offsets
from umls_reranker.core.errors import UserError
from umls_reranker.evaluation import metrics
from umls_reranker.evaluation.baselines import baselines, free_baselines
from umls_reranker.evaluation.gain_verdict import best_row, verdict_on_gain
from umls_reranker.evaluation.intervals import Documents
from umls_reranker.evaluation.metrics import Figure
from umls_reranker.evaluation.model_report import measure_model
from umls_reranker.evaluation.outcomes import SCHEMA, Outcomes, gold_ranks
from umls_reranker.evaluation.render import card_charts, report_page
from umls_reranker.evaluation.report import measure
from umls_reranker.evaluation.score_figures import coverage_at_precision
from umls_reranker.evaluation.slices import (
    SMALLEST_SLICE,
    WITHOUT_TYPE,
    measure_slices,
    mention_slices,
    worst_groups,
)
from umls_reranker.evaluation.systems import System, at_same_coverage, compare_systems
from umls_reranker.evaluation.tables import as_markdown, as_text, report_tables, systems_table
from umls_reranker.models.cross_encoder import Scores
from umls_reranker.models.pair_template import PairTemplate
from umls_reranker.vocab.types import SemanticType, TypeHierarchy


def measured(outcomes, hierarchy=HIERARCHY, **options):
    slices = mention_slices(outcomes, ["mention"] * len(outcomes), hierarchy, **options)
    return measure_slices(outcomes, Documents.of(outcomes.document, 50), slices)


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


def test_a_type_that_is_a_group_is_in_one_table():
    hierarchy = TypeHierarchy([SemanticType("A", "Organ"), SemanticType("B", "Heart", "A")])
    types = [["B"]] * SMALLEST_SLICE + [["A"]] * SMALLEST_SLICE
    report = make_metrics(make_outcomes(len(types), types=types), hierarchy)
    rows = {
        table.title: [label for (label, _), *_ in table.rows]
        for table in report_tables(report)
        if table.title.startswith("Semantic")
    }
    assert list(rows.values()) == [["Organ"], ["Heart"]]


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
    figures, rows = measured(outcomes, counted=[("Mention", "C0000003")])
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
    small = worst_groups(figures, {"group:CHEM": "CHEM"})["worst_group_acc@1"]
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
        has_tiers=np.ones(3, bool),
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


def test_a_file_of_an_earlier_version_may_have_relations(tmp_path):
    path = tmp_path / "outcomes.parquet"
    outcomes = make_outcomes(3)
    outcomes.save(path)
    table = pq.read_table(path)
    pq.write_table(table.append_column("relation", pa.array(["", "parent", None])), path)
    assert_equal(Outcomes.load(path), outcomes)


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


def test_a_share_is_told_and_not_guessed_from_its_function():
    """A difference of 0 in a few documents is a difference of 0."""
    columns = [np.zeros(5), np.ones(5)]
    difference = Documents.of(range(5), resamples=50).measure(columns, is_share=False)
    assert (difference["low"], difference["high"]) == (0.0, 0.0)
    other_ratio = Documents.of(range(5), resamples=50).measure(columns, lambda sums: ratio(sums))
    assert other_ratio["high"] == pytest.approx(1 - 0.025 ** (1 / 5))


def test_one_document_has_no_interval():
    found = share_of(np.arange(40) > 0, ["d"] * 40)
    assert found["value"] == 0.975 and np.isnan([found["low"], found["high"]]).all()
    found = share_of([1, 0], list("ab"))
    assert (found["low"], found["high"]) == (0.0, 1.0)


# Systems on the same lists, and whether one is better than the order of the lists


# Eight mentions of four documents. The order is correct for 0, 1 and 6; the model for 0, 2, 3, 4
# and 6.
DOCUMENTS = Documents.of(list("aabbccdd"), 400, 1)
ORDER = np.array([0, 0, 1, 2, 1, -1, 0, 3])
MODEL = np.array([0, 1, 0, 0, 0, -1, 0, 3])
P = np.array([0.9, 0.6, 0.8, 0.7, 0.9, np.nan, 0.8, 0.2])
ACCEPTED = np.array([True, True, True, False, True, False, False, False])
SYSTEMS = {"lists_order": System(ORDER), "reranker": System(MODEL, P, ACCEPTED)}


def values(figures, system):
    prefix = f"systems/{system}/"
    return {
        key.removeprefix(prefix): entry["value"]
        for key, entry in figures.items()
        if key.startswith(prefix)
    }


def test_figures_of_systems_by_hand():
    known = np.arange(8) != 5
    figures = compare_systems(SYSTEMS, DOCUMENTS, known)
    has = ~np.isnan(P)
    assert values(figures, "lists_order") == pytest.approx(
        {
            "acc@1": 3 / 8,
            "acc@1_in_dictionary": 3 / 7,
            "mrr": sum(1 / rank for rank in (1, 1, 1, 2, 3, 2, 4)) / 8,
            "recall@5": 7 / 8,
            "recall": 7 / 8,
        }
    )
    model = values(figures, "reranker")
    assert (model["acc@1"], model["gain"], model["accepted_coverage"]) == (5 / 8, 2 / 8, 4 / 8)
    assert model["accepted_precision"] == 3 / 4 and model["coverage_at_0.95"] == 5 / 8
    assert model["top1_ece"] == pytest.approx(ece(P[has], (MODEL == 0)[has]))
    assert figures["systems/reranker/accepted_precision"]["n"] == 4


def test_the_difference_is_paired_and_of_the_same_resamples():
    gain = compare_systems(SYSTEMS, DOCUMENTS)["systems/reranker/gain"]
    # By document: 0, +2, +1 and 0, minus the mention that only the order has right.
    draws = np.random.default_rng(1).multinomial(4, np.full(4, 0.25), size=400)
    expected = np.quantile(draws @ np.array([-1, 2, 1, 0]) / 8, [0.025, 0.975])
    assert [gain["low"], gain["high"]] == pytest.approx(expected.tolist())


def test_nothing_accepted_and_no_candidates():
    nothing = System(np.full(8, -1), np.full(8, np.nan), np.zeros(8, bool))
    figures = compare_systems({"lists_order": System(ORDER), "empty": nothing}, DOCUMENTS)
    empty = values(figures, "empty")
    assert (
        empty["accepted_coverage"] == 0.0
        and np.isnan(empty["accepted_precision"])
        and "top1_ece" not in empty
    )
    assert "–" in as_text(systems_table(figures))


def test_a_system_with_one_answer_or_none_has_no_ranking():
    system = System.answering(["C1", None, "C2"], [("C0", "C1"), ("C1",), ("C1",)])
    composite = np.array([True, False, False])
    figures = compare_systems(
        {"lists_order": system}, Documents.of(list("abc"), 50), None, composite
    )
    assert "acc@1 (strict)" in systems_table(figures).header
    assert values(figures, "lists_order") == pytest.approx(
        {
            "acc@1": 1 / 3,
            "accepted_coverage": 2 / 3,
            "accepted_precision": 1 / 2,
            "acc@1_in_dictionary": 1 / 3,
        }
        | {"acc@1_strict": 0.0}
    )


def test_baselines_by_hand():
    names = {"C1": "common cold", "C2": "COLD", "C3": "FEVER", "C4": "ague"}
    items = [
        [{"name": names[cui], "cui": cui} for cui in cuis]
        for cuis in (("C1", "C2"), ("C3",), (), ("C4", "C3"))
    ]
    gold = ["C2", "C3", "C5", "C4"]
    lists = make_lists(["Cold", "fever", "ague", "chill"], items, gold=[1, 0, -1, 0], cuis=gold)
    # Of equally frequent concepts the smaller.
    known = [("cold", "C2"), ("COLD", "C2"), ("cold", "C9"), ("fever", "C8"), ("fever", "C7")]
    systems = baselines(lists, known)
    answered = {
        name: (system.accepted.tolist(), system.ranks.tolist()) for name, system in systems.items()
    }
    assert answered == {
        "exact_match": ([True, True, False, False], [0, 0, -1, -1]),
        "most_frequent_cui": ([True, True, False, False], [0, -1, -1, -1]),
        "most_frequent_cui_else_order": ([True, True, False, True], [0, -1, -1, 0]),
    }
    # Of unknown strings nothing is known but the order.
    for known in ([], [("rash", "C9")]):
        assert list(baselines(lists, known)) == ["exact_match"]


@pytest.mark.parametrize(
    ("figures", "word", "rest"),
    [
        ((0.08, 0.046, 0.117), "gain", "+8.0 points over the original order (4.6 to 11.7)"),
        (
            (-0.052, -0.081, -0.0201),
            "loss",
            "-5.2 points against the original order (-8.1 to -2.0)",
        ),
        # The lower end is 2 points below 1.2: (2 / 1.2)^2 = 2.78 times as many, 1.78 times 300
        # more.
        ((0.012, -0.008, 0.031), "inconclusive", "label about 530 more"),
        # The end towards 0 counts, here the upper one: (3.5 / 2)^2.
        ((-0.02, -0.04, 0.015), "inconclusive", "label about 620 more"),
        # A skewed interval that just touches 0: half of its width counts, (1.5 / 1.2)^2 = 1.56.
        ((-0.012, -0.03, 0.0), "inconclusive", "label about 170 more"),
        # (2.2 / 0.2)^2 is 121 times as many.
        ((0.002, -0.02, 0.024), "inconclusive", "about equal"),
    ],
)
def test_verdicts(figures, word, rest):
    found = verdict_on_gain(dict(zip(("value", "low", "high"), figures, strict=True)), 300, 150)
    assert found.startswith(f"{word}: ") and rest in found


@pytest.mark.parametrize("documents", [8, 1])
def test_the_interval_of_few_documents_decides_nothing(documents):
    ends = (0.05, 0.11) if documents > 1 else (np.nan, np.nan)
    found = verdict_on_gain({"value": 0.08, "low": ends[0], "high": ends[1]}, 300, documents)
    assert (
        found.startswith("inconclusive: +8.0 points over the original order")
        and "label at least 20" in found
    )


def test_the_row_that_is_better_than_this_model_is_named():
    names = {"lists_order": "original order", "model_before": "model before", "reranker": "this"}
    values = {"lists_order": 0.5, "model_before": 0.54, "reranker": 0.528}
    figures = {f"systems/{name}/acc@1": {"value": value} for name, value in values.items()}
    metrics = {"figures": figures, "rows": {"systems": names}}
    assert best_row(metrics) == "; the highest acc@1 is that of model before: 54.0%, here 52.8%"
    figures["systems/reranker/acc@1"]["value"] = 0.54
    assert best_row(metrics) == ""


# The report of a model: the content of metrics.json


def test_of_a_model_that_uses_no_cross_encoder_nothing_is_told_of_one():
    lists = make_lists(["m", "n", "o"], [["a", "b"], ["a", "c"], ["d"]], gold=[0, 1, -1])
    logits = np.array([1, -1, 0.5, 2, -3], np.float32)
    decided = rank_scored(lists, Scores(logits, 0), Calibration())
    documents = Documents.of(lists.annotations.documents, 20)
    systems = {"lists_order": System(lists.annotations.gold)}
    rest = (systems, documents, "lists")
    with_cross_encoder, _ = measure(lists, decided, logits, *rest)
    without, _ = measure(lists, decided, np.full_like(logits, np.nan), *rest)
    of_cross_encoder = with_cross_encoder["figures"].keys() - without["figures"].keys()
    assert of_cross_encoder == {
        name for name in with_cross_encoder["figures"] if name.endswith("_raw")
    } | {"ece_reduction"}
    for report, is_drawn in ((without, False), (with_cross_encoder, True)):
        assert ("raw" in report["curves"]["reliability"]) == is_drawn
        assert ("before calibration" in card_charts(report, 0.95)[0]) == is_drawn
    assert (without["not_in_list"], without["candidates"]) == (1, 5)


def test_every_list_is_scored_once_and_what_pruning_changes_is_told():
    class Scorer:
        template = PairTemplate()
        encoder = ReadsEverything()
        scored = 0

        def score(self, mentions, *rest):
            self.scored += len(mentions)
            return Scores(np.ones(len(mentions), np.float32), 0)

    lists = make_lists(["m", "n"], [["a", "b"], ["c"]], gold=[0, 0])
    systems = {"lists_order": System(lists.annotations.gold)}
    documents = Documents.of(lists.annotations.documents, 20)
    scorer = Scorer()
    metrics, outcomes = measure_model(scorer, Calibration(), lists, systems, documents, "test")
    assert scorer.scored == 3 and len(outcomes) == 2
    assert list(metrics["rows"]["systems"]) == ["lists_order", "cross_encoder", "reranker"]
    for name in ("scored_share", "same_top_candidate"):
        assert metrics["figures"][name]["value"] == 1.0


def test_only_lists_that_are_drawn_are_scored_whole():
    class Scorer:
        template = PairTemplate()
        encoder = ReadsEverything()
        scored = 0

        def score(self, mentions, names, *rest):
            self.scored += len(mentions)
            return Scores(np.array([3.0 if name == "gold" else -3.0 for name in names]), 0)

    count = 40
    names = ["gold", "near", *(f"far {number}" for number in range(8))]
    scores = [5.0, 5.0, *[-9.0] * 8]
    candidates = [
        {"name": name, "cui": name, "retrieval_score": score}
        for name, score in zip(names, scores, strict=True)
    ]
    items = [candidates] * count
    lists = make_lists([f"m{row}" for row in range(count)], items, gold=[0] * count)
    by_score = FeatureFusion({"retrieval": 1.0}, {}, 0.0)
    by_both = FeatureFusion({"retrieval": 1.0, "cross_encoder": 1.0}, {}, 0.0)
    calibration = Calibration([CalibratedModel(fusion=by_both, list_fusion=by_score)])
    systems = {"lists_order": System(lists.annotations.gold)}
    documents = Documents.of(lists.annotations.documents, 20)

    def figures(scorer, **options):
        return measure_model(scorer, calibration, lists, systems, documents, "test", **options)[0][
            "figures"
        ]

    whole, drawn = Scorer(), Scorer()
    every = figures(whole)
    some = figures(drawn, whole_lists=4)
    # Of a list that is not drawn, only the two likely candidates are scored.
    assert (whole.scored, drawn.scored) == (10 * count, 10 * 4 + 2 * (count - 4))
    assert some["acc@1"] == every["acc@1"]
    assert some["systems/cross_encoder/acc@1"]["n"] == some["ece_raw"]["n"] == 4
    assert every["systems/cross_encoder/acc@1"]["n"] == every["ece_raw"]["n"] == count


def test_labels_of_other_documents_answer_before_exact_names():
    items = [[{"name": "cold", "cui": "C1"}, {"name": "flu", "cui": "C2"}]] * 3
    items.append([{"name": "cold", "cui": "C1"}, {"name": "cold", "cui": "C3"}])
    lists = make_lists(["cold"] * 4, items, gold=[1, 1, 0, 0], cuis=["C2", "C2", "C1", "C1"])
    # The last names two concepts; two labels of other folds say C2, and its own does not count.
    found = free_baselines(lists, np.array([0, 1, 2, 3]))
    assert {name: system.accepted.tolist() for name, system in found.items()} == {
        "label_else_exact_match": [True] * 4,
        "exact_match": [True, True, True, False],
    }
    assert found["label_else_exact_match"].ranks.tolist() == [-1, -1, -1, -1]
    assert found["exact_match"].ranks.tolist() == [-1, -1, 0, -1]
    # Without labels in other folds there is one baseline.
    assert list(free_baselines(lists, np.zeros(4, int))) == ["exact_match"]


def test_a_model_is_compared_where_a_baseline_answers():
    outcomes = make_outcomes(4, rank=np.array([0, 0, -1, -1]), score=np.array([0.9, 0.8, 0.2, 0.1]))
    system = System(np.array([-1, -1, -1, 0]), accepted=np.array([False, True, False, True]))
    found = at_same_coverage(outcomes, system, Documents.of(["d1", "d2", "d3", "d4"]))
    # Of two answers each, the model's surest are correct.
    figures = {name: found[name] for name in ("value", "model", "system", "coverage", "n")}
    assert figures == {"value": 0.5, "model": 1.0, "system": 0.5, "coverage": 0.5, "n": 2}
