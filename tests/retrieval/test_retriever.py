import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset
from list_fixtures import COSINE_ROUNDING, assert_alike
from trigram_encoder import PlainEncoder, TrigramEncoder, build_index, make_concepts

from umls_reranker.core.arrow_files import open_arrow
from umls_reranker.lists.labels import read_labelled_lists
from umls_reranker.lists.run_lists import read_run_lists
from umls_reranker.retrieval.lexical_index import FormIndex, LexicalIndex
from umls_reranker.retrieval.mention_index import MentionIndex
from umls_reranker.retrieval.mention_lists import search_mentions, write_lists
from umls_reranker.retrieval.rank_fusion import fuse_ranks
from umls_reranker.retrieval.retriever import Retriever
from umls_reranker.retrieval.retrievers import (
    Dense,
    DenseInContext,
    Forms,
    Lexical,
    NearestMentions,
)
from umls_reranker.retrieval.training_mentions import drawn_rows
from umls_reranker.vocab.concept_table import ConceptTable

NAMES = {
    "C0000001": ("", ["common cold", "cold", "head cold"]),
    "C0000002": ("", ["cold temperature", "cold"]),
    "C0000003": ("", ["heart", "cardiac organ"]),
    "C0000004": ("", ["myocardial infarction", "heart attack"]),
    "C0000005": ("", ["liver"]),
}


pytest_plugins = ["pipeline_fixtures"]


class SynonymEncoder(TrigramEncoder):
    """Knows that a coronary is a heart attack, whatever the letters, and nothing of "liver"."""

    def encode(self, texts, **settings):
        vectors = super().encode(
            [{"coronary": "heart attack"}.get(text, text) for text in texts], **settings
        )
        for row, text in enumerate(texts):
            if text == "livers":
                vectors[row] = -super().encode(["liver"])[0]
        return vectors


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    path = tmp_path_factory.mktemp("retriever")
    concepts = make_concepts(path / "concepts", NAMES)
    encoder = SynonymEncoder()
    (path / "lexical").mkdir()
    index = build_index(concepts, encoder, path / "dense")
    return concepts, index, encoder, LexicalIndex.build(concepts, path / "lexical")


def test_ranks_are_fused():
    # 1/61 + 1/63, 1/62 + 1/62, 1/63, 1/61 and padding.
    dense = np.array([[4, 5, 6, -1]])
    lexical = np.array([[7, 5, 4, -1]])
    assert fuse_ranks([dense, lexical], 5).tolist() == [[4, 5, 7, 6, -1]]
    assert fuse_ranks([dense, lexical], 2).tolist() == [[4, 5]]


def test_each_retriever_finds_what_the_other_does_not(searched):
    _, index, encoder, lexical = searched
    found = Retriever([Dense(index), Lexical(lexical)], encoder).search(["coronary", "livers"], 3)
    assert 3 in found.rows[0] and 3 not in lexical.search(lexical.weigh(["coronary"]), 5).rows
    assert (
        4 in found.rows[1]
        and 4 not in Retriever([Dense(index)], encoder).search(["livers"], 4).rows
    )
    assert set(found.lists) == {"dense", "lexical", "union"}
    assert found.lists["lexical"][1, 0] == 4 and found.lists["dense"][1, 4] == 4
    assert found.lists["union"][:, :3].tolist() == found.rows.tolist()


def test_ranks_choose_the_candidates_of_a_union_and_cosines_order_them(searched):
    _, index, encoder, lexical = searched
    found = Retriever([Dense(index), Lexical(lexical)], encoder).search(["coronary", "livers"], 3)
    assert (np.diff(found.scores, axis=1) <= 0).all()
    # What only spelling leads to is a candidate, and the last.
    assert found.lists["lexical"][1, 0] == 4 and found.rows[1].tolist().index(4) == 2
    everything = Retriever([Dense(index), Lexical(lexical)], encoder).search(["coronary"], 5)
    assert everything.rows.tolist() == index.search(encoder.encode(["coronary"]), 5).rows.tolist()


def test_every_candidate_has_both_scores_and_its_nearest_name(searched):
    concepts, index, encoder, lexical = searched
    texts = ["coronary", "heart", "cold", "livers"]
    found = Retriever([Dense(index), Lexical(lexical)], encoder).search(texts, 5)
    vectors = encoder.encode(texts)
    assert (found.rows >= 0).all()
    alone = lexical.search(lexical.weigh(texts), 5)
    for query in range(len(texts)):
        for place, row in enumerate(found.rows[query]):
            cosines = encoder.encode(concepts.names(row)) @ vectors[query]
            assert found.scores[query, place] == pytest.approx(cosines.max(), abs=1e-6)
            assert (
                index.names(found.name_ids[query, place : place + 1])[0]
                == concepts.names(row)[cosines.argmax()]
            )
            own = alone.scores[query][alone.rows[query] == row]
            assert found.further["lexical"][query, place] == pytest.approx(
                own[0] if len(own) else 0, abs=1e-6
            )


def test_lists_of_the_union_hold_the_scores_of_both(tmp_path, searched):
    concepts, index, encoder, lexical = searched
    rows = [("livers", "C0000005"), ("cold", "C0000002"), ("livers", "C0000009")]
    texts, cuis = zip(*rows, strict=True)
    sides = {"left": [""] * 3, "right": [""] * 3}
    mentions = Dataset.from_dict(
        {"mention": texts, "doc_id": ["d"] * 3, **sides, "cui": [[[cui]] for cui in cuis]}
    )
    retriever = Retriever([Dense(index), Lexical(lexical)], encoder, "key")
    counts = write_lists(mentions, retriever, concepts, 2, tmp_path / "lists" / "test.arrow")
    lists = read_run_lists(tmp_path, "test", concepts)
    assert [*lists.scores] == ["retrieval", "lexical"] and np.diff(lists.offsets).tolist() == [
        2
    ] * 3
    place = lists.annotations.gold[0]
    assert (lists.cuis[place], lists.names[place]) == ("C0000005", "liver")
    assert lists.scores["retrieval"][place] == pytest.approx(-1, abs=1e-6)
    assert 0.5 < lists.scores["lexical"][place] < 1
    assert counts["retrieved"] == 2 and counts["in_dictionary"] == 2
    assert counts["recall"]["dense"] == {"1": 0.0, "8": 1.0, "32": 1.0, "64": 1.0}
    assert counts["recall"]["lexical"] == {"1": 0.5, "8": 1.0, "32": 1.0, "64": 1.0}
    assert counts["recall"]["union"]["64"] == 1.0


class ReadingEncoder(TrigramEncoder):
    """In a text about weather, a cold is a cold temperature."""

    class queries:
        context_tokens = 8

    def encode(self, texts, contexts=None, **settings):
        lefts = contexts[0] if contexts else [""] * len(texts)
        read = [
            "cold temperature" if "weather" in left else text
            for text, left in zip(texts, lefts, strict=True)
        ]
        return super().encode(read, **settings)


def test_a_mention_is_retrieved_by_its_text_too(tmp_path):
    concepts = make_concepts(tmp_path / "concepts", NAMES)
    encoder = ReadingEncoder()
    index = build_index(concepts, encoder, tmp_path / "dense")
    retriever = Retriever([Dense(index), DenseInContext(index)], encoder)
    columns = {
        "mention": ["cold", "cold", "cold"],
        "left": ["weather", "", "weather"],
        "right": ["", "", ""],
    }
    about = {"doc_id": ["d"] * 3, "cui": [[["C0000002"]], [["C0000001"]], [["C0000002"]]]}
    mentions = Dataset.from_dict(columns | about)
    inverse, found = search_mentions(mentions.with_format("arrow")[:], retriever, 2)
    assert inverse.tolist() == [0, 1, 0]
    assert found.lists["context"][:, 0].tolist() == [1, 0] and found.lists["dense"][
        :, 0
    ].tolist() == [0, 0]
    retriever.index_key = "key"
    write_lists(mentions, retriever, concepts, 2, tmp_path / "lists" / "test.arrow")
    lists = read_run_lists(tmp_path, "test", concepts)
    scores = dict(zip(lists.cuis[:2], lists.scores["context"][:2], strict=True))
    assert scores["C0000002"] == pytest.approx(1, abs=1e-6) and scores["C0000001"] < 0.9


@pytest.fixture
def counted(searched, tmp_path, monkeypatch):
    """A retriever that reads context, and what it computes: strings, and how many pairs of a string
    and a concept.
    """
    concepts, _, _, lexical = searched
    encoder = ReadingEncoder()
    counts = {"strings": [], "in context": [], "lexical": [], "pairs": []}
    index = build_index(concepts, encoder, tmp_path / "dense")
    retriever = Retriever([Dense(index), DenseInContext(index), Lexical(lexical)], encoder)

    def count(owner, name, key):
        method = getattr(owner, name)

        def counting(*args, **settings):
            key(*args)
            return method(*args, **settings)

        monkeypatch.setattr(owner, name, counting)

    def encoded(texts, contexts=None):
        counts["in context" if contexts else "strings"].extend(texts)

    count(encoder, "encode", encoded)
    count(lexical, "weigh", counts["lexical"].extend)
    count(lexical.grouping, "best", lambda rows, *_: counts["pairs"].append(int((rows >= 0).sum())))
    return retriever, counts


@pytest.mark.parametrize("block", [8_192, 2])
def test_what_does_not_read_the_text_is_computed_once_for_each_string(counted, block):
    retriever, counts = counted
    rows = [
        (text, left)
        for left in ("weather", "", "x", "y")
        for text in ("cold", "heart", "head cold")
    ]
    texts, lefts = zip(*rows, strict=True)
    mentions = pa.table({"mention": texts, "left": lefts, "right": [""] * len(rows)})
    inverse, found = search_mentions(mentions, retriever, 3, block=block)
    assert sorted(counts["strings"]) == sorted(counts["lexical"]) == ["cold", "head cold", "heart"]
    assert len(counts["in context"]) == len(rows)
    pairs = {
        (text, row) for text, query in zip(texts, inverse, strict=True) for row in found.rows[query]
    }
    assert sum(counts["pairs"]) == len(pairs) < found.rows.size
    # Nothing else changes.
    for number in range(len(rows)):
        alone = retriever.search([texts[number]], 3, ([lefts[number]], [""]))
        query = inverse[number]
        np.testing.assert_array_equal(alone.rows[0], found.rows[query])
        np.testing.assert_array_equal(alone.name_ids[0], found.name_ids[query])
        assert_alike(alone.scores[0], found.scores[query], COSINE_ROUNDING)
        lexical = found.further["lexical"][query]
        assert_alike(alone.further["lexical"][0], lexical, COSINE_ROUNDING)


# The scripts


def test_a_run_with_both_retrievers_and_an_approximate_index(scripts, tmp_path):
    keys = {"output_dir": tmp_path, "index_factory": "IVF2,Flat", "index_parameters": "nprobe=1"}
    keys["retrievers"] = ["dense", "lexical"]
    assert scripts.run("prepare_data", **keys).code == 0
    outcome = scripts.run("build_index", **keys)
    stages = ["vectors", "index", "lexical", "lists"]
    assert (outcome.code, outcome.errors, outcome.remade) == (0, [], stages), outcome.err
    run = tmp_path / "mini"
    summary = json.loads((run / "lists" / "manifest.json").read_text())["summary"]
    assert set(summary["test"]["recall"]) == {"dense", "lexical", "union"}
    assert outcome.out.count("  union: recall@1 ") == 4
    lists = read_run_lists(run, "train", ConceptTable.load(run / "concepts"))
    assert [*lists.scores] == ["retrieval", "lexical"] and lists.annotations.in_dictionary.all()
    # A run of an older version lacks it.
    (run / "index.json").unlink()
    assert scripts.run("build_index", **keys).skipped == stages
    assert (run / "index.json").is_file()

    def remade(script="build_index", **changed):
        keys.update(changed)
        outcome = scripts.run(script, **keys)
        assert (outcome.code, outcome.errors) == (0, []) and "encoding names" not in outcome.err, (
            outcome.err
        )
        return outcome.remade

    # The vectors of the names do not depend on other retrievers or their settings.
    assert remade(retrievers=["dense"]) == ["lists"]
    assert remade(index_parameters="nprobe=4") == ["lists"]
    assert remade(index_factory="SQfp16", index_parameters="") == ["index", "lists"]
    concepts = (run / "concepts" / "manifest.json").read_bytes()
    assert remade("prepare_data", expand_abbreviations=True) == ["mentions"] and remade() == [
        "lists"
    ]
    assert (run / "concepts" / "manifest.json").read_bytes() == concepts
    assert remade(index_factory="Flat", index_parameters="") == ["index", "lists"]
    shutil.rmtree(run / "vectors")
    keys["index_factory"] = "SQ8"
    assert scripts.run("build_index", **keys).remade == ["vectors", "index", "lists"]


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
    assert len(drawn) == 20 and (np.diff(drawn) > 0).all()
    assert not (drawn % 2).any()
    again = drawn_rows(cuis, concepts, 20, 1)
    of_another_seed = drawn_rows(cuis, concepts, 20, 2)
    assert again.tolist() == drawn.tolist() != of_another_seed.tolist()


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


# The index of training mentions: concepts that similar mentions were annotated with


POLYMERS = {"C0000001": ("", ["polymer"]), "C0000002": ("", ["mouse"]), "C0000003": ("", ["heart"])}
TRAINING = [
    ("PbPS", "C0000001"),
    ("PbPT", "C0000002"),
    ("PbPS", "C0000001"),
    ("PbPT-x", "C0000001"),
    ("PbPS", "C0000009"),
]


class LeftEncoder(TrigramEncoder):
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
def polymers(tmp_path):
    return make_concepts(tmp_path / "concepts", POLYMERS)


def build(polymers, path, encoder=None, rows=TRAINING, lefts=None) -> MentionIndex:
    path.mkdir()
    return MentionIndex.build(table(rows, lefts), polymers, encoder or PlainEncoder(), path)


def test_concepts_are_found_by_the_most_similar_mention_of_each(polymers, tmp_path):
    index = build(polymers, tmp_path / "index")
    encoder = PlainEncoder()
    # Equal mentions of one concept are kept once, mentions of unknown concepts not at all.
    assert len(index) == 3 and not index.reads_context
    query = encoder.encode(["PbPT"])
    found = index.search(query, 3)
    assert found.rows.tolist() == [[1, 0, -1]]
    of_first = encoder.encode(["PbPS", "PbPT-x"]) @ query[0]
    np.testing.assert_allclose(found.scores[0, :2], [1, of_first.max()], atol=1e-6)


def test_an_encoder_that_reads_context_reads_that_of_training_mentions(polymers, tmp_path):
    rows = [("it", "C0000002"), ("it", "C0000003")]
    index = build(polymers, tmp_path / "index", LeftEncoder(), rows, ["squeaking", "beating"])
    assert index.reads_context
    assert index.search(LeftEncoder().encode(["beatingit"]), 1).rows.tolist() == [[2]]


def test_the_union_holds_what_only_a_training_mention_leads_to(polymers, tmp_path):
    encoder = PlainEncoder()
    dense = build_index(polymers, encoder, tmp_path / "dense")
    retriever = Retriever(
        [Dense(dense), NearestMentions(build(polymers, tmp_path / "mentions"))], encoder
    )
    retriever.require(polymers)
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


def test_an_index_holds_no_text(polymers, tmp_path):
    build(polymers, tmp_path / "index")
    assert not any(b"PbP" in file.read_bytes() for file in (tmp_path / "index").iterdir())


@pytest.mark.parametrize("encoder", [PlainEncoder(), LeftEncoder()], ids=["plain", "context"])
def test_training_mentions_are_not_found_by_their_own_document(tmp_path, polymers, encoder):
    # PbPS is C0000001 in the documents 0 and 2; PbPT is C0000002 in document 1 only.
    mentions = build(polymers, tmp_path / "mentions", encoder)
    index = build_index(polymers, encoder, tmp_path / "dense")
    retriever = Retriever([Dense(index), NearestMentions(mentions)], encoder)
    for is_known, nearest in ((False, [0, 1]), (True, [0, 0])):
        query_of, found = search_mentions(table(TRAINING[:2]), retriever, 2, is_known=is_known)
        assert found.lists["nearest_mentions"][query_of, 0].tolist() == nearest


def test_normal_forms_of_known_mentions_count_but_for_their_own_document(tmp_path, polymers):
    # In another order and number, "mice hearts" is a mention of C0000002 in document 1 alone.
    rows = [
        ("polymers", "C0000001"),
        ("hearts of mice", "C0000002"),
        ("polymers", "C0000001"),
        ("unknown", "C0000009"),
    ]
    (tmp_path / "forms").mkdir()
    index = FormIndex.build(polymers, tmp_path / "forms", table(rows))
    encoder = PlainEncoder()
    retriever = Retriever(
        [Dense(build_index(polymers, encoder, tmp_path / "dense")), Forms(index)], encoder
    )
    queries = table([("mice heart", "C0000002"), ("mice heart", "C0000002")])
    for is_known, scores in ((False, [1.0, 1.0]), (True, [1.0, 0.0])):
        query_of, found = search_mentions(queries, retriever, 3, is_known=is_known)
        is_mouse = found.rows[query_of] == 1
        assert np.isclose(
            found.further["forms"][query_of][is_mouse], scores, atol=1e-6
        ).tolist() == [True, True]
        assert (found.lists["forms"][query_of, 0] == 1).tolist() == [score == 1 for score in scores]
