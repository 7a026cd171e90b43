from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from umls_reranker.models import batching
from umls_reranker.models.batching import batch_mapper, length_batches, token_batches, worker_pool


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


@pytest.fixture
def two_threads(monkeypatch):
    monkeypatch.setattr(batching, "_pool", None)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_threads_of_the_pool_compute_alone_and_others_as_before(two_threads):
    pool = worker_pool()
    assert worker_pool() is pool
    assert set(pool.map(lambda _: torch.get_num_threads(), range(8))) == {1}
    assert torch.get_num_threads() == 2
    with ThreadPoolExecutor(1) as other:
        assert other.submit(torch.get_num_threads).result() == 2
    pool.shutdown()


def test_one_thread_needs_no_pool(two_threads):
    torch.set_num_threads(1)
    assert worker_pool() is None
    assert list(batch_mapper(torch.device("cpu"))(str, [1, 2])) == ["1", "2"]
