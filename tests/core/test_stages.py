"""Stage folders: finished, with a manifest, or missing."""

import errno
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from umls_reranker.core import files, stages
from umls_reranker.core.errors import UserError
from umls_reranker.core.files import read_json
from umls_reranker.core.stages import RunFolder, Stage
from umls_reranker.data.arrow import arrow_writer

ROOT = Path(__file__).resolve().parents[2]


def make_stage(run, settings=None, inputs=None, **options):
    return Stage(run / "index", settings or {"k": 32}, inputs or {"concepts": "abc"}, **options)


def resumable(run, **changes):
    """A stage whose `steps` may change while it is resumed; its inputs and `rate` may not."""
    settings = {"rate": 0.1, "loss": "bce", "steps": 5} | changes
    inputs = {"pairs": settings.pop("pairs", "abc")}
    return make_stage(run, settings, inputs, resumes_with=("rate", "loss", "pairs"), keeps="checkpoint-*/complete")


def write_output(stage, text, **options):
    with stage.writing(**options) as (folder, summary):
        (folder / "names.txt").write_text(text)
        summary["names"] = len(text)


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_finished_stage_has_output_manifest_and_summary(tmp_path):
    stage = make_stage(tmp_path)
    assert not stage.is_done()
    write_output(stage, "cold")
    assert stage.is_done() and make_stage(tmp_path).is_done()
    assert listing(tmp_path) == ["index", "stages.jsonl"]
    assert listing(stage.folder) == ["manifest.json", "names.txt"]
    manifest = read_json(stage.folder / "manifest.json")
    assert manifest["stage"] == "index" and manifest["key"] == stage.key and manifest["schema_version"] == 1
    assert manifest["settings"] == {"k": 32} and manifest["inputs"] == {"concepts": "abc"}
    assert set(manifest["versions"]) == {"umls_reranker", *stages.LIBRARIES}
    assert manifest["summary"] == {"names": 4}
    assert RunFolder(tmp_path).key_of("index", "build_index") == stage.key
    assert list(RunFolder(tmp_path).seconds()) == ["index"]
    # A full disk may leave half a line, and somebody may change one.
    with (tmp_path / "stages.jsonl").open("a") as log:
        log.write('[]\n{}\n{"stage": "pairs", "seconds": "long"}\n{"stage": "pai')
    assert list(RunFolder(tmp_path).seconds()) == ["index"]


def test_a_manifest_needs_no_library(tmp_path, monkeypatch):
    def version(name):
        if name == "faiss-cpu":
            raise importlib.metadata.PackageNotFoundError(name)
        return "2.0"

    monkeypatch.setattr(importlib.metadata, "version", version)
    write_output(make_stage(tmp_path), "cold")
    expected = dict.fromkeys(stages.LIBRARIES, "2.0") | {"faiss-cpu": None}
    versions = read_json(tmp_path / "index" / "manifest.json")["versions"]
    assert versions == {"umls_reranker": stages.__version__} | expected


def test_a_summary_that_is_not_json_costs_no_output(tmp_path):
    stage = make_stage(tmp_path)
    with stage.writing() as (folder, summary):
        (folder / "names.txt").write_text("cold")
        summary |= {"names": np.int64(4), "path": Path("x")}
    assert stage.is_done() and read_json(stage.folder / "manifest.json")["summary"] == {"names": 4, "path": "x"}


@pytest.mark.parametrize(
    "change", [{"settings": {"k": 33}}, {"settings": {"k": 32, "new": None}}, {"inputs": {"concepts": "abd"}}]
)
def test_a_change_of_settings_or_inputs_makes_it_stale(tmp_path, change):
    write_output(make_stage(tmp_path), "cold")
    assert not make_stage(tmp_path, **change).is_done()


def test_a_new_version_makes_it_stale(tmp_path, monkeypatch):
    write_output(make_stage(tmp_path), "cold")
    monkeypatch.setattr(stages, "__version__", "99.0")
    assert not make_stage(tmp_path).is_done()


def test_the_order_of_settings_does_not_matter(tmp_path):
    assert make_stage(tmp_path, {"a": 1, "b": 2}).key == make_stage(tmp_path, {"b": 2, "a": 1}).key


def test_new_output_replaces_the_former_whole(tmp_path):
    write_output(make_stage(tmp_path), "cold")
    (tmp_path / "index" / "extra.txt").write_text("old")
    write_output(make_stage(tmp_path, {"k": 33}), "heat")
    assert listing(tmp_path / "index") == ["manifest.json", "names.txt"]
    assert (tmp_path / "index" / "names.txt").read_text() == "heat"
    assert listing(tmp_path) == ["index", "stages.jsonl"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, UserError])
def test_a_failure_leaves_the_former_output_and_nothing_else(tmp_path, error):
    former = make_stage(tmp_path)
    write_output(former, "cold")
    later = make_stage(tmp_path, {"k": 33})
    with pytest.raises(error), later.writing() as (folder, _):
        (folder / "names.txt").write_text("half")
        raise error("stop")
    assert listing(tmp_path) == ["index", "stages.jsonl"]
    assert (tmp_path / "index" / "names.txt").read_text() == "cold"
    assert former.is_done() and not later.is_done()
    assert len((tmp_path / "stages.jsonl").read_text().splitlines()) == 1


def break_off(stage, text, **options):
    """Write a complete checkpoint and stop as a killed run does; returns what the folder held at the start."""
    with pytest.raises(KeyboardInterrupt), stage.writing(**options) as (folder, _):
        found = listing(folder)
        (folder / f"checkpoint-{text}").mkdir()
        (folder / f"checkpoint-{text}" / "complete").touch()
        raise KeyboardInterrupt
    return found


@pytest.mark.parametrize("make", [make_stage, resumable])
@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError("Not enough free space to write 32000000 bytes after offset 128"),
        RuntimeError("Error in faiss::write_index: write error in x.faiss: 8 != 15 (No space left on device)"),
        RuntimeError("[enforce fail] PytorchStreamWriter failed writing file data/0: file write failed"),
    ],
)
def test_a_full_disk_is_said_and_the_former_output_stays(tmp_path, error, make):
    write_output(make_stage(tmp_path), "former")
    stage = make(tmp_path)
    with pytest.raises(UserError) as told, stage.writing() as (folder, _):
        (folder / "half").write_text("half")
        raise error
    said = f"{stage.partial} could not be written: the disk is full; free some space and run again"
    assert str(told.value) == said
    assert (stage.folder / "names.txt").read_text() == "former"
    assert stage.partial.exists() == (make is resumable)


# What a killed run left


def test_a_resumable_stage_resumes_where_it_stopped(tmp_path):
    stage = resumable(tmp_path)
    assert break_off(stage, "1") == ["resume.json"]
    assert listing(tmp_path) == [".index.partial"] and not stage.is_done()
    assert break_off(resumable(tmp_path), "2") == ["checkpoint-1", "resume.json"]
    write_output(stage, "done")
    files = ["checkpoint-1", "checkpoint-2", "manifest.json", "names.txt", "resume.json"]
    assert listing(tmp_path / "index") == files


def test_what_may_change_makes_it_stale_but_does_not_hinder_resuming(tmp_path):
    before, after = resumable(tmp_path), resumable(tmp_path, steps=9)
    break_off(before, "1")
    assert after.resumes()
    write_output(after, "done")
    assert after.is_done() and not before.is_done() and "checkpoint-1" in listing(after.folder)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rate": 0.2}, "rate 0.1, now 0.2"),
        ({"pairs": "abd"}, "other pairs"),
        ({"pairs": "abd", "loss": "listwise", "steps": 9}, "loss 'bce', now 'listwise'; other pairs"),
    ],
)
def test_complete_checkpoints_are_dropped_only_when_told_to(tmp_path, changes, named):
    break_off(resumable(tmp_path), "1")
    changed = resumable(tmp_path, **changes)
    for ask in (changed.resumes, lambda: break_off(changed, "2")):
        with pytest.raises(UserError) as told:
            ask()
        assert str(told.value) == (
            f"{changed.partial} holds output of an interrupted run with {named}; restore this setting to resume, or "
            "use --overwrite to discard it and start over"
        )
    assert resumable(tmp_path).resumes()
    assert break_off(changed, "2", overwrite=True) == ["resume.json"]
    assert changed.resumes() and listing(changed.partial) == ["checkpoint-2", "resume.json"]


def test_another_version_does_not_resume_silently(tmp_path, monkeypatch):
    break_off(resumable(tmp_path), "1")
    monkeypatch.setattr(stages, "__version__", "99.0")
    with pytest.raises(
        UserError, match=r"of an interrupted run with umls_reranker '.*', now '99.0'; restore this setting"
    ):
        resumable(tmp_path).resumes()


@pytest.mark.parametrize("content", [None, "", "{", "[]"])
def test_checkpoints_of_which_nothing_is_known_are_kept(tmp_path, content):
    break_off(resumable(tmp_path), "1")
    facts = tmp_path / ".index.partial" / "resume.json"
    facts.unlink()
    if content is not None:
        facts.write_text(content)
    with pytest.raises(UserError, match="holds output of an interrupted run of another version; use --overwrite"):
        resumable(tmp_path).resumes()


def test_overwriting_starts_anew_where_a_killed_run_stopped(tmp_path):
    break_off(resumable(tmp_path), "1")
    assert break_off(resumable(tmp_path), "2", overwrite=True) == ["resume.json"]


def test_leftovers_without_a_complete_checkpoint_are_dropped(tmp_path):
    stage = resumable(tmp_path)
    with pytest.raises(KeyboardInterrupt), stage.writing() as (folder, _):
        (folder / "checkpoint-1").mkdir()
        raise KeyboardInterrupt
    changed = resumable(tmp_path, rate=0.2)
    assert not changed.resumes() and not stage.resumes()
    assert break_off(changed, "2") == ["resume.json"]


def test_a_stage_that_does_not_resume_leaves_nothing_behind(tmp_path):
    break_off(make_stage(tmp_path), "1")
    assert listing(tmp_path) == [] and not make_stage(tmp_path).resumes()


def test_a_stage_that_was_not_run_names_its_script(tmp_path):
    with pytest.raises(UserError) as caught:
        RunFolder(tmp_path).key_of("index", "build_index")
    expected = f"{tmp_path / 'index'} does not exist yet; run umls-reranker build_index with the same recipe first"
    assert str(caught.value) == expected


def test_a_manifest_cut_short_is_named(tmp_path):
    write_output(make_stage(tmp_path), "cold")
    manifest = tmp_path / "index" / "manifest.json"
    manifest.write_text(manifest.read_text()[:40])
    with pytest.raises(UserError, match=r"manifest\.json is not valid JSON"):
        make_stage(tmp_path).is_done()


@pytest.mark.parametrize("change", [[], None, {"key": 1}, {"settings": None}, {"inputs": []}, {"summary": None}])
def test_a_manifest_that_was_changed_is_named(tmp_path, change):
    write_output(make_stage(tmp_path), "cold")
    manifest = tmp_path / "index" / "manifest.json"
    manifest.write_text(json.dumps(change and read_json(manifest) | change))
    for ask in (make_stage(tmp_path).is_done, lambda: RunFolder(tmp_path).key_of("index", "build_index")):
        with pytest.raises(UserError, match=r"manifest\.json is not as the stage wrote it"):
            ask()
    write_output(make_stage(tmp_path), "cold", overwrite=True)
    assert make_stage(tmp_path).is_done()


# The lock


def test_damaged_data_of_a_stage_is_named(tmp_path):
    table = pa.table({"mention": ["cold"]})
    with arrow_writer(tmp_path / "mentions" / "train.arrow", table.schema) as writer:
        writer.write(table)
    assert RunFolder(tmp_path).splits("mentions")["train"]["mention"] == ["cold"]
    (tmp_path / "mentions" / "train.arrow").write_text("")
    with pytest.raises(UserError, match="mentions"):
        RunFolder(tmp_path).splits("mentions")


def test_a_run_folder_is_locked_once(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PATIENCE_SECONDS", 0.0)
    run = RunFolder(tmp_path / "run")
    with run.locked():
        with pytest.raises(UserError, match="another process is using"), RunFolder(tmp_path / "run").locked():
            pass
        with RunFolder(tmp_path / "other").locked():
            pass
    with run.locked():
        pass


def test_processes_beside_the_owner_share_its_folder_and_take_no_lock(tmp_path):
    run, stage = RunFolder(tmp_path), make_stage(tmp_path)
    with run.locked(), stage.writing() as (folder, summary):
        with run.locked(owner=False), make_stage(tmp_path).writing(owner=False) as (same, dropped):
            (same / "shard").write_text("1")
            dropped["names"] = 5
        assert same == folder and not stage.is_done()
        summary["names"] = 4
    assert stage.is_done() and read_json(stage.folder / "manifest.json")["summary"] == {"names": 4}
    assert (stage.folder / "shard").read_text() == "1"


def test_the_lock_ends_with_its_process(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PATIENCE_SECONDS", 0.0)
    code = (
        "import os, sys; from pathlib import Path; from umls_reranker.core.stages import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).locked():\n"
        "    print('locked', flush=True); sys.stdin.read(1); os._exit(9)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as holder:
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(UserError, match="another process"), RunFolder(tmp_path).locked():
            pass
        holder.communicate(b"x", timeout=30)
    assert holder.returncode == 9
    with RunFolder(tmp_path).locked():
        pass
