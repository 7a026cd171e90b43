"""What a user can get wrong: one line that says so, exit code 2, no traceback, nothing
half-written.
"""

import shutil

import pytest
from list_fixtures import assert_alike
from pipeline_fixtures import assert_same_files, contents
from tiny_models import assert_same_weights

from umls_reranker.core.json_files import read_json

pytest_plugins = ["pipeline_fixtures"]


def assert_refused(outcome, *reasons):
    """Exactly one line reports the error, the last one."""
    assert outcome.code == 2, outcome.err
    last = outcome.err.splitlines()[-1]
    assert outcome.errors == [last] and last.startswith("error: "), outcome.err
    for reason in reasons:
        assert reason in last
    assert len(last) < 700


@pytest.fixture
def run(finished, tmp_path):
    """A run folder in which everything up to the model is finished."""
    folder = tmp_path / "mini"
    shutil.copytree(
        finished.folder, folder, ignore=shutil.ignore_patterns("checkpoint-*0", "runs", "report")
    )
    return folder


def cut_short(file):
    file.write_bytes(file.read_bytes()[:1000])


# Recipe and raw files


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["nowhere.yaml"], "recipe nowhere.yaml does not exist"),
        (["--learning_rte", "1e-5"], "'learning_rate'"),
        (["--corpus", "/nowhere/corpus.txt"], "/nowhere/corpus.txt"),
        (["--umls_dir", "/nowhere"], "/nowhere/MRCONSO.RRF does not exist"),
        (["--corpus", "http://127.0.0.1:1/corpus.txt"], "http://127.0.0.1:1/corpus.txt: "),
        (["--languages", "FIN"], "FIN"),
    ],
)
def test_a_wrong_path_or_setting(scripts, tmp_path, words, reason):
    recipe = [] if words[0].endswith(".yaml") else [scripts.recipe]
    outcome = scripts.run("prepare_data", *recipe, *words, output_dir=tmp_path / "runs")
    assert_refused(outcome, reason)
    # What was finished before the error stays.
    assert {path.name for path in tmp_path.glob("runs/mini/*")} <= {
        ".lock",
        "concepts",
        "stages.jsonl",
    }


# Stages


@pytest.mark.parametrize(
    "script", ["build_index", "mine_negatives", "train", "calibrate", "evaluate", "validate"]
)
def test_a_stage_before_the_one_that_it_needs(scripts, tmp_path, script):
    outcome = scripts.run(script, output_dir=tmp_path / "runs")
    assert_refused(outcome, "does not exist yet; run umls-reranker ")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("script", "overrides", "reason"),
    [
        ("build_index", {"encoder": "/nowhere/encoder"}, "/nowhere/encoder does not exist"),
        (
            "build_index",
            {"index_factory": "IVF4,Flat", "index_parameters": "nprobe=4"},
            "there are 87; use IVF2",
        ),
        ("train", {"fp16": True}, "fp16: float16 needs a GPU"),
        ("train", {"fp16": True, "dry_run": True}, "fp16: float16 needs a GPU"),
        ("train", {"model": "/nowhere/model", "dry_run": True}, "/nowhere/model"),
        ("train", {"max_length": 1000, "dry_run": True}, "max_length: 1000"),
        (
            "train",
            {"eval_strategy": "no", "dry_run": True},
            "eval_strategy cannot be set: set eval_steps",
        ),
        ("run", {"push_to_hub": True, "dry_run": True}, "push_to_hub cannot be set"),
        ("train", {"max_length": 1000}, "max_length: 1000 is more than the 128 tokens"),
        ("calibrate", {"scoring_dtype": "float16"}, "float16 needs a GPU"),
        ("evaluate", {"device": "gpu", "overwrite": True}, "device 'gpu' is unknown"),
        ("validate", {"targets": ["acc1 >= 0"]}, "acc@1"),
    ],
)
def test_a_setting_that_cannot_work(scripts, finished, run, script, overrides, reason):
    if script == "validate":
        shutil.copytree(finished.folder / "report", run / "report")
    before = contents(run)
    assert_refused(scripts.run(script, **overrides, output_dir=run.parent), reason)
    assert contents(run) == before


def test_damaged_weights(scripts, run, tmp_path):
    damaged = shutil.copytree(scripts.materials / "model", tmp_path / "damaged")
    cut_short(damaged / "model.safetensors")
    before = contents(run)
    encoder = scripts.run(
        "build_index", encoder=damaged, encoder_pooling="cls", output_dir=run.parent
    )
    assert_refused(encoder, str(damaged))
    assert_refused(
        scripts.run("train", model=damaged, output_dir=run.parent), f"{damaged} cannot be loaded"
    )
    assert contents(run) == before

    cut_short(run / "checkpoints" / "checkpoint-best" / "model.safetensors")
    refused = scripts.run("calibrate", calibrator="temperature", output_dir=run.parent)
    assert_refused(refused, "the weights are corrupt")
    assert not list(run.glob(".model*"))


def test_lists_that_were_edited_after_they_were_written_are_refused(scripts, run):
    lists = run / "lists" / "calibration.arrow"
    content = bytearray(lists.read_bytes())
    content[len(content) // 2] ^= 1
    lists.write_bytes(content)
    assert_refused(scripts.run("calibrate", output_dir=run.parent, overwrite=True), str(lists))


def test_the_way_out_of_an_edited_model_is_not_up_to_date(scripts, run):
    thresholds = run / "model" / "thresholds.json"
    thresholds.write_text(thresholds.read_text().replace("}", " }", 1))
    refused = scripts.run("evaluate", output_dir=run.parent, overwrite=True)
    assert_refused(refused, str(thresholds), "calibrate --overwrite")
    assert scripts.run("calibrate", output_dir=run.parent, overwrite=True).remade == ["model"]
    assert scripts.run("evaluate", output_dir=run.parent).code == 0


# Scripts killed with SIGKILL: nothing half-written looks finished, and the same command again ends


# Script -> stages that it makes, stages that it reads.
CHEAP = {
    "prepare_data": (["concepts", "mentions"], []),
    "build_index": (["vectors", "index", "lists"], ["concepts", "mentions"]),
    "mine_negatives": (["pairs"], ["concepts", "lists"]),
}
# About as often a script is killed, at changes to the run folder that are evenly spread.
KILLS = 4


def prepare(finished, folder, stages):
    for stage in stages:
        shutil.copytree(finished.folder / stage, folder / stage)
    return folder


@pytest.mark.parametrize("script", CHEAP)
def test_a_killed_stage_is_made_anew(scripts, finished, tmp_path, script):
    made, read = CHEAP[script]

    def killed_at(moment, name):
        run = prepare(finished, tmp_path / name / "mini", read)
        outcome = scripts.run(script, watch=run, kill_at=moment, output_dir=run.parent)
        for stage in made:
            if (run / stage).exists():
                assert_same_files(run / stage, finished.folder / stage)
        return run, outcome

    run, undisturbed = killed_at(None, "whole")
    changes = undisturbed.changes
    finishing = [
        n for n, change in enumerate(changes) if any(change.endswith(f"/{stage}") for stage in made)
    ]
    assert undisturbed.code == 0 and len(finishing) == len(made) and len(changes) > 15
    # Right before and right after a finished folder appears, and every few changes.
    moments = sorted(
        {
            *range(1, len(changes), max(1, len(changes) // KILLS)),
            *finishing,
            *(n + 1 for n in finishing),
        }
    )
    for moment in moments:
        run, outcome = killed_at(moment, str(moment))
        assert (outcome.code, outcome.changes) == (-9, changes[: moment + 1])
        again = scripts.run(script, output_dir=run.parent)
        assert (again.code, again.errors) == (0, []), again.err
        assert_same_files(run, tmp_path / "whole" / "mini")


def test_a_stage_killed_while_it_replaces_its_former_output_loses_neither(
    scripts, finished, tmp_path
):
    run = prepare(finished, tmp_path / "mini", ["concepts", "lists", "pairs"])
    changed = {"output_dir": tmp_path, "random_negatives": 1}
    former = contents(run / "pairs")
    # By then, the former output has left its name, and the new one has not taken it.
    assert scripts.run("mine_negatives", **changed, watch=run, kill_at="partial /pairs").code == -9
    assert not (run / "pairs").exists() and contents(run / ".pairs.former") == former
    assert scripts.run("mine_negatives", output_dir=tmp_path).skipped == ["pairs"]
    assert contents(run / "pairs") == former
    assert scripts.run("mine_negatives", **changed).remade == ["pairs"]
    assert read_json(run / "pairs" / "mining_report.json")["random_pairs"] == 58 + 4
    assert {path.name for path in run.iterdir()} == {
        *("concepts", "lists", "pairs", ".lock", "stages.jsonl")
    }


def test_killed_training_goes_on_and_ends_the_same(scripts, finished, tmp_path):
    run = prepare(finished, tmp_path / "mini", ["concepts", "mentions", "lists", "pairs"])

    def killed_at(moment):
        """Run until the moment; returns the steps whose checkpoints were begun."""
        outcome = scripts.run(
            "train", watch=run, kill_at=moment, output_dir=tmp_path, save_total_limit=1
        )
        assert (outcome.code, outcome.errors) == (-9, []), outcome.err
        assert not (run / "checkpoints").exists()
        return [
            step
            for step in (20, 40, 60)
            if any(change.endswith(f"partial/checkpoint-{step}") for change in outcome.changes)
        ]

    # Before the first checkpoint counts.
    assert killed_at("checkpoint-20/trainer_state.json") == [20]
    # While the second checkpoint is written; training resumes from the first.
    assert killed_at("checkpoint-40/trainer_state.json")[-1] == 40
    # After the last step.
    assert 60 in killed_at("checkpoint-best/config.json")
    assert killed_at("partial/manifest.json") == []
    last = scripts.run("train", watch=run, output_dir=tmp_path, save_total_limit=1)
    assert (last.code, last.errors) == (0, []), last.err
    assert not any("checkpoint-60" in change for change in last.changes)
    assert not list((run / "checkpoints").glob("tmp*"))

    ours = run / "checkpoints"
    theirs = finished.folder / "checkpoints"
    summary = read_json(ours / "manifest.json")["summary"]
    expected = read_json(theirs / "manifest.json")["summary"]
    # How long it took is of the machine.
    del expected["seconds"]
    assert_alike(summary, expected)
    assert summary["dev"]["roc_auc"] > 0.5
    assert_same_weights(ours / "checkpoint-best", theirs / "checkpoint-best")
