"""The losses that a recipe can name. To add one, write a function in its own module and a line in `LOSSES`.

They are in this layer because choices and help of the recipe key `loss` follow from them. torch is imported when a
loss is computed, so that ``--help`` needs none.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from accelerate import PartialState
from transformers import HfArgumentParser, TrainingArguments

from .devices import resolve_device, resolve_dtype
from .script import CommandParser
from .settings import Registry, recipe_key
from .text_files import UserError

if TYPE_CHECKING:
    from torch import Tensor


GOLD_LABEL = 1.0


@dataclass(frozen=True)
class Loss:
    """A loss of one logit per pair.

    Attributes:
        terms: function of logits, labels and weights, (b,) float32 each, and lists, (b,) int64, the list of each pair,
            that returns a term per pair, (b,) float32. A forward pass holds whole lists. Pairs that do not count have
            weight 0. The terms of a global batch are summed and divided by its number of pairs, however it is cut
            into forward passes. The first line of its docstring is its help.
        of_lists: whether only gold pairs have a term. Their weights are then scaled to the number of all pairs.
        of_teacher: whether `terms` also takes the teacher's scores, (b,) float32, NaN where a pair has none.
    """

    terms: Callable[..., Tensor]
    of_lists: bool = False
    of_teacher: bool = False

    @property
    def help(self) -> str:
        return (self.terms.__doc__ or "").partition("\n")[0].rstrip(".")


def bce(logits: Tensor, labels: Tensor, weights: Tensor, lists: Tensor | None = None) -> Tensor:
    """Binary cross-entropy of each pair."""
    from torch.nn.functional import binary_cross_entropy_with_logits

    return weights * binary_cross_entropy_with_logits(logits, labels, reduction="none")


def listwise(logits: Tensor, labels: Tensor, weights: Tensor, lists: Tensor) -> Tensor:
    """Cross-entropy of the gold pair under the softmax over the pairs of its mention.

    ListNet's top one (Cao et al. 2007); 0 for all pairs but the gold ones.
    """
    import torch

    # b is the size of a forward pass, so the (b, b) matrix is small, and its sums have a fixed order.
    in_other_list = lists[:, None] != lists
    normalizers = logits.expand(len(logits), -1).masked_fill(in_other_list, -torch.inf).logsumexp(dim=1)
    return torch.where(labels == GOLD_LABEL, weights * (normalizers - logits), 0.0)


def margin_mse(logits: Tensor, labels: Tensor, weights: Tensor, lists: Tensor, teacher: Tensor) -> Tensor:
    """Squared error of the gold pair's lead over each other pair of its mention, compared with the teacher's.

    MarginMSE (Hofstätter et al. 2020, arXiv 2010.02666); 0 for gold pairs, and where the teacher lacks one of the two.
    """
    import torch

    # (b, b), whether the second pair is the gold one in the list of the first.
    is_gold = (lists[:, None] == lists) & (labels == GOLD_LABEL)
    known, scores = teacher.isfinite(), teacher.nan_to_num(0.0)
    leads, expected = ((values * is_gold).sum(dim=1) - values for values in (logits, scores))
    counts = known & (is_gold & known).any(dim=1)
    return torch.where(counts, weights * (leads - expected) ** 2, 0.0)


def listwise_kl(logits: Tensor, labels: Tensor, weights: Tensor, lists: Tensor, teacher: Tensor) -> Tensor:
    """Kullback-Leibler divergence from the teacher's softmax over the pairs of a mention to the model's.

    Hinton et al. 2015 (arXiv 1503.02531) at temperature 1, with candidates as classes; the term of a list is its gold
    pair's. Pairs without a score of the teacher are left out of both.
    """
    import torch

    lacks = (lists[:, None] != lists) | teacher.isnan()
    # Not infinite: a list without any score has the same shares twice.
    least = torch.finfo(logits.dtype).min
    shares, expected = (
        values.expand(len(values), -1).masked_fill(lacks, least).log_softmax(dim=1) for values in (logits, teacher)
    )
    return torch.where(labels == GOLD_LABEL, weights * (expected.exp() * (expected - shares)).sum(dim=1), 0.0)


LOSSES: Registry[Loss] = Registry("loss")
LOSSES.update(bce=Loss(bce), listwise=Loss(listwise, of_lists=True))
LOSSES.update(margin_mse=Loss(margin_mse, of_teacher=True), listwise_kl=Loss(listwise_kl, True, True))


def register(name: str, loss: Loss) -> None:
    """Add a loss that is not part of the package, under the name that recipes give it.

    Raises:
        ValueError: the name is taken.
    """
    LOSSES[name] = loss


METRICS = ("roc_auc", "f1", "acc@1", "log_loss", "list_loss")


class OneGpuArguments(TrainingArguments):
    """Arguments of a process that uses one GPU.

    Without a launcher, a Trainer would spread a larger batch over all visible GPUs.
    """

    @property
    def n_gpu(self) -> int:
        return min(super().n_gpu, 1)


def divide_batch(pairs: int, most: int, processes: int) -> tuple[int, int]:
    """Pairs of a forward pass, at most `most`, and passes of each process, so that together they hold a batch.

    The passes need not divide the batch: its loss is the same however it is cut (`training.trainer`).

    >>> divide_batch(64, 16, 8), divide_batch(64, 16, 3)
    ((8, 1), (11, 2))
    """
    passes = -(-pairs // (most * processes))
    return -(-pairs // (passes * processes)), passes


@dataclass
class RerankerTrainingArguments(OneGpuArguments):
    """Training: fields of transformers.TrainingArguments, with defaults for cross-encoders."""

    loss: str = recipe_key("bce", "loss to minimize", LOSSES)
    global_batch_size: int = recipe_key(
        64,
        "pairs per optimizer step over all processes; decides gradient_accumulation_steps for any number of devices, "
        "so results do not depend on it",
    )
    max_dev_pairs: int = recipe_key(
        50_000, "maximum number of dev candidates for comparing checkpoints, sampled from all documents"
    )
    dropout: float | None = recipe_key(
        None, "dropout in training; 0 works better for a single pass over the pairs; empty: the base model's default"
    )
    frozen_layers: int | None = recipe_key(
        None, "leave the embeddings and this many of the lowest layers as they are; empty: train everything"
    )
    head_learning_rate: float | None = recipe_key(
        None,
        "peak learning rate of the randomly initialized head; about ten times learning_rate helps in short runs; "
        "empty: learning_rate",
    )
    early_stopping_patience: int = recipe_key(3, "evaluations without improvement before training stops")

    learning_rate: float = recipe_key(2e-5, "peak learning rate")
    per_device_train_batch_size: int = recipe_key(
        64, "maximum number of pairs per forward pass on one device; lower it if memory runs out, then resume"
    )
    warmup_steps: float = recipe_key(0.06, "learning-rate warmup steps; below 1: a share of all steps")
    weight_decay: float = recipe_key(0.01, "weight decay")
    bf16: bool | None = recipe_key(  # type: ignore[assignment]  # resolved before the class reads it
        None, "bfloat16; empty: as launched, else if the hardware supports it and fp16 is not set"
    )
    eval_steps: float = recipe_key(
        500, "optimizer steps between evaluations, each with a checkpoint; below 1: a share of all steps"
    )
    metric_for_best_model: str = recipe_key(
        "roc_auc",
        "dev metric that selects the best checkpoint; list_loss: cross-entropy of the gold candidate over the list",
        METRICS,
    )
    save_total_limit: int | None = recipe_key(2, "checkpoints kept in addition to the best one")
    report_to: list[str] = recipe_key(["tensorboard"], "where to log in addition to the console; install it yourself")
    logging_first_step: bool = recipe_key(True, "log the loss of the first step")
    # The library's defaults hide NaN losses, show no bar, and search for unused weights at every step.
    logging_nan_inf_filter: bool = recipe_key(False, "leave losses that are not finite out of the log")
    disable_tqdm: bool = recipe_key(False, "show no progress bar")
    ddp_find_unused_parameters: bool = recipe_key(False, "search for weights without a gradient at every step")

    def __post_init__(self) -> None:
        device, processes = resolve_device("cpu" if self.use_cpu else "auto"), PartialState().num_processes
        if self.deepspeed or os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
            raise UserError("deepspeed: it rounds labels and weights to the dtype of the model; use fsdp.yaml")
        launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
        if self.bf16 is None:
            by_hardware = launched == "no" and resolve_dtype("auto", device) == "bfloat16"
            self.fp16 |= launched == "fp16"
            self.bf16 = not self.fp16 and (launched == "bf16" or by_hardware)
        chosen = "fp16" if self.fp16 else "bf16" if self.bf16 else "no"
        if launched not in ("no", chosen):
            raise UserError(
                f"bf16, fp16: they say {chosen}, but the launch configuration says mixed_precision: {launched}; "
                "change one of them"
            )
        if self.fp16 and device.type == "cpu":
            raise UserError("fp16: float16 needs a GPU; add --fp16 no, or choose another launch configuration")
        self.per_device_train_batch_size, self.gradient_accumulation_steps = divide_batch(
            self.global_batch_size, self.per_device_train_batch_size, processes
        )
        self.report_to = [name for name in self.report_to if name != "none"]
        for name in self.report_to:
            if importlib.util.find_spec(name) is None:
                raise UserError(f"report_to: {name} is not installed; pip install {name}")
        # The evaluation chooses the checkpoint, and needs the labels and weights that the trainer would remove.
        self.eval_strategy = self.save_strategy = "steps"
        self.save_steps, self.load_best_model_at_end = self.eval_steps, True
        self.greater_is_better = not self.metric_for_best_model.endswith("loss")
        self.remove_unused_columns, self.label_names = False, ["labels", "weight", "row"]
        # Otherwise early stopping would forget its patience.
        self.restore_callback_states_from_checkpoint = True
        super().__post_init__()


OWN_FIELDS = {*RerankerTrainingArguments.__annotations__}


class TrainingParser(CommandParser, HfArgumentParser):
    """The command line of scripts that train: the fields are options; arguments as for `CommandParser`."""

    def __init__(self, description: str, **options: Any) -> None:
        RerankerTrainingArguments._argument_group_name = "Training"  # type: ignore[attr-defined]  # heading in the help
        super().__init__(description, dataclass_types=RerankerTrainingArguments, **options)
        # `parse_known_args` reads dashes as underscores, so one spelling is left, which a recipe's key can replace.
        for action in self._actions:
            if action.dest != "help":
                for spelling in action.option_strings[1:]:
                    del self._option_string_actions[spelling]
                action.option_strings = action.option_strings[:1]
