import faiss
import numpy as np
import pytest
from pipeline_fixtures import contents
from trigram_encoder import TrigramEncoder, build_index, encode_names, make_concepts

from umls_reranker.core.text_files import UserError
from umls_reranker.retrieval import faiss_index as faiss_module
from umls_reranker.retrieval import index_folder, name_index
from umls_reranker.retrieval.concept_search import Candidates
from umls_reranker.retrieval.index_folder import NameVectors
from umls_reranker.retrieval.name_index import NameIndex

WORDS = [
    "heart",
    "liver",
    "skin",
    "acute",
    "chronic",
    "pain",
    "failure",
    "cold",
    "left",
    "upper",
    "type",
    "one",
    "two",
]


def random_concepts(seed: int, count: int) -> dict[str, tuple[str, list[str]]]:
    """Some concepts with dozens of names, and many names that several concepts share."""
    draw = np.random.default_rng(seed)
    concepts = {}
    for number in range(count):
        size = 40 if number % 10 == 0 else draw.integers(1, 5)
        names = {" ".join(draw.choice(WORDS, draw.integers(1, 4))) for _ in range(size)}
        concepts[f"C{number:07}"] = ("", sorted(names))
    return concepts


def build(tmp_path, concepts, encoder=None, **settings) -> NameIndex:
    tmp_path.mkdir(exist_ok=True)
    return build_index(concepts, encoder or TrigramEncoder(), tmp_path / "index", **settings)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Rows: 0 common cold, 1 cold temperature, 2 heart."""
    path = tmp_path_factory.mktemp("toy")
    names = {
        "C0000001": ("T3", ["common cold", "cold", "head cold"]),
        "C0000002": ("T1", ["cold temperature", "cold"]),
        "C0000003": ("T4", ["heart", "cardiac organ"]),
    }
    concepts = make_concepts(path / "concepts", names)
    return concepts, build(path, concepts)


def nearest_by_brute_force(concepts, encoder, query, k):
    """Best name of every concept, best concept first; ties by row."""
    best = []
    for row in range(len(concepts)):
        names = concepts.names(row)
        scores = encoder.encode(names) @ query
        best.append((-scores.max(), row))
    return [(row, -score) for score, row in sorted(best)[:k]]


@pytest.mark.parametrize("block", [1, 7, 512])
def test_search_finds_what_comparing_with_every_name_finds(tmp_path, monkeypatch, block):
    monkeypatch.setattr(name_index, "QUERIES_PER_BLOCK", block)
    encoder = TrigramEncoder()
    concepts = make_concepts(tmp_path / "concepts", random_concepts(seed=3, count=60))
    index = build(tmp_path, concepts, encoder)
    queries = encoder.encode(["heart failure", "cold", "acute pain left", "type two", "one", "zzz"])
    for k in (1, 3, 10, 60):
        found = index.search(queries, k)
        for query in range(len(queries)):
            expected = nearest_by_brute_force(concepts, encoder, queries[query], k)
            np.testing.assert_allclose(found.scores[query], [score for _, score in expected], atol=1e-6)
            assert len(set(found.rows[query])) == k
            np.testing.assert_array_equal(index.grouping.rows[found.name_ids[query]], found.rows[query])
            scores = (encoder.encode(index.names(found.name_ids[query])) * queries[query]).sum(axis=1)
            np.testing.assert_allclose(scores, found.scores[query], atol=1e-6)


def test_concepts_that_share_a_name_tie_exactly_and_come_by_row(toy):
    _, index = toy
    found = index.search(TrigramEncoder().encode(["cold"]), 3)
    assert found.rows.tolist() == [[0, 1, 2]]
    assert found.scores[0, 0] == found.scores[0, 1]
    assert index.names(found.name_ids[0, :2]) == ["cold", "cold"]
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


class TiesBackward:
    """An exact index that gives equal scores in descending order of id, as FAISS may."""

    def __init__(self, scores):
        self.scores, self.ntotal = np.array(scores, np.float32), len(scores)

    def search(self, vectors, width):
        order = np.lexsort((-np.arange(self.ntotal), -self.scores))[:width]
        return np.tile(self.scores[order], (len(vectors), 1)), np.tile(order, (len(vectors), 1))


def test_more_candidates_than_concepts_are_padding(toy):
    _, index = toy
    found = index.search(TrigramEncoder().encode(["heart"]), 5)
    assert found.rows[0, 0] == 2
    assert found.rows[0, 3:].tolist() == found.name_ids[0, 3:].tolist() == [-1, -1]
    assert np.isneginf(found.scores[0, 3:]).all()


def test_no_queries(toy):
    _, index = toy
    assert index.search(np.empty((0, 64), np.float32), 4).rows.shape == (0, 4)


def test_each_string_is_encoded_once(tmp_path):
    encoder = TrigramEncoder()
    concepts = make_concepts(tmp_path / "concepts", random_concepts(seed=1, count=30))
    build(tmp_path, concepts, encoder)
    assert set(encoder.asked.values()) == {1}
    assert set(encoder.asked) == {name for row in range(30) for name in concepts.names(row)}


def test_shards_do_not_change_the_index(tmp_path, monkeypatch):
    concepts = make_concepts(tmp_path / "concepts", random_concepts(seed=2, count=30))
    made = []
    for shard in (3, 65_536):
        monkeypatch.setattr(index_folder, "SHARD", shard)
        build(tmp_path / f"shard-{shard}", concepts)
        made.append(contents(tmp_path / f"shard-{shard}" / "index"))
    assert made[0] == made[1]


def test_clustering_index_is_trained_and_keeps_its_search_parameters(tmp_path):
    encoder = TrigramEncoder()
    concepts = make_concepts(tmp_path / "concepts", random_concepts(seed=4, count=60))
    index = build(tmp_path, concepts, encoder, factory="IVF4,Flat", search_parameters="nprobe=4")
    query = encoder.encode(["heart failure"])
    expected = nearest_by_brute_force(concepts, encoder, query[0], 5)
    assert index.search(query, 5).rows[0].tolist() == [row for row, _ in expected]


def test_approximate_index_may_find_fewer(tmp_path):
    encoder = TrigramEncoder()
    concepts = make_concepts(tmp_path / "concepts", random_concepts(seed=4, count=60))
    index = build(tmp_path, concepts, encoder, factory="IVF4,Flat", search_parameters="nprobe=1")
    found = index.search(encoder.encode(["heart failure"]), 60)
    known = found.rows[0] >= 0
    assert 0 < known.sum() < 60
    assert known.tolist() == sorted(known.tolist(), reverse=True)


@pytest.mark.parametrize("settings", [{"factory": "Flatt"}, {"search_parameters": "nprobe=4"}])
def test_unknown_factory_or_parameter_is_refused(tmp_path, toy, settings):
    with pytest.raises(UserError, match="index_factory"):
        build(tmp_path, toy[0], **settings)


def test_index_refuses_another_encoder_and_other_concepts(tmp_path, toy):
    concepts, index = toy
    index.require(concepts, TrigramEncoder())
    with pytest.raises(UserError, match="encoder model 'trigrams', not 'other'.*build_index"):
        index.require(concepts, TrigramEncoder(name="other"))
    fewer = make_concepts(tmp_path / "fewer", {"C0000001": ("", ["cold"])})
    with pytest.raises(UserError, match="over 3 concepts, but there are 1"):
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


def test_search_leaves_the_thread_settings_alone(toy):
    threads = faiss.omp_get_max_threads()
    toy[1].search(TrigramEncoder().encode(["cold"]), 2)
    assert faiss.omp_get_max_threads() == threads


# Indexes that are not exact


# Clusters are scanned with codes of four bits, whose table fits a register; the best are compared again.
FAST = "IVF4,PQ16x4fs,Refine(SQfp16)"


@pytest.fixture(scope="module")
def clustered(tmp_path_factory):
    return make_concepts(tmp_path_factory.mktemp("clustered") / "concepts", random_concepts(seed=5, count=150))


def naive_recall(encoder, index, texts, k):
    """Share of the k nearest strings that are found, by comparing every string with every other."""
    vectors, hits = encoder.encode(texts), []
    for own in range(len(texts)):
        exact = vectors @ vectors[own]
        _, found = index.search(vectors[own : own + 1], k + 1)
        found = [string for string in found[0] if string != own][:k]
        kth = np.sort(np.delete(exact, own))[-k]
        hits.append(sum(string >= 0 and exact[string] >= kth - 1e-6 for string in found) / k)
    return np.mean(hits)


def test_recall_counts_shard_by_shard(tmp_path, clustered, monkeypatch):
    def measured(folder):
        index = build(folder, clustered, factory="IVF8,Flat", search_parameters="nprobe=1")
        return index.measure_recall(NameVectors(folder / "index-vectors"))

    whole = measured(tmp_path / "whole")
    monkeypatch.setattr(index_folder, "SHARD", 17)
    assert measured(tmp_path / "again") == whole


def test_a_shard_of_vectors_that_is_missing_is_named(tmp_path, clustered):
    vectors = encode_names(clustered, TrigramEncoder(), tmp_path / "vectors")
    next((tmp_path / "vectors").glob("*.npy")).unlink()
    with pytest.raises(UserError, match=r"00000-of-00001.npy cannot be read .*build_index with --overwrite"):
        NameIndex.build(vectors, tmp_path)


@pytest.mark.parametrize(
    "factory",
    ["Flat", "SQ8", "SQfp16", "PQ4x4", "HNSW8,Flat", "HNSW8,SQ8", "IVF4,Flat", "IVF4,SQfp16", "OPQ8,IVF4,SQ8", FAST],
)
def test_best_names_are_those_of_the_search(tmp_path, clustered, factory):
    encoder = TrigramEncoder()
    index = build(tmp_path, clustered, encoder, factory=factory, search_parameters="nprobe=4" * ("IVF" in factory))
    queries = encoder.encode(["heart failure", "cold", "acute pain left"])
    found = index.search(queries, 5)
    name_ids, scores = index.best_names(queries, np.pad(found.rows, ((0, 0), (0, 1)), constant_values=-1))
    np.testing.assert_allclose(scores[:, :5], found.scores, atol=1e-5)
    assert (name_ids[:, 5] == -1).all() and np.isneginf(scores[:, 5]).all()
    np.testing.assert_array_equal(index.grouping.rows[name_ids[:, :5]], found.rows)
    if factory == "Flat":
        np.testing.assert_array_equal(name_ids[:, :5], found.name_ids)


def test_a_query_finds_the_same_whoever_is_searched_with_it(tmp_path, clustered):
    encoder = TrigramEncoder()
    index = build(tmp_path, clustered, encoder, factory=FAST, search_parameters="nprobe=2,k_factor_rf=2")
    queries = encoder.encode([clustered.names(row)[0] for row in range(40)])
    together = index.search(queries, 5)
    alone = Candidates.concatenate([index.search(query[None], 5) for query in queries])
    for key in ("rows", "name_ids", "scores"):
        np.testing.assert_array_equal(getattr(together, key), getattr(alone, key))
    np.testing.assert_allclose(together.scores[:, 0], 1, atol=1e-3)


@pytest.mark.parametrize("factory", ["SQfp16", "HNSW8,SQfp16", FAST])
def test_vectors_do_not_move_while_an_index_is_filled(tmp_path, clustered, monkeypatch, factory):
    monkeypatch.setattr(index_folder, "SHARD", 17)
    vectors, places = encode_names(clustered, TrigramEncoder(), tmp_path / "vectors"), []
    index = faiss_module.new_index(vectors.dimension, factory, "nprobe=4" * ("IVF" in factory))
    holder = next((getattr(index, name) for name in ("storage", "refine_index") if hasattr(index, name)), index)
    codes, add = faiss.downcast_index(holder).codes, index.add
    monkeypatch.setattr(index, "add", lambda shard: add(shard) or places.append(int(codes.data())))
    faiss_module.fill(index, vectors)
    assert len(places) == -(-len(vectors) // 17) and len(set(places)) == 1


def test_best_names_in_pieces(monkeypatch, toy):
    _, index = toy
    queries, rows = TrigramEncoder().encode(["cold", "cardiac"]), np.array([[2, 0, 1], [-1, 2, 0]])
    whole = index.best_names(queries, rows)
    assert index.names(whole[0][0]) == ["cardiac organ", "cold", "cold"]
    assert index.names(whole[0][1, 1:2]) == ["cardiac organ"]
    monkeypatch.setattr(name_index, "NAMES_AT_ONCE", 1)
    pieces = index.best_names(queries, rows)
    np.testing.assert_array_equal(pieces[0], whole[0])
    np.testing.assert_array_equal(pieces[1], whole[1])


def record_training(monkeypatch):
    """How many vectors each IVF index is trained on."""
    trained, train = [], faiss.IndexIVFFlat.train
    monkeypatch.setattr(faiss.IndexIVFFlat, "train", lambda self, x: trained.append(len(x)) or train(self, x))
    return trained


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (100_000, "index_factory: .* trained on 638,976 names .* there are 100,000; use IVF2564 or fewer"),
        (20, "there are 20; use Flat"),
    ],
)
def test_clusters_without_enough_names_are_refused(names, reason):
    index = faiss_module.new_index(64, "OPQ16,IVF16384,SQfp16", "nprobe=64")
    with pytest.raises(UserError, match=reason):
        faiss_module.training_size(index, names)


@pytest.mark.parametrize(
    ("factory", "parameters", "recommended"),
    [
        ("IVF4096,SQfp16", "", "nprobe=256"),
        ("OPQ16,IVF256,PQ16,RFlat", "", "nprobe=64"),
        ("IVF16384_HNSW32,SQ8", "quantizer_efSearch=64", "nprobe=512"),
        ("IVF4,Flat", "", "nprobe=4"),
    ],
)
def test_clusters_without_nprobe_are_refused(factory, parameters, recommended):
    with pytest.raises(UserError, match=f"index_parameters: .* only 1 of .* clusters by default; set {recommended} "):
        faiss_module.new_index(64, factory, parameters)


def test_what_has_no_enough_names_to_train_on_is_refused(tmp_path, clustered):
    with pytest.raises(UserError, match="training on [0-9]+ names failed"):
        build(tmp_path, clustered, factory="PQ4x10")
