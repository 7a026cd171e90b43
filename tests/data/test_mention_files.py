"""Mentions in files: the same rows for any format and any batches, and each row by its position."""

import gzip
import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from umls_reranker.core.errors import UserError
from umls_reranker.data.mention_files import open_mentions
from umls_reranker.data.semantic_types import TypeHierarchy

ROWS = [{"entity": f"m{i}", "candidates": [{"name": "é" * (1 + i % 5), "cui": f"C{i}"}] * (i % 3)} for i in range(23)]


def write(folder, kind, rows=ROWS, name="part"):
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.{kind.removesuffix('-stream')}"
    table = pa.Table.from_pylist(ROWS).slice(0, 0) if not rows else pa.Table.from_pylist(rows)
    if kind == "jsonl":
        path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    elif kind == "parquet":
        pq.write_table(table, path, row_group_size=4)
    else:
        with (pa.ipc.new_stream if kind.endswith("stream") else pa.ipc.new_file)(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=5)
    return path


@pytest.fixture(params=["jsonl", "parquet", "arrow", "arrow-stream"])
def kind(request):
    return request.param


def read(files, most):
    rows = []
    for batch in files.batches(most):
        assert len(batch) <= most
        lists = batch.lists(TypeHierarchy.built_in())
        assert lists.mentions == [row["entity"] for row in batch.rows()]
        rows += batch.rows()
    return rows


def test_a_packed_file_of_a_folder_is_not_left_out_silently(tmp_path, kind):
    path = write(tmp_path / "in", kind, ROWS, "a")
    packed = tmp_path / "in" / f"b{path.suffix}.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(UserError, match=f"{packed.name} would be ignored; unpack it or move it out of the folder"):
        open_mentions(tmp_path / "in")
    packed.rename(tmp_path / "in" / "notes.txt.gz")
    assert read(open_mentions(tmp_path / "in"), 50) == ROWS


@pytest.mark.parametrize("most", [1, 4, 50])
def test_any_batches_are_the_rows(tmp_path, kind, most):
    write(tmp_path / "in", kind, ROWS[:9], "a")
    write(tmp_path / "in", kind, [], "b")
    write(tmp_path / "in", kind, ROWS[9:], "c")
    assert read(open_mentions(tmp_path / "in"), most) == ROWS


def test_positions_name_file_and_row(tmp_path, kind):
    paths = [write(tmp_path / "in", kind, ROWS[:9], "a"), write(tmp_path / "in", kind, ROWS[9:], "b")]
    batches = open_mentions(tmp_path / "in").batches(4)
    positions = [str(batch.position(row)) for batch in batches for row in range(len(batch))]
    form = "{}:{}" if kind == "jsonl" else "{}, row {}"
    assert positions[8] == form.format(paths[0], 9) and positions[9] == form.format(paths[1], 1)
    assert positions[-1] == form.format(paths[1], 14)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", r"^not JSON \(Expecting property name .* at character 2\); write one JSON object per line$"),
        (b"", r"^not JSON \(Expecting value at character 1\)"),
        (b"[" * 100_000, r"^not JSON \(maximum recursion"),
        (b"1" * 5_000, r"^not JSON \(.*digits"),
        (b"\xff", r"^not UTF-8 \(byte 0xff at column 1\)"),
        (b"[]", r"^JSON, but not an object; write \{.entity"),
        (b'"entity candidates"', r"^JSON, but not an object"),
        (b'{"candidates": []}', r"^lacks entity \(or mention\), the text to link$"),
        (b'{"entity": "a"}', "^lacks candidates, the list to rank$"),
        (b'{"entity": "a", "mention": "b", "candidates": []}', "^has entity and mention, which differ; keep one"),
    ],
)
def test_a_line_that_is_no_mention_is_an_error_in_its_place(tmp_path, line, reason):
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"%s\n%s\n%s" % (good := json.dumps(ROWS[0]).encode(), line, good))
    (batch,) = open_mentions(path).batches(10)
    (fault,) = batch.faults(TypeHierarchy.built_in())
    assert fault[0] == 1 and re.search(reason, fault[1])
    valid = batch.without([1])
    assert valid.lines() == [batch.lines()[0], batch.lines()[2]] and len(valid.rows()) == 2


@pytest.mark.parametrize("both", [False, True])
def test_the_text_may_be_called_mention(tmp_path, kind, both):
    rows = [{"mention": row["entity"], **(row if both else {"candidates": row["candidates"]})} for row in ROWS[1:9]]
    (batch,) = open_mentions(write(tmp_path / "in", kind, rows)).batches(10)
    assert batch.lists(TypeHierarchy.built_in()).mentions == [row["entity"] for row in ROWS[1:9]]
    assert [row["entity"] for row in batch.rows(["entity"])] == [row["entity"] for row in ROWS[1:9]]


def test_a_table_whose_entity_and_mention_differ_names_the_row(tmp_path):
    rows = [row | {"mention": row["entity"]} for row in ROWS[:4]]
    rows[2]["mention"] = "other"
    (batch,) = open_mentions(write(tmp_path / "in", "parquet", rows)).batches(10)
    faults = list(batch.faults(TypeHierarchy.built_in()))
    assert faults == [(2, "has entity and mention, which differ; keep one of them")]


def test_missing_columns_are_named(tmp_path):
    for name, missing in (("entity", "candidates"), ("text", r"entity \(or mention\), candidates")):
        path = write(tmp_path / "in", "parquet", [{name: "a", "names": ["b"]}])
        with pytest.raises(UserError, match=f"missing columns: {missing}"):
            open_mentions(path)


@pytest.mark.parametrize("name", ["entity", "note"])
def test_a_column_that_is_there_twice_is_named(tmp_path, name):
    columns = {"entity": pa.array(["a"]), "candidates": pa.array([["b"]]), "note": pa.array([1])}
    table = pa.table([*columns.values(), columns[name]], names=[*columns, name])
    with pa.ipc.new_file(tmp_path / "in.arrow", table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(UserError, match=rf"in\.arrow .*{name}"):
        read(open_mentions(tmp_path / "in.arrow"), 10)


@pytest.mark.parametrize("name", ["id", "entity"])
def test_files_of_a_folder_have_the_same_columns(tmp_path, name):
    write(tmp_path / "in", "parquet", [row | {"id": 1} for row in ROWS], "a")
    write(tmp_path / "in", "parquet", [row | {name: 1} for row in ROWS], "b")
    if name == "id":
        read(open_mentions(tmp_path / "in"), 10)
        write(tmp_path / "in", "parquet", ROWS, "b")
    with pytest.raises(UserError, match=r"b\.parquet differs from .*a\.parquet in columns or types"):
        open_mentions(tmp_path / "in")


@pytest.mark.parametrize("name", ["none.jsonl", "in.csv", "empty", "mixed", "broken.parquet", "broken.arrow"])
def test_other_files_are_refused(tmp_path, capfd, name):
    (tmp_path / "in.csv").touch()
    (tmp_path / "empty").mkdir()
    write(tmp_path / "mixed", "jsonl")
    write(tmp_path / "mixed", "parquet")
    for broken in ("broken.parquet", "broken.arrow"):
        (tmp_path / broken).write_bytes(b"PAR1 and nothing else")
    with pytest.raises(UserError, match=name):
        open_mentions(tmp_path / name)
    assert not any(capfd.readouterr())


def test_a_file_whose_rows_are_damaged_is_named(tmp_path):
    path = write(tmp_path / "in", "parquet", ROWS * 100)
    content = bytearray(path.read_bytes())
    content[40:200] = bytes(160)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"part\.parquet cannot be read"):
        read(open_mentions(path), 10)
