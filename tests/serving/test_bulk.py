"""Bulk reranking: each row once and in order, for any number of processes and after any kill."""

import json
import os
import random
import shutil
import subprocess
import sys
from datetime import date
from decimal import Decimal
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_reranker import tiny_reranker, with_cut

from umls_reranker import UMLSReranker
from umls_reranker.core import locks
from umls_reranker.core.errors import UserError
from umls_reranker.core.progress import progress
from umls_reranker.hub.model_folder import changing
from umls_reranker.serving.bulk import BulkJob
from umls_reranker.serving.prediction_log import read_predictions

pytest_plugins = ["pipeline_fixtures"]


def one_of(index, count, wait=lambda: None):
    return SimpleNamespace(
        process_index=index, num_processes=count, is_main_process=index == 0, wait_for_everyone=wait
    )


ALONE = one_of(0, 1)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_reranker(tmp_path_factory.mktemp("bulk") / "model")


@pytest.fixture(scope="module")
def reranker(model):
    return UMLSReranker.from_pretrained(model, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def rows():
    choose = random.Random(0)
    texts = ["".join(choose.choices("abcde ", k=choose.randrange(1, 9))) + "x" for _ in range(80)]
    return [
        {
            "id": number,
            "entity": choose.choice(texts),
            "candidates": [{"name": name, "cui": f"C{name}"} for name in choose.sample(texts, number % 4)],
            "entity_type": choose.choice(["T047", "T121", None]),
        }
        for number in range(37)
    ]


@pytest.fixture(scope="module")
def expected(reranker, rows):
    columns = ([row[key] for row in rows] for key in ("entity", "candidates", "entity_type"))
    ranked = reranker.rerank_batch(*columns)
    return [row | {"ranked": [item.as_row() for item in items]} for row, items in zip(rows, ranked, strict=True)]


def write(path, rows):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        with pa.ipc.new_file(path, pa.Table.from_pylist(rows).schema) as writer:
            writer.write_table(pa.Table.from_pylist(rows))
    return path


def read(path):
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    table = pq.read_table(path) if path.suffix == ".parquet" else pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    return table.to_pylist()


def same(found, expected):
    """Rows are equal, scores but for rounding: batches differ."""
    assert [row["id"] for row in found] == [row["id"] for row in expected]
    for one, other in zip(found, expected, strict=True):
        names = [item["name"] for item in other["ranked"]]
        assert one["candidates"] == other["candidates"] and [item["name"] for item in one["ranked"]] == names
        for key in ("score", "margin", "logit"):
            assert [i[key] for i in one["ranked"]] == pytest.approx([i[key] for i in other["ranked"]], abs=1e-4)
        for key in ("cui", "tier", "accepted"):
            assert [item[key] for item in one["ranked"]] == [item[key] for item in other["ranked"]]


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("in.jsonl", "out.jsonl"),
        ("in.parquet", "out.parquet"),
        ("in.arrow", "out.arrow"),
        ("in.parquet", "out.jsonl"),
        ("in.arrow", "out.parquet"),
    ],
)
def test_rows_come_out_in_order_with_their_ranking(tmp_path, reranker, rows, expected, source, target):
    job = BulkJob(write(tmp_path / source, rows), tmp_path / target, batch_rows=3, shard_rows=8)
    assert job.run(reranker, ALONE) == 37
    same(read(tmp_path / target), expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([source, target])


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_an_unscored_candidate_has_the_logit_null(tmp_path, reranker, monkeypatch, ending):
    monkeypatch.setattr(reranker, "calibration", with_cut())
    row = {"id": 0, "entity": "a cold", "candidates": [{"name": "A cold"}, {"name": "flu"}]}
    job = BulkJob(write(tmp_path / f"in.{ending}", [row]), tmp_path / f"out.{ending}", batch_rows=3, shard_rows=8)
    job.run(reranker, ALONE)
    (found,) = read(tmp_path / f"out.{ending}")
    first, second = found["ranked"]
    assert first["logit"] is not None and second["logit"] is None and first["scored"] == second["scored"] == 1
    if ending == "jsonl":
        assert '"logit": null' in (tmp_path / "out.jsonl").read_text()
        assert [one.top.accepted for one in read_predictions(tmp_path / "out.jsonl")] == [first["accepted"]]


def test_processes_score_each_row_once_and_the_first_joins(tmp_path, reranker, rows, expected, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    source, target, scored = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl", []

    def run(index, wait=lambda: None):
        scored.append(BulkJob(source, target, batch_rows=4, shard_rows=5).run(reranker, one_of(index, 3, wait)))

    # The others come once the first holds the lock, and it waits for them before it joins.
    waits = iter([lambda: (run(2), run(1)), lambda: target.exists() and pytest.fail("joined too early")])
    run(0, lambda: next(waits)())
    assert scored == [10, 12, 15]
    same(read(target), expected)


def test_processes_on_several_machines_are_refused(tmp_path, reranker, rows, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    job = BulkJob(write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl", 8, 8)
    with pytest.raises(UserError, match="4 processes were started, 2 of them on this machine.*Ray or Spark"):
        job.run(reranker, one_of(0, 4))


def test_the_same_command_twice_at_once_is_refused_and_harms_nothing(tmp_path, reranker, rows, expected, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE_SECONDS", 0.0)
    source, target, refused = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl", []

    def again():
        with pytest.raises(UserError, match=r"out\.jsonl is being made by another run; wait for it"):
            BulkJob(source, target, 4, 5).run(reranker, ALONE)
        refused.append(True)

    assert BulkJob(source, target, 4, 5).run(reranker, one_of(0, 1, again)) == 37
    assert refused == [True, True]
    same(read(target), expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_a_killed_run_blocks_nothing(tmp_path, reranker, rows, expected, monkeypatch):
    source, target = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    holding = "import sys, time; from pathlib import Path; from umls_reranker.core.locks import hold\n"
    holding += "with hold(Path(sys.argv[1]), ''): print('held', flush=True); time.sleep(60)"
    folder = tmp_path / ".out.jsonl.shards"
    folder.mkdir()
    with subprocess.Popen([sys.executable, "-c", holding, folder / "lock"], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        with monkeypatch.context() as patch, pytest.raises(UserError, match="by another run"):
            patch.setattr(locks, "PATIENCE_SECONDS", 0.0)
            BulkJob(source, target, 4, 5).run(reranker, ALONE)
        process.kill()
    BulkJob(source, target, 4, 5).run(reranker, ALONE)
    same(read(target), expected)


def test_names_are_taken_as_they_are_written(tmp_path, reranker, rows, expected, monkeypatch):
    source = write(tmp_path / "in.jsonl", rows)
    waiting = tmp_path / ".out1.jsonl.shards"
    waiting.mkdir()
    (waiting / "0000000.jsonl").write_text("of another output")
    target = tmp_path / "out[12].jsonl"
    BulkJob(source, target, 8, 8).run(reranker, ALONE)
    same(read(target), expected)
    assert (waiting / "0000000.jsonl").read_text() == "of another output"


class Killed(Exception):
    pass


def test_finished_shards_are_not_made_again_after_a_kill(tmp_path, reranker, rows, expected, monkeypatch):
    source, entities = write(tmp_path / "in.jsonl", rows), []
    rank = reranker.rank

    def dying(lists, *told):
        entities.extend(lists.mentions)
        if len(entities) > 22:
            raise Killed
        return rank(lists, *told)

    monkeypatch.setattr(reranker, "rank", dying)
    with pytest.raises(Killed):
        BulkJob(source, tmp_path / "out.jsonl", batch_rows=4, shard_rows=8).run(reranker, ALONE)
    assert not (tmp_path / "out.jsonl").exists()
    monkeypatch.undo()
    # Two shards of eight were whole.
    assert BulkJob(source, tmp_path / "out.jsonl", batch_rows=4, shard_rows=8).run(reranker, ALONE) == 37 - 16
    same(read(tmp_path / "out.jsonl"), expected)


def test_shards_of_another_input_are_not_used(tmp_path, reranker, rows, expected, capfd):
    source = write(tmp_path / "in.jsonl", rows[::-1])
    calls = iter([None])
    with pytest.raises(StopIteration):
        BulkJob(source, tmp_path / "out.jsonl", 8, 8).run(reranker, one_of(0, 1, lambda: next(calls)))
    assert len([*tmp_path.glob(".out.jsonl.shards/*.jsonl")]) == 5
    write(source, rows)
    assert "dropping" not in capfd.readouterr().err
    assert BulkJob(source, tmp_path / "out.jsonl", 8, 8).run(reranker, ALONE) == 37
    assert "dropping the shards in" in capfd.readouterr().err
    same(read(tmp_path / "out.jsonl"), expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_an_input_that_changes_while_it_is_read_is_refused(tmp_path, reranker, rows, expected):
    source, target = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    waits = iter([lambda: None, lambda: write(source, rows[:-1])])
    job = BulkJob(source, target, 8, 8)
    with pytest.raises(UserError, match=r"in\.jsonl changed while it was read, so .* would mix two versions"):
        job.run(reranker, one_of(0, 1, lambda: next(waits)()))
    assert not target.exists()
    BulkJob(source, target, 8, 8).run(reranker, ALONE)
    same(read(target), expected[:-1])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_pipe_is_refused_before_it_is_read(tmp_path):
    os.mkfifo(tmp_path / "in.jsonl")
    # Read and written by this process, so that opening it never blocks.
    pipe = os.open(tmp_path / "in.jsonl", os.O_RDWR | os.O_NONBLOCK)
    try:
        with pytest.raises(UserError, match=r"in\.jsonl is a pipe or a device"):
            BulkJob(tmp_path / "in.jsonl", tmp_path / "out.jsonl", 8, 8)
    finally:
        os.close(pipe)


def test_shards_are_known_by_all_that_decides_them(tmp_path, model, rows):
    source, target = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    folder = shutil.copytree(model, tmp_path / "model")

    def key(shard_rows=8, on_error="raise", dtype="float32", **options):
        reranker = UMLSReranker.from_pretrained(folder, device="cpu", dtype=dtype, **options)
        return BulkJob(source, target, 4, shard_rows, on_error).key_for(reranker)

    usual = key()
    assert usual == key(token_budget=99)
    others = {key(9), key(on_error="skip"), key(dtype="bfloat16"), key(accept_tier="high")}
    with changing(folder) as new:
        (new / "recipe.yaml").write_text("run_name: other\n")
    others.add(key())
    source.write_text(source.read_text() + "\n")
    assert len(others | {usual, key()}) == 7


POISON = [
    ({"entity": " "}, "entity is blank"),
    ({"entity": 7}, "entity must be text, not int"),
    ({"entity": "a\ud800"}, "holds half of a surrogate pair"),
    ({"note": {"deep": ["\udfff"]}}, "holds half of a surrogate pair"),
    ({"candidates": None}, "candidates are a NoneType, not a list"),
    ({"candidates": "cold"}, "candidates are a str, not a list"),
    ({"candidates": ["cold", None]}, r"candidate 1 \(NoneType\) has no text name"),
    ({"candidates": [{"name": "cold", "cui": 7}]}, "candidate 0 has a cui that is no text"),
    ({"entity_type": 5}, "entity_type must be text or a list of texts, not 5"),
    ({"entity_type": ["T047", None]}, "entity_type must be text"),
    ({"left": ["a"]}, "left must be text, not list"),
    ({"ranked": []}, "has ranked already"),
]


def unscored(*_):
    pytest.fail("scored before the rows were checked")


@pytest.mark.parametrize(("change", "reason"), POISON, ids=str)
def test_a_bad_row_is_named_before_any_is_scored(tmp_path, reranker, rows, monkeypatch, change, reason):
    source = write(tmp_path / "in.jsonl", [*rows[:9], rows[9] | change, *rows[10:]])
    monkeypatch.setattr(reranker, "rank", unscored)
    with pytest.raises(UserError, match=rf"^\S*in\.jsonl:10: .*{reason}.*on_error: skip$"):
        BulkJob(source, tmp_path / "out.jsonl", 4, 8).run(reranker, ALONE)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_bad_rows_are_left_out_counted_and_named(tmp_path, reranker, rows, expected, capfd):
    bad = {place: rows[place] | change for place, (change, _) in enumerate(POISON, 3)}
    source = write(tmp_path / "in.jsonl", [bad.get(place, row) for place, row in enumerate(rows)])
    job = BulkJob(source, tmp_path / "out.jsonl", 2, 4, on_error="skip")
    job.run(reranker, ALONE)
    assert job.skipped == len(POISON)
    same(read(tmp_path / "out.jsonl"), [row for place, row in enumerate(expected) if place not in bad])
    named = [line for line in capfd.readouterr().err.splitlines() if line.startswith("left out: ")]
    assert [line.split(": ")[1].rpartition(":")[2] for line in named] == [str(place + 1) for place in bad]


@pytest.mark.parametrize("name", ["parquet", "arrow"])
def test_bad_rows_of_tables(tmp_path, reranker, rows, expected, name):
    names = ["a"] * 36 + ["b"]
    broken = pa.array([b"fine"] * 5 + [b"\xed\xa0\x80"] + [b"fine"] * 31).view(pa.string())
    table = pa.table(
        {
            "id": list(range(37)),
            "entity": ["", *names[1:]],
            "candidates": [[{"name": "x"}]] * 3 + [None] + [[]] * 33,
            "note": broken,
        }
    )
    source, target = tmp_path / f"in.{name}", tmp_path / f"out.{name}"
    if name == "parquet":
        pq.write_table(table, source)
    else:
        with pa.ipc.new_file(source, table.schema) as writer:
            writer.write_table(table)
    with pytest.raises(UserError, match=rf"in\.{name}, row 1: entity is blank"):
        BulkJob(source, target, 4, 8).run(reranker, ALONE)
    job = BulkJob(source, target, 4, 8, on_error="skip")
    job.run(reranker, ALONE)
    assert job.skipped == 3
    assert [row["id"] for row in read(target)] == [number for number in range(37) if number not in (0, 3, 5)]


def test_shards_without_a_good_row(tmp_path, reranker):
    rows = [{"entity": "", "candidates": ["a"]}] * 5
    for name in ("jsonl", "parquet", "arrow"):
        job = BulkJob(write(tmp_path / f"in.{name}", rows), tmp_path / f"out.{name}", 2, 2, on_error="skip")
        job.run(reranker, ALONE)
        assert job.skipped == 5 and read(tmp_path / f"out.{name}") == []


def test_a_table_that_was_reranked_is_refused(tmp_path, reranker, rows):
    source, target = write(tmp_path / "in.parquet", rows), tmp_path / "out.parquet"
    BulkJob(source, target, 8, 8).run(reranker, ALONE)
    with pytest.raises(UserError, match=r"out\.parquet has ranked already"):
        BulkJob(target, tmp_path / "again.parquet", 8, 8)


def test_files_of_one_folder_have_one_schema(tmp_path, rows):
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "a.parquet", rows)
    write(tmp_path / "in" / "b.parquet", [row | {"id": str(row["id"])} for row in rows])
    with pytest.raises(UserError, match=r"b\.parquet has other columns or types than .*a\.parquet"):
        BulkJob(tmp_path / "in", tmp_path / "out.parquet", 8, 8)


def test_further_columns_of_json_lines_come_out_byte_for_byte(tmp_path, reranker):
    lines = [
        '{"entity": "a", "candidates": ["b"], "price": 1.10, "big": 12345678901234567890123, "e": 1e400}',
        '  {"x":{"ä":"\\u00e4","pair":"\\ud83d\\ude00"},"candidates":[],"entity":"a"}  ',
        '{"entity": "a", "candidates": ["b"], "n": null, "nan": NaN, "twice": 1, "twice": 2}\r',
    ]
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(b"\xef\xbb\xbf" + "\n".join(lines).encode())
    BulkJob(source, target, 2, 2).run(reranker, ALONE)
    written = target.read_bytes().decode().splitlines()
    for line, output in zip(lines, written, strict=True):
        assert output.startswith(line.strip().removesuffix("}") + ', "ranked": [')
    assert [len(row["ranked"]) for row in read(target)] == [1, 0, 1]


TYPED = {
    "flag": pa.array([True, None, False] * 3),
    "small": pa.array([1, None, 3] * 3, pa.int8()),
    "unsigned": pa.array([1, 2**64 - 1, None] * 3, pa.uint64()),
    "half": pa.array([0.5, float("nan"), None] * 3, pa.float32()),
    "price": pa.array([Decimal("1.10"), None, Decimal("2.00")] * 3, pa.decimal128(9, 2)),
    "day": pa.array([date(2026, 1, 2), None, date(1, 1, 1)] * 3),
    "moment": pa.array([0, None, 1_700_000_000_123_456_789] * 3, pa.timestamp("ns", tz="UTC")),
    "span": pa.array([1, None, 2] * 3, pa.duration("us")),
    "clock": pa.array([1, None, 2] * 3, pa.time64("us")),
    "raw": pa.array([b"\xff\x00", None, b""] * 3),
    "long": pa.array(["a", None, "c"] * 3, pa.large_string()),
    "kind": pa.array(["x", None, "y"] * 3).dictionary_encode(),
    "nested": pa.array([{"a": [1, None], "b": {"c": "d"}}, None, {"a": None, "b": None}] * 3),
    "map": pa.array([[("k", 1)], None, []] * 3, pa.map_(pa.string(), pa.int32())),
    "nothing": pa.nulls(9),
}


@pytest.mark.parametrize(
    ("source", "target"), [("parquet",) * 2, ("arrow",) * 2, ("parquet", "arrow"), ("arrow", "parquet")]
)
def test_further_columns_of_tables_keep_values_types_and_metadata(tmp_path, reranker, source, target):
    table = pa.table({"entity": ["a"] * 9, "candidates": [["b"]] * 9} | TYPED)
    fields = [field.with_metadata({"unit": "of " + field.name}) for field in table.schema]
    table = table.cast(pa.schema(fields, {"origin": "here"}))
    (tmp_path / "in").mkdir()
    # Each file has a dictionary of its own.
    for number, (part, kinds) in enumerate([(table.slice(0, 4), "pqrs"), (table.slice(4), "tqrsp")]):
        place, field = table.schema.get_field_index("kind"), table.schema.field("kind")
        part = part.set_column(place, field, pa.array(list(kinds)).dictionary_encode())
        path = tmp_path / "in" / f"{number}.{source}"
        if source == "parquet":
            pq.write_table(part, path, row_group_size=2)
        else:
            with pa.ipc.new_file(path, part.schema) as writer:
                writer.write_table(part)
    BulkJob(tmp_path / "in", tmp_path / f"out.{target}", 2, 4).run(reranker, ALONE)
    path = tmp_path / f"out.{target}"
    out = pq.read_table(path) if target == "parquet" else pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    out.validate(full=True)
    assert out.schema.remove(len(table.schema)).equals(table.schema) and out.schema.metadata == {b"origin": b"here"}
    assert [out.schema.field(name).metadata[b"unit"] for name in table.column_names] == [
        b"of " + name.encode() for name in table.column_names
    ]
    assert out["kind"].to_pylist() == [*"pqrstqrsp"]
    for name in table.column_names:
        assert name == "kind" or repr(out[name].to_pylist()) == repr(table[name].to_pylist())


NOT_IN_PARQUET = pa.RunEndEncodedArray.from_arrays([2], ["x"])


def write_arrow(path, column):
    table = pa.table({"entity": ["a", "a"], "candidates": [["b"]] * 2, "further": column})
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)


def test_a_column_that_parquet_lacks_is_refused_at_once(tmp_path, reranker):
    write_arrow(tmp_path / "in.arrow", NOT_IN_PARQUET)
    with pytest.raises(UserError, match=r"out\.parquet: Unhandled type .*run_end_encoded.*; write \.arrow"):
        BulkJob(tmp_path / "in.arrow", tmp_path / "out.parquet", 2, 2)
    BulkJob(tmp_path / "in.arrow", tmp_path / "out.arrow", 1, 1).run(reranker, ALONE)
    assert [row["further"] for row in read(tmp_path / "out.arrow")] == ["x", "x"]


def test_dictionaries_that_no_arrow_file_can_hold(tmp_path, reranker):
    (tmp_path / "in").mkdir()
    for number in range(2):
        words = pa.array([str(word) for word in range(100 * number, 100 * number + 100)])
        kinds = pa.DictionaryArray.from_arrays(pa.array([0, 99], pa.int8()), words)
        write_arrow(tmp_path / "in" / f"{number}.arrow", kinds)
    with pytest.raises(UserError, match=r"an Arrow file cannot hold these columns, write \.parquet"):
        BulkJob(tmp_path / "in", tmp_path / "out.arrow", 2, 2).run(reranker, ALONE)
    BulkJob(tmp_path / "in", tmp_path / "out.parquet", 2, 2).run(reranker, ALONE)
    assert [row["further"] for row in read(tmp_path / "out.parquet")] == ["0", "99", "100", "199"]


def test_dictionaries_inside_of_lists(tmp_path, reranker):
    (tmp_path / "in").mkdir()
    for number, words in enumerate((["x", "y"], ["y", "z"])):
        nested = pa.ListArray.from_arrays([0, 1, 2], pa.array(words).dictionary_encode())
        write_arrow(tmp_path / "in" / f"{number}.arrow", nested)
    for name in ("arrow", "parquet"):
        BulkJob(tmp_path / "in", tmp_path / f"out.{name}", 2, 2).run(reranker, ALONE)
        assert [row["further"] for row in read(tmp_path / f"out.{name}")] == [["x"], ["y"], ["y"], ["z"]]


def test_rows_of_any_type_can_be_left_out(tmp_path, reranker):
    table = pa.table(
        {"entity": ["", "a", " ", "b", "c"], "candidates": [["b"]] * 5, "view": pa.array([*"vwxyz"], pa.string_view())}
    )
    with pa.ipc.new_file(tmp_path / "in.arrow", table.schema) as writer:
        writer.write_table(table)
    BulkJob(tmp_path / "in.arrow", tmp_path / "out.arrow", 4, 4, on_error="skip").run(reranker, ALONE)
    assert [row["view"] for row in read(tmp_path / "out.arrow")] == ["w", "y", "z"]


def test_what_json_has_no_type_for_is_written_as_text(tmp_path, reranker):
    table = pa.table({"entity": ["a"] * 9, "candidates": [["b"]] * 9} | TYPED)
    pq.write_table(table, tmp_path / "in.parquet")
    BulkJob(tmp_path / "in.parquet", tmp_path / "out.jsonl", 4, 4).run(reranker, ALONE)
    first = read(tmp_path / "out.jsonl")[0]
    assert (first["price"], first["day"], first["raw"], first["nested"]) == (
        "1.10",
        "2026-01-02",
        "/wA=",
        {"a": [1, None], "b": {"c": "d"}},
    )


def test_numbers_that_json_lacks_are_written_as_null(tmp_path, reranker):
    columns = {"entity": ["a"], "candidates": [["b"]], "x": [float("nan")], "y": [[float("inf"), 1.5]]}
    pq.write_table(pa.table(columns), tmp_path / "in.parquet")
    BulkJob(tmp_path / "in.parquet", tmp_path / "out.jsonl", 4, 4).run(reranker, ALONE)
    (line,) = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    row = json.loads(line, parse_constant=pytest.fail)
    assert (row["x"], row["y"]) == (None, [None, 1.5])


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        (pa.array([2**62, 0], pa.timestamp("s")), r"timestamp\[s\] \(.*too large"),
        (pa.array([2**30, 0], pa.date32()), "date32.*magnitude"),
        (pa.array([{"at": 0}, None], pa.struct([("at", pa.timestamp("s", "Mars/Base"))])), "Mars/Base"),
    ],
    ids=["timestamp", "date", "zone"],
)
def test_a_value_that_json_cannot_show_is_named_before_any_is_scored(tmp_path, reranker, monkeypatch, column, reason):
    table = pa.table({"entity": ["a", "b"], "candidates": [["b"]] * 2, "at": column})
    with pa.ipc.new_file(tmp_path / "in.arrow", table.schema) as writer:
        writer.write_table(table)
    assert BulkJob(tmp_path / "in.arrow", tmp_path / "out.arrow", 4, 4).run(reranker, ALONE) == 2
    BulkJob(tmp_path / "in.arrow", tmp_path / "out.jsonl", 4, 4, on_error="skip").run(reranker, ALONE)
    assert [row["entity"] for row in read(tmp_path / "out.jsonl")] == ["b"]
    monkeypatch.setattr(reranker, "rank", unscored)
    with pytest.raises(UserError, match=rf"in\.arrow, row 1: .*{reason}.*; write \.parquet or \.arrow"):
        BulkJob(tmp_path / "in.arrow", tmp_path / "out.jsonl", 4, 4).run(reranker, ALONE)


def test_an_empty_file_gives_an_empty_file(tmp_path, reranker):
    BulkJob(write(tmp_path / "in.jsonl", []), tmp_path / "out.jsonl", 2, 4).run(reranker, ALONE)
    assert (tmp_path / "out.jsonl").read_bytes() == b""


@pytest.mark.parametrize(("target", "reason"), [("out.csv", "must end in one of"), ("out.parquet", "no column types")])
def test_an_output_of_another_kind_is_refused(tmp_path, rows, target, reason):
    with pytest.raises(UserError, match=reason):
        BulkJob(write(tmp_path / "in.jsonl", rows), tmp_path / target, 2, 4)


def test_an_output_that_is_a_folder_is_refused_before_any_work(tmp_path, rows):
    (tmp_path / "out.jsonl").mkdir()
    with pytest.raises(UserError, match=r"out\.jsonl is a folder"):
        BulkJob(write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl", 4, 8)


@pytest.mark.parametrize("name", ["in.jsonl", "link.jsonl"])
def test_an_output_that_is_the_input_is_refused(tmp_path, rows, name):
    source = write(tmp_path / "in.jsonl", rows)
    (tmp_path / "link.jsonl").symlink_to(source)
    before = source.read_bytes()
    with pytest.raises(UserError, match=f"{name} is the input too"):
        BulkJob(source, tmp_path / name, 2, 4, on_error="skip")
    assert source.read_bytes() == before


def test_two_launched_processes_give_what_one_gives(scripts, tmp_path, model, rows, expected):
    source, target = write(tmp_path / "in.parquet", rows), tmp_path / "out.jsonl"
    options = ["--dtype", "float32", "--device", "cpu", "--shard_mentions", "5"]
    outcome = scripts.launch("rerank", model, source, target, *options)
    assert outcome.code == 0, outcome.err
    same(read(target), expected)


def test_the_script_takes_a_recipe_that_names_the_model(scripts, tmp_path, model, rows, expected):
    recipe, source, target = tmp_path / "config.yaml", write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    recipe.write_text(f"served_model: {model}\nscoring_dtype: float32\ndevice: cpu\ntoken_budget: 77\n")
    ended = scripts.run("rerank", recipe, source, target)
    assert ended.code == 0, ended.err
    assert ended.out == f"37 mentions in {target}, 0 left out\n"
    same(read(target), expected)
    target.unlink()
    assert scripts.run("rerank", recipe.parent, source, target).code == 0
    recipe.write_text("run_name: other\n")
    ended = scripts.run("rerank", recipe, source, target)
    assert (ended.code, ended.err.split()[:4]) == (2, ["error:", str(recipe), "names", "no"])


def test_the_bar_moves_while_a_piece_is_ranked(tmp_path, rows, reranker, monkeypatch):
    seen, rank = [], reranker.rank

    def watched(lists, desc):
        def told(pairs):
            desc(pairs)
            seen.append(bars[-1].n)

        return rank(lists, told)

    def counted(**given):
        bars.append(progress(**given))
        return bars[-1]

    bars = []
    monkeypatch.setattr("umls_reranker.serving.bulk.progress", counted)
    monkeypatch.setattr(reranker, "rank", watched)
    BulkJob(write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl", 64, 64).run(reranker, ALONE)
    assert seen == sorted(seen) and 0 < seen[-1] <= len(rows) + 1e-9
    assert bars[-1].n == len(rows)
