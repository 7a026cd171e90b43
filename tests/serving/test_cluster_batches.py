"""Bulk reranking: each row once and in order, for any number of processes."""

import csv
import json
import os
import pickle
import random
import signal
from collections import Counter
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_fixtures import write_rrf
from list_fixtures import assert_alike, write_lists
from tiny_reranker import tiny_reranker, tiny_reranker_without_cross_encoder

from umls_reranker import Dictionary, UMLSReranker
from umls_reranker.core.errors import UserError
from umls_reranker.lists.read import STDIN
from umls_reranker.serving import cluster_batches
from umls_reranker.serving.cluster_batches import RerankBatches, RerankPartitions
from umls_reranker.serving.file_jobs import OneProcess
from umls_reranker.serving.output_format import FormatSettings
from umls_reranker.serving.rerank_files import BulkJob
from umls_reranker.serving.row_report import distance_from_calibration

pytest_plugins = ["pipeline_fixtures"]

OPTIONS = {"device": "cpu", "dtype": "float32"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_reranker(tmp_path_factory.mktemp("bulk") / "model")


@pytest.fixture(scope="module")
def reranker(model):
    return UMLSReranker.from_pretrained(model, **OPTIONS)


@pytest.fixture(scope="module")
def rows():
    choose = random.Random(0)
    texts = ["".join(choose.choices("abcde ", k=choose.randrange(1, 9))) + "x" for _ in range(80)]
    return [
        {
            "id": number,
            "entity": choose.choice(texts),
            "candidates": [
                {"name": name, "cui": f"C{name}"} for name in choose.sample(texts, number % 4)
            ],
            "entity_type": choose.choice(["T047", "T121", None]),
        }
        for number in range(37)
    ]


@pytest.fixture(scope="module")
def expected(reranker, rows):
    columns = ([row[key] for row in rows] for key in ("entity", "candidates", "entity_type"))
    ranked = reranker.rerank_batch(*columns)
    return [
        row | {"ranked": [item.as_row() for item in items]}
        for row, items in zip(rows, ranked, strict=True)
    ]


def read(path):
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    table = (
        pq.read_table(path)
        if path.suffix == ".parquet"
        else pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    )
    return table.to_pylist()


def same(found, expected):
    """Rows are equal, scores but for rounding: batches differ."""
    for key in ("id", "candidates"):
        assert [row[key] for row in found] == [row[key] for row in expected]
    assert_alike([row["ranked"] for row in found], [row["ranked"] for row in expected])


def outcome(counts):
    return counts.ranked, counts.errors


@pytest.mark.parametrize(
    ("source", "target"),
    [("in[*].jsonl", "out.jsonl"), ("in.parquet", "out[12].jsonl"), ("in.arrow", "out.parquet")],
)
def test_rows_come_out_in_order_with_their_ranking(
    tmp_path, reranker, rows, expected, source, target
):
    job = BulkJob(write_lists(tmp_path / source, rows), tmp_path / target, batch_rows=3)
    assert outcome(job.run(reranker, OneProcess())) == (37, 0)
    same(read(tmp_path / target), expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([source, target])


def test_the_same_command_is_refused_while_it_runs(tmp_path, reranker, rows, expected, monkeypatch):
    source = write_lists(tmp_path / "in.jsonl", rows)
    target = tmp_path / "out.jsonl"
    rank = reranker.decide
    monkeypatch.setattr("umls_reranker.core.files.PATIENCE_SECONDS", 0.0)

    def interrupted(*options):
        monkeypatch.setattr(reranker, "decide", rank)
        with pytest.raises(UserError, match=target.name):
            BulkJob(source, target, 8).run(reranker, OneProcess())
        return rank(*options)

    monkeypatch.setattr(reranker, "decide", interrupted)
    BulkJob(source, target, 8).run(reranker, OneProcess())
    same(read(target), expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_a_table_of_stdin_has_keys_that_come_late(tmp_path, reranker, monkeypatch):
    """A pipe, which is empty when it is read again."""
    row = {"entity": "a", "candidates": ["b"]}
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        stream.writelines(json.dumps(each) + "\n" for each in (row, row | {"late": 1}))
    for module in ("lists.read", "serving.rerank_files"):
        monkeypatch.setattr(
            f"umls_reranker.{module}.mention_files", lambda path: [Path(f"/dev/fd/{reading}")]
        )
    job = BulkJob(STDIN, tmp_path / "out.csv", 1)
    assert outcome(job.run(reranker, OneProcess())) == (2, 0)
    header, *lines = (tmp_path / "out.csv").read_text().splitlines()
    assert header.startswith("entity,late,answer,") and lines[1].startswith("a,1,")
    assert [*tmp_path.iterdir()] == [tmp_path / "out.csv"]
    with pytest.raises(UserError, match="stdin"):
        BulkJob(STDIN, tmp_path / "two.csv").run(reranker, OneProcess(num_processes=2))


# What else cannot be ranked is in the tests of candidate lists.
POISON = [
    ({"entity": " "}, "entity"),
    ({"entity": 7}, "entity"),
    ({"entity": "a\ud800"}, "entity"),
    ({"candidates": None}, "candidates"),
    ({"candidates": ["cold", None]}, "candidate 1: name"),
]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_row_that_cannot_be_ranked_is_written_with_its_error(
    tmp_path, reranker, rows, expected, ending
):
    poison = (
        POISON
        if ending == "jsonl"
        else [({"entity": " "}, "entity"), ({"candidates": None}, "candidates")]
    )
    bad = {place: (rows[place] | change, named) for place, (change, named) in enumerate(poison, 4)}
    source = write_lists(
        tmp_path / f"in.{ending}", [bad.get(place, (row,))[0] for place, row in enumerate(rows)]
    )
    job = BulkJob(source, tmp_path / f"out.{ending}", 2)
    assert outcome(job.run(reranker, OneProcess())) == (37 - len(bad), len(bad))
    found = read(tmp_path / f"out.{ending}")
    good = [row for place, row in enumerate(expected) if place not in bad]
    same([row for place, row in enumerate(found) if place not in bad], good)
    for place, (row, named) in bad.items():
        done = found[place]
        assert named in done["error"] and done.get("ranked") is None and done["id"] == row["id"]
    again = BulkJob(tmp_path / f"out.{ending}", tmp_path / f"again.{ending}", 8)
    assert outcome(again.run(reranker, OneProcess())) == (37 - len(bad), len(bad))
    same([row for row in read(tmp_path / f"again.{ending}") if not row.get("error")], good)


def test_a_line_that_is_not_json_is_written_with_its_error(tmp_path, reranker):
    source = tmp_path / "in.jsonl"
    target = tmp_path / "out.jsonl"
    source.write_text(
        '{"entity": "a", "candidates": ["b"], "big": 12345678901234567890123}\n{"entity":\n'
    )
    assert outcome(BulkJob(source, target).run(reranker, OneProcess())) == (1, 1)
    first, second = read(target)
    assert first["big"] == 12345678901234567890123 and first["ranked"][0]["name"] == "b"
    assert second["line"] == '{"entity":' and "line" in second["error"]


TYPED = {
    "flag": pa.array([True, None, False] * 3),
    "unsigned": pa.array([1, 2**64 - 1, None] * 3, pa.uint64()),
    "float": pa.array([0.5, float("nan"), None] * 3, pa.float32()),
    "price": pa.array([Decimal("1.10"), None, Decimal("2.00")] * 3, pa.decimal128(9, 2)),
    "day": pa.array([date(2026, 1, 2), None, date(1, 1, 1)] * 3),
    "moment": pa.array([0, None, 1_700_000_000_123_456_789] * 3, pa.timestamp("ns", tz="UTC")),
    "raw": pa.array([b"\xff\x00", None, b""] * 3),
    "kind": pa.array(["x", None, "y"] * 3).dictionary_encode(),
    "nested": pa.array([{"a": [1, None], "b": {"c": "d"}}, None, {"a": None, "b": None}] * 3),
    "nothing": pa.nulls(9),
}


@pytest.mark.parametrize(("source", "target"), [("parquet", "arrow"), ("arrow", "parquet")])
def test_further_columns_of_tables_keep_values_and_types(tmp_path, reranker, source, target):
    table = pa.table({"entity": ["a"] * 9, "candidates": [["b"]] * 9} | TYPED)
    (tmp_path / "in").mkdir()
    # Each file has a dictionary of its own.
    for number, (part, kinds) in enumerate(
        [(table.slice(0, 4), "pqrs"), (table.slice(4), "tqrsp")]
    ):
        place = table.schema.get_field_index("kind")
        field = table.schema.field("kind")
        part = part.set_column(place, field, pa.array(list(kinds)).dictionary_encode())
        path = tmp_path / "in" / f"{number}.{source}"
        if source == "parquet":
            pq.write_table(part, path, row_group_size=2)
        else:
            with pa.ipc.new_file(path, part.schema) as writer:
                writer.write_table(part)
    BulkJob(tmp_path / "in", tmp_path / f"out.{target}", 2).run(reranker, OneProcess())
    path = tmp_path / f"out.{target}"
    out = (
        pq.read_table(path)
        if target == "parquet"
        else pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    )
    out.validate(full=True)
    assert out["kind"].to_pylist() == [*"pqrstqrsp"]
    for name in table.column_names:
        assert name == "kind" or out[name].type == table[name].type
        assert name == "kind" or repr(out[name].to_pylist()) == repr(table[name].to_pylist())


def test_what_json_has_no_type_for_is_written_as_text_or_null(tmp_path, reranker):
    columns = {
        "entity": ["a"],
        "candidates": [["b"]],
        "x": [float("nan")],
        "y": [[float("inf"), 1.5]],
    }
    table = pa.table(
        columns | {name: TYPED[name][:1] for name in ("price", "day", "raw", "nested")}
    )
    pq.write_table(table, tmp_path / "in.parquet")
    BulkJob(tmp_path / "in.parquet", tmp_path / "out.jsonl", 4).run(reranker, OneProcess())
    (line,) = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    row = json.loads(line, parse_constant=pytest.fail)
    assert (row["x"], row["y"], row["raw"]) == (None, [None, 1.5], "/wA=")
    assert (row["price"], row["day"], row["nested"]) == (
        "1.10",
        "2026-01-02",
        {"a": [1, None], "b": {"c": "d"}},
    )


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_file_without_mentions_is_refused_and_gives_no_output(tmp_path, reranker, ending):
    source = tmp_path / f"in.{ending}"
    source.write_text("\n")
    if ending == "parquet":
        pq.write_table(pa.table({"entity": ["a"], "candidates": [["b"]]}).slice(1), source)
    target = tmp_path / f"out.{ending}"
    with pytest.raises(UserError, match=source.name):
        BulkJob(source, target).run(reranker, OneProcess())
    assert not target.exists()


@pytest.mark.parametrize(
    "name",
    ["in.jsonl", "link.jsonl", "folder.jsonl", "out.xlsx", "missing/out.jsonl"],
)
def test_an_output_that_will_not_do_is_refused_before_any_work(tmp_path, rows, name):
    source = write_lists(tmp_path / "in.jsonl", rows)
    (tmp_path / "link.jsonl").symlink_to(source)
    (tmp_path / "folder.jsonl").mkdir()
    before = source.read_bytes()
    with pytest.raises(UserError, match=name):
        BulkJob(source, tmp_path / name, 2, overwrite=True)
    assert source.read_bytes() == before


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_two_launched_processes_give_what_one_gives(scripts, tmp_path, model, rows, expected, name):
    source = tmp_path / "in.parquet"
    target = tmp_path / name
    # Seven batches, so that the last round has one; a bad row for each process.
    bad = {place: rows[place] | {"entity": " "} for place in (3, 7)}
    write_lists(source, [bad.get(place, row) for place, row in enumerate(rows)])
    options = ["--dtype", "float32", "--device", "cpu", "--batch_mentions", 6]
    outcome = scripts.launch("rerank", model, source, target, *options)
    assert outcome.code == 1, outcome.err
    # Gloo of older PyTorch prints lines of its own.
    told = f"35 mentions ranked, 2 with an error, written to {target}"
    assert outcome.out.splitlines().count(told) == 1
    found = read(target)
    assert [place for place, row in enumerate(found) if row.get("error")] == [*bad]
    same(
        [row for row in found if not row.get("error")],
        [r for place, r in enumerate(expected) if place not in bad],
    )


def test_the_script_takes_a_recipe_that_names_the_model(scripts, tmp_path, model, rows, expected):
    recipe = tmp_path / "config.yaml"
    source = write_lists(tmp_path / "in.jsonl", rows)
    target = tmp_path / "out.jsonl"
    recipe.write_text(
        f"served_model: {model}\nscoring_dtype: float32\ndevice: cpu\ntoken_budget: 77\n"
    )
    ended = scripts.run("rerank", recipe, source, target)
    assert ended.code == 0, ended.err
    assert ended.out.startswith(f"37 mentions ranked, 0 with an error, written to {target}\n")
    assert "acc@1" not in ended.out and "; accepted " in ended.out
    same(read(target), expected)
    target.write_text("as it was")
    ended = scripts.run("rerank", recipe, source, target)
    assert (ended.code, target.read_text()) == (2, "as it was") and str(target) in ended.errors[0]


def test_the_first_error_and_the_share_without_candidates_are_told(scripts, tmp_path):
    source = write_lists(
        tmp_path / "in.jsonl",
        [{"entity": "cold", "candidates": []}, {"entity": "cold", "hits": []}],
    )
    ended = scripts.run("rerank", "built-in-fast", source, tmp_path / "out.jsonl")
    assert (
        ended.code == 1
        and f"{source}:2: candidates" in ended.out
        and "umls-reranker link" in ended.out
        and "no candidates 100.0%" in ended.out
    )


def test_what_is_far_from_calibration_is_said(scripts, tmp_path):
    names = [{"name": "gene", "cui": "C0017337"}]
    for texts, is_far in (
        (["gene", "new gene", "abcq"], False),
        (["abcq", "qqqx qqqy", "gene"], True),
    ):
        source = write_lists(
            tmp_path / "in.jsonl", [{"entity": e, "candidates": names} for e in texts]
        )
        ended = scripts.run(
            "rerank", "built-in-fast", source, tmp_path / "out.jsonl", "--overwrite"
        )
        said = "0.0% of the scores are outside its range, and it counted neither string nor words "
        assert (f"{said}of 66.7% of the mentions" in ended.out) == is_far


def test_scores_outside_the_range_of_calibration_are_counted_and_said(tmp_path):
    tiny_reranker_without_cross_encoder(tmp_path / "model")
    reranker = UMLSReranker.from_pretrained(tmp_path / "model")
    ((key, known),) = reranker.calibration.source.score_ranges.items()
    items = [
        {"name": name, "cui": f"C{name}", f"{key}_score": score}
        for name, score in (("a", known.high), ("b", known.low - 2 * known.high), ("c", None))
    ]
    source = write_lists(tmp_path / "in.jsonl", [{"entity": "cold", "candidates": items}])
    with pytest.warns(UserWarning, match="missing inputs"):
        counts = BulkJob(source, tmp_path / "out.jsonl").run(reranker, OneProcess())
    assert (counts.scores, counts.scores_outside) == (2, 1)
    said = distance_from_calibration(counts, reranker.calibration.counts)
    assert "50.0% of the scores are outside" in said
    assert not distance_from_calibration(
        replace(counts, scores_outside=0), reranker.calibration.counts
    )


def test_a_dictionary_adds_to_candidates_and_leaves_the_rows_as_they_are(tmp_path, reranker):
    given = [
        {"id": 0, "entity": "head cold", "candidates": [{"cui": "C9000004"}, {"cui": "C9000035"}]},
        {"id": 1, "entity": "renal failure", "candidates": [{"cui": "C9000009"}]},
    ]
    source = write_lists(tmp_path / "in.parquet", given)
    target = tmp_path / "out.parquet"
    job = BulkJob(source, target, dictionary=write_rrf(tmp_path / "META"))
    assert outcome(job.run(reranker, OneProcess())) == (2, 0)
    added = Dictionary.from_umls_dir(tmp_path / "META").add_to(given)
    expected = reranker.rerank_batch(
        [row["entity"] for row in added], [row["candidates"] for row in added]
    )
    ranked = [
        row | {"ranked": [item.as_row() for item in items]}
        for row, items in zip(given, expected, strict=True)
    ]
    assert {item.name for item in expected[0]} == {"common cold", "cold temperature"}
    same(read(target), ranked)


def test_names_of_a_dictionary_that_changed_count_for_all_rows(scripts, tmp_path):
    items = [{"cui": "C1"}, {"cui": "C2"}]
    source = write_lists(tmp_path / "in.jsonl", [{"entity": "fever", "candidates": items}] * 12)
    names = tmp_path / "names.csv"
    target = tmp_path / "out.jsonl"
    words = ["rerank", "built-in-fast", source, target, "--dictionary", names]
    words += ["--batch_mentions", 2]
    names.write_text("id,name\nC1,fever\nC2,zzzzz\n")
    assert scripts.run(*words, watch=tmp_path, kill_at="000003.arrow").code == -signal.SIGKILL
    names.write_text("id,name\nC1,zzzzz\nC2,fever\n")
    again = scripts.run(*words)
    assert again.code == 0 and f"{names} " in again.err, again.err
    assert Counter(row["ranked"][0]["cui"] for row in read(target)) == {"C2": 12}


@pytest.mark.parametrize("name", ["jsonl", "csv", "fhir", "sssom"])
def test_no_row_brings_the_answer_of_a_reviewer(tmp_path, reranker, name):
    row = {"entity": "cold", "candidates": [{"name": "cold", "cui": "C1"}], "reviewed_id": "EVIL"}
    source = write_lists(tmp_path / "in.jsonl", [row])
    target = tmp_path / f"out.{name}"
    settings = FormatSettings(only_accepted=False)
    job = BulkJob(source, target, format_name=name, format_settings=settings)
    assert job.run(reranker, OneProcess()).ranked == 1
    text = target.read_text()
    assert "C1" in text and text.count("EVIL") == (name in ("jsonl", "csv"))
    assert "input_reviewed_id" in text or name in ("fhir", "sssom")
    # So it is where the rows are a table.
    source = write_lists(tmp_path / "in.parquet", [row | {"input_reviewed_id": "x"}])
    BulkJob(source, tmp_path / "again.csv").run(reranker, OneProcess())
    (again,) = csv.DictReader((tmp_path / "again.csv").open())
    assert (again["answer"], again["input_reviewed_id"]) == ("C1", "x")
    assert again["input_input_reviewed_id"] == "EVIL" and "reviewed_id" not in again


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_tiers_and_correct_answers_are_counted(tmp_path, reranker, rows, expected, ending):
    answers = [items["ranked"][0] if items["ranked"] else None for items in expected]
    gold = [
        (answer or {}).get("cui") if place % 2 else None for place, answer in enumerate(answers)
    ]
    gold[5] = "C0000000" if gold[5] else None
    given = [row | {"gold_cui": cui} for row, cui in zip(rows, gold, strict=True)]
    counts = BulkJob(write_lists(tmp_path / f"in.{ending}", given), tmp_path / "out.jsonl", 5).run(
        reranker, OneProcess()
    )
    labelled = [cui for cui in gold if cui]
    assert (counts.with_gold, counts.correct) == (
        len(labelled),
        len(labelled) - labelled.count("C0000000"),
    )
    tiers = Counter(answer["tier"] for answer in answers if answer)
    assert {tier: counts.by_tier[tier] for tier in tiers} == tiers
    assert counts.accepted == sum(answer["accepted"] for answer in answers if answer)


def test_the_script_writes_a_format_of_others_with_the_codes_of_a_dictionary(scripts, tmp_path):
    (tmp_path / "medic.txt").write_text("C567755|613097||Tooth Agenesis|STHAG6\n")
    items = [{"cui": "C567755", "name": "STHAG6"}]
    source = write_lists(tmp_path / "in.jsonl", [{"entity": "STHAG6", "candidates": items}] * 2)
    options = ["--codes", "OMIM", "MSH", "--dictionary", tmp_path / "medic.txt"]
    ended = scripts.run(
        "rerank", "built-in-fast", source, tmp_path / "out.tsv", "--format", "sssom", *options
    )
    assert ended.code == 0 and "strings: 1" in ended.out, ended.err
    text = (tmp_path / "out.tsv").read_text()
    assert "\tOMIM:613097\t" in text and "\tMESH:C567755\t" in text
    assert "the model built-in-fast" in text


# What Spark and Ray call, without either


def test_a_batch_of_ray_data_gains_the_ranking(model, rows, expected):
    batch = RerankBatches(str(model), **OPTIONS)(pa.Table.from_pylist(rows))
    assert batch.column_names == [*rows[0], "ranked"]
    same(batch.to_pylist(), expected)


def test_frames_of_spark_gain_the_ranking_and_the_model_is_loaded_once(model, rows, expected):
    function = pickle.loads(pickle.dumps(RerankPartitions(str(model), **OPTIONS)))
    cluster_batches._load_reranker.cache_clear()
    # Lists come as arrays, an empty one as one of floats; and a further column that Arrow has no
    # type for.
    arrays = [np.array(row["candidates"]) for row in rows]
    assert arrays[0].dtype == np.float64
    notes = ["a", *range(1, len(rows))]
    frame = pd.DataFrame(rows).assign(candidates=arrays, note=notes)
    frames = [*function(iter([frame, frame])), *function(iter([frame]))]
    assert len(frames) == 3 and cluster_batches._load_reranker.cache_info().misses == 1
    for ranked in frames:
        assert ranked["note"].tolist() == notes
        assert_alike(ranked["ranked"], [row["ranked"] for row in expected])


@pytest.mark.parametrize("column", ["entity", "candidates"])
def test_a_column_that_is_missing_is_named(model, rows, column):
    table = pa.Table.from_pylist(rows).drop_columns([column])
    with pytest.raises(ValueError, match=column):
        RerankBatches(str(model), **OPTIONS)(table)
