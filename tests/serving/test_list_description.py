"""What a file of lists holds is said before anything is scored, and what cannot be used, with the remedy."""

import pytest
from list_fixtures import write_lists

from umls_reranker.data.labelled_lists import read_labelled_lists
from umls_reranker.data.semantic_types import SemanticType, TypeHierarchy
from umls_reranker.serving.list_description import described

UMLS = TypeHierarchy.built_in()


def make_rows(*changes, **candidate):
    """12 mentions with two candidates each; the first mentions and their first candidates get the changes."""
    rows = []
    for number in range(12):
        change = dict(changes[number]) if number < len(changes) else {}
        first = {"name": f"cold {number}", "cui": "C0000001", **candidate, **change.pop("first", {})}
        second = {"name": "fever", "cui": "C0000002", **candidate}
        row = {"doc_id": f"d{number}", "entity": "cold", "cui": "C0000001", "candidates": [first, second]}
        rows.append(row | change)
    return rows


def lines(tmp_path, rows, network_inputs=(), hierarchy=UMLS):
    labelled = read_labelled_lists(write_lists(tmp_path / "own.jsonl", rows), hierarchy)
    return described(labelled, network_inputs).splitlines()[2:]


def test_lists_of_which_everything_is_used_get_two_lines(tmp_path):
    rows = make_rows(bm25_score=3, semantic_types=["T047"])
    for row in rows:
        row["entity_type"] = "T047"
    labelled = read_labelled_lists(write_lists(tmp_path / "own.jsonl", rows), UMLS)
    assert described(labelled, ()).splitlines() == [
        "12 mentions of 12 documents; 0 without their gold concept among the candidates, which count as errors",
        "candidate scores: bm25_score",
    ]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_keys_that_nothing_reads(tmp_path, ending):
    rows = make_rows({"sentence": "a cold"}, rank=1, bm25=3.5, tfidf_score=None, source="es")
    path = write_lists(tmp_path / f"own.{ending}", rows)
    said = described(read_labelled_lists(path, UMLS), ()).splitlines()
    # The first row decides about the columns of the table that the fixture writes.
    assert said[1:] == [
        "candidate scores: none",
        "ignored fields of mentions: sentence; the fields of a mention are entity, candidates, entity_type, left, "
        "right, doc_id, cui, split, mention_id",
        "ignored fields of candidates: rank, bm25, source; a score must be named NAME_score and be a number",
        "ignored scores of candidates: tfidf_score; every candidate needs a number, but none has one",
    ]


def test_types_that_the_hierarchy_does_not_know(tmp_path):
    types = [["T047", "Illness"], "T999", ["Chem", "Illness"], "Gene", "T047", "UnknownType"]
    rows = make_rows(*({"entity_type": kind} for kind in types), semantic_types=["T047"])
    rows[0]["candidates"][0]["semantic_types"] = ["Illness"]
    examples = "T071 or Entity, T072 or Physical Object, T001 or Organism"
    known = f"use ids or names of types that it knows (127, such as {examples})"
    assert lines(tmp_path, rows) == [
        f"mentions with a type unknown to the model: 4 ('Illness', 'T999', 'Chem' and 1 more); {known}",
        f"candidates with a type unknown to the model: 1 ('Illness'); {known}",
    ]
    rows = make_rows({"entity_type": "T047"})
    assert lines(tmp_path, rows, hierarchy=TypeHierarchy([])) == [
        "mentions with a type unknown to the model: 1 ('T047'); it knows none"
    ]
    assert lines(tmp_path, rows, hierarchy=TypeHierarchy([SemanticType("HP:1", "Liver")])) == [
        "mentions with a type unknown to the model: 1 ('T047'); use ids or names of types that it knows (1, such as "
        "HP:1 or Liver)"
    ]


def test_types_of_one_side_only(tmp_path):
    assert lines(tmp_path, make_rows({"entity_type": "T047"})) == [
        "entity_type: no candidate has semantic_types, so types cannot be compared; add the types of the candidates' "
        "concepts, or use --umls_dir with MRSTY.RRF"
    ]
    assert lines(tmp_path, make_rows(semantic_types=[])) == [
        "semantic_types of candidates: no mention has a type to compare them with; add entity_type to mentions"
    ]
    rows = make_rows({"entity_type": "T047"}, semantic_types=["T047"])
    del rows[0]["candidates"][0]["semantic_types"]
    assert lines(tmp_path, rows) == [
        "semantic_types: 23 of 24 candidates have it; it is used for the 11 mentions whose candidates all have it; "
        "add it to all candidates"
    ]


def test_text_and_fields_that_the_model_does_not_read(tmp_path):
    rows = make_rows({"left": "a "}, {"right": " b"}, {"left": " "}, preferred_name="Cold", definition="")
    remedy = "only models trained with"
    assert lines(tmp_path, rows) == [
        f"not used: left and right of 2 mentions; {remedy} context_tokens read them",
        f"not used: preferred_name of 24 candidates; {remedy} candidate_fields: [preferred_name] read it",
        f"not used: definition of 24 candidates; {remedy} candidate_fields: [definition] read it",
    ]
    assert lines(tmp_path, rows, ("preferred_name", "definition", "context")) == []
    for row in rows[:3]:
        del row["candidates"][1]["definition"]
    assert lines(tmp_path, rows, ("preferred_name", "definition", "context")) == [
        "definition: 21 of 24 candidates have it; it is used for the 9 mentions whose candidates all have it; add it "
        "to all candidates"
    ]


def test_rows_that_equal_an_earlier_one_are_named_unless_their_ids_differ(tmp_path):
    rows = make_rows()
    rows += [rows[3], rows[7], rows[3] | {"doc_id": "d0"}, rows[3] | {"left": "again "}]
    rows += [rows[4] | {"mention_id": number} for number in range(2)]
    path = tmp_path / "own.jsonl"
    assert lines(tmp_path, rows, ("context",)) == [
        f"duplicate rows within a document: 2 (first: {path}:13, same as {path}:4); remove them unless they are "
        "separate mentions"
    ]
