"""What the page's boxes hold: candidates as typed, pasted JSON, and examples."""

import json

import pytest
from list_fixtures import write_lists
from tiny_reranker import HIERARCHY, tiny_reranker

from umls_reranker import UMLSReranker
from umls_reranker.calibration.fusion import FeatureFusion
from umls_reranker.calibration.inputs import ScoreRange
from umls_reranker.core.errors import UserError
from umls_reranker.models.template import PairTemplate
from umls_reranker.review.questions import Question, example_for, examples_in, parse_candidates

COLD = {"name": "Common Cold", "cui": "C0009443", "sapbert_score": 0.87}
ROW = {"mention": "cold", "left": "a ", "right": " night", "entity_type": "T047", "candidates": [COLD, "Cold"]}


def test_candidates_as_people_type_them():
    assert parse_candidates(" Cold | C1 | T047; T046 \n\n  B\nC | | T121") == [
        {"name": "Cold", "cui": "C1", "semantic_types": ["T047", "T046"]},
        {"name": "B"},
        {"name": "C", "semantic_types": ["T121"]},
    ]
    assert parse_candidates(" \n") == []
    assert parse_candidates("[X]Cold | C1\nB") == [{"name": "[X]Cold", "cui": "C1"}, {"name": "B"}]


@pytest.mark.parametrize("indent", [None, 2])
def test_candidates_of_json_are_lines_or_one_list(indent):
    assert parse_candidates(json.dumps([COLD, "Cold"], indent=indent)) == [COLD, {"name": "Cold"}]
    assert parse_candidates(json.dumps(COLD | {"cui": None}, indent=indent)) == [
        {name: value for name, value in COLD.items() if name != "cui"}
    ]
    lines = f"{json.dumps(COLD)},\nCold | C1\n{json.dumps(COLD)}"
    assert parse_candidates(lines) == [COLD, {"name": "Cold", "cui": "C1"}, COLD]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('Cold\n{"name": "Cold"', r"line 2 of the candidates is not JSON; write one object per line"),
        ("{" * 100_000, r"line 1 of the candidates is not JSON"),
        ("[7]", r"candidate 0 is 7, neither a name nor an object"),
        (f"{json.dumps(ROW)}\n{json.dumps(ROW)}", r"several rows with candidates; paste one row at a time"),
        (json.dumps([ROW]), r"several rows with candidates"),
    ],
)
def test_candidates_that_cannot_be_read_are_one_sentence(text, reason):
    with pytest.raises(ValueError, match=reason):
        parse_candidates(text)


@pytest.mark.parametrize("indent", [None, 2])
def test_a_pasted_row_fills_the_boxes(indent):
    row = ROW | {"entity_type": ["disease or syndrome", "unheard of"]}
    question = Question("old text", "text", ["T121"], json.dumps(row, indent=indent), 4).unpacked(HIERARCHY)
    lines = f'{json.dumps(COLD)}\n{{"name": "Cold"}}'
    assert question == Question("a cold night", "cold", ["T047"], lines, 2)
    assert question.unpacked(HIERARCHY) == question and parse_candidates(lines) == [COLD, {"name": "Cold"}]
    bare = Question("old text", "text", ["T121"], json.dumps({"entity": "flu", "candidates": []}))
    assert bare.unpacked(HIERARCHY) == Question("", "flu", [], "", None)


def test_what_is_no_row_stays_as_it_was_typed():
    for candidates in ("Cold", json.dumps(COLD), json.dumps([COLD]), "{", ""):
        question = Question("a cold", "cold", [], candidates, 2)
        assert question.unpacked(HIERARCHY) is question


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"mention": None}, "must be strings"),
        ({"entity": "flu"}, "has entity and mention, which differ"),
        ({"left": 7}, "left and right must be strings"),
        ({"entity_type": [7]}, "entity_type must be a string or a list of strings"),
        ({"candidates": "Cold"}, "candidates must be a list"),
        ({"candidates": [7]}, "candidate 0 is 7"),
        ({"left": "\ud800"}, "surrogate"),
    ],
)
def test_a_row_that_cannot_be_read_is_one_sentence(change, reason):
    row = {name: value for name, value in (ROW | change).items() if value is not None}
    if "mention" not in row:
        row["entity"] = 7
    with pytest.raises(ValueError, match=reason):
        Question("", "", [], json.dumps(row)).unpacked(HIERARCHY)


def test_examples_are_the_first_mentions_of_lists_that_have_candidates(tmp_path):
    rows = [ROW | {"mention": f"cold {number}", "candidates": [COLD] * (number != 1)} for number in range(8)]
    for name in ("lists.jsonl", "lists.parquet"):
        examples = examples_in(write_lists(tmp_path / name, rows), HIERARCHY)
        assert [example.mention for example in examples] == [f"cold {number}" for number in (0, 2, 3, 4, 5)]
        assert examples[0] == Question("a cold 0 night", "cold 0", ["T047"], json.dumps(COLD), 2)
    with pytest.raises(UserError, match=r"broken\.jsonl: not JSON"):
        examples_in(write(tmp_path / "broken.jsonl", "{"), HIERARCHY)


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_the_example_for_a_model_has_all_that_it_reads(tmp_path):
    template = PairTemplate(32, mention_types=True, candidate_fields=("preferred_name", "definition"))
    reranker = UMLSReranker.from_pretrained(tiny_reranker(tmp_path / "reads", template), device="cpu", dtype="float32")
    model = reranker.calibration.models[0]
    object.__setattr__(model, "fusion", FeatureFusion({"cross_encoder": 1.0, "bm25": 2.0}, {}, 0.0))
    reranker.calibration.score_ranges["bm25"] = ScoreRange(10.0, 30.0)
    example = example_for(reranker)
    first, *_ = candidates = parse_candidates(example.candidates)
    assert first == {
        "name": "Common Cold",
        "cui": "C0009443",
        "preferred_name": "Common Cold",
        "definition": "",
        "bm25_score": 29.0,
    }
    assert example.types == ["T047"] and len(candidates) == 3
    lists = reranker.read(["cold"], [candidates], [example.types])
    assert not any(is_missing.any() for is_missing in reranker.rank(lists).missing.values())
    plain = UMLSReranker.from_pretrained(tiny_reranker(tmp_path / "plain"), device="cpu", dtype="float32")
    assert example_for(plain).candidates.splitlines()[0] == "Common Cold | C0009443 | T047"
