import numpy as np
import pytest

from umls_reranker.core.arrays import best_candidates, list_offsets
from umls_reranker.evaluation.metrics import Documents, coverage_at_precision, gold_ranks

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
