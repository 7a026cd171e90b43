"""Callbacks of a training run: complete checkpoints, throughput, one line per evaluation."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

import numpy as np
from accelerate import PartialState
from transformers import TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from ..core.progress import progress

COMPLETE = "complete"


class CheckpointCallback(TrainerCallback):
    """Marks a checkpoint as complete when every process has written its part, and only then removes older ones.

    Args:
        kept: number of newest checkpoints to keep, in addition to the best one.
    """

    def __init__(self, kept: int) -> None:
        self.kept = kept

    def on_save(self, args, state, control, **kwargs) -> None:
        PartialState().wait_for_everyone()
        if not state.is_world_process_zero:
            return
        folder = Path(args.output_dir)
        checkpoint = folder / f"checkpoint-{state.global_step}"
        (checkpoint / COMPLETE).touch()
        for older in sorted(_numbered_checkpoints(folder), key=_step)[: -self.kept]:
            if _step(older) != state.best_global_step:
                # First, so that a partly deleted checkpoint does not count.
                (older / COMPLETE).unlink(missing_ok=True)
                shutil.rmtree(older)


def last_complete_checkpoint(folder: Path) -> str | None:
    """The newest complete checkpoint, or None."""
    complete = [path for path in _numbered_checkpoints(folder) if (path / COMPLETE).is_file()]
    return str(max(complete, key=_step)) if complete else None


class EarlyStopping(TrainerCallback):
    """Stops after `patience` evaluations without improvement, counted from the log.

    The callback of transformers restores its patience from the checkpoint. This one uses the recipe's, so it may
    change when a run is resumed.

    Args:
        patience: number of evaluations.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience

    def on_evaluate(self, args, state, control, **kwargs) -> None:
        if self.has_ended(args, state):
            control.should_training_stop = True

    def has_ended(self, args: TrainingArguments, state: TrainerState) -> bool:
        """Whether the latest `patience` evaluations brought no improvement."""
        name = f"eval_{args.metric_for_best_model}"
        values = np.array([entry[name] for entry in state.log_history if name in entry])
        if not len(values):
            return False
        best = np.nanargmax(values if args.greater_is_better else -values) if not np.isnan(values).all() else 0
        return len(values) - 1 - best >= self.patience


def ended_state(checkpoint: str | None, args: TrainingArguments, stopping: EarlyStopping) -> TrainerState | None:
    """The trainer's state if training ended at this checkpoint, at its last step or early; else None."""
    if checkpoint is None:
        return None
    state = TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_NAME))
    return state if state.global_step >= state.max_steps or stopping.has_ended(args, state) else None


def _numbered_checkpoints(folder: Path) -> list[Path]:
    return [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdigit()]


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))


class ThroughputCallback(TrainerCallback):
    """Adds ``pairs_per_second`` to the logged loss: all processes, with data loading, without evaluations.

    Args:
        pairs_per_step: pairs of a global batch; their mean where batches hold whole mentions.
    """

    def __init__(self, pairs_per_step: float) -> None:
        self.pairs_per_step = pairs_per_step

    def _start(self, args, state, control, **kwargs) -> None:
        self._step, self._time = state.global_step, time.perf_counter()

    on_train_begin = on_save = on_evaluate = _start

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        if logs and "loss" in logs:
            pairs = (state.global_step - self._step) * self.pairs_per_step
            logs["pairs_per_second"] = round(pairs / (time.perf_counter() - self._time), 1)
            self._start(args, state, control)


class ConsoleCallback(TrainerCallback):
    """A progress bar of the steps, and one readable line per evaluation instead of a dict per log."""

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        self._loss = self._speed = float("nan")
        self._bar = None
        if state.is_world_process_zero:
            self._bar = progress(total=state.max_steps, desc="training", unit=" steps")
            self._bar.update(state.global_step)

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        logs = logs or {}
        self._loss = logs.get("loss", self._loss)
        self._speed = logs.get("pairs_per_second", self._speed)
        if self._bar is None or "eval_f1" not in logs:
            return
        metrics = {"F1": "f1", "ROC-AUC": "roc_auc", "acc@1": "acc@1", "ECE": "ece"}
        dev = "  ".join(f"{title} {logs[f'eval_{name}']:.4f}" for title, name in metrics.items())
        step = f"step {state.global_step}/{state.max_steps}"
        line = f"{step}  loss {self._loss:.4f}  {self._speed:,.0f} pairs/s  dev {dev}"
        self._bar.write(line, file=sys.stderr)

    def on_train_end(self, args, state, control, **kwargs) -> None:
        if self._bar is not None:
            self._bar.close()
