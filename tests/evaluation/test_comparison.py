import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from outcome_fixtures import make_outcomes

from umls_reranker.calibration.reliability import jackknife_sums, ratio
from umls_reranker.core.errors import UserError
from umls_reranker.evaluation.comparison import FEWEST_DOCUMENTS, compare
from umls_reranker.evaluation.targets import check_targets, parse_target, parse_targets, result_of

FORMER = make_outcomes(600)


def with_flips(share, seed=1, to=-1):
    """The former version, with a share of its answers turned wrong (or right, `to` = 0)."""
    flipped = np.random.default_rng(seed).random(600) < share
    return replace(FORMER, rank=np.where(flipped, to, FORMER.rank))


def verdicts(comparison):
    return {difference.name: difference.verdict for difference in comparison.differences}


def test_a_version_next_to_itself_is_not_inferior():
    comparison = compare(FORMER, FORMER)
    assert set(verdicts(comparison).values()) == {"not inferior"} and comparison.passes
    assert (comparison.gained, comparison.lost) == (0, 0)
    assert "not inferior on the same 600 mentions of 60 documents" in comparison.text("v1")
    assert compare(FORMER, FORMER, margin=0.0).passes


def test_a_worse_version_is_found_out():
    comparison = compare(with_flips(0.1), FORMER)
    assert set(verdicts(comparison).values()) == {"worse"}
    assert not comparison.passes and comparison.gained == 0 and comparison.lost > 30
    assert verdicts(compare(with_flips(0.1), FORMER, margin=0.5))["acc@1"] == "worse"
    (accuracy, *_) = comparison.differences
    assert accuracy.former == pytest.approx(FORMER.correct.mean()) and accuracy.high < 0
    json.dumps(asdict(comparison))


def test_a_better_version_is_called_so():
    comparison = compare(with_flips(0.1, to=0), FORMER, margin=0.03)
    assert verdicts(comparison)["acc@1"] == "better" and comparison.passes


def exchanged(count):
    """The former version, with as many of its right answers turned wrong as of its wrong ones
    turned right.
    """
    rank = FORMER.rank.copy()
    rng = np.random.default_rng(2)
    for side, to in ((rank == 0, -1), (rank != 0, 0)):
        rank[rng.permutation(np.flatnonzero(side))[:count]] = to
    return replace(FORMER, rank=rank)


def test_an_interval_that_reaches_beyond_the_margin_tells_nothing():
    comparison = compare(exchanged(30), FORMER)
    accuracy, _, brier = comparison.differences
    assert (
        accuracy.present == pytest.approx(accuracy.former)
        and accuracy.low < -0.02
        and brier.high > 0.01
    )
    assert (
        set(verdicts(comparison).values()) == {"inconclusive"}
        and comparison.verdict == "inconclusive"
    )
    assert compare(exchanged(30), FORMER, margin=0.1).passes


def test_the_margin_decides_about_the_bad_end_alone():
    low = compare(exchanged(5), FORMER).differences[0].low
    for margin, verdict in ((-low + 1e-9, "not inferior"), (-low - 1e-9, "inconclusive")):
        assert verdicts(compare(exchanged(5), FORMER, margin=margin))["acc@1"] == verdict


def test_worse_calibration_alone_is_worse():
    present = replace(FORMER, score=np.sqrt(FORMER.score))
    assert verdicts(compare(present, FORMER)) == {
        "acc@1": "not inferior",
        "correct_answers_f1": "not inferior",
        "brier_of_top": "worse",
    }


def test_a_mention_without_candidates_counts_as_scored_zero():
    untold = replace(FORMER, score=np.where(FORMER.correct, FORMER.score, np.nan))
    (*_, brier) = compare(untold, FORMER).differences
    assert brier.present == pytest.approx(
        np.mean((np.nan_to_num(untold.score) - FORMER.correct) ** 2)
    )
    assert brier.verdict == "better"


def test_changes_at_rank_1_are_counted():
    rank = FORMER.rank.copy()
    right = np.flatnonzero(rank == 0)
    wrong = np.flatnonzero(rank != 0)
    rank[right[:1]] = -1
    rank[wrong[:5]] = 0
    comparison = compare(replace(FORMER, rank=rank), FORMER)
    assert (comparison.gained, comparison.lost) == (5, 1)


def test_only_common_mentions_are_compared_in_whatever_order():
    present = FORMER.select(np.arange(599, 99, -1))
    moved = replace(present, gold=np.where(np.arange(500) < 10, "C0000000", present.gold))
    comparison = compare(moved, FORMER)
    assert comparison.mentions == 490
    assert comparison.lost == comparison.gained == 0


def test_two_mentions_at_one_place_are_kept_apart():
    twice = FORMER.select(np.array([0, *range(600)]))
    assert compare(twice, twice).mentions == 601


def test_mentions_of_other_documents_and_of_other_lengths_are_kept_apart():
    # Each document has two mentions at each of five starts, all of one concept.
    row = np.arange(600)
    former = replace(FORMER, start=row % 10 // 2, end=row % 10 + 1, gold=np.full(600, "C0000001"))
    comparison = compare(former.select(row[::-1]), former)
    assert (comparison.mentions, comparison.gained, comparison.lost) == (600, 0, 0)


@pytest.mark.parametrize("confidence", [0.95, 0.8])
def test_the_three_intervals_share_the_error_probability(confidence):
    present = with_flips(0.1)
    comparison = compare(present, FORMER, confidence=confidence)
    change = (present.correct.astype(float) - FORMER.correct).reshape(60, 10).sum(axis=1)
    low, high = jackknife_sums(
        np.stack([change, np.full(60, 10.0)], 1), ratio, confidence=1 - (1 - confidence) / 3
    )
    (accuracy, *_) = comparison.differences
    assert (accuracy.low, accuracy.high) == (pytest.approx(low), pytest.approx(high))


@pytest.mark.parametrize("turned", [False, True])
def test_versions_that_share_too_few_mentions(turned):
    # One mention of each document is common, less than half of the former version's.
    pair = FORMER.select(np.arange(0, 600, 10)), FORMER
    if turned:
        pair = pair[::-1]
    with pytest.raises(UserError, match="share 60 of"):
        compare(*pair)
    assert compare(FORMER.select(np.arange(0, 600, 2)), FORMER).mentions == 300


@pytest.mark.parametrize("documents", [1, FEWEST_DOCUMENTS - 1])
def test_versions_that_share_too_few_documents(documents):
    few = FORMER.select(np.arange(10 * documents))
    with pytest.raises(UserError, match=f"share {documents} documents"):
        compare(few, few)
    enough = FORMER.select(np.arange(10 * FEWEST_DOCUMENTS))
    assert compare(enough, enough).documents == FEWEST_DOCUMENTS


def equally_good(rng, sizes):
    """Two versions of the same quality, each better in other documents; sizes: mentions of each
    document.
    """
    document = np.repeat(np.arange(len(sizes)), sizes)
    versions = []
    for _ in range(2):
        right = rng.random(len(document)) < rng.beta(1.75, 0.58, len(sizes))[document]
        score = np.clip(0.75 + 0.1 * rng.normal(size=len(document)), 0, 1)
        columns = {
            "document": document,
            "rank": np.where(right, 0, -1),
            "score": score,
            "accepted": score > 0.7,
        }
        versions.append(
            make_outcomes(len(document), in_dictionary=np.ones(len(document), bool), **columns)
        )
    return versions


def test_versions_that_are_equally_good_are_rarely_called_worse():
    """With the fewest documents that are compared, and errors that depend on the document."""
    rng = np.random.default_rng(0)
    called = 0
    for _ in range(300):
        sizes = rng.pareto(1.2, FEWEST_DOCUMENTS) * 8
        called += bool(
            compare(*equally_good(rng, 1 + np.minimum(sizes, 200).astype(int))).verdict == "worse"
        )
    assert called <= 15


def figure(value, low=None, high=None, **more):
    return {"value": value, "low": low, "high": high} | more


MEASURED = {
    "pair.f1": figure(0.912, 0.90, 0.92, n=5000, population="mentions"),
    "calibration.ece": figure(0.015),
    "tiers.high": figure(0.61, 0.58, 0.64),
    "speed": figure(12345.6),
    "undefined": figure(math.nan),
}


@pytest.mark.parametrize(
    ("name", "target", "passed"),
    [
        ("pair.f1", ">= 0.90", True),
        ("pair.f1", "<= 0.91", False),
        ("calibration.ece", "<= 0.015", True),
        ("tiers.high", "0.40 .. 0.60", False),
        ("tiers.high", "0.40..0.61", True),
    ],
)
def test_targets(name, target, passed):
    (check,) = check_targets({name: target}, MEASURED)
    assert check["result"] == ("PASS" if passed else "FAIL")
    assert check == {"name": name, "target": target, "result": check["result"], **MEASURED[name]}


@pytest.mark.parametrize(
    ("target", "measured", "result"),
    [
        # Few mentions and an interval on both sides of the target.
        (">= 0.9", figure(0.92, 0.88, 0.96, n=999), "INCONCLUSIVE"),
        ("0.4 .. 0.6", figure(0.59, 0.55, 0.63, n=10), "INCONCLUSIVE"),
        ("0.4 .. 0.6", figure(0.30, 0.20, 0.70, n=10), "INCONCLUSIVE"),
        # Few mentions, but all of the interval on one side.
        (">= 0.9", figure(0.95, 0.90, 0.99, n=10), "PASS"),
        ("0.4 .. 0.6", figure(0.70, 0.65, 0.75, n=10), "FAIL"),
        # Enough mentions: the value decides.
        (">= 0.9", figure(0.88, 0.84, 0.92, n=1000), "FAIL"),
        # No interval, or no sample.
        (">= 0.9", figure(0.92, n=10), "PASS"),
        (">= 0.9", figure(0.88, 0.84, 0.92), "FAIL"),
        # Nothing to measure it on.
        ("<= 1", figure(math.nan, n=5000), "INCONCLUSIVE"),
    ],
)
def test_cannot_tell_needs_few_mentions_and_an_interval_on_both_sides(target, measured, result):
    assert result_of(measured, *parse_target("figure", target)) == result


def test_lines_of_targets():
    assert parse_targets(["acc@1 >= 0.75", "  share 0.4 .. 0.6 "]) == {
        "acc@1": ">= 0.75",
        "share": "0.4 .. 0.6",
    }
    with pytest.raises(UserError, match="targets: cannot read 'acc@1'"):
        parse_targets(["acc@1"])
    with pytest.raises(UserError, match="acc@1 occurs twice"):
        parse_targets(["acc@1 >= 0.9", "acc@1 <= 0.95"])


@pytest.mark.parametrize(
    "text", ["0.9", "> 0.9", "0.4 - 0.6", "=> 0.9", ">= high", "0.6 .. 0.4", "", "0.4 ... 0.6"]
)
def test_unreadable_targets_are_named(text):
    with pytest.raises(UserError, match="target 'pair.f1'"):
        check_targets({"pair.f1": text}, MEASURED)
