"""From logged predictions to a recalibrated model and to another training set, script by script."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from datasets import load_from_disk
from pipeline_fixtures import contents
from test_pipeline_errors import assert_refused

from umls_reranker.core.files import file_sha256, read_json
from umls_reranker.core.stage_keys import key_of_lists
from umls_reranker.evaluation.outcomes import Outcomes
from umls_reranker.hub.model_folder import verify_model

pytest_plugins = ["pipeline_fixtures"]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def predictions(scripts, finished, tmp_path_factory):
    """The dev split as a service would log it, its documents renamed: nothing here was calibrated or tested on."""
    folder = tmp_path_factory.mktemp("log")
    mentions, lists = (load_from_disk(str(finished.folder / name))["dev"] for name in ("mentions", "candidates"))
    rows = []
    for mention, found in zip(mentions, lists, strict=True):
        names = zip(found["cuis"], found["names"], found["retrieval_scores"], strict=True)
        row = {"entity": mention["mention"], "left": mention["left"], "right": mention["right"]}
        row |= {"candidates": [{"cui": c, "name": n, "retrieval_score": s} for c, n, s in names]}
        row |= {"entity_type": mention["semantic_types"], "mention_id": mention["mention_id"]}
        row["index_key"] = key_of_lists(finished.folder)
        rows.append(row | {"doc_id": f"new-{mention['doc_id']}", "gold": mention["cui"]})
    source = write(folder / "input.jsonl", rows)
    outcome = scripts.run("rerank", finished.folder / "model", source, folder / "log.jsonl", device="cpu")
    assert outcome.code == 0, outcome.err
    logged = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    # No file can say of its scores that they count, though these are of the right index.
    assert logged and {row["ranked"][0]["inputs"] for row in logged} <= {"names and CUIs", "names and CUIs, no type"}
    return folder / "log.jsonl"


@pytest.fixture(scope="module")
def corrections(scripts, finished, predictions):
    folder = predictions.parent
    outcome = scripts.run(
        "select_for_review",
        finished.folder / "model",
        predictions,
        folder / "review.jsonl",
        count=12,
        random_share=0.5,
    )
    assert (outcome.code, outcome.errors) == (0, []), outcome.err
    picked = [json.loads(line) for line in (folder / "review.jsonl").read_text().splitlines()]
    assert 6 < len(picked) <= 12 and [row["reason"] for row in picked[:6]] == ["random draw"] * 6
    assert f"{len(picked)} of " in outcome.out and "6 random draw" in outcome.out
    reviewed = [row | {"chosen": row["gold"]} for row in picked[:-1]] + picked[-1:]
    outcome = scripts.run("add_feedback", folder / "corrections", write(folder / "reviewed.jsonl", reviewed))
    assert outcome.code == 0, outcome.err
    choices, differing = len(picked) - 1, sum(row["chosen"] != row["ranked"][0]["cui"] for row in reviewed[:-1])
    assert outcome.out.startswith(
        f"{choices} added, 0 replaced; {differing} of {choices} choices differ from the model's answer; "
        "1 lines without a choice"
    )
    return folder / "corrections"


def test_corrections_recalibrate_a_run_and_leave_it_as_it_is(scripts, finished, corrections, tmp_path):
    before = contents(finished.folder)
    root = finished.folder.parent
    words = [scripts.recipe, "--calibration_feedback", corrections, "--name", "corrected"]
    assert "[model] would be written" in scripts.run("recalibrate", *words, "--dry_run").err
    assert not (root / "corrected").exists()
    outcome = scripts.run("recalibrate", *words)
    assert (outcome.code, outcome.remade) == (0, ["model"]), outcome.err
    assert contents(finished.folder) == before
    new = root / "corrected"
    verify_model(new / "model")
    former, calibrator = (read_json(run / "model" / "calibrator.json") for run in (finished.folder, new))
    count = len(load_from_disk(str(corrections)))
    fitted = calibrator["fitted_on"]
    nothing = dict.fromkeys(fitted["corrections"]["left_out"], 0)
    assert fitted["corrections"] == {"used": count, "certifying": 6, "left_out": nothing}
    assert "6 of them were drawn at random and count for certificates" in outcome.out
    assert fitted["mentions"] == len(load_from_disk(str(new / "candidates"))["calibration"]) + count
    assert fitted["recalibrated_from"]["run"] == "mini"
    # The six are the documents of the second certificate; those of the first do not certify again.
    documents = len(set(load_from_disk(str(finished.folder / "mentions"))["calibration"]["doc_id"]))
    assert [len(hashes) for hashes in former["certificates"]] == [documents]
    assert calibrator["certificates"][0] == former["certificates"][0]
    assert fitted["certified_by"]["attempt"] == 2 and 0 < len(calibrator["certificates"][1]) <= 6
    assert "certificate 2 of this model is not granted, so the high tier is removed: it uses " in outcome.out
    fusions = [found["inputs"][0]["fusion"] for found in (former, calibrator)]
    assert fusions[0]["weights"] != fusions[1]["weights"]
    again = scripts.run("recalibrate", *words)
    assert (again.code, again.skipped) == (0, ["model"])
    # Made again from the same corrections it is the same certificate; from others it is a third one.
    scripts.run("recalibrate", *words, "--overwrite")
    assert read_json(new / "model" / "calibrator.json")["certificates"] == calibrator["certificates"]
    # As after a second recalibration: the report is of the former model.
    shutil.copytree(finished.folder / "report", new / "report")
    assert_refused(scripts.run("validate", run_name="corrected"), "model/metrics.json is missing")
    shutil.rmtree(new / "report")
    # A run of its own is nobody's recalibration, and neither is what was forked before the model was made anew.
    assert_refused(scripts.run("recalibrate", *words[:3], "--name", "mini"), "mini already exists and is not a recal")
    assert contents(finished.folder) == before
    lineage = new / "lineage.json"
    former_lineage = lineage.read_text()
    lineage.write_text(former_lineage.replace(file_sha256(finished.folder / "model" / "calibrator.json"), "0" * 64))
    assert_refused(scripts.run("recalibrate", *words), "remove it or choose another --name")
    lineage.write_text(former_lineage)

    # The new version is evaluated like any other, next to the former one.
    assert scripts.run("evaluate", run_name="corrected").code == 0
    refused = scripts.run("validate", run_name="corrected", against=finished.folder)
    assert_refused(refused, "documents; at least 20 are required; evaluate both on a larger test split")
    # As if there were three times the mentions, each in a document of its own.
    for place, report in ((new / "report", new / "report"), (tmp_path, finished.folder / "report")):
        outcomes = Outcomes.load(report / "outcomes.parquet")
        outcomes = outcomes.select(np.tile(np.arange(len(outcomes)), 3))
        replace(outcomes, document=np.arange(len(outcomes)).astype(str)).save(place / "outcomes.parquet")
    outcome = scripts.run("validate", run_name="corrected", against=tmp_path)
    assert outcome.code == (": not inferior on the same" not in outcome.out) and "McNemar test p = " in outcome.out
    checklist = json.loads((new / "checklist.json").read_text())
    assert checklist["comparison"]["mentions"] == checklist["comparison"]["documents"] == len(outcomes)
    assert {check["result"] for check in checklist["checks"]} == {"PASS"}
    # A version passes next to itself, and not next to one that was right elsewhere.
    present = Outcomes.load(new / "report" / "outcomes.parquet")
    places = [np.flatnonzero(present.correct)[:1], np.flatnonzero(~present.correct)[:1]]
    moved = replace(present, rank=present.rank.copy())
    moved.rank[places] = [[-1], [0]]
    for former, code, verdict in ((present, 0, "not inferior"), (moved, 1, "inconclusive")):
        former.save(tmp_path / "outcomes.parquet")
        outcome = scripts.run("validate", run_name="corrected", against=tmp_path)
        assert outcome.code == code and f"compared with {tmp_path}: {verdict} on the same " in outcome.out


def test_corrections_join_the_training_mentions_with_their_weight(scripts, finished, corrections, tmp_path):
    settings = {"output_dir": tmp_path, "feedback": corrections, "feedback_weight": 3}
    for script in ("prepare_data", "build_index", "mine_negatives"):
        outcome = scripts.run(script, **settings)
        assert outcome.code == 0, outcome.err
    mentions = load_from_disk(str(tmp_path / "mini" / "mentions"))["train"]
    former = load_from_disk(str(finished.folder / "mentions"))["train"]
    added = mentions.select(range(len(former), len(mentions)))
    assert mentions.select(range(len(former)))["mention"] == former["mention"]
    assert all(document.startswith("feedback:new-") for document in added["doc_id"])
    report = json.loads((tmp_path / "mini" / "mentions" / "read_report.json").read_text())
    assert report["feedback"]["mentions"] == len(added) > 0
    pairs = load_from_disk(str(tmp_path / "mini" / "pairs"))["train"]
    weights = {}
    for row in pairs:
        weights.setdefault(row["mention_id"] >= len(former), set()).add(row["weight"])
    assert weights == {False: {5.0, 1.5, 1.0}, True: {15.0, 4.5, 3.0}}


def test_the_log_is_watched_with_the_random_draw_of_the_corrections(
    scripts, finished, predictions, corrections, tmp_path
):
    model = finished.folder / "model"
    many = tmp_path / "many.jsonl"
    lines = predictions.read_text().splitlines()
    many.write_text("\n".join((lines * 40)[:450]) + "\n")
    outcome = scripts.run("monitor", model, many, window=200, feedback=corrections, lines=tmp_path / "windows.jsonl")
    assert outcome.code in (0, 1) and outcome.errors == [], outcome.err
    assert outcome.out.startswith("450 mentions, 0 of them without candidates")
    assert "drift of scores" in outcome.out and "6 labels: debiased ECE " in outcome.out
    events = [json.loads(line) for line in (tmp_path / "windows.jsonl").read_text().splitlines()]
    assert [event["window"] for event in events if event["event"] == "window"] == [1, 2]
    alarms = [event for event in events if event["event"] == "alarm"]
    assert outcome.code == (1 if alarms else 0) and outcome.out.count("ALARM: ") == len(alarms)
    if Path("/dev/full").exists():
        full = scripts.run("monitor", model, many, window=200, feedback=corrections, lines="/dev/full")
        assert full.code == 2 and full.out == outcome.out and "No space left on device" in full.err


def test_what_the_loop_refuses(scripts, finished, predictions, tmp_path):
    assert_refused(scripts.run("recalibrate", scripts.recipe, "--name", "x"), "requires --calibration_feedback")
    nowhere = scripts.run("recalibrate", scripts.recipe, "--name", "x", "--calibration_feedback", tmp_path / "none")
    assert_refused(nowhere, "none contains no corrections")
    assert not (finished.folder.parent / "x").exists()
    assert_refused(scripts.run("prepare_data", feedback=tmp_path / "none", output_dir=tmp_path), "none does not exist")
    bad = write(tmp_path / "bad.jsonl", [{"entity": "cold"}])
    assert_refused(scripts.run("add_feedback", tmp_path / "c", bad), "bad.jsonl:1: not a complete")
    model = finished.folder / "model"
    assert_refused(scripts.run("select_for_review", tmp_path, predictions, tmp_path / "o"), "reranker.json is missing")
    assert_refused(scripts.run("monitor", model, predictions, window=30), "--window 30")
    assert_refused(scripts.run("monitor", model, predictions, alpha="nan"), "--alpha nan must be between 0 and 1")
    (tmp_path / "lines").write_text("former")
    for words in ([tmp_path / "none"], [predictions, "--feedback", tmp_path / "none"]):
        assert scripts.run("monitor", model, *words, lines=tmp_path / "lines").code == 2
    assert (tmp_path / "lines").read_text() == "former"
    before = predictions.read_bytes()
    assert_refused(scripts.run("monitor", model, predictions, lines=predictions), "is also the input")
    assert_refused(scripts.run("select_for_review", model, predictions, predictions), "is also the input")
    (tmp_path / "empty.jsonl").touch()
    assert_refused(scripts.run("select_for_review", model, tmp_path / "empty.jsonl", tmp_path / "o"), "no predictions")
    assert_refused(
        scripts.run("select_for_review", model, predictions, tmp_path / "o", count=0), "count must be 1 or more"
    )
    assert predictions.read_bytes() == before
    assert_refused(scripts.run("validate", against=tmp_path), "contains no outcomes.parquet")
