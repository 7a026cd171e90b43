"""The index of training mentions: concepts that similar mentions were annotated with."""

import numpy as np
import pyarrow as pa
import pytest
from trigram_encoder import TrigramEncoder, build_index, make_concepts

from umls_reranker.retrieval.lexical_index import FormIndex
from umls_reranker.retrieval.name_index import MentionIndex
from umls_reranker.retrieval.retriever import Retriever, search_mentions
from umls_reranker.retrieval.retrievers import Dense, Forms, NearestMentions

NAMES = {"C0000001": ("", ["polymer"]), "C0000002": ("", ["mouse"]), "C0000003": ("", ["heart"])}
TRAINING = [
    ("PbPS", "C0000001"),
    ("PbPT", "C0000002"),
    ("PbPS", "C0000001"),
    ("PbPT-x", "C0000001"),
    ("PbPS", "C0000009"),
]


class PlainEncoder(TrigramEncoder):
    class queries:
        context_tokens = 0

    def encode(self, texts, contexts=None, **settings):
        assert contexts is None
        return super().encode(texts, **settings)


class ReadingEncoder(TrigramEncoder):
    """Reads the text to the left of a mention."""

    class queries:
        context_tokens = 8

    def encode(self, texts, contexts=None, **settings):
        lefts = contexts[0] if contexts else [""] * len(texts)
        return super().encode(
            [left + text for left, text in zip(lefts, texts, strict=True)], **settings
        )


def table(rows, lefts=None) -> pa.Table:
    mentions, cuis = zip(*rows, strict=True)
    sides = {"left": lefts or [""] * len(rows), "right": [""] * len(rows)}
    documents = [f"d{number}" for number in range(len(rows))]
    return pa.table(
        {"mention": mentions, **sides, "cui": [[[cui]] for cui in cuis], "doc_id": documents}
    )


@pytest.fixture
def concepts(tmp_path):
    return make_concepts(tmp_path / "concepts", NAMES)


def build(concepts, path, encoder=None, rows=TRAINING, lefts=None) -> MentionIndex:
    path.mkdir()
    return MentionIndex.build(table(rows, lefts), concepts, encoder or PlainEncoder(), path)


def test_concepts_are_found_by_the_most_similar_mention_of_each(concepts, tmp_path):
    index = build(concepts, tmp_path / "index")
    encoder = PlainEncoder()
    # Equal mentions of one concept are kept once, mentions of unknown concepts not at all.
    assert len(index) == 3 and not index.reads_context
    query = encoder.encode(["PbPT"])
    found = index.search(query, 3)
    assert found.rows.tolist() == [[1, 0, -1]]
    of_first = encoder.encode(["PbPS", "PbPT-x"]) @ query[0]
    np.testing.assert_allclose(found.scores[0, :2], [1, of_first.max()], atol=1e-6)


def test_an_encoder_that_reads_context_reads_that_of_training_mentions(concepts, tmp_path):
    rows = [("it", "C0000002"), ("it", "C0000003")]
    index = build(concepts, tmp_path / "index", ReadingEncoder(), rows, ["squeaking", "beating"])
    assert index.reads_context
    assert index.search(ReadingEncoder().encode(["beatingit"]), 1).rows.tolist() == [[2]]


def test_the_union_holds_what_only_a_training_mention_leads_to(concepts, tmp_path):
    encoder = PlainEncoder()
    dense = build_index(concepts, encoder, tmp_path / "dense")
    retriever = Retriever(
        [Dense(dense), NearestMentions(build(concepts, tmp_path / "mentions"))], encoder
    )
    retriever.require(concepts)
    found = retriever.search(["PbPS"], 1)
    assert found.rows.tolist() == [[0]] and set(found.lists) == {
        "dense",
        "nearest_mentions",
        "union",
    }
    # Names decide the order: what only a training mention leads to comes last.
    assert retriever.search(["PbPS mouse"], 3).rows[0, 0] == 1
    # Shown with its nearest name and the cosine of that, like any other.
    assert dense.names(found.name_ids[0]) == ["polymer"] and not found.further
    assert not retriever.reads_context


def test_an_index_holds_no_text(concepts, tmp_path):
    build(concepts, tmp_path / "index")
    assert not any(b"PbP" in file.read_bytes() for file in (tmp_path / "index").iterdir())


@pytest.mark.parametrize("encoder", [PlainEncoder(), ReadingEncoder()], ids=["plain", "context"])
def test_training_mentions_are_not_found_by_their_own_document(tmp_path, concepts, encoder):
    # PbPS is C0000001 in the documents 0 and 2; PbPT is C0000002 in document 1 only.
    mentions = build(concepts, tmp_path / "mentions", encoder)
    index = build_index(concepts, encoder, tmp_path / "dense")
    retriever = Retriever([Dense(index), NearestMentions(mentions)], encoder)
    for is_known, nearest in ((False, [0, 1]), (True, [0, 0])):
        query_of, found = search_mentions(table(TRAINING[:2]), retriever, 2, is_known=is_known)
        assert found.lists["nearest_mentions"][query_of, 0].tolist() == nearest


def test_normal_forms_of_known_mentions_count_but_for_their_own_document(tmp_path, concepts):
    # In another order and number, "mice hearts" is a mention of C0000002 in document 1 alone.
    rows = [
        ("polymers", "C0000001"),
        ("hearts of mice", "C0000002"),
        ("polymers", "C0000001"),
        ("unknown", "C0000009"),
    ]
    (tmp_path / "forms").mkdir()
    index = FormIndex.build(concepts, tmp_path / "forms", table(rows))
    encoder = PlainEncoder()
    retriever = Retriever(
        [Dense(build_index(concepts, encoder, tmp_path / "dense")), Forms(index)], encoder
    )
    queries = table([("mice heart", "C0000002"), ("mice heart", "C0000002")])
    for is_known, scores in ((False, [1.0, 1.0]), (True, [1.0, 0.0])):
        query_of, found = search_mentions(queries, retriever, 3, is_known=is_known)
        is_mouse = found.rows[query_of] == 1
        assert np.isclose(
            found.further["forms"][query_of][is_mouse], scores, atol=1e-6
        ).tolist() == [True, True]
        assert (found.lists["forms"][query_of, 0] == 1).tolist() == [score == 1 for score in scores]
