import sys
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from umls_reranker import UserError
from umls_reranker import certify as certify_at_any_time
from umls_reranker.calibration.certificate import GRID, find_certificate
from umls_reranker.calibration.precision_test import SIZE_POWERS, PrecisionTest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))


@pytest.fixture(scope="module")
def benchmark():
    return import_module("certificate")


# Most tests are of one look, whose numbers of documents are known from tables.
ONE_LOOK = PrecisionTest(is_one_look=True)
certify = partial(certify_at_any_time, one_look=True)


def find(p, correct, documents=None, test=ONE_LOOK):
    """By default each mention is its own document."""
    return find_certificate(p, correct, range(len(p)) if documents is None else documents, test)


def test_fifty_nine_without_an_error_is_the_least():
    assert find(np.full(59, 0.97), np.ones(59)).threshold == pytest.approx(0.97, abs=0.002)
    assert find(np.full(58, 0.97), np.ones(58)).threshold is None
    assert find(np.full(59, 0.97), np.arange(59) > 0).threshold is None


def test_where_nothing_is_certified_what_was_missing_is_said():
    few = find(np.full(30, 0.97), np.ones(30))
    assert (few.labelled, few.answers) == (30, 0) and "59" in str(few)
    # Enough documents, but too few of them in the tier.
    small = find(np.repeat([0.97, 0.1], [40, 60]), np.ones(100))
    assert small.labelled == 100 and "worth 40 in the tier" in str(small) and "59" in str(small)
    # Enough documents, but with too many errors among the most certain answers.
    correct = np.arange(400) >= 40
    worse = find(np.full(400, 0.97), correct)
    assert (worse.answers, worse.errors, worse.reachable_target) == (400, 40, 0.87)
    assert "at least 87% of answers like these 400 are correct" in str(worse)
    # Who looks once is not told to label until it is granted.
    found = [few, small, worse, find(np.full(100, 0.97), np.arange(100) >= 3)]
    assert {each.further_documents for each in found} == {None}
    for target, is_certified in ((0.87, True), (0.88, False)):
        test = PrecisionTest(target, is_one_look=True)
        found = find_certificate(np.full(400, 0.97), correct, range(400), test)
        assert (found.threshold is not None) == is_certified
    assert find(np.full(400, 0.97), np.zeros(400)).reachable_target is None


def test_thresholds_are_tested_downward_until_one_fails():
    # 400 right at 0.97, 40 wrong at 0.9; then 4,000 right, which do not bring the sequence back to
    # life.
    p = np.repeat([0.97, 0.9, 0.8], [400, 40, 4000])
    threshold = find(p, np.repeat([1, 0, 1], [400, 40, 4000])).threshold
    assert threshold == pytest.approx(0.97, abs=0.002)
    assert find(p, np.ones(4440)).threshold == pytest.approx(0.8, abs=0.01)


def test_labels_have_no_say_in_where_the_sequence_starts():
    # The most powerful start by scores is 0.97; where it fails nothing is certified, whatever lies
    # above it.
    p = np.repeat([0.999, 0.97], [100, 5000])
    assert find(p, p > 0.98).threshold is None
    assert find(p, p < 0.98).threshold == pytest.approx(0.97, abs=0.002)


def test_the_sequence_does_not_start_where_too_few_documents_are_left():
    # By scores alone 0.999 would start with more power, but 58 documents can certify nothing.
    p = np.repeat([0.999, 0.94], [58, 200])
    assert find(p, np.ones(258)).threshold == pytest.approx(0.94, abs=0.002)


def test_a_score_on_a_threshold_reaches_it():
    found = find(np.full(59, GRID[100]), np.ones(59))
    assert (found.threshold, found.coverage) == (GRID[100], 1.0)


def test_thresholds_are_of_the_fixed_grid():
    p = np.random.default_rng(0).beta(6, 0.8, 3000)
    correct = np.random.default_rng(1).random(3000) < p
    threshold = find(p, correct).threshold
    assert threshold in GRID
    assert GRID[-1] == 0.5 and GRID[0] > 0.9998 and np.all(np.diff(GRID) < 0)
    # Another machine's rounding moves no threshold.
    assert find(p + 1e-9, correct).threshold == threshold


def test_mentions_without_candidates_are_never_accepted():
    p = np.append(np.full(59, 0.97), np.nan)
    assert find(p, np.append(np.ones(59), 0)).threshold == pytest.approx(0.97, abs=0.002)


def test_documents_of_equal_mentions_count_once():
    # 100 documents of 10 equal answers, 3 of them wrong: plenty for 1,000 mentions, too many for
    # 100.
    p = np.full(1000, 0.97)
    documents = np.arange(1000) // 10
    correct = documents >= 3
    assert find(p, correct).threshold is not None
    assert find(p, correct, documents).threshold is None


def test_scores_alone_get_cut_off_share_and_precision():
    # 100 documents with two answers at 0.97, of which the last is wrong in five documents, and one
    # at 0.6.
    scores = [0.97, 0.97, 0.6] * 100
    documents = np.repeat(np.arange(100), 3)
    right = np.array([[True, number >= 1, number % 2 == 0] for number in range(100)]).ravel()
    found = certify(scores, right, documents)
    assert found.threshold == pytest.approx(0.97, abs=0.002)
    assert (found.coverage, found.precision) == (pytest.approx(2 / 3), pytest.approx(0.995))
    for names in ([f"d{number}" for number in documents], [("d", number) for number in documents]):
        assert certify(list(scores), right.tolist(), names) == found


def test_copies_of_documents_are_joined_by_their_mentions():
    # Twenty notes of four mentions, each with five ids: worth twenty documents.
    notes = np.repeat(np.tile(np.arange(20), 5), 4)
    answers = [0.97] * 400, [True] * 400, np.repeat(np.arange(100), 4)
    mentions = [f"{note} {number % 4}" for number, note in enumerate(notes)]
    assert certify(*answers).threshold is not None
    found = certify(*answers, mentions=mentions)
    assert (found.threshold, found.documents) == (None, 20)
    with pytest.raises(UserError, match="399 mentions of 400 scores"):
        certify(*answers, mentions=mentions[1:])


def test_the_promise_is_the_one_that_was_asked_for():
    answers = [0.97] * 100, [True] * 100, range(100)
    assert certify(*answers).threshold is not None
    # Without an error 299 documents are needed for 99 %, and 136 for a confidence of 99.9 %.
    for options, needed in (({"target_precision": 0.99}, 299), ({"confidence": 0.999}, 136)):
        found = certify(*answers, **options)
        assert found.threshold is None and found.documents_needed == needed


def test_scores_of_any_scale_are_mapped_by_other_documents():
    rng = np.random.default_rng(0)
    documents = np.arange(1000) // 5
    cosines = rng.normal(0.5, 0.2, 1000)
    correct = rng.random(1000) < 1 / (1 + np.exp(-15 * (cosines - 0.4)))
    found = certify(3 * cosines - 5, correct, documents, calibrate=True)
    accepted = 3 * cosines - 5 >= found.threshold
    assert np.mean(accepted) == pytest.approx(found.coverage, abs=0.02) and found.coverage > 0.3
    assert correct[accepted].mean() > 0.95
    # The unit does not matter, but which of two scores is higher does.
    assert certify(cosines, correct, documents, calibrate=True).coverage == pytest.approx(
        found.coverage
    )
    with pytest.raises(UserError, match="do not rank gold concepts"):
        certify(-cosines, correct, documents, calibrate=True)


def test_probabilities_beyond_one_by_rounding_are_one():
    scores = [1.0000001] * 59 + [-1e-9]
    assert certify(scores, [True] * 59 + [False], range(60)).threshold == GRID[0]
    with pytest.raises(UserError, match=r"^row 0: .*1\.001"):
        certify([1.001] * 60, [True] * 60, range(60))


def test_documents_of_unlike_sizes_are_a_caution():
    documents = np.concatenate([np.arange(100), np.full(9, 100)])
    found = find(np.full(109, 0.97), np.ones(109), documents)
    assert found.size_ratio == pytest.approx(9 * 101 / 109)
    assert "caution" in str(found) and "caution" not in str(find(np.full(100, 0.97), np.ones(100)))


@pytest.mark.parametrize(
    ("scores", "correct", "documents", "options", "reason"),
    [
        ([0.9, float("nan")], [1, 1], [1, 2], {}, "row 1: the score nan"),
        ([0.9, -0.1], [1, 1], [1, 2], {}, "row 1: the score -0.1"),
        ([0.9, "0.9"], [1, 1], [1, 2], {}, "row 1: the score '0.9'"),
        ([0.9, 0.9], [1, float("nan")], [1, 2], {}, "row 1: correct is nan"),
        ([0.9, 0.9], [1, -1], [1, 2], {}, "row 1: correct is -1"),
        ([0.9, 0.9], [1, 1], [1, None], {}, "row 1: the document is missing"),
        ([0.9, 0.9], [1, 1], [1, [2]], {}, "row 1: the document is missing or no id"),
        ([0.9, 0.9], [1], [1, 2], {}, "2 scores, 1 correct, 2 documents"),
        ([0.9, 0.9], [1, 1], ["a", "a"], {}, "from 1 document"),
        ([], [], [], {}, "no mentions"),
        ([0.9, 0.9], [1, 1], [1, 2], {"target_precision": 95}, "target_precision: 95"),
        ([0.9, 0.9], [1, 1], [1, 2], {"confidence": 1.0}, "confidence: 1.0"),
    ],
)
def test_what_cannot_be_certified_is_named(scores, correct, documents, options, reason):
    with pytest.raises(UserError, match=reason):
        certify(scores, correct, documents, **options)


def test_the_guarantee_holds_in_every_regime(benchmark):
    # If 5 % were broken, more than 9.5 % of 200 draws would have probability 0.4 %. Sizes that
    # differ from draw to draw take long.
    rng = np.random.default_rng(7)
    regimes = {
        name: regime
        for name, regime in benchmark.REGIMES.items()
        if not ("of Pareto" in name or "181" in name)
    }
    rows = {name: benchmark.regime_shares(regime, 200, rng) for name, regime in regimes.items()}
    assert {name: row.broken for name, row in rows.items() if row.broken > 0.095} == {}
    # Taking mentions as independent breaks it where errors cluster.
    assert sum(row.by_mention > 0.095 for row in rows.values()) >= 7
    # Most rows say something: a certificate is possible, and is given where precision is high.
    assert sum(row.possible > 0.9 for row in rows.values()) >= 10
    assert sum(row.power > 0.8 for row in rows.values()) >= 8


TEST = ONE_LOOK


def p_value(size, right):
    return TEST.p_value(np.asarray(size), np.asarray(right, float))


@pytest.mark.parametrize(("n", "right"), [(59, 59), (200, 198), (400, 390), (1000, 965)])
def test_of_single_mentions_it_is_the_binomial_test(n, right):
    assert p_value(np.ones(n), np.arange(n) < right) == pytest.approx(
        binom.sf(right - 1, n, 0.95), rel=0.01
    )


def test_the_p_value_is_the_chance_of_reweighted_documents():
    rng = np.random.default_rng(0)
    size = rng.integers(1, 30, 150)
    right = rng.binomial(size, 0.98)
    added = np.sum(size**1.5) / np.sum(size**0.5)
    surplus = np.append(right - 0.95 * size, -0.95 * added)
    simulated = np.mean(rng.exponential(size=(200_000, 151)) @ surplus <= 0)
    assert simulated > 0.01
    assert p_value(size, right) == pytest.approx(simulated, rel=0.05)


def test_where_the_precision_seen_is_not_above_the_target():
    assert p_value(np.full(100, 10), np.full(100, 9)) == 1.0
    assert p_value(np.empty(0), np.empty(0)) == 1.0
    # Hardly above it, with the document that is added: 1,000 x 0.95 of 1,019 and a little more.
    assert p_value(np.ones(1000), np.arange(1000) < 951) == pytest.approx(0.5, abs=0.05)


def test_right_documents_are_worth_their_number_and_not_their_mentions():
    assert p_value(np.full(59, 40), np.full(59, 40)) == pytest.approx(
        p_value(np.ones(59), np.ones(59))
    )
    assert p_value(np.full(58, 40), np.full(58, 40)) > 0.05
    # One document as large as all others together leaves little.
    size = np.append(np.full(200, 10), 2000)
    assert p_value(size, size) > 0.2 > 0.001 > p_value(size[:-1], size[:-1])


def test_documents_alike_take_the_smallest_power_and_few_large_ones_a_larger():
    assert TEST.for_sizes(np.full(100, 7)).size_power == SIZE_POWERS[0]
    assert (
        TEST.for_sizes(np.random.default_rng(0).poisson(14, 180) + 1).size_power == SIZE_POWERS[0]
    )
    assert TEST.for_sizes(np.repeat([10, 100], [177, 3])).size_power >= 2
    assert TEST.for_sizes(np.repeat([10, 50], [171, 9])) == TEST.for_sizes(
        np.repeat([50, 10], [9, 171])
    )


def test_the_added_document_is_a_weighted_mean_of_the_sizes():
    size = np.array([1, 4, 4])
    for power, added in ((0.5, 17 / 5), (1.0, 33 / 9), (float("inf"), 4.0)):
        test = PrecisionTest(size_power=power)
        assert test.added_size(size, np.ones((1, 3))) == pytest.approx(added)
        # Counts are as good as documents.
        assert test.added_size(np.array([1, 4, 9]), np.array([[1, 2, 0]])) == pytest.approx(added)
        assert test.effective(size) == pytest.approx(9 / added)


@pytest.mark.parametrize("target", [0.8, 0.85, 0.9, 0.95, 0.98, 0.99])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_as_many_documents_as_are_announced_pass(target, confidence):
    for is_one_look in (False, True):
        test = PrecisionTest(target, confidence, is_one_look=is_one_look)
        every = np.ones(test.needed)
        assert test.passes(every, every) and not test.passes(every[1:], every[1:])


@pytest.mark.parametrize(("target", "needed"), [(0.95, 88), (0.9, 43)])
def test_at_any_time_more_documents_are_needed_and_it_is_said_how_many(target, needed):
    test = PrecisionTest(target)
    p = np.full(needed, 0.98)
    assert find(p, np.ones(needed), test=test).threshold is not None
    few = find(p[1:], np.ones(needed - 1), test=test)
    assert (few.threshold, few.documents_needed, few.further_documents) == (None, needed, 1)
    # As many errors as are expected of a tier of the target: no number helps.
    hopeless = find(np.full(200, 0.98), np.arange(200) >= 200 * (1 - target), test=test)
    assert hopeless.further_documents is None


def test_further_documents_with_as_many_errors_give_the_certificate():
    correct = np.arange(150) >= 2
    found = find(np.full(150, 0.98), correct, test=PrecisionTest())
    more = found.further_documents
    assert found.threshold is None and 20 < more < 150 and found.further_errors == 2 * more // 150
    for documents, is_certified in ((150 + more, True), (150 + more // 2, False)):
        right = np.arange(documents) >= 2 * documents // 150
        again = find(np.full(documents, 0.98), right, test=PrecisionTest())
        assert (again.threshold is not None) == is_certified


@pytest.mark.parametrize("mentions", [1, 10])
def test_whoever_tests_after_every_document_is_rarely_wrong(mentions):
    rng = np.random.default_rng(1)
    draws, documents = 400, 600
    mean = rng.beta(9 * 0.949, 9 * 0.051, (draws, documents))
    correct = rng.binomial(mentions, mean)
    is_false = np.zeros(draws, bool)
    test = PrecisionTest()
    for count in range(test.needed, documents + 1):
        totals = np.arange(mentions + 1)
        counts = np.stack([(correct[:, :count] == each).sum(axis=1) for each in totals], axis=1)
        p = test.p_values(np.full(mentions + 1, mentions), totals, counts)
        is_false |= p <= test.level_at(count)
    # At 5 % more than 8 % of 400 have a probability of 0.5 %.
    assert is_false.mean() < 0.08


def test_draws_at_once_are_tests_one_by_one():
    rng = np.random.default_rng(0)
    kinds = np.array([1, 3, 3, 8, 20])
    right = np.array([1, 3, 2, 8, 18])
    counts = np.vstack(
        [rng.poisson([60, 40, 3, 20, 1], (20, 5)), [[0, 0, 0, 0, 0]], [[0, 0, 9, 0, 0]]]
    )
    each = [TEST.p_value(np.repeat(kinds, row), np.repeat(right, row)) for row in counts]
    np.testing.assert_allclose(TEST.p_values(kinds, right, counts), each, rtol=1e-9)
    assert each[-2:] == [1.0, 1.0] and min(each) < 0.02


def test_more_documents_are_needed_for_a_higher_target_or_confidence():
    assert TEST.needed == 59
    assert replace(TEST, target=0.90).needed == 29
    assert replace(TEST, target=0.99).needed == 299
    assert replace(TEST, confidence=0.999).needed == 136
    assert TEST.p_value(np.ones(59), np.ones(59)) <= 0.05 < TEST.p_value(np.ones(58), np.ones(58))


@pytest.mark.parametrize("calibrate", [False, True])
@pytest.mark.parametrize("column", [0, 1])
@pytest.mark.parametrize("digits", [400, 5_000])
def test_integers_too_large_for_a_float_are_refused_with_their_row(column, digits, calibrate):
    columns = [[0.9] * 20, [1] * 20, [str(row) for row in range(20)]]
    columns[column][3] = 10**digits
    with pytest.raises(UserError, match="^row 3: .{1,200}$"):
        certify(*columns, calibrate=calibrate)
