"""Training killed at any step, on one or two processes, ends with the weights of a run that was left alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_models import tiny_encoder

TESTS = Path(__file__).resolve().parent

# Run -> processes, the steps after which one is killed, by rank, and what is special. Checkpoints are written at even
# steps, epochs end at steps 4 and 8: so training starts anew, goes on from the end of an epoch and from inside one.
CASES = {
    "one": {"processes": 1, "kills": [(1, 0), (5, 0), (7, 0), (10, 0)]},
    "one, scaled": {"processes": 1, "kills": [(7, 0)], "scaler": True},
    "two, mixed": {"processes": 2, "kills": [(5, 0), (7, 1)], "training": {"loss": "mixed"}},
    # Nothing gets better after the first evaluation, so the third after it is the last.
    "patience": {
        "processes": 1,
        "kills": [(7, 0)],
        "training": {"learning_rate": 0.0, "early_stopping_patience": 3},
    },
}
RUNS = {name: case | {"kills": []} for name, case in CASES.items()}
RUNS |= {f"{name}, killed": case for name, case in CASES.items()}


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


def final_state(folder, step):
    """The bytes of weights, optimizer, schedule and scaler, and what early stopping and the metrics have come to."""
    last = folder / f"checkpoint-{step}"
    names = "model.safetensors", "optimizer.pt", "scheduler.pt", "scaler.pt"
    files = {name: (last / name).read_bytes() for name in names if (last / name).exists()}
    state = json.loads((last / "trainer_state.json").read_text())
    history = [
        {name: value for name, value in entry.items() if not name.endswith(("runtime", "per_second"))}
        for entry in state["log_history"]
    ]
    best = (folder / "checkpoint-best" / "model.safetensors").read_bytes()
    return files | {"best": best, "callbacks": state["stateful_callbacks"], "history": history}


@pytest.mark.parametrize("name", CASES)
def test_killed_training_ends_as_if_it_had_been_left_alone(trained, name):
    folder, summaries = trained
    summary, steps = summaries[name], 8 if name == "patience" else 10
    expected = steps, CASES[name]["processes"], 108
    assert (summary["steps"], summary["processes"], summary["train_pairs"]) == expected
    assert summaries[f"{name}, killed"] == summary
    whole, killed = (final_state(folder / run, steps) for run in (name, f"{name}, killed"))
    assert [part for part in whole if whole[part] != killed[part]] == []
    assert ("scaler.pt" in whole) == (name == "one, scaled")
