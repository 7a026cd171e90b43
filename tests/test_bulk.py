"""Bulk reranking: each row once and in order, for any number of processes and after any kill."""

import json
import random
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_reranker import tiny_reranker

from umls_reranker import UMLSReranker
from umls_reranker.bulk import BulkJob, Process, rerank_rows
from umls_reranker.errors import UserError

SCRIPT = Path(__file__).parents[1] / "scripts" / "rerank.py"


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
    return [row | {"ranked": ranked} for row, ranked in zip(rows, rerank_rows(reranker, rows), strict=True)]


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
    assert job.run(reranker, Process()) == 37
    same(read(tmp_path / target), expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([source, target])


def test_processes_score_each_row_once_and_the_last_one_joins(tmp_path, reranker, rows, expected):
    source, scored = write(tmp_path / "in.jsonl", rows), []
    for rank in (2, 0, 1):
        assert not (tmp_path / "out.jsonl").exists()
        job = BulkJob(source, tmp_path / "out.jsonl", batch_rows=4, shard_rows=5)
        scored.append(job.run(reranker, Process(rank, 3)))
    assert scored == [10, 15, 12]
    same(read(tmp_path / "out.jsonl"), expected)


def test_processes_at_the_same_time(tmp_path, reranker, rows, expected):
    source = write(tmp_path / "in.parquet", rows)
    jobs = [BulkJob(source, tmp_path / "out.parquet", 4, 2) for _ in range(4)]
    threads = [threading.Thread(target=job.run, args=(reranker, Process(i, 4))) for i, job in enumerate(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    same(read(tmp_path / "out.parquet"), expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.parquet", "out.parquet"]


class Killed(Exception):
    pass


def test_finished_shards_are_not_made_again_after_a_kill(tmp_path, reranker, rows, expected, monkeypatch):
    source, entities = write(tmp_path / "in.jsonl", rows), []
    rerank_batch = reranker.rerank_batch

    def dying(names, *columns):
        entities.extend(names)
        if len(entities) > 22:
            raise Killed
        return rerank_batch(names, *columns)

    monkeypatch.setattr(reranker, "rerank_batch", dying)
    with pytest.raises(Killed):
        BulkJob(source, tmp_path / "out.jsonl", batch_rows=4, shard_rows=8).run(reranker, Process())
    assert not (tmp_path / "out.jsonl").exists()
    monkeypatch.undo()
    # Two shards of eight were whole.
    assert BulkJob(source, tmp_path / "out.jsonl", batch_rows=4, shard_rows=8).run(reranker, Process()) == 37 - 16
    same(read(tmp_path / "out.jsonl"), expected)


def test_shards_of_another_input_are_not_used(tmp_path, reranker, rows, expected):
    source = write(tmp_path / "in.jsonl", rows[::-1])
    BulkJob(source, tmp_path / "out.jsonl", 8, 8).run(reranker, Process(0, 2))
    write(source, rows)
    assert BulkJob(source, tmp_path / "out.jsonl", 8, 8).run(reranker, Process()) == 37
    same(read(tmp_path / "out.jsonl"), expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_a_blank_mention_is_named_by_its_lines(tmp_path, reranker, rows):
    source = write(tmp_path / "in.jsonl", [*rows[:9], rows[9] | {"entity": " "}])
    with pytest.raises(UserError, match=r"in\.jsonl:9 to .*in\.jsonl:10: mention 1: entity is blank"):
        BulkJob(source, tmp_path / "out.jsonl", 2, 4).run(reranker, Process())


def test_an_empty_file_gives_an_empty_file(tmp_path, reranker):
    BulkJob(write(tmp_path / "in.jsonl", []), tmp_path / "out.jsonl", 2, 4).run(reranker, Process())
    assert (tmp_path / "out.jsonl").read_bytes() == b""


@pytest.mark.parametrize(("target", "reason"), [("out.csv", "must end in one of"), ("out.parquet", "no column types")])
def test_an_output_of_another_kind_is_refused(tmp_path, rows, target, reason):
    with pytest.raises(UserError, match=reason):
        BulkJob(write(tmp_path / "in.jsonl", rows), tmp_path / target, 2, 4)


def test_two_launched_processes_give_what_one_gives(tmp_path, model, rows, expected):
    source, target = write(tmp_path / "in.parquet", rows), tmp_path / "out.jsonl"
    config = SCRIPT.parents[1] / "accelerate_configs" / "cpu_two_processes.yaml"
    launch = ["accelerate.commands.launch", "--config_file", config]
    options = ["--dtype", "float32", "--device", "cpu", "--shard_mentions", "5"]
    subprocess.run([sys.executable, "-m", *launch, SCRIPT, model, source, target, *options], check=True, timeout=240)
    same(read(target), expected)


def test_the_script_takes_a_recipe_that_names_the_model(tmp_path, model, rows, expected):
    recipe, source, target = tmp_path / "config.yaml", write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    recipe.write_text(f"served_model: {model}\nscoring_precision: float32\ndevice: cpu\ntoken_budget: 77\n")
    ended = subprocess.run(
        [sys.executable, SCRIPT, recipe, source, target], capture_output=True, text=True, timeout=240
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["mentions"] == 37
    same(read(target), expected)
    recipe.write_text("run_name: other\n")
    ended = subprocess.run(
        [sys.executable, SCRIPT, recipe, source, target], capture_output=True, text=True, timeout=240
    )
    assert (ended.returncode, ended.stderr.split()[:4]) == (2, ["error:", str(recipe), "names", "no"])
