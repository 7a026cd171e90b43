import numpy as np
import pytest

from umls_reranker.models.pairs import divide_by_length


def divided(lengths, budget: int, is_padded: bool) -> list[list[int]]:
    return [
        batch.tolist()
        for batch in divide_by_length(np.array(lengths, dtype=int), budget, is_padded)
    ]


@pytest.mark.parametrize("is_padded", [True, False])
def test_batches_hold_each_row_once_within_the_budget_from_long_to_short(is_padded):
    lengths = np.random.default_rng(0).integers(1, 40, 500)
    batches = divide_by_length(lengths, 100, is_padded)
    assert sorted(np.concatenate(batches)) == list(range(500))
    sizes = [
        lengths[batch].max() * len(batch) if is_padded else lengths[batch].sum()
        for batch in batches
    ]
    assert max(sizes) <= 100 and min(sizes[:-1]) > 60
    assert (np.diff(lengths[np.concatenate(batches)]) <= 0).all()


def test_batches_are_as_large_as_they_can_be():
    assert divided([3, 9, 4, 3, 3], 9, True) == [[1], [2, 0], [3, 4]]
    assert divided([3, 9, 4, 3, 3], 10, False) == [[1], [2, 0, 3], [4]]


@pytest.mark.parametrize("is_padded", [True, False])
def test_row_over_the_budget_is_alone(is_padded):
    assert divided([50, 5, 60], 20, is_padded) == [[2], [0], [1]]


@pytest.mark.parametrize("is_padded", [True, False])
def test_rows_of_equal_length_keep_their_order(is_padded):
    order = np.concatenate(divide_by_length(np.tile([2, 3], 500), 10, is_padded))
    assert order.tolist() == [*range(1, 1000, 2), *range(0, 1000, 2)]


def test_empty_rows_count_as_one_token_where_they_are_padded():
    assert divided([0, 0, 0], 2, True) == [[0, 1], [2]]
