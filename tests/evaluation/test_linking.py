import numpy as np
import pytest

from umls_reranker.core.arrays import best_candidates, list_offsets
from umls_reranker.evaluation.linking import (
    Documents,
    coverage_at_precision,
    gold_ranks,
    linking_metrics,
    tier_metrics,
)

# Four mentions with 3, 0, 1 and 2 candidates.
OFFSETS = list_offsets([3, 0, 1, 2])
SCORES = np.array([0.1, 2.0, 1.0, -3.0, 0.5, 0.5])


def test_offsets():
    np.testing.assert_array_equal(OFFSETS, [0, 3, 3, 4, 6])
    np.testing.assert_array_equal(list_offsets([]), [0])


def test_the_first_of_short_lists_and_ties():
    np.testing.assert_array_equal(best_candidates(SCORES, OFFSETS), [1, -1, 3, 4])


def test_gold_ranks():
    np.testing.assert_array_equal(gold_ranks(SCORES, OFFSETS, [0, -1, 0, 1]), [2, -1, 0, 1])
    np.testing.assert_array_equal(gold_ranks(SCORES, OFFSETS, [1, -1, -1, 0]), [0, -1, -1, 0])


def test_gold_ranks_agree_with_sorting_each_list():
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 9, 200)
    offsets = list_offsets(lengths)
    scores = rng.integers(0, 4, offsets[-1]).astype(float)
    gold = np.array([rng.integers(-1, length) if length else -1 for length in lengths])
    expected = []
    for start, length, position in zip(offsets[:-1], lengths, gold, strict=True):
        ranked = sorted(range(length), key=lambda j, start=start: (-scores[start + j], j))
        expected.append(ranked.index(position) if position >= 0 else -1)
    np.testing.assert_array_equal(gold_ranks(scores, offsets, gold), expected)


def test_scores_that_do_not_fit_the_offsets():
    with pytest.raises(ValueError, match="6 candidates, but there are 5 scores"):
        gold_ranks(SCORES[:5], OFFSETS, [0, -1, 0, 1])


def test_linking_metrics_by_hand():
    # Ranks 0, 1 and 7; one not retrieved, one out of the dictionary.
    found = linking_metrics(
        [0, 1, 7, -1, -1], [True, True, True, True, False], Documents.of(list("aabbc")), ks=(1, 5, 32)
    )
    assert found["acc@1"]["value"] == pytest.approx(1 / 5)
    assert found["mrr"]["value"] == pytest.approx((1 + 1 / 2 + 1 / 8) / 5)
    assert [found[f"recall@{k}"]["value"] for k in (1, 5, 32)] == pytest.approx([1 / 5, 2 / 5, 3 / 5])
    inside = found["in_dictionary"]
    assert inside["acc@1"]["value"] == pytest.approx(1 / 4)
    assert inside["mrr"]["value"] == pytest.approx((1 + 1 / 2 + 1 / 8) / 4)
    assert inside["recall@32"]["value"] == pytest.approx(3 / 4)
    for figure in (found["acc@1"], inside["mrr"]):
        assert figure["low"] <= figure["value"] <= figure["high"]
    assert "answered" not in found


def test_linking_metrics_of_a_system_that_may_not_answer():
    known, answered = [True, True, True, False], [True, True, False, True]
    # The third would have been right; the last answers a mention that the dictionary cannot.
    found = linking_metrics([0, -1, 0, -1], known, Documents.of(list("abcd")), answered=answered)
    assert found["answered"]["value"] == pytest.approx(3 / 4)
    assert found["precision"]["value"] == pytest.approx(1 / 3)
    assert found["acc@1"]["value"] == pytest.approx(1 / 2)
    assert found["in_dictionary"]["answered"]["value"] == pytest.approx(2 / 3)
    # What ranks nothing below its answer has neither.
    assert "mrr" not in found and "recall@5" not in found["in_dictionary"]


def test_coverage_at_precision_by_hand():
    score, correct = [0.9, 0.8, 0.7, 0.6, 0.5], [1, 1, 0, 1, 0]
    assert coverage_at_precision(score, correct, 1.0) == {"value": 0.4}
    assert coverage_at_precision(score, correct, 0.75) == {"value": 0.8}
    assert coverage_at_precision(score, correct, 0.9) == {"value": 0.4}
    assert coverage_at_precision(score, [0, 0, 0, 0, 1], 0.5) == {"value": 0.0}
    # 0.55 * 100 is more than 55 by a rounding error.
    assert coverage_at_precision(-np.arange(100), np.arange(100) < 55, 0.55) == {"value": 1.0}


def test_coverage_takes_ties_together_and_skips_missing_answers():
    assert coverage_at_precision([0.9, 0.9, 0.1], [1, 0, 0], 1.0) == {"value": 0.0}
    assert coverage_at_precision([0.9, -np.inf, np.nan, -np.inf], [1, 1, 1, 1], 0.5) == {"value": 0.25}
    assert coverage_at_precision([0.9, np.nan], [1, 1], 0.5) == {"value": 0.5}


def test_coverage_interval_by_document():
    rng = np.random.default_rng(0)
    score = rng.random(600)
    correct = rng.random(600) < score
    documents = Documents.of(np.arange(600) // 10, resamples=200)
    found = coverage_at_precision(score, correct, 0.8, documents)
    assert found["low"] < found["value"] < found["high"] < found["low"] + 0.5
    assert found == coverage_at_precision(score, correct, 0.8, documents)


def test_coverage_interval_agrees_with_resampling_by_hand():
    rng = np.random.default_rng(1)
    documents = np.repeat(np.arange(12), rng.integers(1, 9, 12))
    score = rng.random(len(documents))
    correct = rng.random(len(documents)) < (score + documents / 12) / 2
    found = coverage_at_precision(score, correct, 0.7, Documents.of(documents, 100, 3))
    rng, draws = np.random.default_rng(3), []
    for _ in range(100):
        rows = np.repeat(np.arange(len(score)), rng.multinomial(12, np.full(12, 1 / 12))[documents])
        draws.append(coverage_at_precision(score[rows], correct[rows], 0.7)["value"])
    assert [found["low"], found["high"]] == pytest.approx(np.quantile(draws, [0.025, 0.975]))


def high_precision(tiers, correct, documents):
    return tier_metrics(tiers, correct, Documents.of(documents, resamples=50))["high"]["precision"]


def test_tier_metrics_by_hand():
    found = tier_metrics(["high", "high", "medium", "reject"], [1, 0, 1, 0], Documents.of(list("abcd"), 200))
    assert list(found) == ["high", "medium", "low", "reject"]
    assert found["high"]["count"] == 2
    assert found["high"]["share"]["value"] == 0.5 and found["high"]["precision"]["value"] == 0.5
    assert found["medium"]["share"]["value"] == 0.25 and found["medium"]["precision"]["value"] == 1.0
    assert found["reject"]["precision"]["value"] == 0.0
    assert found["low"]["count"] == 0 and np.isnan(found["low"]["precision"]["value"])


def test_no_error_in_a_few_documents_is_no_certainty():
    few, many = (high_precision(["high"] * n, np.ones(n), np.arange(n)) for n in (5, 200))
    assert few == {"value": 1.0, "low": pytest.approx(0.025 ** (1 / 5)), "high": 1.0}
    assert many["low"] == pytest.approx(0.025 ** (1 / 200)) and many["low"] > 0.98
    # Documents without a mention of the tier say nothing about it.
    some = high_precision(["high"] * 5 + ["low"] * 5, np.ones(10), np.arange(10))
    assert some == few
    none = high_precision(["high"] * 5, np.zeros(5), np.arange(5))
    assert none == {"value": 0.0, "low": 0.0, "high": pytest.approx(1 - 0.025 ** (1 / 5))}


def test_one_document_has_no_interval():
    found = high_precision(["high"] * 40, np.arange(40) > 0, ["d"] * 40)
    assert found["value"] == 0.975 and np.isnan([found["low"], found["high"]]).all()
    found = high_precision(["high"] * 2, [1, 0], list("ab"))
    assert (found["low"], found["high"]) == (0.0, 1.0)
