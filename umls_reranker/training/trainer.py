"""`RerankerTrainer`: binary cross-entropy with a weight per pair, exact however a batch is cut."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import EvalPrediction, ProgressCallback, Trainer, TrainerCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from ..calibration.logistic import sigmoid
from .metrics import pair_metrics

__all__ = [
    "LABEL_NAMES",
    "CompletionCallback",
    "ConsoleCallback",
    "RerankerTrainer",
    "dev_metrics",
    "ended_state",
    "last_complete_checkpoint",
]

LABEL_NAMES = ["labels", "weight", "row"]
COMPLETE = "complete"


class RerankerTrainer(Trainer):
    """A `Trainer` whose loss is the weighted binary cross-entropy of one logit per pair.

    The loss of a global batch is ``sum(weight * bce) / number of pairs``. It is the same whether the batch is one
    forward pass, several accumulated ones or spread over processes: `num_items_in_batch` counts the pairs of the
    whole global batch, and the factor `num_processes` undoes the averaging of gradients between processes.
    """

    # Read by Trainer: the loss already accounts for accumulation, so it must not be divided by its steps.
    loss_is_scaled_for_ga = True

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Mapping[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """Loss of one forward pass.

        Args:
            inputs: a batch of `PairCollator`.
            num_items_in_batch: pairs in the global batch; None (evaluation) takes the plain mean.
        """
        # With labels in its inputs, a one-label model would compute a mean squared error of its own.
        outputs = model(**{name: tensor for name, tensor in inputs.items() if name not in LABEL_NAMES})
        logits = outputs.logits.squeeze(-1).float()
        losses = inputs["weight"] * binary_cross_entropy_with_logits(logits, inputs["labels"], reduction="none")
        if num_items_in_batch is None:
            loss = losses.mean()
        else:
            loss = losses.sum() / num_items_in_batch * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss


def dev_metrics(mention_ids: np.ndarray) -> Callable[[EvalPrediction], dict[str, float]]:
    """A `compute_metrics` for pairs whose rows carry a label.

    Args:
        mention_ids: (n,) int64, the mention of each pair in dataset order.

    Returns:
        Function giving ``f1``, ``precision``, ``recall``, ``roc_auc``, ``ece``, ``brier``, ``log_loss`` of the pairs
        at probability 0.5, and ``acc@1``: the share of mentions whose gold pair beats all its negatives.
    """

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        labels, _, rows = prediction.label_ids
        logits = np.asarray(prediction.predictions, np.float64).reshape(-1)
        metrics = pair_metrics(sigmoid(logits), labels.astype(np.int64), threshold=0.5)
        bce = np.logaddexp(0, logits) - labels * logits
        return metrics | {"log_loss": float(bce.mean()), "acc@1": _gold_first(logits, labels, mention_ids[rows])}

    return compute


def _gold_first(logits: np.ndarray, labels: np.ndarray, mentions: np.ndarray) -> float:
    groups, group_of = np.unique(mentions, return_inverse=True)
    best = {label: np.full(len(groups), -np.inf) for label in (0, 1)}
    for label, scores in best.items():
        chosen = labels == label
        np.maximum.at(scores, group_of[chosen], logits[chosen])
    # A tie is no win: serving could put either first.
    return float((best[1] > best[0]).mean())


class CompletionCallback(TrainerCallback):
    """Marks a checkpoint as complete, with the names of its files, once every process has written its part."""

    def on_save(self, args, state, control, **kwargs) -> None:
        PartialState().wait_for_everyone()
        if state.is_world_process_zero:
            checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            names = sorted(path.name for path in checkpoint.iterdir())
            (checkpoint / COMPLETE).write_text("\n".join(names), encoding="utf-8")


def last_complete_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end, or None; one that was being deleted does not count."""
    complete = [
        marker.parent
        for marker in folder.glob(f"checkpoint-*/{COMPLETE}")
        if all((marker.parent / name).exists() for name in marker.read_text(encoding="utf-8").splitlines())
    ]
    return str(max(complete, key=lambda path: int(path.name.rsplit("-", 1)[1]))) if complete else None


def ended_state(checkpoint: str | None) -> TrainerState | None:
    """The trainer's state when training stopped at this checkpoint, at its last step or early; else None."""
    if checkpoint is None:
        return None
    state = TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_NAME))
    return state if state.stateful_callbacks["TrainerControl"]["args"]["should_training_stop"] else None


class ConsoleCallback(ProgressCallback):
    """The progress bar, with one readable line an evaluation in place of a dict for every log."""

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        super().on_train_begin(args, state, control, **kwargs)
        self._loss = float("nan")

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        logs = logs or {}
        self._loss = logs.get("loss", self._loss)
        if not state.is_world_process_zero or self.training_bar is None or "eval_f1" not in logs:
            return
        shown = {"F1": "f1", "ROC-AUC": "roc_auc", "acc@1": "acc@1", "ECE": "ece"}
        dev = "  ".join(f"{title} {logs[f'eval_{name}']:.4f}" for title, name in shown.items())
        self.training_bar.write(f"step {state.global_step}/{state.max_steps}  loss {self._loss:.4f}  dev {dev}")
