"""Formats of ranked files, on rows whose answers are made up."""

import json
from datetime import date

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from umls_reranker.core.errors import UserError
from umls_reranker.serving.outputs import OUTPUT_FORMATS, brought, format_of
from umls_reranker.serving.rows import LINE, RANKED, RANKED_TYPE, LinesFormat, RankedRows

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


def part(rows, ranked, errors):
    return RankedRows(rows, pa.array(ranked, pa.list_(RANKED_TYPE)), errors)


PARTS = [part(ROWS[:1], [[BEST, SAME, NEXT]], [None]), part(ROWS[1:], [None], ["no list"])]


def write(path, parts=PARTS):
    format_of(path)().write(path, parts)
    return path


def test_a_table_of_text_has_what_the_input_brought_and_the_answer(tmp_path):
    path = write(tmp_path / "out.csv")
    assert path.read_text().splitlines() == [
        "mention,start,entity_type,negated,x,answer,answer_name,answer_score,tier,accepted,"
        "second,second_name,second_score,error",
        'cold,3,T047|T184,true,"{""a"": 1}",C1,colds,0.9,high,true,C2,"chill, a",0.1,',
        "é\\ud800,,,,,,,,,,,,,no list",
    ]
    tabs = write(tmp_path / "out.tsv").read_text().splitlines()
    assert tabs[2].count("\t") == 13


def test_a_table_of_mappings_keeps_the_types_of_plain_values(tmp_path):
    table = pq.read_table(write(tmp_path / "out.parquet"))
    kinds = dict(zip(table.column_names, map(str, table.schema.types), strict=True))
    kept = {"start": "int64", "negated": "bool", "entity_type": "list<element: string>"}
    assert kinds.items() >= (kept | {"x": "string", "accepted": "bool"}).items()
    first, second = table.to_pylist()
    assert (first["start"], first["x"], first["answer"]) == (3, '{"a": 1}', "C1")
    assert [item["name"] for item in first["ranked"]] == ["colds", "cold", "chill, a"]
    assert (second["ranked"], second["answer"], second["tier"]) == (None, None, None)
    assert (second["mention"], second["error"]) == ("é\\ud800", "no list")


def test_a_table_has_the_columns_of_all_parts_and_values_of_several_types_become_text():
    day = date(2026, 1, 2)
    rows = [
        [{"n": 1, "m": True, "big": 2**70, "none": None, "day": "x"}],
        [{"n": 0.5, "m": 1, "late": ["a"]}],
        pa.table({"n": [3], "day": [day], "only": [day]}),
    ]
    parts = [part(content, [[]], [None]) for content in rows]
    kinds = dict(zip(brought(parts).names, map(str, brought(parts).types), strict=True))
    assert kinds == {
        "n": "double",
        "m": "string",
        "big": "string",
        "none": "null",
        "day": "string",
        "late": "list<item: string>",
        "only": "date32[day]",
    }


def test_a_part_is_read_as_it_was_saved(tmp_path):
    """JSON repeats its values; a table keeps its types, and what says pandas about them."""
    line = '{"a": 1, "b": [1, "x", {"c": null}], "\\ud800": 12345678901234567890123, "d": NaN}'
    row = json.loads(line)
    table = pa.table({"a": pa.array([7], pa.uint8()), LINE: ["x"]}).replace_schema_metadata(
        {"pandas": "{}"}
    )
    for content in ([row | {RANKED: 7, "error": ""}], table):
        saved = part(content, [[BEST]], [None])._replace(counts={"ranked": 1})
        saved.save(tmp_path / "0.arrow")
        loaded = RankedRows.load(tmp_path / "0.arrow")
        assert loaded.ranked.equals(saved.ranked) and loaded.counts == {"ranked": 1}
        if content is table:
            assert loaded.content.schema.equals(table.schema, check_metadata=True)
            assert loaded.content.equals(table)
        else:
            assert repr(loaded.content) == repr([row])


def test_a_format_is_a_class_and_a_line(tmp_path, monkeypatch):
    class Answers(LinesFormat):
        name = "answers"
        help = "the answers alone"

        def lines(self, rows):
            return [f"{row['answer']}\n".encode() for row in rows.answers()]

    monkeypatch.setitem(OUTPUT_FORMATS, Answers.name, Answers)
    format_of(tmp_path / "out.txt", "answers")().write(tmp_path / "out.txt", PARTS)
    assert (tmp_path / "out.txt").read_text() == "C1\nNone\n"
    for name in (None, "answer"):
        with pytest.raises(UserError, match="answer|out.txt"):
            format_of(tmp_path / "out.txt", name)


def test_json_lines_repeat_the_row_with_its_ranking(tmp_path):
    lines = write(tmp_path / "out.jsonl").read_text().splitlines()
    first, second = map(json.loads, lines)
    assert first["x"] == {"a": 1} and first["ranked"][0]["cui"] == "C1"
    assert second["error"] == "no list" and "ranked" not in second
