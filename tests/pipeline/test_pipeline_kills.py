"""Scripts killed with SIGKILL: nothing half-written looks finished, and the same command again ends
as it should.
"""

import shutil

import pytest
from pipeline_fixtures import contents
from safetensors.numpy import load_file

from umls_reranker.core.files import read_json

pytest_plugins = ["pipeline_fixtures"]

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
    whole = {stage: contents(finished.folder / stage) for stage in made}

    def killed_at(moment, name):
        run = prepare(finished, tmp_path / name / "mini", read)
        outcome = scripts.run(script, watch=run, kill_at=moment, output_dir=run.parent)
        for stage in made:
            assert not (run / stage).exists() or contents(run / stage) == whole[stage], (
                moment,
                stage,
            )
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
        assert contents(run) == contents(tmp_path / "whole" / "mini"), (
            f"killed before {changes[moment]}"
        )


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
    assert summary == read_json(theirs / "manifest.json")["summary"]
    assert summary["dev"]["roc_auc"] > 0.5
    weights = load_file(ours / "checkpoint-best" / "model.safetensors")
    expected = load_file(theirs / "checkpoint-best" / "model.safetensors")
    assert weights.keys() == expected.keys()
    assert [name for name in weights if weights[name].tobytes() != expected[name].tobytes()] == []
