"""The dev metrics of a step, from the log of a training."""

from collections.abc import Mapping, Sequence
from typing import Any

from .losses import Loss

# Logits that were trained for comparison within a list say nothing of single pairs before
# calibration.
LIST_METRICS = ("acc@1", "list_loss")
# Of single pairs, what a report has.
REPORTED_OF_PAIRS = ("f1", "roc_auc")
PAIR_METRICS = (*REPORTED_OF_PAIRS, "precision", "recall", "ece", "log_loss")


def dev_metrics_at(
    step: int | None, log: Sequence[Mapping[str, Any]], loss: Loss
) -> dict[str, float]:
    """The dev metrics that were logged at a step and mean something for a loss.

    Args:
        step: number of steps taken.
        log: ``log_history`` of the trainer's state.
        loss: what was trained with.

    Returns:
        Name -> value; empty if there was no evaluation.
    """
    names = LIST_METRICS if loss.compares_pairs else PAIR_METRICS + LIST_METRICS
    for entry in log:
        if entry["step"] == step and "eval_f1" in entry:
            measured = [name for name in names if f"eval_{name}" in entry]
            return {name: entry[f"eval_{name}"] for name in measured}
    return {}
