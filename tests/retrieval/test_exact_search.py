import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from umls_reranker.retrieval import exact_search
from umls_reranker.retrieval.exact_search import ExactSearch, _falling, _value


def unit(draw, n, dimension):
    vectors = draw.standard_normal((n, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def nearest(vectors, queries, k):
    """By a full sort of the same float32 scores, equal ones by number."""
    scores = np.stack([np.einsum("nd,d->n", vectors, query) for query in queries])
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, axis=1), order


@pytest.fixture
def small_blocks(monkeypatch):
    for name, value in {"VECTORS": 64, "QUERIES": 5, "GROUP": 8, "SAMPLE": 128}.items():
        monkeypatch.setattr(exact_search, name, value)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("vectors, queries, k", [(1_000, 17, 10), (130, 3, 1), (70, 8, 70), (5, 1, 3), (64, 5, 64)])
def test_result_is_that_of_a_full_sort(small_blocks, precision, vectors, queries, k):
    draw = np.random.default_rng(vectors)
    matrix = unit(draw, vectors, 16)
    # Queries near vectors, and some far from all.
    asked = np.concatenate([unit(draw, queries, 16), matrix[:2]])
    scores, numbers = ExactSearch(matrix, precision).search(asked, k)
    expected_scores, expected = nearest(matrix, asked, k)
    assert (numbers == expected).all()
    assert (scores == expected_scores).all()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_scores_that_the_first_pass_cannot_tell_apart(small_blocks, precision):
    # All vectors lie within 1e-4 of one another: bfloat16 puts them in any order.
    draw = np.random.default_rng(0)
    matrix = unit(draw, 1, 32) + 1e-5 * draw.standard_normal((500, 32)).astype(np.float32)
    matrix = np.concatenate([matrix, matrix[:100]]) / np.linalg.norm(matrix[0])
    scores, numbers = ExactSearch(matrix, precision).search(matrix[:7], 40)
    expected_scores, expected = nearest(matrix, matrix[:7], 40)
    assert (numbers == expected).all() and (scores == expected_scores).all()


def test_no_score_is_off_by_more_than_the_bound():
    draw = np.random.default_rng(3)
    matrix, asked = unit(draw, 3_000, 48), unit(draw, 40, 48)
    asked[:20] = matrix[:20]
    search = ExactSearch(matrix, "bfloat16")
    shortlist = exact_search._Shortlist(search, torch.from_numpy(asked), 5)
    rough = (search.vectors.bfloat16() @ shortlist._queries.T).T.float()
    exact = asked.astype(np.float64) @ matrix.T.astype(np.float64)
    for query in range(40):
        at_least = shortlist._at_least(rough[query], shortlist.error[query])
        assert (at_least.numpy() <= exact[query]).all()
        # And the other way round: what is not kept cannot reach the floor.
        floor = shortlist.floor[query]
        kept = rough[query] >= shortlist._at_least(floor, shortlist.error[query])
        assert kept.numpy()[exact[query] >= float(floor)].all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 200), st.integers(1, 12), st.integers(1, 40))
def test_many_ties(seed, vectors, queries, k):
    draw = np.random.default_rng(seed)
    few = unit(draw, 6, 8)
    matrix, asked = few[draw.integers(0, 6, vectors)], few[draw.integers(0, 6, queries)]
    scores, numbers = ExactSearch(matrix, "bfloat16").search(asked, min(k, vectors))
    expected_scores, expected = nearest(matrix, asked, min(k, vectors))
    assert (numbers == expected).all() and (scores == expected_scores).all()


def test_keys_of_scores_sort_the_other_way_round():
    values = np.array([-1, -0.5, -0.0, 0.0, 1e-30, 0.3, 1], np.float32)
    keys = _falling(values)
    assert (np.diff(keys.astype(np.int64)) < 0).all()
    assert (_value(keys) == values).all()
