from concurrent.futures import ThreadPoolExecutor

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umls_reranker.retrieval.name_index import search_exactly

THRESHOLD = faiss.cvar.distance_compute_blas_threshold


def unit(draw, n, dimension):
    vectors = draw.standard_normal((n, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def nearest(vectors, queries, k):
    """By a full sort of the same float32 scores, equal ones by number."""
    scores = np.stack([np.einsum("nd,d->n", vectors, query) for query in queries])
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, axis=1), order


@pytest.mark.parametrize(
    "vectors, queries, k", [(1_000, 17, 10), (130, 3, 1), (70, 80, 70), (5, 1, 3)]
)
def test_result_is_that_of_a_full_sort(vectors, queries, k):
    draw = np.random.default_rng(vectors)
    matrix = unit(draw, vectors, 16)
    # Queries near vectors, and some far from all.
    asked = np.concatenate([unit(draw, queries, 16), matrix[:2]])
    scores, numbers = search_exactly(matrix, asked, k)
    expected_scores, expected = nearest(matrix, asked, k)
    assert (numbers == expected).all() and (scores == expected_scores).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 200), st.integers(1, 90))
def test_equal_vectors_have_equal_scores_and_come_in_order(seed, vectors, queries):
    draw = np.random.default_rng(seed)
    few = unit(draw, 6, 8)
    matrix = few[draw.integers(0, 6, vectors)]
    asked = few[draw.integers(0, 6, queries)]
    scores, numbers = search_exactly(matrix, asked, vectors)
    expected_scores, expected = nearest(matrix, asked, vectors)
    assert (numbers == expected).all() and (scores == expected_scores).all()


@pytest.mark.parametrize("callers", [1, 4])
def test_faiss_is_left_as_it_was(callers):
    matrix = unit(np.random.default_rng(0), 500, 8)
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(3)
    try:
        search_exactly(matrix, matrix[:5], 3)
        with ThreadPoolExecutor(callers) as pool:
            list(
                pool.map(
                    lambda start: search_exactly(matrix, matrix[start : start + 50], 5),
                    range(0, 400, 10),
                )
            )
        assert (
            faiss.omp_get_max_threads() == 3
            and faiss.cvar.distance_compute_blas_threshold == THRESHOLD
        )
    finally:
        faiss.omp_set_num_threads(before)
