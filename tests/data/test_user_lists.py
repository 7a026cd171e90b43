"""User-provided candidate lists: what is read, what is written, and what is refused in one sentence."""

import re
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from list_fixtures import make_lists, write_lists

from umls_reranker.core.errors import UserError
from umls_reranker.core.stages import RunFolder
from umls_reranker.data import labelled_lists
from umls_reranker.data.columns import Concept, concept_table
from umls_reranker.data.concepts import ConceptTable, write_concepts
from umls_reranker.data.labelled_lists import best_of_each_concept, read_labelled_lists, require_documents
from umls_reranker.data.mentions import SPLITS, assign_split
from umls_reranker.data.semantic_types import TypeHierarchy
from umls_reranker.data.user_lists import UserLists

SHARES = {"train": 0.4, "dev": 0.2, "calibration": 0.2, "test": 0.2}
NAMES = ("cold", "Common Cold", "cold", "Influenza")
CUIS = ("c0009443", "C0009443", "C0009264", "C0021400")


def make_rows(count=24):
    """Mention i is of document i // 2; its list is NAMES from i % 4 on, its concept the list's second."""
    rows = []
    for row in range(count):
        at = [(row + place) % 4 for place in range(3)]
        candidates = [{"name": NAMES[a], "cui": CUIS[a], "my_score": 10.0 - a, "page": a} for a in at]
        candidates[0] |= {"semantic_types": ["Disease or Syndrome"], "definition": "gloss"}
        rows.append(
            {"entity": f"m{row}", "candidates": candidates, "doc_id": f"d{row // 2}", "cui": CUIS[at[1]].upper()}
        )
    return rows


def read(path, *, listed=None):
    split_of = listed.get if listed is not None else partial(assign_split, shares=SHARES, seed=3)
    return UserLists.read(path, TypeHierarchy.built_in(), split_of, listed is not None)


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_what_is_written_is_what_the_lists_say(tmp_path, monkeypatch, ending):
    monkeypatch.setattr(labelled_lists, "BATCH_MENTIONS", 5)
    rows = make_rows()
    own = read(write_lists(tmp_path / f"own{ending}", rows))
    counts = own.write(tmp_path / "mentions", tmp_path / "candidates", has_dictionary=False)
    mentions, lists = (RunFolder(tmp_path).splits(name) for name in ("mentions", "candidates"))
    given = {row["entity"]: row for row in rows}
    seen = []
    for split in SPLITS:
        assert counts["mentions"][split] == len(mentions[split]) > 0
        assert mentions[split]["mention_id"][:] == list(range(len(mentions[split])))
        for mention, found in zip(mentions[split], lists[split], strict=True):
            row = given[mention["mention"]]
            seen.append(mention["mention"])
            assert assign_split(row["doc_id"], SHARES, 3) == split
            assert mention["cui"] == row["cui"] and (mention["start"], mention["doc_id"]) == (
                int(row["entity"][1:]) % 2,
                row["doc_id"],
            )
            # Of two names of one concept the first stays.
            first = {}
            for item in row["candidates"]:
                first.setdefault(item["cui"].upper(), item)
            assert dict(zip(found["cuis"], found["names"], strict=True)) == {
                cui: item["name"] for cui, item in first.items()
            }
            assert found["my_scores"] == [item["my_score"] for item in first.values()]
            assert found["cuis"][found["gold"]] == row["cui"] and found["in_dictionary"]
    assert sorted(seen) == sorted(given)
    assert counts["repeated_candidates"] == sum(
        len(row["candidates"]) - len({item["cui"].upper() for item in row["candidates"]}) for row in rows
    )
    assert own.scores == ("my",) and own.report["unread_keys"] == ["page"] and own.report["not_in_list"] == 0
    assert own.fields == ("definition",)


def test_of_several_names_of_a_concept_the_best_scored_is_kept_or_the_first():
    items = [[{"name": name, "cui": cui} for name, cui in zip("abcd", ("C1", "C1", "C2", "C1"), strict=True)]]
    lists = make_lists(["m", "n"], [*items, [{"name": "a", "cui": "C1"}]])
    assert best_of_each_concept(lists).tolist() == [0, 2, 4]
    # In the order in which the concepts came.
    assert best_of_each_concept(lists, np.array([1.0, 3.0, 0.0, 4.0, 2.0])).tolist() == [3, 2, 4]
    assert best_of_each_concept(lists, np.array([1.0, 3.0, 0.0, 3.0, 2.0])).tolist() == [1, 2, 4]


def test_ten_documents_are_enough():
    require_documents(Path("own"), range(10))
    with pytest.raises(UserError, match="from 9 documents"):
        require_documents(Path("own"), range(9))


def test_concepts_are_those_of_the_lists_and_join_a_dictionary(tmp_path):
    own = read(write_lists(tmp_path / "own.jsonl", make_rows()))
    assert own.concepts == {
        "C0009443": Concept("C0009443", "cold", ("Common Cold",), ("T047",), "gloss"),
        "C0009264": Concept("C0009264", "cold", (), ("T047",), "gloss"),
        "C0021400": Concept("C0021400", "Influenza", (), ("T047",), "gloss"),
    }
    dictionary = [Concept("C0000001", "other"), Concept("C0009443", "Common Cold", ("a cold",), ("T033",))]
    first, second, *rest = own.joined(dictionary)
    assert first == dictionary[0] and [concept.cui for concept in rest] == ["C0009264", "C0021400"]
    assert second == Concept("C0009443", "Common Cold", ("a cold", "cold"), ("T033",), "gloss")


def test_a_gold_concept_that_is_not_in_its_list_is_counted_and_never_put_there(tmp_path):
    rows = make_rows()
    rows[5]["cui"] = "C9999999"
    own = read(write_lists(tmp_path / "own.jsonl", rows))
    assert own.report["not_in_list"] == 1 and "C9999999" not in own.concepts
    counts = own.write(tmp_path / "mentions", tmp_path / "candidates", has_dictionary=True)
    assert sum(counts["in_list"].values()) == 23
    (split,) = [split for split in SPLITS if counts["mentions"][split] > counts["in_list"][split]]
    lists = RunFolder(tmp_path).splits("candidates")[split]
    (row,) = [row for row in lists if row["gold"] < 0]
    assert "C9999999" not in row["cuis"] and "in_dictionary" not in row


def test_a_column_split_decides(tmp_path):
    rows = make_rows()
    for number, row in enumerate(rows):
        row["split"] = SPLITS[number // 2 % 4]
    own = read(write_lists(tmp_path / "own.jsonl", rows))
    assert own.splits == {f"d{number}": SPLITS[number % 4] for number in range(12)}


def test_documents_in_no_list_are_left_out_and_counted(tmp_path):
    listed = {f"d{number}": SPLITS[number % 4] for number in range(11)}
    own = read(write_lists(tmp_path / "own.jsonl", make_rows()), listed=listed)
    assert own.splits == listed and own.report["mentions_in_no_list"] == 2


def all_in(split):
    return lambda rows: [row.update(split=split) for row in rows]


def split_of_all_but(number):
    def change(rows):
        for row, own in enumerate(rows):
            own["split"] = SPLITS[row // 2 % 4]
        del rows[number]["split"]

    return change


def in_two_splits(rows):
    for row, own in enumerate(rows):
        own["split"] = SPLITS[row // 2 % 4]
    rows[7]["split"] = "train"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda rows: rows[3].pop("doc_id"), ":4: doc_id is missing; give every mention the id of its document"),
        (
            lambda rows: rows[3].pop("cui"),
            ":4: cui, the mention's gold concept, is missing; leave out unlabelled mentions",
        ),
        (lambda rows: rows[3].pop("candidates"), ":4: lacks candidates, the list to rank"),
        (lambda rows: rows[3].update(cui="the cold"), ":4: cui 'the cold' is not a CUI; write it as"),
        (lambda rows: rows[3]["candidates"][1].pop("cui"), ":4: candidate 1 has no cui; give each candidate the CUI"),
        (lambda rows: rows[3]["candidates"][1].pop("my_score"), ":4: candidate 1 has no my_score .* give it to all"),
        (
            lambda rows: [item.pop("my_score") for row in rows[10:] for item in row["candidates"]],
            ":11: candidates from here on have no my_score, unlike those before; give all candidates one, or none",
        ),
        (
            lambda rows: rows[3]["candidates"][1].update(exact_name_score=1),
            "'exact_name' is not allowed as the name of a retriever",
        ),
        (
            lambda rows: rows[3]["candidates"][1].update(retrieval_score=0.8),
            "'retrieval' is not allowed as the name of a retriever; rename retrieval_score to NAME_score, such as "
            "sapbert_score",
        ),
        (lambda rows: rows.__delitem__(slice(2, None)), "all mentions are from 1 document; .* give at least 10"),
        (
            lambda rows: [row.update(cui="C7777777") for row in rows],
            "no list contains its gold CUI; use the same",
        ),
        (all_in("validation"), ":1: split is 'validation'; write one of train, dev, calibration, test"),
        (split_of_all_but(9), ":10: split is missing, although other rows have one; write one of train"),
        (lambda rows: rows[22].update(split="dev"), ":23: split is 'dev', but earlier rows have none; write one"),
        (in_two_splits, ":8: document d3 is in the split train, but in test at .*:7; splits must not share documents"),
        (lambda rows: [row.update(mention_id=n % 23) for n, row in enumerate(rows)], None),
        (
            lambda rows: [row.update(mention_id=n // 2) for n, row in enumerate(rows)],
            ":2: mention_id 0 of document d0 was already used in .*own.jsonl:1; list each mention once",
        ),
        (lambda rows: rows.clear(), "own.jsonl holds no mentions"),
    ],
)
def test_lists_that_will_not_do_are_one_sentence(tmp_path, monkeypatch, change, reason):
    monkeypatch.setattr(labelled_lists, "BATCH_MENTIONS", 10)
    rows = make_rows()
    change(rows)
    path = write_lists(tmp_path / "own.jsonl", rows)
    if reason is None:
        read(path)
        return
    with pytest.raises(UserError) as found:
        read(path)
    assert re.search(reason, str(found.value)) and "\n" not in str(found.value)


def labelled(path, scores):
    """The lists of a file in which the scores, (24, 10), are those of its candidates."""
    rows = make_rows(len(scores))
    for row, of_mention in zip(rows, scores, strict=True):
        row["candidates"] = [{"name": "n", "cui": row["cui"], "my_score": float(score)} for score in of_mention]
    return read_labelled_lists(write_lists(path, rows), TypeHierarchy.built_in())


@pytest.mark.parametrize("score", [1e12, -1e12])
@pytest.mark.parametrize("usual", [0.0, 1.0])
def test_a_score_of_another_order_of_magnitude_is_refused_with_row_and_candidate(tmp_path, score, usual):
    scores = usual * np.random.default_rng(3).random((24, 10))
    scores[5, 2], scores[7, 1] = score, 2e12
    with pytest.raises(UserError, match=r"own\.jsonl:6: candidate 2 has the my_score -?1e\+12, but nearly all others"):
        labelled(tmp_path / "own.jsonl", scores)


@pytest.mark.parametrize(
    "of_logits",
    [
        np.array,
        np.exp,
        lambda logits: np.exp(20 * logits) / np.exp(20 * logits).sum(1, keepdims=True),
        lambda logits: np.maximum(10 * logits, 0) ** 2,
        lambda logits: 1e9 * (logits > 2),
        lambda logits: np.round(np.exp(3 * logits)),
    ],
    ids=["logits", "odds", "softmax", "bm25", "flags", "counts"],
)
def test_no_honest_score_is_an_outlier(tmp_path, of_logits):
    scores = of_logits(3 * np.random.default_rng(3).standard_normal((24, 10)))
    np.testing.assert_array_equal(labelled(tmp_path / "own.jsonl", scores).lists.scores["my"], scores.ravel())


def test_a_column_split_next_to_lists_of_documents_is_refused(tmp_path):
    path = write_lists(tmp_path / "own.jsonl", [row | {"split": "train"} for row in make_rows()])
    with pytest.raises(UserError, match="has a column split, but the recipe also names document lists; keep one"):
        read(path, listed={"d0": "train"})


def test_a_split_without_mentions_is_named_with_the_counts(tmp_path):
    path = write_lists(tmp_path / "own.jsonl", [row | {"split": "train"} for row in make_rows()])
    with pytest.raises(UserError, match=r"the split 'dev' is empty \(mentions by split: .*'train': 24"):
        read(path)


@pytest.mark.parametrize("kind", [pa.large_list, lambda item: pa.list_(item, 3)])
def test_lists_of_any_kind_bring_their_scores(tmp_path, kind):
    table = pa.Table.from_pylist(make_rows())
    place = table.schema.get_field_index("candidates")
    column = pa.array(table["candidates"].to_pylist(), kind(table.schema.field(place).type.value_type))
    pq.write_table(table.set_column(place, "candidates", column), tmp_path / "own.parquet")
    own = read(tmp_path / "own.parquet")
    assert own.scores == ("my",) and own.report["unread_keys"] == ["page"]


def test_a_table_without_a_column_names_it(tmp_path):
    path = write_lists(tmp_path / "own.parquet", [{"entity": "a", "doc_id": "d", "cui": "C0009443"}])
    with pytest.raises(UserError, match="own.parquet: missing columns: candidates"):
        read(path)


def test_ids_of_any_vocabulary_are_concepts(tmp_path):
    rows = make_rows()
    for row in rows:
        names = {"C0009443": "MESH:D003920"}
        row["cui"] = names.get(row["cui"], row["cui"])
        for item in row["candidates"]:
            item["cui"] = names.get(item["cui"].upper(), "HP:0000118")
    own = read(write_lists(tmp_path / "own.jsonl", rows))
    write_concepts(concept_table(own.joined()), TypeHierarchy.built_in(), tmp_path / "concepts")
    assert ConceptTable.load(tmp_path / "concepts").rows(["HP:0000118", "MESH:D003920"]).tolist() == [0, 1]
