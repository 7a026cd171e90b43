"""What a file of lists holds is said before anything is scored."""

import pytest
from list_fixtures import write_lists

from umls_reranker.calibration.arguments import CalibrationArguments
from umls_reranker.lists.labels import read_labelled_lists, usable_lists
from umls_reranker.lists.read import Rows
from umls_reranker.serving.list_description import describe_lists
from umls_reranker.serving.model_source import ModelSource
from umls_reranker.vocab.types import TypeHierarchy


def test_mentions_that_a_corpus_annotates_without_a_concept_are_kept_as_errors():
    rows = [
        {"doc_id": str(number), "entity": "cold", "candidates": [{"name": "cold", "cui": "C1"}]}
        | {"cui": [["C1"]] if number else []}
        for number in range(10)
    ]
    lists = usable_lists(Rows.of_mappings(rows), "rows", TypeHierarchy.built_in(), None)
    assert len(lists) == 10 and lists.annotations.gold.tolist() == [-1] + [0] * 9
    assert not lists.annotations.in_dictionary[0]
    assert "10 mentions of 10 documents; 1 without their gold concept" in describe_lists(lists, [])


def test_what_was_found_is_said_with_its_counts(tmp_path):
    rows = []
    for number in range(12):
        first = {
            "name": f"cold {number}",
            "cui": "C0000001",
            "bm25_score": 3,
            "semantic_types": ["T047"],
        }
        second = {
            "name": "fever",
            "cui": "C0000002",
            "bm25_score": 2,
            "definition": "",
            "none_score": None,
        }
        row = {
            "doc_id": f"d{number}",
            "entity": "cold",
            "cui": "C0000001",
            "candidates": [first, second],
        }
        rows.append(row | ({"entity_type": ["T047", "Illness"]} if number < 5 else {}))
    rows[0]["cui"] = "C0000009"
    lists = read_labelled_lists(write_lists(tmp_path / "own.jsonl", rows), TypeHierarchy.built_in())
    said = describe_lists(lists, ["definition"])
    for counted in (
        "12 mentions of 12 documents; 1 without",
        "scores: bm25_score",
        "definition: 12 of 24",
        "Illness",
    ):
        assert counted in said
    assert "caution" not in said
    assert "entity_type: 5 of 12 mentions; semantic_types: 12 of 24 candidates" in said


def test_what_makes_figures_too_good_is_cautioned_against(tmp_path):
    candidates = [{"name": "cold", "cui": f"C{place}", "my_score": place} for place in range(3)]
    rows = [
        {"doc_id": f"d{n}", "entity": "cold", "cui": "C2", "candidates": candidates}
        for n in range(100)
    ]
    said = describe_lists(
        read_labelled_lists(write_lists(tmp_path / "own.jsonl", rows), TypeHierarchy.built_in()), []
    )
    assert "caution: my_score rises" in said and "caution: every list has its gold concept" in said


def test_documents_that_repeat_others_are_counted():
    rows = []
    for number in [*range(24)] * 2:
        left = " ".join(f"w{number % 12}.{word}" for word in range(40))
        candidates = [{"name": "cold", "cui": "C1"}, {"name": "fever", "cui": "C2"}]
        row = {"doc_id": f"d{number}", "entity": "cold", "cui": "C1", "left": left}
        rows.append(row | {"candidates": candidates})
    lists = usable_lists(Rows.of_mappings(rows), "rows", TypeHierarchy.built_in())
    said = describe_lists(lists, [])
    assert "48 mentions of 24 documents" in said
    assert "caution: 12 documents repeat" in said and "d12 repeats d0" in said
    assert "12 are left" in said
    settings = CalibrationArguments()
    assert "these 12 are worth 12;" in ModelSource.load(None).needed_documents(lists, settings)


@pytest.mark.filterwarnings("error")
def test_a_sentinel_score_is_named_with_its_column_count_and_value(tmp_path):
    rows = [
        {
            "doc_id": f"d{n}",
            "entity": "cold",
            "cui": "C1",
            "candidates": [
                {"name": "cold", "cui": f"C{place}", "my_score": n - place} for place in range(3)
            ],
        }
        for n in range(20)
    ]
    rows[3]["candidates"][2]["my_score"] = -9999
    rows[4]["candidates"][2]["my_score"] = -9999
    rows[5]["candidates"][0]["my_score"] = 1e308
    path = write_lists(tmp_path / "own.jsonl", rows)
    said = describe_lists(read_labelled_lists(path, TypeHierarchy.built_in()), [])
    assert "caution: my_score: 3 of 60 candidates" in said and "-9999 to 1e+308" in said
