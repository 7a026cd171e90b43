"""User-provided candidate lists: what is read and written, and what is refused with its row."""

from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from list_fixtures import make_lists, write_lists

from umls_reranker.core.errors import UserError
from umls_reranker.corpora.mentions import SPLITS, assign_split
from umls_reranker.lists.labels import best_of_each_concept, read_labelled_lists
from umls_reranker.lists.read import read_rows
from umls_reranker.pipeline.stages import RunFolder
from umls_reranker.pipeline.user_lists import write_user_lists
from umls_reranker.vocab.concepts import Concept
from umls_reranker.vocab.types import TypeHierarchy

SHARES = {"train": 0.4, "dev": 0.2, "calibration": 0.2, "test": 0.2}
NAMES = ("cold", "Common Cold", "cold", "Influenza")
CUIS = ("C0009443", "C0009443", "C0009264", "HP:0000118")


def make_rows(count=24):
    """Mention i is of document i // 2; its list is NAMES from i % 4 on, its concept the second."""
    rows = []
    for row in range(count):
        at = [(row + place) % 4 for place in range(3)]
        candidates = [
            {"name": NAMES[a], "cui": CUIS[a], "my_score": 10.0 - a, "page": a} for a in at
        ]
        candidates[0] |= {"semantic_types": ["Disease or Syndrome"], "definition": "gloss"}
        gold = CUIS[at[1]]
        rows.append(
            {"entity": f"m{row}", "candidates": candidates, "doc_id": f"d{row // 2}", "cui": gold}
        )
    return rows


BY_HASH = partial(assign_split, shares=SHARES, seed=3)


def write(folder, rows, ending=".jsonl", split_of=BY_HASH):
    path = write_lists(folder / f"own{ending}", rows)
    return write_user_lists(
        path, TypeHierarchy.built_in(), split_of, folder / "mentions", folder / "lists"
    )


def written(folder, split):
    return [
        row for batch in read_rows(folder / "lists" / f"{split}.arrow") for row in batch.mappings()
    ]


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_what_is_written_is_what_the_lists_say(tmp_path, monkeypatch, ending):
    monkeypatch.setattr(read_rows, "__defaults__", (5,))
    rows = make_rows()
    rows[5]["cui"] = "C9999999"
    concepts, counts = write(tmp_path, rows, ending)
    mentions = RunFolder(tmp_path).splits("mentions")
    given = {row["entity"]: row for row in rows}
    seen = []
    in_list = 0
    for split in SPLITS:
        found = written(tmp_path, split)
        assert counts["mentions"][split] == len(found) == len(mentions[split]) > 0
        for mention, of_list in zip(mentions[split], found, strict=True):
            row = given[of_list["entity"]]
            seen.append(of_list["entity"])
            assert assign_split(row["doc_id"], SHARES, 3) == split
            assert of_list["doc_id"] == mention["doc_id"] == row["doc_id"]
            assert of_list["cui"] == mention["cui"] == [[row["cui"]]]
            # Of two names of one concept the first stays.
            first = {}
            for item in row["candidates"]:
                first.setdefault(item["cui"], item)
            assert of_list["candidates"] == [
                {"cui": cui, "name": item["name"], "my_score": item["my_score"]}
                for cui, item in first.items()
            ]
            in_list += of_list["cui"][0][0] in first
    assert sorted(seen) == sorted(given) and in_list == sum(counts["in_list"].values()) == 23
    kept = sum(len(row["candidates"]) for split in SPLITS for row in written(tmp_path, split))
    assert counts["candidates"] - counts["repeated_candidates"] == kept
    assert counts["scores"] == ["my"] and concepts.fields == {"definition"}


def test_a_teacher_may_score_some_training_candidates_and_gives_no_feature(tmp_path, monkeypatch):
    monkeypatch.setattr(read_rows, "__defaults__", (5,))
    rows = make_rows()
    for row in rows[::2]:
        row["candidates"][0]["teacher_score"] = 7.0
    _, counts = write(tmp_path, rows)
    taught = {row["entity"] for row in rows[::2]}
    for split in SPLITS:
        for row in written(tmp_path, split):
            scores = [str(item.get("teacher_score", "none")) for item in row["candidates"]]
            expected = ["none" if split != "train" else "nan"] * len(scores)
            if split == "train" and row["entity"] in taught:
                expected[0] = "7.0"
            assert scores == expected
    lists = read_labelled_lists(tmp_path / "own.jsonl", TypeHierarchy.built_in())
    assert list(lists.scores) == ["my"] and "teacher" in counts["scores"]


def test_of_several_names_of_a_concept_the_best_scored_is_kept_or_the_first():
    items = [
        [
            {"name": name, "cui": cui}
            for name, cui in zip("abcd", ("C1", "C1", "C2", "C1"), strict=True)
        ]
    ]
    lists = make_lists(["m", "n"], [*items, [{"name": "a", "cui": "C1"}]])
    assert best_of_each_concept(lists).tolist() == [0, 2, 4]
    # In the order in which the concepts came.
    assert best_of_each_concept(lists, np.array([1.0, 3.0, 0.0, 4.0, 2.0])).tolist() == [3, 2, 4]
    assert best_of_each_concept(lists, np.array([1.0, 3.0, 0.0, 3.0, 2.0])).tolist() == [1, 2, 4]


def test_concepts_are_those_of_the_lists_and_join_a_dictionary(tmp_path):
    concepts, _ = write(tmp_path, make_rows())
    alone = {concept.cui: concept for concept in concepts.joined()}
    assert alone == {
        "C0009443": Concept("C0009443", "cold", ("Common Cold",), ("T047",), "gloss"),
        "C0009264": Concept("C0009264", "cold", (), ("T047",), "gloss"),
        "HP:0000118": Concept("HP:0000118", "Influenza", (), ("T047",), "gloss"),
    }
    dictionary = [
        Concept("C0000001", "other"),
        Concept("C0009443", "Common Cold", ("a cold",), ("T033",)),
    ]
    first, second, *rest = concepts.joined(dictionary)
    assert first == dictionary[0] and [concept.cui for concept in rest] == [
        "C0009264",
        "HP:0000118",
    ]
    assert second == Concept("C0009443", "Common Cold", ("a cold", "cold"), ("T033",), "gloss")


def test_a_key_split_decides_and_documents_in_no_split_are_left_out_and_counted(tmp_path):
    rows = make_rows()
    _, counts = write(tmp_path, rows, split_of={f"d{n}": SPLITS[n % 4] for n in range(11)}.get)
    assert counts["mentions_in_no_list"] == 2 and sum(counts["mentions"].values()) == 22
    for number, row in enumerate(rows):
        row["split"] = SPLITS[number // 2 % 4]
    write(tmp_path, rows)
    for split in SPLITS:
        documents = {row["doc_id"] for row in written(tmp_path, split)}
        assert documents == {f"d{n}" for n in range(12) if SPLITS[n % 4] == split}


def with_splits(change):
    def changed(rows):
        for row, own in enumerate(rows):
            own["split"] = SPLITS[row // 2 % 4]
        change(rows)

    return changed


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda rows: rows[3].pop("doc_id"), ":4: doc_id"),
        (lambda rows: rows[3].pop("cui"), ":4: cui"),
        (lambda rows: rows[3]["candidates"][1].pop("cui"), ":4: candidate 1 .*cui"),
        (
            lambda rows: [c.update(retrieval_score=1) for row in rows for c in row["candidates"]],
            "retrieval_score",
        ),
        (lambda rows: rows.__delitem__(slice(18, None)), "9"),
        (lambda rows: [row.update(cui="C7777777") for row in rows], "own.jsonl"),
        (with_splits(lambda rows: rows[3].update(split="validation")), ":4: split is 'validation'"),
        (with_splits(lambda rows: rows[9].pop("split")), ":10: split"),
        (with_splits(lambda rows: rows[7].update(split="train")), ":8: document d3"),
        (with_splits(lambda rows: [row.update(split="train") for row in rows]), "'dev'"),
        (
            lambda rows: [row.update(mention_id=n // 2) for n, row in enumerate(rows)],
            ":2: mention_id '0'.*:1",
        ),
    ],
)
def test_lists_that_will_not_do_are_named(tmp_path, monkeypatch, change, named):
    monkeypatch.setattr(read_rows, "__defaults__", (10,))
    rows = make_rows()
    change(rows)
    with pytest.raises(UserError, match=named):
        write(tmp_path, rows)
    assert not (tmp_path / "lists").exists()


@pytest.mark.parametrize("kind", [pa.large_list, lambda item: pa.list_(item, 3)])
def test_lists_of_any_kind_bring_their_scores(tmp_path, kind):
    table = pa.Table.from_pylist(make_rows())
    place = table.schema.get_field_index("candidates")
    column = pa.array(
        table["candidates"].to_pylist(), kind(table.schema.field(place).type.value_type)
    )
    pq.write_table(table.set_column(place, "candidates", column), tmp_path / "own.parquet")
    lists = read_labelled_lists(tmp_path / "own.parquet", TypeHierarchy.built_in())
    assert list(lists.scores) == ["my"]
