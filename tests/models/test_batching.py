import numpy as np
import pytest

from umls_reranker.models.batching import length_batches, token_batches


def test_batches_hold_each_row_once_within_the_budget():
    lengths = np.random.default_rng(0).integers(1, 40, 500)
    batches = length_batches(lengths, token_budget=64, max_batch=10)
    assert sorted(np.concatenate(batches)) == list(range(500))
    for batch in batches:
        assert len(batch) <= 10
        assert lengths[batch].max() * len(batch) <= 64


def test_longest_rows_come_first_and_batches_are_as_large_as_they_can_be():
    batches = length_batches(np.array([3, 9, 4, 3, 3]), token_budget=9)
    assert [batch.tolist() for batch in batches] == [[1], [2, 0], [3, 4]]


def test_row_over_the_budget_is_alone():
    batches = length_batches(np.array([50, 5, 60]), token_budget=20)
    assert [batch.tolist() for batch in batches] == [[2], [0], [1]]


def test_rows_of_equal_length_keep_their_order():
    lengths = np.tile([2, 3], 500)
    order = np.concatenate(length_batches(lengths, token_budget=100, max_batch=3))
    assert order.tolist() == [*range(1, 1000, 2), *range(0, 1000, 2)]


def test_empty_rows_count_as_one_token():
    assert [batch.tolist() for batch in length_batches(np.zeros(3, int), token_budget=2)] == [[0, 1], [2]]


def test_no_rows_no_batches():
    assert length_batches(np.array([], dtype=int), token_budget=8) == []


@pytest.mark.parametrize(("budget", "rows"), [(0, 1), (1, 0)])
def test_senseless_limits_are_refused(budget, rows):
    with pytest.raises(ValueError, match="at least 1"):
        length_batches(np.array([1]), budget, rows)


def test_packed_batches_are_filled_by_tokens():
    lengths = np.random.default_rng(0).integers(1, 40, 500)
    batches = token_batches(lengths, token_budget=100)
    assert sorted(np.concatenate(batches)) == list(range(500))
    sizes = [lengths[batch].sum() for batch in batches]
    assert max(sizes) <= 100 and min(sizes[:-1]) > 60
    assert (np.diff(lengths[np.concatenate(batches)]) <= 0).all()


def test_a_packed_row_over_the_budget_is_alone():
    assert [batch.tolist() for batch in token_batches(np.array([50, 5, 60]), token_budget=20)] == [[2], [0], [1]]
    assert token_batches(np.array([], dtype=int), token_budget=8) == []
    with pytest.raises(ValueError, match="at least 1"):
        token_batches(np.array([1]), 0)
