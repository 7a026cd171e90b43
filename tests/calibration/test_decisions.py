"""`rank` by hand: order, margins, tiers and acceptance."""

from dataclasses import replace

import numpy as np
import pytest
from list_fixtures import make_lists
from tiny_reranker import HIERARCHY, fit_thresholds

from umls_reranker.calibration.decisions import DEFAULT, TIERS, ThresholdTable, margins
from umls_reranker.calibration.features import ScoreRange
from umls_reranker.calibration.fusion import FeatureFusion
from umls_reranker.calibration.probabilities import CalibratedModel, Calibration, rank
from umls_reranker.models.cross_encoder import Scores


def decide(probabilities, lists, **options):
    p = np.array(probabilities)
    calibration = Calibration([CalibratedModel(thresholds=fit_thresholds())])
    return rank(lists, lambda *_: Scores(np.log(p / (1 - p)), 3), calibration, **options)


def test_margins_are_to_the_best_other_concept():
    found = margins(
        np.array([0.9, 0.8, 0.5, 0.7, 0.4, 0.4]),
        np.array([1, 1, 2, 9, 5, 6]),
        np.array([0, 3, 3, 4, 6]),
    )
    np.testing.assert_allclose(found, [0.4, 0.3, -0.4, 0.7, 0.0, 0.0])
    assert margins(np.empty(0), np.empty(0, int), np.zeros(3, int)).shape == (0,)


def test_tiers_go_by_the_types_of_the_mention_and_only_the_first_candidate_is_accepted():
    types = ["T047", "T121", None, "T121"]
    p = 0.45
    lists = make_lists(["m"] * 4, [["a", "b"], ["a"], ["a"], []], types, HIERARCHY)
    decided = decide([p - 0.01, p, p, p], lists)
    rows = [fit_thresholds().for_type(kind) for kind in ("T047", "T047", "T121", None)]
    expected = [row.tier(score) for row, score in zip(rows, (p - 0.01, p, p, p), strict=True)]
    assert [TIERS[tier] for tier in decided.tiers] == expected and len(set(expected)) > 1
    assert decided.order.tolist() == [1, 0, 2, 3] and decided.tops.positions.tolist() == [
        1,
        2,
        3,
        -1,
    ]
    assert decided.accepted.tolist() == [
        False,
        p >= rows[1].accept,
        p >= rows[2].accept,
        p >= rows[3].accept,
    ]
    assert decided.truncated == 3


def test_a_mention_without_what_the_model_reads_is_never_high():
    lists = make_lists(["m", "m"], [["a"], ["a"]], ["T047", "T047"], HIERARCHY, lefts=["text", ""])
    decided = decide([0.99, 0.99], lists, cross_encoder_inputs=["context"])
    assert [TIERS[tier] for tier in decided.tiers] == ["high", "medium"]
    assert decided.missing["context"].tolist() == [False, True] and decided.accepted.all()
    strict = decide([0.99, 0.99], lists, cross_encoder_inputs=["context"], accept_tier="high")
    assert strict.accepted.tolist() == [True, False]
    # What is no higher than medium anyway stays so.
    row = fit_thresholds().for_type("T047")
    usual = decide([row.accept + 1e-6] * 2, lists, cross_encoder_inputs=["context"])
    assert row.accept + 1e-6 < row.high and [TIERS[tier] for tier in usual.tiers] == [
        "medium",
        "medium",
    ]


@pytest.mark.parametrize(("high", "tier"), [(0.5, "high"), (0.6, "medium"), (None, "medium")])
def test_a_threshold_belongs_to_the_tier_above_and_without_a_certificate_nothing_is_high(
    high, tier
):
    row = replace(fit_thresholds().for_type(), low=0.25, accept=0.5, high=high)
    calibration = Calibration(
        [CalibratedModel(thresholds=ThresholdTable({DEFAULT: row}, HIERARCHY))]
    )
    lists = make_lists(["m"], [["a", "b"]], hierarchy=HIERARCHY)
    decided = rank(lists, Scores(np.array([0.0, -9.0], np.float32), 0), calibration)
    assert [TIERS[place] for place in decided.tiers] == [tier, "reject"]
    sure = rank(lists, Scores(np.array([40.0, 50.0], np.float32), 0), calibration)
    # By log-odds, also where both probabilities are rounded to 1.
    assert sure.probabilities[0] == sure.probabilities[1] and sure.order.tolist() == [1, 0]


RETRIEVED = [("a", 0.9), ("b", 0.1), ("c", 0.5), ("d", 0.5), ("e", 0.0)]


def retrieved():
    """A mention with five candidates, one with two, and one without any."""
    items = [{"name": name, "retrieval_score": score} for name, score in RETRIEVED]
    return make_lists(["m", "n", "o"], [items, items[3:], []], hierarchy=HIERARCHY)


def with_pruning(has_list_fusion=True):
    fusion = FeatureFusion({"cross_encoder": 1.0, "retrieval": 11.0}, {}, 6.0)
    list_fusion = FeatureFusion({"retrieval": 11.0}, {}, 6.0) if has_list_fusion else None
    model = CalibratedModel(fusion=fusion, list_fusion=list_fusion, thresholds=fit_thresholds())
    return Calibration([model], score_ranges={"retrieval": ScoreRange(0.0, 1.0)})


def logits_of(lists, retained=None):
    return Scores(np.array([ord(name) for name in lists.names], np.float32) / 100, 0)


def assert_same(left, right):
    for name in ("logits", "log_odds", "probabilities"):
        np.testing.assert_array_equal(getattr(left.scores, name), getattr(right.scores, name))
    for name in ("order", "margins", "tiers", "accepted"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))


def test_only_candidates_that_can_win_are_scored_and_each_mention_says_how_many():
    asked = []

    def score(lists, retained):
        asked.append(lists.with_candidates(retained).names.to_list())
        return logits_of(lists)

    lists = retrieved()
    # By the list fusion "b" and "e" have less than 0.003 of five candidates, "e" that of two as
    # well.
    decided = rank(lists, score, with_pruning())
    assert asked == [["a", "c", "d", "d"]] and decided.scored.tolist() == [3, 1, 0]
    assert np.isnan(decided.scores.logits).tolist() == [
        False,
        True,
        False,
        False,
        True,
        False,
        True,
    ]
    known = rank(lists, logits_of(lists), with_pruning())
    assert_same(known, decided)


def test_exhaustive_scoring_is_that_without_pruning():
    lists = retrieved()
    exhaustive = rank(lists, logits_of, with_pruning(), exhaustive=True)
    unpruned = rank(lists, logits_of, with_pruning(has_list_fusion=False))
    assert exhaustive.scored.tolist() == [5, 2, 0]
    assert_same(exhaustive, unpruned)


def test_no_lists_and_no_candidates_are_nothing_to_decide():
    for lists in (make_lists([], []), make_lists(["m"], [[]])):
        decided = decide([], lists)
        assert len(decided.order) == 0 and decided.tops.positions.tolist() == [-1] * len(lists)
