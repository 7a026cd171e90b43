"""Counts of the training split, the evidence made of them, and the calibration that weighs it."""

from dataclasses import replace

import numpy as np
import pytest

from umls_reranker.calibration.calibrators import (
    BetaCalibrator,
    HierarchicalBetaCalibrator,
    PlattCalibrator,
    TypeLine,
)
from umls_reranker.calibration.evidence import Calibration, ScoredLists, fit_fusions, type_fits
from umls_reranker.calibration.fusion import EvidenceFusion
from umls_reranker.calibration.inputs import ScoreRange, given_inputs
from umls_reranker.calibration.string_counts import StringCounts
from umls_reranker.core.errors import UserError
from umls_reranker.data.semantic_types import TypeHierarchy

TRAINING = [
    ("cold", "C1", ["T1"]),
    ("Cold", "C1", ["T1"]),
    ("cold", "C2", ["T2"]),
    ("heat-stroke", "C3", ["T1", "T3"]),
    ("flu", "C1", ["UnknownType"]),
]


@pytest.fixture
def counts() -> StringCounts:
    return StringCounts.fit(TRAINING)


def lists(retrieval=None, cuis=("C1", "C2", None), types=None, fits=None) -> ScoredLists:
    return ScoredLists(
        logits=np.array([1.0, 0.5, 0.0]),
        mentions=["COLD", "never seen"],
        names=["Common Cold", "cold", "anything"],
        cuis=list(cuis),
        offsets=np.array([0, 2, 3]),
        retrieval=retrieval or {},
        types=types,
        fits=fits,
    )


def test_counts_by_hand(counts):
    assert len(counts) == 3
    assert counts.of_strings(["cold!", "heat stroke", "unseen"]).tolist() == [3, 1, 0]
    assert counts.of_concepts(["C1", "C9", None, "C2"]).tolist() == [3, 0, 0, 1]
    assert counts.of_uses(["cold", "flu"], ["C1", "C2", "C1", None], np.array([0, 0, 1, 1])).tolist() == [2, 1, 1, 0]


def test_counts_round_trip(counts, tmp_path):
    counts.save(tmp_path / "counts.safetensors")
    again = StringCounts.load(tmp_path / "counts.safetensors")
    assert again.of_strings(["cold"]).tolist() == [3] and len(again) == 3
    assert b"cold" not in (tmp_path / "counts.safetensors").read_bytes()


def test_counts_do_not_depend_on_the_order_of_the_training_split(counts, tmp_path):
    counts.save(tmp_path / "a")
    StringCounts.fit(reversed(TRAINING)).save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_damaged_counts_are_refused(tmp_path):
    (tmp_path / "counts").write_bytes(b"nothing")
    for name in ("counts", "missing"):
        with pytest.raises(UserError, match="missing or damaged"):
            StringCounts.load(tmp_path / name)


def test_no_training_mentions_are_no_counts():
    assert StringCounts.fit([]).of_strings(["cold"]).tolist() == [0]


def test_evidence_by_hand(counts):
    candidates, about = lists().evidence(counts)
    assert candidates["exact_name"].tolist() == [0, 1, 0]
    np.testing.assert_allclose(candidates["string_share"], np.log([2.1 / 4, 1.1 / 4, 0.1 / 1]))
    np.testing.assert_allclose(candidates["concept_count"], np.log1p([3, 1, 0]))
    np.testing.assert_allclose(about["string_count"], np.log1p([3, 0]))
    assert list(about) == ["string_count", "seen_string"]


def test_type_lifts_by_hand(counts):
    # Of five typed uses in training three are of T1; C1 had it two of two times, C2 never.
    found = lists(types=["T1", ["T9"]]).evidence(counts)[0]["type_lift"]
    np.testing.assert_allclose(found, [np.log((2 + 2 * 0.6) / ((2 + 2) * 0.6)), np.log(2 * 0.6 / ((1 + 2) * 0.6)), 0])
    both = counts.type_lifts([["T1", "T3"], ["T1"]], ["C3", "C3"], np.array([0, 1]))
    np.testing.assert_allclose(
        both, [np.log((2 + 2 * 0.8) / ((2 + 2) * 0.8)), np.log((1 + 2 * 0.6) / ((2 + 2) * 0.6))]
    )


def test_mentions_without_types_have_no_type_lift(counts):
    for types in (None, [None, []], [["UnknownType"], []]):
        assert np.isnan(lists(types=types).evidence(counts)[0]["type_lift"]).all()


def test_lists_without_types_are_scored_without_them(counts):
    rich = EvidenceFusion({"cross_encoder": 1.0, "type_lift": 3.0}, {"string_count": 0.0}, 0.0)
    poor = EvidenceFusion({"cross_encoder": 1.0}, {"string_count": 0.0}, 0.0)
    fused = Calibration([rich, poor], counts)
    typed, without = fused(lists(types=[["T1"], None])), fused(lists())
    assert typed.complete.tolist() == [True, False] and not without.complete.any()
    assert typed.log_odds[0] == 1.0 + 3.0 * np.log(3.2 / 2.4)
    assert typed.log_odds[2] == 0.0 and without.log_odds.tolist() == [1.0, 0.5, 0.0]


def test_type_fits_by_hand():
    # A disease is a kind of biologic function, a drug is not; one agreeing pair is enough, no type contradicts none.
    types = [["T038"], ["UnknownType"], "Disease or Syndrome", None]
    candidates = [["T047"], ["T121"], ["T121", "T047"], [], None, ["T047"], ["T121"], ["T038"], ["T047"]]
    found = type_fits(TypeHierarchy.built_in(), types, candidates, np.array([0, 0, 0, 0, 0, 1, 2, 2, 3]))
    np.testing.assert_array_equal(found, [1, 0, 1, 1, np.nan, np.nan, 0, 1, np.nan])


def test_candidates_without_types_are_scored_without_fit(counts):
    rich = EvidenceFusion({"cross_encoder": 1.0, "type_fit": 3.0}, {"string_count": 0.0}, 0.0)
    poor = EvidenceFusion({"cross_encoder": 1.0}, {"string_count": 0.0}, 0.0)
    fused, types = Calibration([rich, poor], counts), [["T1"], ["T1"]]
    typed = fused(lists(types=types, fits=np.array([0.0, 1.0, np.nan])))
    assert typed.complete.tolist() == [True, False] and typed.log_odds.tolist() == [1.0, 3.5, 0.0]
    assert fused(lists(types=types)).log_odds.tolist() == [1.0, 0.5, 0.0]


def calibration(counts) -> Calibration:
    poor = EvidenceFusion({"cross_encoder": 1.0}, {"string_count": 0.0}, 0.0)
    rich = EvidenceFusion({"cross_encoder": 1.0, "retrieval": 5.0}, {"string_count": 0.0}, 0.0)
    bare = EvidenceFusion({"retrieval": 5.0}, {"string_count": 0.0}, 0.0)
    platt, ranges = PlattCalibrator(slope=2.0, intercept=0.0), {"retrieval": ScoreRange(0.0, 1.0)}
    return Calibration([rich, poor], counts, platt, bare, ranges)


def test_lists_without_retrieval_scores_are_scored_without_them(counts):
    scored = lists({"retrieval": np.array([0.1, 0.9, np.nan])})
    found = calibration(counts)(scored)
    assert found.complete.tolist() == [True, False]
    # The calibrator's slope of 2 works on utilities, inside the list.
    utility = np.array([2 * (1.0 + 0.5), 2 * (0.5 + 4.5)])
    expected = np.exp(utility) / (1 + np.exp(utility).sum())
    np.testing.assert_allclose(found.probabilities[:2], expected)
    np.testing.assert_allclose(found.probabilities[2], 0.5)
    none = calibration(counts)(lists())
    assert none.complete.tolist() == [False, False]
    assert none.log_odds.tolist() == [1.0, 0.5, 0.0]


# What a model reads, and who came without


def reading(*reads, lacking=()) -> ScoredLists:
    """Two whole lists, of which the second lacks some of what a template reads."""
    given = {name: np.array([True, name not in lacking]) for name in ("preferred_name", "definition", "context")}
    return replace(lists(types=[["T1"], ["T1"]]), reads=reads, given=given)


@pytest.mark.parametrize("name", ["preferred_name", "definition", "context"])
def test_an_input_that_the_template_reads_and_that_is_missing_counts(name):
    for fusions in ([], [EvidenceFusion({"cross_encoder": 1.0}, {}, 0.0)]):
        found = Calibration(fusions, StringCounts.fit(TRAINING))(reading(name, lacking=[name]))
        assert found.complete.tolist() == [True, False]
        assert {key: lacking.tolist() for key, lacking in found.missing.items()} == {name: [False, True]}
        assert Calibration(fusions, StringCounts.fit(TRAINING))(reading(lacking=[name])).complete.all()


@pytest.mark.parametrize(
    ("evidence", "missing"),
    [
        ("string_share", ["cui"]),
        ("concept_count", ["cui"]),
        ("type_lift", ["entity_type", "cui"]),
        ("type_fit", ["entity_type", "semantic_types"]),
        ("retrieval", ["retrieval_score"]),
        ("context", ["context", "context_score"]),
        ("lexical", ["lexical_score"]),
        ("exact_name", []),
    ],
)
def test_what_each_evidence_reads(counts, evidence, missing):
    fused = Calibration([EvidenceFusion({evidence: 1.0}, {}, 0.0)], counts)
    scored = replace(reading(lacking=["context"]), cuis=["C1", "C2", " "])
    found = fused.missing_inputs(scored)
    assert list(found) == missing
    expected = {"cui": [False, True], "context": [False, True], "entity_type": [False, False]}
    for name, lacking in found.items():
        assert lacking.tolist() == expected.get(name, [True, True])
    untyped = fused.missing_inputs(replace(scored, types=None, fits=np.full(3, np.nan)))
    assert untyped.get("entity_type", np.ones(2)).all() and not untyped.get("semantic_types", np.zeros(2)).any()


def test_evidence_without_weight_is_not_read(counts):
    seen = EvidenceFusion({"retrieval": 0.0}, {}, 0.0, seen_weights={"retrieval": 1.0})
    assert list(Calibration([seen], counts).missing_inputs(lists())) == ["retrieval_score"]
    found = Calibration([EvidenceFusion({"retrieval": 0.0, "string_share": 0.0}, {}, 0.0)], counts)(lists())
    assert found.missing == {} and found.complete.all()


def test_a_calibrator_with_lines_of_its_own_for_types_reads_them():
    calibrator = HierarchicalBetaCalibrator()
    assert Calibration(calibrator=calibrator)(lists()).complete.all()
    calibrator.lines["T1"] = TypeLine(1.0, 0.0, 5)
    found = Calibration(calibrator=calibrator)(lists(types=[["T1"], ["UnknownType"]]))
    assert found.complete.tolist() == [True, False]


def test_an_empty_definition_is_given_and_text_on_one_side_is_context():
    known, offsets = np.array([True, False, True]), np.array([0, 2, 3, 3])
    found = given_inputs(~known, known, ["a ", " ", ""], [" ", "b", "\n"], offsets)
    assert {name: column.tolist() for name, column in found.items()} == {
        "preferred_name": [False, False, True],
        "definition": [False, True, True],
        "context": [True, True, False],
    }


@pytest.mark.parametrize("score", [25.1, 1e308, np.inf, -np.inf, np.nan, 1.11, -0.11])
def test_scores_that_calibration_never_saw_count_as_missing(counts, score):
    usual = calibration(counts)(lists({"retrieval": np.array([0.1, 0.9, 1.1])}))
    assert usual.complete.tolist() == [True, True]
    scored = lists({"retrieval": np.array([0.1, 0.9, score])})
    found = calibration(counts)(scored)
    assert found.complete.tolist() == [True, False] and found.missing["retrieval_score"].tolist() == [False, True]
    np.testing.assert_allclose(found.probabilities, [*usual.probabilities[:2], 0.5])
    assert np.isfinite(calibration(counts).without_cross_encoder(scored)).all()


def test_the_range_is_that_of_the_lists_fitted_on(counts, tmp_path):
    scored = lists({"retrieval": np.array([0.1, 0.9, 0.3]), "lexical": np.array([5.0, 2.0, 2.0])})
    fitted = fit_fusions(["cross_encoder", "retrieval"], scored, np.array([1, -1]), counts)
    assert fitted.score_ranges == {"retrieval": (0.1, 0.9)}
    assert fitted.score_ranges["retrieval"].bounds == pytest.approx((0.02, 0.98))
    counts.save(tmp_path / "string_counts.safetensors")
    again = Calibration.load(fitted.to_dict(), tmp_path)
    assert again.score_ranges == fitted.score_ranges


@pytest.mark.parametrize("ranges", [None, {}, {"retrieval": {"low": 1, "high": 0}}, {"retrieval": {"low": "x"}}, [1]])
def test_a_calibration_without_the_range_of_its_scores_is_refused(counts, tmp_path, ranges):
    counts.save(tmp_path / "string_counts.safetensors")
    with pytest.raises(UserError, match=r"score_ranges.* is missing or damaged .*; run umls-reranker calibrate again"):
        Calibration.load(calibration(counts).to_dict() | {"score_ranges": ranges}, tmp_path)


def test_without_fusion_the_logits_decide():
    found = Calibration(calibrator=PlattCalibrator(slope=1.0, intercept=0.0))(lists())
    assert found.log_odds.tolist() == [1.0, 0.5, 0.0] and found.complete.all()
    np.testing.assert_allclose(found.probabilities, 1 / (1 + np.exp(-found.log_odds)))


def test_candidates_of_one_cui_are_one_concept():
    assert lists(cuis=("C1", "C1", "C1")).concepts.tolist() == [0, 0, 1]
    assert lists(cuis=(None, None, None)).concepts.tolist() == [0, 1, 2]


def test_probabilities_of_a_lists_concepts_sum_to_less_than_one_whatever_stands_there_twice(counts):
    sure = EvidenceFusion({"cross_encoder": 9.0}, {"string_count": 0.0}, 0.0)
    once = Calibration([sure], counts)(lists()).probabilities[:2]
    twice = Calibration([sure], counts)(lists(cuis=("C1", "C1", "C9"))).probabilities[:2]
    assert once.sum() < 1 < twice.sum() and twice.max() < 1


@pytest.mark.parametrize("calibrator", [None, BetaCalibrator(0.4, 3.0, 0.5)])
def test_a_name_equal_to_the_mention_never_lowers_a_probability(counts, calibrator):
    """Fitted where mentions with an exact name among their candidates hardly ever have their concept there."""
    rng = np.random.default_rng(5)
    n, size = 400, 3
    exact = rng.random((n, size)) < 0.3
    logits = rng.normal(size=(n, size))
    gold = np.where(exact.any(axis=1) & (rng.random(n) < 0.9), -1, logits.argmax(axis=1))

    def scored(exact):
        names = np.where(exact.ravel(), "Cold", "other").tolist()
        cuis = [f"C{number}" for number in range(n * size)]
        return ScoredLists(logits.ravel(), ["cold"] * n, names, cuis, np.arange(n + 1) * size, {})

    fitted = fit_fusions(["cross_encoder", "exact_name"], scored(exact), gold, counts)
    fused = Calibration(fitted.fusions, counts, calibrator)
    before, after = fused(scored(np.zeros_like(exact))), fused(scored(np.eye(size, dtype=bool)[np.arange(n) % size]))
    gained = (after.probabilities - before.probabilities).reshape(n, size)[np.arange(n), np.arange(n) % size]
    assert gained.min() >= 0


def test_fit_makes_a_fusion_for_all_that_serving_may_lack(counts):
    scored = lists({"retrieval": np.array([0.1, 0.9, 0.3])}, types=[["T1"], None])
    fitted = fit_fusions(["cross_encoder", "retrieval", "type_lift"], scored, np.array([1, -1]), counts)
    assert [list(fusion.weights) for fusion in fitted.fusions] == [
        ["cross_encoder", "retrieval", "type_lift"],
        ["cross_encoder", "retrieval"],
        ["cross_encoder", "type_lift"],
        ["cross_encoder"],
    ]
    fits = np.array([1.0, 0.0, np.nan])
    both = lists({"retrieval": np.array([0.1, 0.9, 0.3])}, types=[["T1"], None], fits=fits)
    rungs = fit_fusions(["retrieval", "type_lift", "type_fit"], both, np.array([1, -1]), counts).fusions
    assert [list(fusion.weights) for fusion in rungs] == [
        ["retrieval", "type_lift", "type_fit"],
        ["retrieval", "type_lift"],
        ["retrieval"],
        ["type_lift", "type_fit"],
        ["type_lift"],
    ]
    assert np.isfinite(fitted.without_cross_encoder(scored)).all()


def test_fit_makes_a_second_fusion_only_where_retrieval_is_weighed(counts):
    scored, gold = lists({"retrieval": np.array([0.1, 0.9, 0.3])}), np.array([1, -1])
    fitted = fit_fusions(["cross_encoder", "retrieval"], scored, gold, counts)
    assert [list(fusion.weights) for fusion in fitted.fusions] == [["cross_encoder", "retrieval"], ["cross_encoder"]]
    assert list(fitted.baseline.weights) == ["retrieval"]
    assert fitted.without_cross_encoder(scored).shape == (3,)
    assert len(fit_fusions(["cross_encoder", "exact_name"], scored, gold, counts).fusions) == 1
    alone = fit_fusions(["retrieval"], scored, gold, counts)
    assert len(alone.fusions) == 1 and alone.baseline is None and alone.without_cross_encoder(scored) is None


def test_unknown_or_missing_evidence_is_refused(counts):
    with pytest.raises(UserError, match="'luck' is unknown"):
        fit_fusions(["luck"], lists(), np.array([1, -1]), counts)
    with pytest.raises(UserError, match="hold no lexical scores"):
        fit_fusions(["lexical"], lists(), np.array([1, -1]), counts)


def test_calibration_round_trip(counts, tmp_path):
    counts.save(tmp_path / "string_counts.safetensors")
    again = Calibration.load(calibration(counts).to_dict(), tmp_path)
    scored = lists({"retrieval": np.array([0.1, 0.9, np.nan])})
    np.testing.assert_array_equal(again(scored).probabilities, calibration(counts)(scored).probabilities)
    assert again.baseline.weights == {"retrieval": 5.0}
