"""Files of mentions: the same rows for any format and any batches, and each row by its position."""

import json
import re
from functools import partial

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_fixtures import write_rrf
from list_fixtures import write_lists
from processes import python
from tiny_reranker import refused

from umls_reranker.core.arrow_files import arrow_writer
from umls_reranker.core.errors import UserError
from umls_reranker.lists.answers import Answers, read_sheet
from umls_reranker.lists.candidate_lists import CandidateLists
from umls_reranker.lists.columns import InvalidRow
from umls_reranker.lists.dictionary import Dictionary
from umls_reranker.lists.labels import gold_ids, labelled_lists, read_labelled_lists
from umls_reranker.lists.read import read_rows
from umls_reranker.lists.rows import Rows
from umls_reranker.lists.table import READING_ERROR, require_lists
from umls_reranker.vocab.types import TypeHierarchy

ROWS = [
    {"entity": f"m{i}", "candidates": [{"name": "é" * (1 + i % 5), "cui": f"C{i}"}] * (i % 3)}
    for i in range(23)
]
CELLS = (
    "mention_id,doc_id,mention,cui,name,score,gold,entity_type",
    "1,d1,cold,C0009443,Common Cold,0.93,1,T047|T033",
    '1,d1,,C0009264,"Cold, Temperature",0.91,0,',
    "2,d1,flu,C0021400,Influenza,,,",
    "1,d2,ache,C0030193,Pain,5e-1,0,",
    "3,d2,gout,,,,,",
    "4,d2,both,D001943,Breast Neoplasms,,true,",
    "4,d2,both,D010051,Ovarian Neoplasms,,true,",
)
MENTIONS = [
    {
        "mention_id": "1",
        "doc_id": "d1",
        "entity": "cold",
        "entity_type": ["T047", "T033"],
        "cui": "C0009443",
        "candidates": [
            {"cui": "C0009443", "name": "Common Cold", "list_score": 0.93},
            {"cui": "C0009264", "name": "Cold, Temperature", "list_score": 0.91},
        ],
    },
    {
        "mention_id": "2",
        "doc_id": "d1",
        "entity": "flu",
        "candidates": [{"cui": "C0021400", "name": "Influenza"}],
    },
    {
        "mention_id": "1",
        "doc_id": "d2",
        "entity": "ache",
        "cui": "CUI-less",
        "candidates": [{"cui": "C0030193", "name": "Pain", "list_score": 0.5}],
    },
    {"mention_id": "3", "doc_id": "d2", "entity": "gout", "candidates": []},
    {
        "mention_id": "4",
        "doc_id": "d2",
        "entity": "both",
        "cui": ["D001943", "D010051"],
        "candidates": [
            {"cui": "D001943", "name": "Breast Neoplasms"},
            {"cui": "D010051", "name": "Ovarian Neoplasms"},
        ],
    },
]


def write(folder, kind, rows=ROWS, name="part"):
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.{kind.removesuffix('-stream')}"
    table = pa.Table.from_pylist(rows) if rows else pa.Table.from_pylist(ROWS).slice(0, 0)
    if kind == "jsonl":
        path.write_text(
            "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
        )
    elif kind == "parquet":
        pq.write_table(table, path, row_group_size=4)
    else:
        with (pa.ipc.new_stream if kind.endswith("stream") else pa.ipc.new_file)(
            path, table.schema
        ) as writer:
            writer.write_table(table, max_chunksize=5)
    return path


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "arrow", "arrow-stream"])
@pytest.mark.parametrize("most", [1, 4, 50])
def test_any_batches_are_the_rows(tmp_path, kind, most):
    for name, rows in (("a", ROWS[:9]), ("b", []), ("c", ROWS[9:])):
        write(tmp_path / "in", kind, rows, name)
    (tmp_path / "in" / "notes.txt").write_text("ignored")
    batches = list(read_rows(tmp_path / "in", most))
    assert [row for batch in batches for row in batch.mappings()] == ROWS
    assert max(len(batch.positions) for batch in batches) <= most
    ending = kind.removesuffix("-stream")
    expected = [(f"a.{ending}", n) for n in range(1, 10)] + [
        (f"c.{ending}", n) for n in range(1, 15)
    ]
    assert [(at.path.name, at.number) for batch in batches for at in batch.positions] == expected


@pytest.mark.parametrize("ending", [".csv", ".tsv"])
def test_rows_of_candidates_are_mentions_with_candidates(tmp_path, ending):
    path = tmp_path / f"in{ending}"
    text = "\n".join(CELLS)
    if ending == ".tsv":
        text = (
            text.replace('"Cold, Temperature"', "Cold; Temperature")
            .replace(",", "\t")
            .replace(";", ",")
        )
    path.write_text(text, encoding="utf-8-sig")
    (batch,) = read_rows(path)
    assert batch.mappings() == MENTIONS
    assert [str(position) for position in batch.positions] == [
        f"{path}:{line}" for line in (2, 4, 5, 6, 7)
    ]


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        (("mention,cui", "cold,C1"), "mention_id"),
        (("mention_id,mention", "1,cold"), "cui or id or name"),
        (("mention_id,mention,name", "1,cold,a", ",cold,b"), r"in\.csv:3"),
        (("mention_id,mention,name", "1,cold,a", "2,cold"), r"in\.csv:3"),
        (("mention_id,mention,name", '1,"cold'), r"in\.csv"),
        (("mention_id,mention,cui,gold", "1,cold,C1,1", "1,cold,C2,ja"), r"in\.csv:3: gold .*'ja'"),
        (("mention_id,mention,cui,is_random_sample", "1,a,C1,2"), r"in\.csv:2: is_random_sample"),
        (("mention_id,mention,cui", "1,,C1", "1,fever,C1", "1,ache,C2"), r"in\.csv:4: .*line 2"),
        (("mention_id,mention,cui,gold_cui", "1,a,C1,", "1,a,C1,C1", "1,a,C1,C2"), ":4: .*line 2"),
        (("mention_id,mention,cui,gold_cui", "1,a,C1,[[" + "[" * 5000), r"in\.csv:2: gold_cui"),
    ],
)
def test_a_file_of_cells_that_cannot_be_read_is_named(tmp_path, lines, named):
    path = tmp_path / "in.csv"
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match=named):
        list(read_rows(path))


def test_marks_and_gold_concepts_are_read_as_people_write_them(tmp_path):
    path = tmp_path / "in.csv"
    marks = ["1", "1.0", "x", "X ", " y", "Yes", "TRUE", "0", "n", "No ", "false", ""]
    lines = [f"{number},a,C1,{mark}" for number, mark in enumerate(marks)]
    path.write_text("\n".join(["mention_id,mention,cui,gold", *lines]))
    (batch,) = read_rows(path)
    golds = [row.get("cui") for row in batch.mappings()]
    assert golds == ["C1"] * 7 + ["CUI-less"] * 4 + [None]
    cells = {"A1|B1": {"A1", "B1"}, '"[""A1"", ""B1""]"': {"A1", "B1"}, "A1": {"A1"}}
    cells |= dict.fromkeys(("-1", "NIL", "CUI_less", ""), set())
    lines = [f"{number},a,C1,name,d,{cell}" for number, cell in enumerate(cells)]
    path.write_text("\n".join(["mention_id,mention,cui,name,doc_id,gold_cui", *lines]))
    with pytest.warns(UserWarning, match=r"in\.csv: a blank gold_cui .* 1 mention"):
        (lists,) = read_rows(path)
    (mentions,) = read_rows(path, has_candidates=False)
    assert gold_ids(lists) == gold_ids(mentions) == [*cells.values()]
    annotations = labelled_lists(lists, TypeHierarchy.built_in()).annotations
    assert annotations.cuis.tolist() == ["A1|B1", "A1|B1", "A1", *["CUI-less"] * 4]


def test_rows_of_a_mention_that_are_not_adjacent_are_refused(tmp_path):
    path = tmp_path / "in.csv"
    lines = ["mention_id,doc_id,mention,name", *(f"{n},d{n % 3},cold,a" for n in range(9))]
    path.write_text("\n".join(lines))
    assert sum(len(rows.content) for rows in read_rows(path, 2)) == 9
    for mention in (0, 4, 7):
        path.write_text("\n".join([*lines, f"{mention},d{mention % 3},cold,b"]))
        with pytest.raises(UserError, match=rf"in\.csv:11: .*'{mention}'.*in\.csv:{mention + 2};"):
            list(read_rows(path, 2))


def test_rows_of_a_mention_in_two_files_of_a_folder_are_refused(tmp_path):
    for name, row in (("a.csv", "1,cold,a"), ("b.csv", "2,cold,a"), ("c.csv", "1,cold,b")):
        (tmp_path / name).write_text(f"mention_id,mention,name\n{row}")
    with pytest.raises(UserError, match=r"c\.csv:2: .*'1'.*a\.csv:2;"):
        list(read_rows(tmp_path))


def test_an_array_is_a_file_of_rows_and_stdin_a_file(tmp_path, monkeypatch):
    for name in ("in.json", "in.jsonl"):
        (tmp_path / name).write_text(json.dumps(ROWS, indent=1))
        (batch,) = read_rows(tmp_path / name)
        assert batch.mappings() == ROWS and [at.number for at in batch.positions] == [*range(1, 24)]
    code = (
        "from umls_reranker.lists.read import *; "
        "print(sum(len(rows.content) for rows in read_rows(Path('-'))))"
    )
    for text in (json.dumps(ROWS), "".join(json.dumps(row) + "\n" for row in ROWS)):
        assert python("-c", code, input=text).stdout == "23\n"


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("in.csv", b"mention_id;mention;name\n1;cold;a", "id;mention;name'], separated by ','"),
        ("in.csv", b'{"entity": "cold", "candidates": []}', "JSON Lines.* .jsonl"),
        ("in.csv", b"mention_id,mention,name\n1,g\xe8ne,a", "0xe8.* UTF-8"),
        ("in.csv", b"", "no column mention_id; it has none"),
        ("in.csv", None, "in.csv cannot be read .Is a directory.$"),
    ],
)
def test_why_a_table_of_cells_cannot_be_read_is_said(tmp_path, monkeypatch, name, content, named):
    path = tmp_path / name
    if content is None:
        # As of a file without read rights, which the user of the tests may read.
        path.mkdir()
        monkeypatch.setattr("umls_reranker.lists.read.mention_files", lambda path: [path])
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=named):
        list(read_rows(path))


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("mention_id,mention,name", r"not JSON \(.*\); a table .*\.csv or \.tsv"),
        ('{"entity": "g\xe8ne"}', "not UTF-8 .*0xe8"),
        ('{"entity": "cold"', "cut off"),
        ('{"entity": "col', "cut off"),
        ('{"entity": "cold", "candidates": [1e}', r"not JSON \([^;]*\)$"),
    ],
)
def test_why_a_line_is_not_json_is_said(tmp_path, line, named):
    path = tmp_path / "in.jsonl"
    path.write_bytes(line.encode("latin-1"))
    (batch,) = read_rows(path)
    assert re.search(named, batch.mappings()[0][READING_ERROR])


@pytest.mark.parametrize("line", ["{", "[1]", "null", '{"a": 1e}', "\xff"])
def test_a_line_that_is_no_object_is_a_faulty_row(tmp_path, line):
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"entity": "a", "candidates": []}\n' + line.encode("latin-1"))
    (batch,) = read_rows(path)
    assert set(batch.mappings()[1]) == {"line", READING_ERROR}
    with pytest.raises(InvalidRow) as found:
        CandidateLists.from_rows(TypeHierarchy.built_in(), batch.content)
    assert found.value.row == 1


@pytest.mark.parametrize("name", ["in.json", "in.jsonl"])
def test_rows_that_no_output_could_repeat_are_faulty(tmp_path, name):
    deep = "[" * 900 + "]" * 900
    rows = [
        "1",
        "[2]",
        f'{{"entity": "cold", "x": {deep}}}',
        deep,
        r'{"entity": "cold", "\ud800": 1}',
    ]
    text = f"[{','.join(rows)}]" if name == "in.json" else "\n".join(rows)
    (tmp_path / name).write_text(text)
    (batch,) = read_rows(tmp_path / name)
    assert [READING_ERROR in row for row in batch.mappings()] == [True] * 4 + [False]
    assert batch.mappings()[2]["entity"] == "cold" and [*batch.mappings()[4]][1].isascii()
    assert len(json.dumps(batch.mappings())) < 1_000


@pytest.mark.parametrize("name", ["in.json", "in.jsonl"])
@pytest.mark.parametrize(
    ("repeated", "key"),
    [
        ('{"entity": "cold", "candidates": ["a"], "entity": "flu"}', "entity"),
        ('{"entity": "cold", "candidates": [{"name": "a", "name": "b"}]}', "name"),
        ('{"entity": "cold", "candidates": [], "x": {"y": 1, "y": 1}}', "y"),
    ],
)
def test_a_key_that_a_row_has_twice_is_an_error_of_that_row(tmp_path, name, repeated, key):
    rows = ['{"entity": "cold", "candidates": ["a"]}', repeated]
    text = f"[{','.join(rows)}]" if name == "in.json" else "\n".join(rows)
    (tmp_path / name).write_text(text)
    (batch,) = read_rows(tmp_path / name)
    first, second = batch.mappings()
    assert READING_ERROR not in first and repr(key) in second[READING_ERROR]
    with pytest.raises(InvalidRow, match=repr(key)) as found:
        CandidateLists.from_rows(TypeHierarchy.built_in(), batch.content)
    assert found.value.row == 1


def test_an_array_that_is_nested_too_deeply_is_named(tmp_path):
    (tmp_path / "in.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"in\.json"):
        list(read_rows(tmp_path / "in.json"))


@pytest.mark.parametrize("name", ["in.parquet", "in.arrow"])
def test_a_damaged_table_is_named(tmp_path, name):
    path = write(tmp_path, name.removeprefix("in."), name="in")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match=name):
        list(read_rows(path))


def test_a_column_that_pyarrow_cannot_convert_names_its_file(tmp_path):
    union = pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array(["a"])])
    table = pa.table({"mention": ["cold"], "note": union})
    with arrow_writer(tmp_path / "in.arrow", table.schema) as writer:
        writer.write(table)
    with pytest.raises(UserError, match=r"in\.arrow"):
        list(read_rows(tmp_path / "in.arrow"))


def test_a_folder_without_files_of_mentions_and_a_missing_file_are_named(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    for path in (tmp_path, tmp_path / "absent.jsonl", tmp_path / "notes.txt"):
        with pytest.raises(UserError, match=path.name):
            list(read_rows(path))


def labelled_rows(count=20):
    """A mention in each of ten documents, twice; its first candidate is correct."""
    candidates = [{"name": "a", "cui": "C1"}, {"name": "b", "cui": "HP:0000001"}]
    return [
        {
            "mention_id": n,
            "doc_id": f"d{n % 10}",
            "entity": "a",
            "cui": "C1",
            "candidates": candidates,
        }
        for n in range(count)
    ]


@pytest.mark.parametrize("key", ["cui", "id"])
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    ("gold", "ids", "positions"),
    [
        ("C562477", ("C562477",), [0]),
        ("D003920|x+y, z", ("D003920|x+y, z",), [2]),
        ([" HP:0000001 ", "C562477"], ("HP:0000001", "C562477"), [0, 1]),
        ([["c562477"], ["HP:0000001"]], ("c562477", "HP:0000001"), [1]),
        ([], (), []),
    ],
)
def test_a_text_is_one_gold_id_and_lists_hold_alternatives_and_parts(
    tmp_path, key, kind, gold, ids, positions
):
    candidates = [{"name": name, key: name} for name in ("C562477", "HP:0000001", "D003920|x+y, z")]
    rows = [
        {"doc_id": f"d{n}", "entity": "a", key: gold, "candidates": candidates} for n in range(2)
    ]
    batches = read_rows(write(tmp_path, kind, rows))
    batch = next(batch for batch in batches if batch.positions)
    lists = labelled_lists(batch, TypeHierarchy.built_in())
    annotations = lists.annotations
    assert (
        annotations.cuis.tolist() == ["|".join(ids)] * 2
        and annotations.alternatives.tolist() == [ids] * 2
    )
    assert annotations.gold.tolist() == [min(positions, default=-1)] * 2
    assert lists.is_gold(np.array([3, -1])).tolist() == [0 in positions, False]
    assert np.flatnonzero(lists.correct).tolist() == [
        *positions,
        *(3 + position for position in positions),
    ]
    assert annotations.composite.tolist() == [gold[:1] == [["c562477"]]] * 2
    assert annotations.trainable.tolist() == [ids[0] if len(ids) == 1 else ""] * 2
    # Of those that are correct, the first that remains is the gold one.
    retained = lists.with_candidates(np.array([1, 2, 4, 5]))
    assert (
        retained.annotations.gold.tolist()
        == [1 if 2 in positions else 0 if 1 in positions else -1] * 2
    )


@pytest.mark.parametrize(
    "gold", [None, " ", ["C1", None], [["C1"], "C2"], [["C1", ["C2"]]], {"C1": 1}]
)
def test_a_gold_concept_that_is_no_id_is_named(tmp_path, gold):
    row = labelled_rows(1)[0] | {"cui": gold}
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps(one) + "\n" for one in [*labelled_rows(3), row])
    )
    with pytest.raises(UserError, match=":4: cui"):
        read_labelled_lists(tmp_path / "a.jsonl", TypeHierarchy.built_in())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            {"candidates": [{"_id": "C1", "_score": 1.0, "_source": {"term": "a", "code": "C1"}}]},
            ":1: candidate 0.*'code'",
        ),
        ({"cui": "D1"}, "D1 .*:1.* C1"),
        ({"candidates": None, "hits": []}, ":1: candidates.*'hits'.* 19 "),
        ({"cui": None}, ":1: cui.* 19 .*CUI-less"),
        ({"candidates": None}, ":1: candidates is null"),
    ],
)
def test_what_all_rows_lack_is_named_with_what_they_have(tmp_path, change, named):
    path = write(tmp_path, "jsonl", [row | change for row in labelled_rows()])
    with pytest.raises(UserError, match=named):
        read_labelled_lists(path, TypeHierarchy.built_in())


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_added_rows_follow_and_replace_those_with_their_ids(tmp_path, kind):
    path = write(tmp_path, kind, labelled_rows())
    corrected = {
        **labelled_rows()[3],
        "mention_id": "3",
        "cui": "HP:0000001",
        "is_random_sample": False,
    }
    new = {**labelled_rows()[3], "mention_id": None, "entity": "new", "is_random_sample": True}
    add = write(tmp_path, "jsonl", [corrected, new], "corrections")
    lists = read_labelled_lists(path, TypeHierarchy.built_in(), add=add)
    annotations = lists.annotations
    assert annotations.mention_ids.tolist() == [*(str(n) for n in range(20) if n != 3), "3", None]
    assert annotations.gold.tolist() == [0] * 19 + [1, 0] and lists.mentions[-1] == "new"
    assert annotations.is_random_sample.tolist() == [True] * 19 + [False, True]
    assert str(annotations.positions[-1]) == f"{add}:2"


def test_gold_concepts_that_a_table_of_cells_lacks_are_named_as_its_columns(tmp_path):
    path = tmp_path / "in.csv"
    path.write_text("mention_id,doc_id,mention,cui,name\n1,d1,cold,C1,a")
    with pytest.raises(UserError, match=":2: gold or gold_cui is missing"):
        read_labelled_lists(path, TypeHierarchy.built_in())


def test_a_frame_is_its_rows_and_anything_else_is_named(tmp_path):
    frame = pd.DataFrame([{"entity": "cold", "left": "a", "n": 1.5}, {"entity": "flu"}])
    assert Rows.of(frame).mappings() == [
        {"entity": "cold", "left": "a", "n": 1.5},
        {"entity": "flu", "left": None, "n": None},
    ]
    with pytest.raises(UserError, match="rows:2: 'entity' is no row"):
        Rows.of([{}, "entity"])
    names = tmp_path / "names.csv"
    names.write_text("id,name\nC1,common cold\n")
    known = Dictionary.load(names)
    (row,) = known.add_to(pd.DataFrame([{"entity": "cold", "candidates": [{"cui": "C1"}]}]))
    assert row["candidates"][0]["name"] == "common cold"
    with pytest.raises(TypeError, match="mentions must be a list, not DataFrame"):
        require_lists(mentions=frame)


# Gold concepts that are none


def sheet_of(path, *answers):
    """A sheet of answers to the mentions of `labelled_rows`, by number; the others are right."""
    lines = [
        f"d{number % 10},{number},a,{dict(answers).get(number, 'C1')}\n" for number in range(20)
    ]
    path.write_text("".join(["doc_id,mention_id,mention,gold_cui\n", *lines]))
    return path


@pytest.mark.parametrize(
    "wrong", ["1", "0", "2", "B", "c1", "hp:0000001", "UMLS:C1", "fever", "fever 2"]
)
def test_answers_that_are_surely_no_ids_are_named_all_at_once(tmp_path, wrong):
    path = write(tmp_path, "jsonl", labelled_rows())
    read = partial(read_labelled_lists, path, TypeHierarchy.built_in())
    sheet = sheet_of(tmp_path / "sheet.csv", (3, wrong), (5, "CUI-less"), (7, f"{wrong}|C9"))
    said = refused(read, answers=Answers(read_sheet(sheet)))
    for number in (3, 7):
        assert f"{sheet}:{number + 2} " in said and f"{path}:{number + 1}" in said
    assert said.count(repr(wrong)) == said.count(f"{sheet}:") == 2
    # The same in the rows themselves.
    rows = labelled_rows()
    rows[3]["cui"] = wrong
    rows[7]["gold_cui"] = [[wrong], ["C9"]]
    del rows[7]["cui"]
    path = write_lists(tmp_path / "lists.jsonl", rows)
    said = refused(read_labelled_lists, path, TypeHierarchy.built_in())
    assert f"{path}:4: " in said and f"{path}:8: " in said
    many = sheet_of(tmp_path / "sheet.csv", *((number, wrong) for number in range(15)))
    said = refused(read, answers=Answers(read_sheet(many)))
    assert said.count(f"{many}:") == 10 and " 5 more" in said


@pytest.mark.parametrize("release", [True, False])
def test_answers_that_neither_dictionary_nor_candidates_have_are_named(release, tmp_path):
    path = write(tmp_path, "jsonl", labelled_rows())
    dictionary = tmp_path / "names.csv"
    dictionary.write_text("id,name\nC9000001,headache\n")
    if release:
        dictionary = write_rrf(tmp_path / "META")
    read = partial(read_labelled_lists, path, TypeHierarchy.built_in(), dictionary)
    sheet = sheet_of(tmp_path / "sheet.csv", (3, "C9000001"), (5, "C8"), (7, "C7|C1"))
    said = refused(read, answers=Answers(read_sheet(sheet)))
    assert f"{sheet}:7: " in said and "'C8'" in said and said.count(f"{sheet}:") == 1
    sheet = sheet_of(tmp_path / "sheet.csv", (3, "C9000001"), (5, "CUI-less"))
    lists = read(answers=Answers(read_sheet(sheet)))
    assert lists.annotations.in_dictionary[3]
    # What a row says of itself is counted.
    rows = labelled_rows()
    rows[5]["cui"] = "C8"
    write(tmp_path, "jsonl", rows)
    assert not read().annotations.in_dictionary[5]


def test_ids_that_no_list_has_may_be_right(tmp_path):
    for gold in ("C2", "D051437", "HP:0000002", "21", "nil", "c1|C1"):
        sheet = sheet_of(tmp_path / "sheet.csv", (3, gold))
        path = write(tmp_path, "jsonl", labelled_rows())
        lists = read_labelled_lists(
            path, TypeHierarchy.built_in(), answers=Answers(read_sheet(sheet))
        )
        assert len(lists) == 20
    # Where ids are numbers, or names, they are meant.
    for ids in (("1", "2"), ("a", "b")):
        rows = labelled_rows()
        for row in rows:
            row["candidates"] = [
                item | {"cui": cui} for item, cui in zip(row["candidates"], ids, strict=True)
            ]
            row["cui"] = ids[0]
        rows[0] |= {"candidates": rows[0]["candidates"][:1], "cui": "0" if ids[0] == "1" else "C"}
        assert len(read_labelled_lists(write(tmp_path, "jsonl", rows), TypeHierarchy.built_in()))


@pytest.mark.parametrize(
    ("change", "is_refused"),
    [
        ({"gold_cui": "HP:0000001"}, True),
        ({"gold_cui": "CUI-less"}, True),
        ({"gold_cui": ["C1", "HP:0000001"]}, True),
        ({"gold_cui": ["C1"]}, False),
        ({"gold_cui": None}, False),
        ({"cui": ["C9", "C1"], "gold_cui": ["C1", "C9"]}, False),
        ({"cui": ["C1", "HP:0000001"]}, True),
        ({"cui": [["C1"], ["HP:0000001"], ["C9"]]}, True),
        ({"cui": ["C1", "C9"]}, False),
        ({"candidates": [{"name": "a", "cui": "C1"}, {"name": "b", "cui": "C1"}]}, False),
    ],
)
def test_labels_that_contradict_each_other_or_say_nothing_are_named(tmp_path, change, is_refused):
    rows = labelled_rows()
    rows[4] |= change
    path = write_lists(tmp_path / "lists.jsonl", rows)
    if is_refused:
        assert f"{path}:5: " in refused(read_labelled_lists, path, TypeHierarchy.built_in())
    else:
        assert len(read_labelled_lists(path, TypeHierarchy.built_in())) == 20


def test_marks_and_gold_cui_of_a_table_must_agree(tmp_path):
    path = tmp_path / "in.csv"
    head = "mention_id,doc_id,mention,cui,name,gold,gold_cui\n"
    path.write_text(f"{head}1,d1,cold,C1,a,x,C1\n1,d1,cold,C2,b,,\n")
    assert next(iter(read_rows(path))).mappings()[0]["cui"] == "C1"
    path.write_text(f"{head}1,d1,cold,C1,a,x,C2\n1,d1,cold,C2,b,,\n")
    assert f"{path}:2: " in refused(list, read_rows(path))
