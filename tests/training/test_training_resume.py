"""Training killed at any step, on one or two processes, ends with the weights of an undisturbed
run.
"""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from list_fixtures import assert_alike
from packaging.version import Version
from tiny_models import assert_same_weights, tiny_encoder

TESTS = Path(__file__).resolve().parents[1]

# Run -> processes, the steps after which one is killed, by rank, and what is special. Checkpoints
# are written at even steps, epochs end at steps 4 and 8: so training starts anew, resumes from the
# end of an epoch and from inside one.
CASES = {
    "two, list-wise": {
        "processes": 2,
        "kills": [(1, 0), (5, 0), (7, 1)],
        "training": {"loss": "listwise"},
    },
    # Nothing gets better after the first evaluation, so the third after it is the last.
    "patience": {
        "processes": 1,
        "kills": [(7, 0)],
        "training": {"learning_rate": 0.0, "early_stopping_patience": 3},
    },
}
# Run -> what it was killed with and what it is resumed with: another way to compute the same.
# Weights differ by rounding alone, since nothing is drawn at random in the model.
OTHER_MEANS = {
    "one, then two": ({"processes": 1}, {"processes": 2}),
    "half the batch": ({}, {"training": {"per_device_train_batch_size": 7, "save_total_limit": 5}}),
}
RUNS = {name: case | {"kills": []} for name, case in CASES.items()}
RUNS |= {f"{name}, killed": case for name, case in CASES.items()}
PLAIN = {"processes": 1, "training": {"per_device_train_batch_size": 14}, "model": "MODEL"}
RUNS["means"] = PLAIN
for name, (before, after) in OTHER_MEANS.items():
    RUNS[name] = PLAIN | after | {"kills": [(5, 0, PLAIN | before)]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder of the runs, and the summary of each."""
    if Version(version("transformers")) < Version("5.18"):
        pytest.skip("transformers 5.17 cannot resume on several processes without GPUs")
    if not hasattr(os, "fork"):
        pytest.skip("Windows has no fork")
    folder = tmp_path_factory.mktemp("resume")
    still = tiny_encoder(folder / "still")
    config = json.loads((still / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (still / "config.json").write_text(json.dumps(config))
    runs = json.dumps(RUNS).replace('"MODEL"', json.dumps(str(still)))
    done = subprocess.run(
        [
            sys.executable,
            Path(__file__).with_name("training_on_processes.py"),
            tiny_encoder(folder / "base"),
            folder,
            runs,
        ],
        env=os.environ | {"PYTHONPATH": f"{TESTS.parent}:{TESTS}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    return folder, dict(
        json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")
    )


def final_state(folder, step):
    """Optimizer and schedule, and what early stopping and the metrics have come to."""
    last = folder / f"checkpoint-{step}"
    files = {name: torch.load(last / name) for name in ("optimizer.pt", "scheduler.pt")}
    state = json.loads((last / "trainer_state.json").read_text())
    history = [
        {
            name: value
            for name, value in entry.items()
            if not name.endswith(("runtime", "per_second"))
        }
        for entry in state["log_history"]
    ]
    return files | {"callbacks": state["stateful_callbacks"], "history": history}


@pytest.mark.parametrize("name", CASES)
def test_killed_training_ends_as_if_it_had_been_left_alone(trained, name):
    folder, summaries = trained
    summary = summaries[name]
    steps = 8 if name == "patience" else 10
    expected = steps, CASES[name]["processes"], 108
    assert (summary["steps"], summary["processes"], summary["train_pairs"]) == expected
    whole = folder / name
    killed = folder / f"{name}, killed"
    assert_alike(summaries[killed.name], summary)
    assert_alike(final_state(killed, steps), final_state(whole, steps))
    for checkpoint in (f"checkpoint-{steps}", "checkpoint-best"):
        assert_same_weights(killed / checkpoint, whole / checkpoint)


def evaluations(folder):
    state = json.loads((folder / "checkpoint-10" / "trainer_state.json").read_text())
    return [
        (entry["step"], entry["eval_log_loss"])
        for entry in state["log_history"]
        if "eval_loss" in entry
    ]


@pytest.mark.parametrize("name", OTHER_MEANS)
def test_training_is_resumed_by_other_means(trained, name):
    folder, summaries = trained
    assert (summaries[name]["steps"], summaries[name]["processes"]) == (10, RUNS[name]["processes"])
    whole = evaluations(folder / "means")
    resumed = evaluations(folder / name)
    assert [step for step, _ in resumed] == [2, 4, 6, 8, 10]
    assert [loss for _, loss in resumed] == pytest.approx([loss for _, loss in whole], rel=1e-5)
    assert_same_weights(folder / name / "checkpoint-10", folder / "means" / "checkpoint-10")
