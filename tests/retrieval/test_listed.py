"""Pairs from given candidate lists: order, filters, names, and gold concepts that are not listed."""

import numpy as np
import pytest
from datasets import ClassLabel, Dataset
from mining_fixtures import Relations, make_mentions
from trigram_encoder import make_concepts

from umls_reranker.retrieval import mining
from umls_reranker.retrieval.mining import PAIR_FEATURES, mine_listed_pairs
from umls_reranker.retrieval.mining_report import SOURCES
from umls_reranker.retrieval.negatives import MiningConfig

CONCEPTS = {
    "C0000001": ("T047", ["Common Cold", "cold", "head cold"]),
    "C0000002": ("T070", ["Cold Temperature", "cold"]),
    "C0000003": ("T047", ["Influenza", "flu"]),
    "C0000004": ("T047", ["Pneumonia"]),
    "C0000005": ("T047", ["Bronchitis"]),
    "C0000006": ("T047", ["Asthma"]),
}
# Names of the lists are not those of the dictionary.
LISTED = {"C0000001": "a cold", "C0000002": "coldness", "C0000003": "the flu", "C0000004": "pneumonias"}
MENTIONS = [("cold", "C0000001", ["T047"]), ("flue", "C0000003", ["T047"]), ("x", "C0000009", [])]
LISTS = [
    ["C0000004", "C0000002", "C0000001", "C0000003"],
    ["C0000001", "C0000004"],
    ["C0000001"],
]
NOTHING_DRAWN = {"same_type_negatives": 0, "random_negatives": 0}


@pytest.fixture
def concepts(tmp_path):
    return make_concepts(tmp_path / "concepts", CONCEPTS)


def mine(tmp_path, concepts, *, names_missing_gold=False, relations=None, chunk=8192, **settings):
    mentions = make_mentions(MENTIONS)
    golds = [row[1] for row in MENTIONS]
    candidates = Dataset.from_dict(
        {
            "mention_id": range(7, 10),
            "cuis": LISTS,
            "names": [[LISTED[cui] for cui in row] for row in LISTS],
            "bm25_scores": [[9.0 - place for place in range(len(row))] for row in LISTS],
            "gold": [row.index(cui) if cui in row else -1 for row, cui in zip(LISTS, golds, strict=True)],
        }
    )
    config = MiningConfig(**NOTHING_DRAWN | settings)
    options = {"names_missing_gold": names_missing_gold, "relations": relations}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mining, "MENTIONS_AT_ONCE", chunk)
        report = mine_listed_pairs(mentions, candidates, concepts, config, tmp_path / "pairs", **options)
    kinds: ClassLabel = PAIR_FEATURES["source"]
    rows = [
        (row["mention"], row["cui"], row["name"], kinds.int2str(row["source"]), row["label"])
        for row in Dataset.from_file(str(tmp_path / "pairs.arrow"))
    ]
    return rows, report


def test_negatives_come_from_the_list_in_its_order_and_filters_hold(tmp_path, concepts):
    rows, report = mine(tmp_path, concepts)
    # C0000002 shares the name cold with the gold concept; the gold concept of "flue" is not in its list.
    assert rows == [
        ("cold", "C0000001", "a cold", "positive", 1),
        ("cold", "C0000004", "pneumonias", "nearest", 0),
        ("cold", "C0000003", "the flu", "nearest", 0),
    ]
    assert report["dropped"]["shared_name"]["nearest"] == 1 and report["dropped"]["gold_concept"]["nearest"] == 1
    assert (report["gold_concept_unknown"], report["gold_concept_not_in_list"]) == (1, 1)
    assert (report["mentions"], report["nearest_missing"], report["gold_concept_not_retrieved"]) == (3, 3, 0)
    assert report["examples"]["nearest"][0]["cosine"] is None and set(report["nearest_cosine"].values()) == {None}


def test_the_counts_of_the_recipe_take_the_first_of_the_list(tmp_path, concepts):
    rows, _ = mine(tmp_path, concepts, nearest_negatives=1)
    assert [row[1] for row in rows] == ["C0000001", "C0000004"]


def test_related_concepts_are_no_negatives(tmp_path, concepts):
    rows, report = mine(tmp_path, concepts, relations=Relations({(0, 3): "PAR"}))
    assert [row[1] for row in rows] == ["C0000001", "C0000003"]
    assert report["dropped"]["related"]["nearest"] == 1


def test_a_gold_concept_that_is_not_listed_gets_the_most_similar_name_of_the_dictionary(tmp_path, concepts):
    rows, report = mine(tmp_path, concepts, names_missing_gold=True)
    assert ("flue", "C0000003", "flu", "positive", 1) in rows
    assert [row[1:3] for row in rows if row[0] == "flue"][1:] == [("C0000001", "a cold"), ("C0000004", "pneumonias")]
    assert (report["gold_concept_not_in_list"], report["gold_concept_not_retrieved"]) == (0, 1)
    assert report["gold_concept_unknown"] == 1


def test_other_negatives_are_drawn_from_the_dictionary_whatever_the_chunks(tmp_path, concepts):
    settings = {"same_type_negatives": 2, "random_negatives": 1, "names_missing_gold": True}
    rows, report = mine(tmp_path, concepts, **settings)
    assert mine(tmp_path, concepts, chunk=1, **settings) == (rows, report)
    drawn = [row for row in rows if row[3] in ("type", "random")]
    assert len(drawn) == report["pairs"]["type"] + report["pairs"]["random"] > 0
    for _, cui, name, source, _ in drawn:
        assert name in CONCEPTS[cui][1] and (source == "random" or CONCEPTS[cui][0] == "T047")
    assert np.isin(list(report["pairs"]), SOURCES).all()
