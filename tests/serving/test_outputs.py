"""Formats of ranked files, on rows whose answers are made up."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from umls_reranker.core.errors import UserError
from umls_reranker.serving import outputs
from umls_reranker.serving.output_formats import OUTPUT_FORMATS, format_of
from umls_reranker.serving.outputs import RankedRows, columns_of
from umls_reranker.serving.rows import RANKED_TYPE

BEST = {"cui": "C1", "name": "colds", "score": 0.9, "tier": "high", "accepted": True}
SAME = {"cui": "C1", "name": "cold", "score": 0.9}
NEXT = {"cui": "C2", "name": "chill, a", "score": 0.1}
ROWS = [
    {
        "mention": "cold",
        "start": 3,
        "entity_type": ["T047", "T184"],
        "negated": True,
        "x": {"a": 1},
    },
    {"mention": "é\ud800", "start": None, "tier": "former", "candidates": ["cold"]},
]


def ranked_rows(content=ROWS):
    ranked = pa.array([[BEST, SAME, NEXT], None], pa.list_(RANKED_TYPE))
    return RankedRows(content, ranked, [None, "no list"])


def write(path, rows):
    output = format_of(path)(columns_of([ROWS[:1], ROWS[1:]]))
    with output.writing(path) as write:
        write(output.content(rows))
    return path


def test_a_table_of_text_has_what_the_input_brought_and_the_answer(tmp_path):
    path = write(tmp_path / "out.csv", ranked_rows())
    assert path.read_text().splitlines() == [
        "mention,start,entity_type,negated,x,answer,answer_name,answer_score,tier,accepted,"
        "second,second_name,second_score,error",
        'cold,3,T047|T184,true,"{""a"": 1}",C1,colds,0.9,high,true,C2,"chill, a",0.1,',
        "é\\ud800,,,,,,,,,,,,,no list",
    ]
    tabs = write(tmp_path / "out.tsv", ranked_rows()).read_text().splitlines()
    assert tabs[2].count("\t") == 13


def test_a_table_of_mappings_keeps_the_types_of_plain_values(tmp_path):
    table = pq.read_table(write(tmp_path / "out.parquet", ranked_rows()))
    kinds = dict(zip(table.column_names, map(str, table.schema.types), strict=True))
    kept = {"start": "int64", "negated": "bool", "entity_type": "list<element: string>"}
    assert kinds.items() >= (kept | {"x": "string", "accepted": "bool"}).items()
    first, second = table.to_pylist()
    assert (first["start"], first["x"], first["answer"]) == (3, '{"a": 1}', "C1")
    assert [item["name"] for item in first["ranked"]] == ["colds", "cold", "chill, a"]
    assert (second["ranked"], second["answer"], second["tier"]) == (None, None, None)
    assert (second["mention"], second["error"]) == ("é\\ud800", "no list")


def test_values_of_several_types_become_text():
    first = [{"n": 1, "m": True, "big": 2**70, "none": None}]
    second = [{"n": 0.5, "m": 1, "late": ["a"]}]
    kinds = columns_of([first, second])
    assert {key: str(kind) for key, kind in kinds.items()} == {
        "n": "double",
        "m": "string",
        "big": "string",
        "none": "null",
        "late": "list<item: string>",
    }


def test_a_table_refuses_keys_that_it_did_not_know(tmp_path):
    output = OUTPUT_FORMATS["csv"](columns_of([ROWS[:1]]))
    with pytest.raises(UserError, match="candidates, tier"):
        output.content(ranked_rows())


def test_a_format_is_a_class_and_a_line(tmp_path, monkeypatch):
    class Answers(outputs.LinesFormat):
        name = "answers"
        help = "the answers alone"

        def content(self, rows):
            return [f"{answer}\n".encode() for answer in rows.answers()["answer"]]

    monkeypatch.setitem(OUTPUT_FORMATS, Answers.name, Answers)
    output = format_of(tmp_path / "out.txt", "answers")({})
    with output.writing(tmp_path / "out.txt") as write_content:
        write_content(output.content(ranked_rows()))
    assert (tmp_path / "out.txt").read_text() == "C1\nNone\n"
    for name in (None, "answer"):
        with pytest.raises(UserError, match="answer|out.txt"):
            format_of(tmp_path / "out.txt", name)


def test_json_lines_repeat_the_row_with_its_ranking():
    lines = OUTPUT_FORMATS["jsonl"]({}).content(ranked_rows())
    first, second = map(json.loads, lines)
    assert first["x"] == {"a": 1} and first["ranked"][0]["cui"] == "C1"
    assert second["error"] == "no list" and "ranked" not in second
