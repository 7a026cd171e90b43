"""Training killed at any step, on one or two processes, ends with the weights of a run that was left alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_models import tiny_encoder

TESTS = Path(__file__).resolve().parent

# Run -> processes, and the steps after which one is killed, by rank. Checkpoints are written at even steps, epochs end
# at steps 4 and 8: so training starts anew, goes on from the end of an epoch and from inside one.
RUNS = {
    "one": (1,),
    "one, killed": (1, (1, 0), (5, 0), (7, 0), (10, 0)),
    "two": (2,),
    "two, killed": (2, (5, 0), (7, 1)),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder of the runs, and the summary of each."""
    folder = tmp_path_factory.mktemp("resume")
    done = subprocess.run(
        [sys.executable, TESTS / "training_on_processes.py", tiny_encoder(folder / "base"), folder, json.dumps(RUNS)],
        env=os.environ | {"PYTHONPATH": f"{TESTS.parent}:{TESTS}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    return folder, dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))


def final_state(folder):
    """The bytes of weights, optimizer and schedule, and what early stopping and the metrics have come to."""
    last = folder / "checkpoint-10"
    files = {name: (last / name).read_bytes() for name in ("model.safetensors", "optimizer.pt", "scheduler.pt")}
    state = json.loads((last / "trainer_state.json").read_text())
    history = [
        {name: value for name, value in entry.items() if not name.endswith(("runtime", "per_second"))}
        for entry in state["log_history"]
    ]
    best = (folder / "checkpoint-best" / "model.safetensors").read_bytes()
    return files | {"best": best, "callbacks": state["stateful_callbacks"], "history": history}


@pytest.mark.parametrize(("processes", "name"), [(1, "one"), (2, "two")])
def test_killed_training_ends_as_if_it_had_been_left_alone(trained, processes, name):
    folder, summaries = trained
    summary = summaries[name]
    assert (summary["steps"], summary["processes"], summary["train_pairs"]) == (10, processes, 108)
    assert summaries[f"{name}, killed"] == summary
    whole, killed = final_state(folder / name), final_state(folder / f"{name}, killed")
    assert [part for part in whole if whole[part] != killed[part]] == []
