from concurrent.futures import ThreadPoolExecutor

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from list_fixtures import COSINE_ROUNDING, assert_alike
from pipeline_fixtures import contents
from trigram_encoder import (
    TrigramEncoder,
    build_index,
    encode_names,
    make_concepts,
    random_concepts,
    toy_concepts,
)

from umls_reranker.core.errors import UserError
from umls_reranker.retrieval import faiss_indexes as faiss_module
from umls_reranker.retrieval.candidates import Candidates
from umls_reranker.retrieval.faiss_indexes import search_exactly
from umls_reranker.retrieval.name_index import NameIndex
from umls_reranker.retrieval.name_vectors import NameVectors


def build(tmp_path, concepts, encoder=None, **settings) -> NameIndex:
    tmp_path.mkdir(exist_ok=True)
    return build_index(concepts, encoder or TrigramEncoder(), tmp_path / "index", **settings)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    path = tmp_path_factory.mktemp("toy")
    concepts = toy_concepts(path / "concepts")
    return concepts, build(path, concepts)


def nearest_by_brute_force(concepts, encoder, query, k):
    """(k,) cosines of the best names of the best concepts, best first."""
    return sorted(
        (max(encoder.encode(concepts.names(row)) @ query) for row in range(len(concepts))),
        reverse=True,
    )[:k]


@pytest.mark.parametrize("block", [1, 7, 512])
def test_search_finds_what_comparing_with_every_name_finds(tmp_path, block):
    encoder = TrigramEncoder()
    concepts = make_concepts(tmp_path / "concepts", random_concepts(seed=3, count=60))
    index = build(tmp_path, concepts, encoder)
    queries = encoder.encode(["heart failure", "cold", "acute pain left", "type two", "one", "zzz"])
    for k in (1, 3, 10, 60):
        found = index.search(queries, k, block)
        for query in range(len(queries)):
            expected = nearest_by_brute_force(concepts, encoder, queries[query], k)
            np.testing.assert_allclose(found.scores[query], expected, atol=1e-6)
            assert len(set(found.rows[query])) == k
            np.testing.assert_array_equal(
                index.grouping.rows[found.name_ids[query]], found.rows[query]
            )
            scores = (encoder.encode(index.names(found.name_ids[query])) * queries[query]).sum(
                axis=1
            )
            np.testing.assert_allclose(scores, found.scores[query], atol=1e-6)


def test_concepts_that_share_a_name_tie_exactly_and_come_by_row(toy):
    _, index = toy
    found = index.search(TrigramEncoder().encode(["cold"]), 3)
    assert found.rows.tolist() == [[0, 1, 2]]
    assert found.scores[0, 0] == found.scores[0, 1]
    assert index.names(found.name_ids[0, :2]) == ["Cold", "cold"]
    assert found.name_ids[0, :2].tolist() == [1, 4]


def test_ties_at_the_edge_of_what_faiss_gives_are_broken_by_row(tmp_path):
    # 40 different strings with the same vector: FAISS may return any of them first.
    encoder = TrigramEncoder()
    encoder.encode = lambda texts, **_: np.tile(np.float32([1, *[0] * 63]), (len(texts), 1))
    names = {f"C{number:07}": ("", [f"name {number}"]) for number in range(40)}
    index = build(tmp_path, make_concepts(tmp_path / "concepts", names), encoder)
    assert index.search(encoder.encode(["x"]), 2).rows.tolist() == [[0, 1]]


def test_many_near_names_of_one_concept_do_not_crowd_out_the_next_one(tmp_path):
    names = {"C0000001": ("", [f"cold {letter}" for letter in "abcdefghijklmnopqrstuvwxyz"])}
    names |= {"C0000002": ("", ["colt"]), "C0000003": ("", ["heart"])}
    index = build(tmp_path, make_concepts(tmp_path / "concepts", names))
    assert index.search(TrigramEncoder().encode(["cold"]), 2).rows.tolist() == [[0, 1]]


@pytest.mark.parametrize("settings", [{"factory": "Flatt"}, {"search_parameters": "nprobe=4"}])
def test_unknown_factory_or_parameter_is_refused(tmp_path, toy, settings):
    with pytest.raises(UserError, match="index_factory"):
        build(tmp_path, toy[0], **settings)


def test_index_refuses_another_encoder_and_other_concepts(tmp_path, toy):
    concepts, index = toy
    index.require(concepts, TrigramEncoder())
    with pytest.raises(UserError, match="'trigrams'.*'other'"):
        index.require(concepts, TrigramEncoder(name="other"))
    fewer = make_concepts(tmp_path / "fewer", {"C0000001": ("", ["cold"])})
    with pytest.raises(UserError, match="3 concepts"):
        index.require(fewer, TrigramEncoder())


@pytest.mark.parametrize("part", ["names.faiss", "index.json", "names.arrow"])
@pytest.mark.parametrize("damage", ["missing", "cut short"])
def test_incomplete_index_is_refused(tmp_path, toy, part, damage):
    build(tmp_path, toy[0])
    file = tmp_path / "index" / part
    content = file.read_bytes()
    file.unlink()
    if damage == "cut short":
        file.write_bytes(content[: len(content) // 3])
    with pytest.raises(UserError):
        NameIndex.load(tmp_path / "index")


# Indexes that are not exact


# Clusters are scanned with codes of four bits, whose table fits a register; the best are compared
# again.
FAST = "IVF4,PQ16x4fs,Refine(SQfp16)"


@pytest.fixture(scope="module")
def clustered(tmp_path_factory):
    return make_concepts(
        tmp_path_factory.mktemp("clustered") / "concepts", random_concepts(seed=5, count=150)
    )


def test_a_shard_of_vectors_that_is_missing_is_named(tmp_path, clustered):
    vectors = encode_names(clustered, TrigramEncoder(), tmp_path / "vectors")
    next((tmp_path / "vectors").glob("*.npy")).unlink()
    with pytest.raises(UserError, match="00000-of-00001.npy"):
        NameIndex.build(vectors, tmp_path)


@pytest.mark.parametrize(
    "factory",
    [
        "Flat",
        "SQ8",
        "SQfp16",
        "PQ4x4",
        "HNSW8,Flat",
        "HNSW8,SQ8",
        "IVF4,Flat",
        "IVF4,SQfp16",
        "OPQ8,IVF4,SQ8",
        FAST,
    ],
)
def test_best_names_are_those_of_the_search(tmp_path, clustered, factory):
    encoder = TrigramEncoder()
    index = build(
        tmp_path,
        clustered,
        encoder,
        factory=factory,
        search_parameters="nprobe=4" if "IVF" in factory else "",
    )
    queries = encoder.encode(["heart failure", "cold", "acute pain left"])
    found = index.search(queries, 5)
    padded = np.pad(found.rows, ((0, 0), (0, 1)), constant_values=-1)
    name_ids, scores = index.best_names(queries, padded, np.arange(len(queries)), block=7)
    np.testing.assert_allclose(scores[:, :5], found.scores, atol=1e-5)
    assert (name_ids[:, 5] == -1).all() and np.isneginf(scores[:, 5]).all()
    np.testing.assert_array_equal(index.grouping.rows[name_ids[:, :5]], found.rows)
    if factory == "Flat":
        np.testing.assert_array_equal(name_ids[:, :5], found.name_ids)


def test_a_query_finds_the_same_whoever_is_searched_with_it(tmp_path, clustered):
    encoder = TrigramEncoder()
    index = build(
        tmp_path, clustered, encoder, factory=FAST, search_parameters="nprobe=2,k_factor_rf=2"
    )
    queries = encoder.encode([clustered.names(row)[0] for row in range(40)])
    together = index.search(queries, 5)
    alone = Candidates.concatenate([index.search(query[None], 5) for query in queries])
    for key in ("rows", "name_ids"):
        np.testing.assert_array_equal(getattr(together, key), getattr(alone, key))
    assert_alike(together.scores, alone.scores, COSINE_ROUNDING)
    np.testing.assert_allclose(together.scores[:, 0], 1, atol=1e-3)


def test_clusters_without_enough_names_or_without_nprobe_are_refused():
    index = faiss_module.new_index(64, "OPQ16,IVF16384,SQfp16", "nprobe=64")
    for names, way_out in ((100_000, "IVF2564"), (20, "Flat")):
        with pytest.raises(UserError, match=f"index_factory: .*{way_out}"):
            faiss_module.training_size(index, names)
    with pytest.raises(UserError, match="index_parameters: .*nprobe=256"):
        faiss_module.new_index(64, "IVF4096,SQfp16", "")


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
    assert (numbers == expected).all()
    assert_alike(scores, expected_scores, COSINE_ROUNDING)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 200), st.integers(1, 90))
def test_equal_vectors_have_equal_scores_and_come_in_order(seed, vectors, queries):
    draw = np.random.default_rng(seed)
    few = unit(draw, 6, 8)
    matrix = few[draw.integers(0, 6, vectors)]
    asked = few[draw.integers(0, 6, queries)]
    scores, numbers = search_exactly(matrix, asked, vectors)
    expected_scores, expected = nearest(matrix, asked, vectors)
    assert (numbers == expected).all()
    assert_alike(scores, expected_scores, COSINE_ROUNDING)


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


# Names encoded by several processes, and by processes that were killed, give the bytes of an


pytest_plugins = ["pipeline_fixtures"]

SHARD = 16


class Died(Exception):
    pass


class DyingEncoder(TrigramEncoder):
    """Dies before the shard of some number."""

    def __init__(self, shards: int) -> None:
        super().__init__()
        self.left = shards

    def encode(self, texts, **settings):
        if self.left == 0:
            raise Died
        self.left -= 1
        return super().encode(texts, **settings)


@pytest.fixture
def fifty_concepts(tmp_path):
    names = {
        f"C{number:07}": ("", [f"name {number}", f"{number} again", "shared"])
        for number in range(50)
    }
    return make_concepts(tmp_path / "concepts", names)


def build_vectors(path, fifty_concepts, encoder=None, shard=SHARD):
    return encode_names(fifty_concepts, encoder or TrigramEncoder(), path, shard)


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_the_names_and_give_the_same_bytes(tmp_path, fifty_concepts, processes):
    build_vectors(tmp_path / "whole", fifty_concepts)
    folder = tmp_path / "shared"
    encoders = [TrigramEncoder() for _ in range(processes)]
    vectors = NameVectors.prepare(fifty_concepts, encoders[0], folder, SHARD)
    for process, encoder in enumerate(encoders):
        vectors.encode_share(encoder, process, processes)
    # 101 distinct names are seven shards, the last of five names.
    expected = {2: [3 * 16 + 5, 3 * 16], 3: [2 * 16 + 5, 2 * 16, 2 * 16]}[processes]
    assert [encoder.asked.total() for encoder in encoders] == expected
    rest = TrigramEncoder()
    build_vectors(folder, fifty_concepts, rest)
    assert not rest.asked
    assert contents(folder) == contents(tmp_path / "whole")


def test_a_killed_encoding_resumes_with_the_missing_shards(tmp_path, fifty_concepts):
    build_vectors(tmp_path / "whole", fifty_concepts)
    folder = tmp_path / "killed"
    with pytest.raises(Died):
        build_vectors(folder, fifty_concepts, DyingEncoder(3))
    done = sorted(path.name for path in folder.glob("*.npy"))
    assert done == [f"{number:05}-of-00007.npy" for number in range(3)]
    (folder / ".00003-of-00007.npy.partial").write_bytes(b"cut short")
    encoder = TrigramEncoder()
    build_vectors(folder, fifty_concepts, encoder)
    assert encoder.asked.total() == 101 - 3 * SHARD and set(encoder.asked.values()) == {1}
    assert contents(folder) == contents(tmp_path / "whole")


def test_vectors_are_taken_across_shards(tmp_path):
    texts = [f"name {number}" for number in range(10)]
    fifty_concepts = make_concepts(tmp_path / "concepts", {"C0000001": ("", texts)})
    vectors = build_vectors(tmp_path / "v", fifty_concepts, shard=4)
    assert (len(vectors), vectors.dimension, vectors.concepts) == (10, 64, 1)
    expected = TrigramEncoder().encode(texts)
    np.testing.assert_array_equal(vectors.take(np.array([0, 3, 4, 9])), expected[[0, 3, 4, 9]])
    assert [start for start, _ in vectors.shards()] == [0, 4, 8]
    assert vectors.sample(20).tolist() == list(range(10))
    sample = vectors.sample(6)
    assert len(sample) == 6 and (np.diff(sample) > 0).all()
    assert sample.tolist() == vectors.sample(6).tolist()
