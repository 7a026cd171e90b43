import json
from dataclasses import replace

import numpy as np
import pytest
from outcome_fixtures import make_outcomes

from umls_reranker.errors import UserError
from umls_reranker.evaluation.comparison import compare

FORMER = make_outcomes(600)


def with_flips(share, seed=1, to=-1):
    """The former version, with a share of its answers turned wrong (or right, `to` = 0)."""
    flipped = np.random.default_rng(seed).random(600) < share
    return replace(FORMER, rank=np.where(flipped, to, FORMER.rank))


def verdicts(comparison):
    return {difference.name: difference.verdict for difference in comparison.differences}


def test_a_version_beside_itself_shows_no_difference():
    comparison = compare(FORMER, FORMER, resamples=50)
    assert set(verdicts(comparison).values()) == {"no difference shown"} and comparison.worse == []
    assert (comparison.gained, comparison.lost, comparison.mcnemar_p) == (0, 0, 1.0)
    assert comparison.sentence() == "not shown to be worse on the same 600 mentions of 60 documents"


def test_a_worse_version_is_found_out():
    comparison = compare(with_flips(0.1), FORMER, resamples=200)
    assert set(verdicts(comparison).values()) == {"worse"}
    assert comparison.gained == 0 and comparison.lost > 30 and comparison.mcnemar_p < 1e-9
    (accuracy, *_) = comparison.differences
    assert accuracy.former == FORMER.correct.mean() and accuracy.high < 0
    assert comparison.sentence().startswith("worse on the same 600 mentions of 60 documents: acc@1 0.")
    json.dumps(comparison.to_dict())


def test_a_better_version_is_called_so():
    assert verdicts(compare(with_flips(0.1, to=0), FORMER, resamples=200))["acc@1"] == "better"


def test_worse_calibration_alone_is_worse():
    present = replace(FORMER, score=np.sqrt(FORMER.score))
    assert verdicts(compare(present, FORMER, resamples=200)) == {
        "acc@1": "no difference shown",
        "right_answers_f1": "no difference shown",
        "brier_of_top": "worse",
    }


def test_mcnemar_by_hand():
    rank = FORMER.rank.copy()
    right, wrong = np.flatnonzero(rank == 0), np.flatnonzero(rank != 0)
    rank[right[:1]], rank[wrong[:5]] = -1, 0
    comparison = compare(replace(FORMER, rank=rank), FORMER, resamples=50)
    # Five to one: 2 (1 + 6) / 2^6.
    assert (comparison.gained, comparison.lost) == (5, 1) and comparison.mcnemar_p == pytest.approx(14 / 64)


def test_only_common_mentions_are_compared_in_whatever_order():
    present = FORMER.select(np.arange(599, 99, -1))
    moved = replace(present, gold=np.where(np.arange(500) < 10, "C0000000", present.gold))
    comparison = compare(moved, FORMER, resamples=50)
    assert (comparison.mentions, comparison.only_present, comparison.only_former) == (490, 10, 110)
    assert comparison.lost == comparison.gained == 0


def test_two_mentions_at_one_place_are_kept_apart():
    twice = FORMER.select(np.array([0, 0, 1]))
    assert compare(twice, twice, resamples=50).mentions == 3


def test_versions_without_a_common_mention():
    with pytest.raises(UserError, match="no mention in common; evaluate both on the same test split"):
        compare(FORMER, replace(FORMER, start=FORMER.start + 1), resamples=50)


def test_versions_that_are_equally_good_are_rarely_called_worse():
    everything = np.ones(300, bool)
    called = 0
    for seed in range(60):
        one, other = (make_outcomes(300, seed=number, in_dictionary=everything) for number in (seed, 1000 + seed))
        called += bool(compare(other, one, resamples=200).worse)
    # Of 60, three are within the promise; eight are not, with a probability of 1 in 70.
    assert called < 8
