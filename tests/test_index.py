import faiss
import numpy as np
import pytest
from trigram_encoder import TrigramEncoder, make_concepts

from umls_reranker.errors import UserError
from umls_reranker.retrieval import index as index_module
from umls_reranker.retrieval.index import NameIndex, expand_ranges

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
    folder = tmp_path / "index"
    folder.mkdir()
    return NameIndex.build(concepts, encoder or TrigramEncoder(), folder, **settings)


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


def test_expanded_ranges():
    owners, numbers = expand_ranges(np.array([5, 0, 8]), np.array([7, 0, 9]))
    assert owners.tolist() == [0, 0, 2]
    assert numbers.tolist() == [5, 6, 8]


@pytest.mark.parametrize("block", [1, 7, 512])
def test_search_finds_what_comparing_with_every_name_finds(tmp_path, monkeypatch, block):
    monkeypatch.setattr(index_module, "QUERIES_PER_BLOCK", block)
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
            np.testing.assert_array_equal(index.concept_rows[found.name_ids[query]], found.rows[query])
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


def test_names_left_out_with_the_score_of_the_last_one_are_asked_for(tmp_path):
    names = {f"C{number:07}": ("", [f"name {number}"]) for number in range(40)}
    index = build(tmp_path, make_concepts(tmp_path / "concepts", names))
    index._vectors = TiesBackward([0.5] * 39 + [0.9])
    assert index.search(np.zeros((1, 64), np.float32), 3).rows.tolist() == [[39, 0, 1]]


def test_more_candidates_than_concepts_are_padding(toy):
    _, index = toy
    found = index.search(TrigramEncoder().encode(["heart"]), 5)
    assert found.rows[0, 0] == 2
    assert found.rows[0, 3:].tolist() == found.name_ids[0, 3:].tolist() == [-1, -1]
    assert np.isneginf(found.scores[0, 3:]).all()


def test_no_queries(toy):
    _, index = toy
    assert index.search(np.empty((0, 64), np.float32), 4).rows.shape == (0, 4)


def test_names_by_concept(toy):
    _, index = toy
    assert len(index) == 7
    assert index.names(index.name_ids_of(0)) == ["common cold", "cold", "head cold"]
    assert index.names(index.name_ids_of(2)) == ["heart", "cardiac organ"]


def test_each_string_is_encoded_once(tmp_path):
    encoder = TrigramEncoder()
    concepts = make_concepts(tmp_path / "concepts", random_concepts(seed=1, count=30))
    build(tmp_path, concepts, encoder)
    assert set(encoder.asked.values()) == {1}
    assert set(encoder.asked) == {name for row in range(30) for name in concepts.names(row)}


def test_shards_do_not_change_the_index_and_leave_nothing_behind(tmp_path, monkeypatch):
    concepts = make_concepts(tmp_path / "concepts", random_concepts(seed=2, count=30))
    contents = []
    for shard in (3, 65_536):
        monkeypatch.setattr(index_module, "SHARD", shard)
        folder = tmp_path / f"shard-{shard}"
        folder.mkdir()
        build(folder, concepts)
        contents.append({p.name: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()})
    assert contents[0] == contents[1]
    assert not [name for name in contents[0] if name.endswith(".partial")]


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


def test_training_sample_is_bounded(monkeypatch):
    monkeypatch.setattr(index_module, "TRAINING_SAMPLE", 10)
    matrix = np.arange(200, dtype=np.float32).reshape(100, 2)
    sample = index_module._sample(matrix)
    assert sample.shape == (10, 2)
    assert (np.diff(sample[:, 0]) > 0).all()


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
    with pytest.raises(UserError, match="over 3 concepts and there are 1"):
        index.require(fewer, TrigramEncoder())


@pytest.mark.parametrize("part", ["names.faiss", "index.json", "names/data-00000-of-00001.arrow"])
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
