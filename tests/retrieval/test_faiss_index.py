import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umls_reranker.core.progress import progress
from umls_reranker.retrieval import faiss_index
from umls_reranker.retrieval.faiss_index import search_exactly, write


def unit(draw, n, dimension):
    vectors = draw.standard_normal((n, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def nearest(vectors, queries, k):
    """By a full sort of the same float32 scores, equal ones by number."""
    scores = np.stack([np.einsum("nd,d->n", vectors, query) for query in queries])
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, axis=1), order


@pytest.mark.parametrize("vectors, queries, k", [(1_000, 17, 10), (130, 3, 1), (70, 80, 70), (5, 1, 3)])
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
    matrix, asked = few[draw.integers(0, 6, vectors)], few[draw.integers(0, 6, queries)]
    scores, numbers = search_exactly(matrix, asked, vectors)
    expected_scores, expected = nearest(matrix, asked, vectors)
    assert (numbers == expected).all() and (scores == expected_scores).all()


@pytest.mark.parametrize("factory", ["Flat", "IVF4,PQ4x4fs,Refine(SQfp16)", "HNSW4,SQfp16"])
def test_an_index_is_written_as_by_faiss_and_its_size_is_known_before(factory, tmp_path, monkeypatch):
    index, vectors = (
        faiss.index_factory(8, factory, faiss.METRIC_INNER_PRODUCT),
        unit(np.random.default_rng(0), 200, 8),
    )
    index.train(vectors)
    index.add(vectors)
    totals = []
    monkeypatch.setattr(faiss_index, "progress", lambda **bar: totals.append(bar["total"]) or progress(**bar))
    write(index, tmp_path / "ours")
    faiss.write_index(index, str(tmp_path / "theirs"))
    content = (tmp_path / "theirs").read_bytes()
    assert (tmp_path / "ours").read_bytes() == content and totals == [len(content)]
