import numpy as np
import pytest
from scipy.stats import binom

from umls_reranker.calibration.certificate import SIZE_POWERS, PrecisionTest

TEST = PrecisionTest()


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


def test_a_stated_assumption_about_the_worst_document_asks_for_fewer():
    half = PrecisionTest(most_wrong=0.5)
    assert (
        TEST.needed,
        half.needed,
        PrecisionTest(0.99).needed,
        PrecisionTest(confidence=0.999).needed,
    ) == (
        59,
        29,
        299,
        135,
    )
    assert half.p_value(np.ones(29), np.ones(29)) <= 0.05 < half.p_value(np.ones(28), np.ones(28))
