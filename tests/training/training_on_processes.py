"""Runs of `fine_tune` on one or two processes, some killed on the way; run as a script, in a
process of its own.

    python tests/training/training_on_processes.py MODEL FOLDER '{"NAME": {"processes": 2, "kills":
    []}, ...}'

Each STEP, RANK starts the same training in FOLDER/NAME and sends SIGKILL to the process of that
rank after that step; a last run is left alone. Further options of a run: "model", and "training",
keys of its section of the recipe. A kill may have options of its own behind STEP, RANK: "processes"
and "training"; a STEP of null lets it come to its end. Prints the summary of each last run.
Processes are forked, so torch is imported once.
"""

import gc
import json
import os
import signal
import socket
import sys
from functools import partial
from pathlib import Path

from accelerate import PartialState
from test_fine_tuning import make_rows, training

from umls_reranker.core.keys import RunArguments
from umls_reranker.models.arguments import ModelArguments
from umls_reranker.training import fine_tuning, trainer


class KillingCallback(trainer.EarlyStoppingCallback):
    """Ends the process in which it is after a step, before any checkpoint of that step."""

    step: int | None = None

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def train(model: str, folder: Path, options: dict) -> dict:
    """108 pairs are 4 steps of 28 an epoch, the last one of 24; an evaluation and a checkpoint
    every 2 steps.
    """
    sizes = {
        "max_steps": 10,
        "global_batch_size": 28,
        "per_device_train_batch_size": 7,
        "early_stopping_patience": 100,
    }
    settings = training(**sizes | options)
    PartialState(
        cpu=True
    )  # as umls-reranker train does; without it, processes are not counted where there is no GPU
    arguments = RunArguments(device="cpu"), ModelArguments(model, max_length=32), settings
    return fine_tuning.fine_tune(*arguments, make_rows(27), make_rows(10), folder)


def run(
    model: str,
    folder: Path,
    processes: int,
    options: dict,
    step: int | None = None,
    victim: int = 0,
) -> list[int]:
    """Start processes, wait for all of them; returns how each one ended."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = []
    for rank in range(processes):
        child = os.fork()
        if child == 0:
            if processes > 1:
                os.environ |= {
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": str(port),
                    "RANK": str(rank),
                }
                os.environ |= {"WORLD_SIZE": str(processes), "LOCAL_RANK": str(rank)}
            if rank == victim:
                KillingCallback.step = step
            trainer.EarlyStoppingCallback = KillingCallback
            summary = train(model, folder, options)
            if rank == 0:
                print(json.dumps([folder.name, summary]), flush=True)
            os._exit(0)
        children.append(child)
    ends = []
    while children:
        child, status = os.wait()
        children.remove(child)
        ends.append(os.waitstatus_to_exitcode(status))
        if ends[-1] != 0:
            # As the launcher does when one process is gone.
            for other in children:
                os.kill(other, signal.SIGKILL)
    return ends


if __name__ == "__main__":
    model, folder, runs = sys.argv[1:]
    os.environ["ACCELERATE_USE_CPU"] = "1"
    gc.freeze()  # what is imported is no garbage, and every training looks for some
    for name, case in json.loads(runs).items():
        start = partial(run, case.get("model", model), Path(folder) / name)
        for step, victim, *options in case.get("kills", []):
            earlier = case | (options[0] if options else {})
            keys = case.get("training", {}) | earlier.get("training", {})
            ends = start(earlier["processes"], keys, step, victim)
            assert step is None or ends[0] == -signal.SIGKILL, ends
        assert set(start(case["processes"], case.get("training", {}))) == {0}
