import numpy as np
import pytest
from datasets import Dataset
from trigram_encoder import TrigramEncoder, build_index, make_concepts

from umls_reranker.core.arrays import open_arrow
from umls_reranker.lists.labels import read_labelled_lists
from umls_reranker.retrieval.retriever import Retriever, drawn_rows, write_lists
from umls_reranker.retrieval.retrievers import Dense

CONCEPTS = {
    "C0000001": ("T3", ["common cold", "cold", "head cold"]),
    "C0000002": ("T1", ["cold temperature", "cold"]),
    "C0000003": ("T4", ["heart", "cardiac organ"]),
    "C0000004": ("T4", ["liver"]),
}
# (mention, gold CUI): C0000009 is not in the dictionary.
MENTIONS = [
    ("cold", "C0000002"),
    ("hearts", "C0000003"),
    ("cold", "C0000001"),
    ("heart", "C0000009"),
]
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
    documents = ["d"] * len(rows)
    types = [["T4"]] * len(rows)
    numbers = {"mention_id": ids, "doc_id": documents, "start": ids, "end": ids}
    return Dataset.from_dict(
        {
            **numbers,
            "mention": texts,
            **sides,
            "cui": [[[cui]] for cui in cuis],
            "semantic_types": types,
        }
    )


def write(path, concepts, index, k=2, encoder=None, mentions=None, recall_depth=64, **settings):
    mentions = mentions or make_mentions()
    encoder = encoder or TrigramEncoder()
    retriever = Retriever([Dense(index)], encoder, "the key", recall_depth=recall_depth)
    return write_lists(mentions, retriever, concepts, k, path / "lists.arrow", **settings)


def read(path, concepts):
    return read_labelled_lists(
        path / "lists.arrow", concepts.hierarchy, concepts=concepts, fitted_on=False
    )


def test_lists_hold_the_nearest_concepts_and_where_the_gold_one_is(tmp_path, concepts, index):
    counts = write(tmp_path, concepts, index)
    recall = {"dense": {"1": 0.5, "8": 1.0, "32": 1.0, "64": 1.0}}
    assert counts == {"mentions": 5, "in_dictionary": 4, "retrieved": 3, "recall": recall}
    lists = read(tmp_path, concepts)
    assert lists.mentions == [m for m, _ in MENTIONS]
    assert lists.annotations.mention_ids.tolist() == ["100", "101", "102", "103", "104"]
    assert lists.offsets.tolist() == [0, 2, 4, 6, 8, 10] and lists.index_keys == ["the key"] * 5
    assert lists.cuis.to_list()[:3] == ["C0000001", "C0000002", "C0000003"]
    assert lists.names.to_list()[:2] == ["cold", "cold"] and lists.names.to_list()[8:] == [
        "head cold",
        "cold",
    ]
    assert list(lists.types) == [("T4",)] * 5 and list(lists.candidate_types)[:2] == [
        ("T3",),
        ("T1",),
    ]
    assert lists.annotations.gold.tolist() == [1, 0, 0, -1, -1]
    assert lists.annotations.in_dictionary.tolist() == [True, True, True, False, True]
    np.testing.assert_allclose(lists.scores["retrieval"][:2], [1, 1], atol=1e-6)


def test_training_mentions_are_drawn_among_those_with_a_known_concept(concepts):
    cuis = ["C0000001", "C0000009"] * 50
    assert drawn_rows(cuis, concepts, None, 1).tolist() == list(range(0, 100, 2))
    drawn = drawn_rows(cuis, concepts, 20, 1)
    assert len(set(drawn)) == 20 and (np.diff(drawn) > 0).all() and not (drawn % 2).any()
    assert (
        drawn_rows(cuis, concepts, 20, 1).tolist()
        == drawn.tolist()
        != drawn_rows(cuis, concepts, 20, 2).tolist()
    )


def test_recall_is_of_the_mentions_in_the_dictionary_and_none_without_them(
    tmp_path, concepts, index
):
    # With two concepts in a list, that of "cold" is found and the liver is not.
    rows = [("heart", "C0000009"), ("cold", "C0000001"), ("head cold", "C0000004")]
    found = write(tmp_path / "some", concepts, index, mentions=make_mentions(rows), recall_depth=2)
    assert (found["in_dictionary"], found["retrieved"]) == (2, 1)
    assert found["recall"] == {"dense": {"1": 0.5, "8": 0.5, "32": 0.5, "64": 0.5}}
    found = write(tmp_path / "none", concepts, index, mentions=make_mentions(rows[:1]))
    assert found["recall"] == {"dense": {"1": 0.0, "8": 0.0, "32": 0.0, "64": 0.0}}


def test_batches_do_not_change_the_rows(tmp_path, concepts, index):
    mentions = make_mentions(MENTIONS * 20)
    rows = []
    for size in (7, 4_096):
        write(tmp_path / str(size), concepts, index, mentions=mentions, batch=size)
        rows.append(open_arrow(tmp_path / str(size) / "lists.arrow").to_pylist())
    assert rows[0] == rows[1]
