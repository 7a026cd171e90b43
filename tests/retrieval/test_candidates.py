import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset
from trigram_encoder import TrigramEncoder, build_index, make_concepts

from umls_reranker.core.errors import UserError
from umls_reranker.retrieval import candidates as candidates_module
from umls_reranker.retrieval.candidates import CANDIDATE_FEATURES, gold_positions, search_mentions, write_candidates
from umls_reranker.retrieval.retriever import Retriever
from umls_reranker.retrieval.retrievers import Dense

CONCEPTS = {
    "C0000001": ("T3", ["common cold", "cold", "head cold"]),
    "C0000002": ("T1", ["cold temperature", "cold"]),
    "C0000003": ("T4", ["heart", "cardiac organ"]),
    "C0000004": ("T4", ["liver"]),
}
# (mention, gold CUI): C0000009 is not in the dictionary.
MENTIONS = [("cold", "C0000002"), ("hearts", "C0000003"), ("cold", "C0000001"), ("heart", "C0000009")]
MENTIONS += [("head cold", "C0000004")]


@pytest.fixture(scope="module")
def concepts(tmp_path_factory):
    return make_concepts(tmp_path_factory.mktemp("concepts"), CONCEPTS)


@pytest.fixture(scope="module")
def index(concepts, tmp_path_factory):
    return build_index(concepts, TrigramEncoder(), tmp_path_factory.mktemp("index"))


def make_mentions(rows=MENTIONS, first_id=100) -> Dataset:
    texts, cuis = zip(*rows, strict=True)
    sides = {"left": [""] * len(rows), "right": [""] * len(rows)}
    ids = range(first_id, first_id + len(rows))
    return Dataset.from_dict({"mention_id": ids, "mention": texts, **sides, "cui": cuis})


def write(path, concepts, index, k=2, encoder=None, mentions=None):
    mentions = mentions or make_mentions()
    return write_candidates(
        mentions, Retriever([Dense(index)], encoder or TrigramEncoder()), concepts, k, path / "lists.arrow"
    )


def test_lists_hold_the_nearest_concepts_and_where_the_gold_one_is(tmp_path, concepts, index):
    counts = write(tmp_path, concepts, index)
    recall = {"dense": {"1": 0.5, "8": 1.0, "32": 1.0, "64": 1.0}}
    assert counts == {"mentions": 5, "in_dictionary": 4, "retrieved": 3, "recall": recall}
    lists = Dataset.from_file(str(tmp_path / "lists.arrow"))
    assert lists.features == CANDIDATE_FEATURES
    assert lists["mention_id"][:] == [100, 101, 102, 103, 104]
    assert lists["cuis"][0] == ["C0000001", "C0000002"]
    assert lists["names"][0] == ["cold", "cold"]
    assert lists["cuis"][1][0] == "C0000003"
    assert lists["names"][4] == ["head cold", "cold"]
    assert lists["gold"][:] == [1, 0, 0, -1, -1]
    np.testing.assert_allclose(lists["retrieval_scores"][0], [1, 1], atol=1e-6)


def test_recall_is_of_the_mentions_in_the_dictionary_and_none_without_them(tmp_path, concepts, index, monkeypatch):
    # With two concepts in a list, that of "cold" is found and the liver is not.
    monkeypatch.setattr("umls_reranker.retrieval.retriever.RECALL_DEPTH", 2)
    rows = [("heart", "C0000009"), ("cold", "C0000001"), ("head cold", "C0000004")]
    found = write(tmp_path / "some", concepts, index, mentions=make_mentions(rows))
    assert (found["in_dictionary"], found["retrieved"]) == (2, 1)
    assert found["recall"] == {"dense": {"1": 0.5, "8": 0.5, "32": 0.5, "64": 0.5}}
    found = write(tmp_path / "none", concepts, index, mentions=make_mentions(rows[:1]))
    assert found["recall"] == {"dense": {"1": 0.0, "8": 0.0, "32": 0.0, "64": 0.0}}


def test_gold_concept_is_never_injected(tmp_path, concepts, index):
    write(tmp_path, concepts, index)
    lists = Dataset.from_file(str(tmp_path / "lists.arrow"))
    assert "C0000004" not in lists["cuis"][4]
    assert lists["cuis"][2] == lists["cuis"][0]


def test_list_is_as_long_as_the_dictionary_when_that_is_short(tmp_path, concepts, index):
    write(tmp_path, concepts, index, k=10)
    lists = Dataset.from_file(str(tmp_path / "lists.arrow"))
    assert [len(cuis) for cuis in lists["cuis"]] == [4] * 5
    assert all(len(set(cuis)) == 4 for cuis in lists["cuis"])
    assert min(lists["gold"][:]) == -1
    assert lists["gold"][4] == lists["cuis"][4].index("C0000004")


def test_each_string_is_encoded_once(tmp_path, concepts, index):
    encoder = TrigramEncoder()
    write(tmp_path, concepts, index, encoder=encoder)
    assert encoder.asked == {"cold": 1, "hearts": 1, "heart": 1, "head cold": 1}


def test_batches_do_not_change_the_file(tmp_path, concepts, index, monkeypatch):
    mentions = make_mentions(MENTIONS * 20)
    contents = []
    for size in (7, 4_096):
        monkeypatch.setattr(candidates_module, "MENTIONS_PER_BATCH", size)
        write(tmp_path / str(size), concepts, index, mentions=mentions)
        contents.append(Dataset.from_file(str(tmp_path / str(size) / "lists.arrow")).to_dict())
    assert contents[0] == contents[1]


def test_queries_are_searched_in_pieces(concepts, index, monkeypatch):
    texts = pa.table({"mention": pa.chunked_array([["cold", "heart"], ["liver", "cold", "cardiac"]])})
    retriever = Retriever([Dense(index)], TrigramEncoder())
    whole = search_mentions(texts, retriever, 3)
    monkeypatch.setattr(candidates_module, "QUERIES", 2)
    pieces = search_mentions(texts, retriever, 3)
    assert whole[0].tolist() == pieces[0].tolist() == [0, 1, 2, 0, 3]
    np.testing.assert_array_equal(whole[1].name_ids, pieces[1].name_ids)


def test_gold_positions():
    rows = np.array([[4, 2, -1], [1, 3, 5]])
    assert gold_positions(np.array([2, 5, -1, 4]), rows, np.array([0, 1, 0, 1])).tolist() == [1, 2, -1, -1]


def test_another_encoder_is_refused(tmp_path, concepts, index):
    with pytest.raises(UserError, match="'trigrams', not 'other'"):
        write(tmp_path, concepts, index, encoder=TrigramEncoder(name="other"))
