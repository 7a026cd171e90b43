"""The Trainer's arguments by the sections of a recipe, and the device to train on."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset
from transformers import Trainer, TrainingArguments, get_scheduler

from ..core.devices import resolve_device
from ..core.errors import UserError
from ..core.keys import RunArguments
from .global_batches import units_per_batch
from .loaders import loader_options
from .losses import LOSSES
from .training_arguments import RerankerTrainingArguments

# Lists and pairs of a dataset that stands for any.
USUAL_LISTS = 10_000
USUAL_PAIRS = 100_000
# Lines in the log from one evaluation to the next, if the recipe does not say.
LOGS_PER_EVALUATION = 10


def training_device(run: RunArguments) -> torch.device:
    """The device to train on.

    Raises:
        UserError: the device is not available, or it is not the first GPU, because Accelerate
            assigns visible GPUs in order.
    """
    device = resolve_device(run.device)
    if device.type == "cuda" and device.index:
        raise UserError(
            f"device: {run.device} cannot be selected for training; "
            f"set CUDA_VISIBLE_DEVICES={device.index} and device: cuda"
        )
    return device


def training_arguments(
    run: RunArguments,
    training: Mapping[str, Any],
    folder: Path,
    lists: int = USUAL_LISTS,
    pairs: int = USUAL_PAIRS,
) -> RerankerTrainingArguments:
    """The Trainer's arguments; accumulation follows from global batch and number of processes.

    A run shorter than ``eval_steps`` is evaluated once, at its end.

    Args:
        run: section of the recipe.
        training: section of the recipe, the fields that it sets.
        folder: folder of the checkpoints.
        lists: number of training lists; by default of a dataset that stands for any.
        pairs: number of their pairs.

    Raises:
        UserError: a value is incompatible with others or with this machine.
    """
    try:
        arguments = RerankerTrainingArguments(
            **training,
            output_dir=str(folder),
            run_name=run.run_name,
            seed=run.seed,
            use_cpu=training_device(run).type == "cpu",
        )
        steps = arguments.max_steps
        if steps < 1:
            units = lists if LOSSES[arguments.loss].compares_pairs else pairs
            units_of_batch = units_per_batch(units, pairs, arguments.global_batch_size)
            batches = math.ceil(units / units_of_batch)
            steps = math.ceil(batches * arguments.num_train_epochs)
        interval = arguments.eval_steps
        if interval < 1:
            # A share of all steps.
            interval = math.ceil(interval * steps)
        arguments.eval_steps = min(interval, steps)
        arguments.save_steps = arguments.eval_steps
        if "logging_steps" not in training:
            arguments.logging_steps = max(1, math.ceil(arguments.eval_steps / LOGS_PER_EVALUATION))
        _try_out(arguments, steps)
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        raise UserError(f"the training section is invalid: {error}") from None
    return arguments


def loss_name(training: Mapping[str, Any]) -> str:
    """Name of the loss that a recipe sets, or of that without one."""
    return training.get("loss", RerankerTrainingArguments.loss)


def _try_out(arguments: TrainingArguments, steps: int) -> None:
    """Create objects that the Trainer creates only in training, so that bad values fail early."""
    weight = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight])
    if arguments.optim_target_modules is None:
        kind, options = Trainer.get_optimizer_cls_and_kwargs(arguments)
        optimizer = kind([weight], **options)
    get_scheduler(
        arguments.lr_scheduler_type,
        optimizer,
        arguments.get_warmup_steps(steps),
        steps,
        # A text has become a dict when the arguments were made.
        arguments.lr_scheduler_kwargs,  # type: ignore[arg-type]
    )
    DataLoader(TensorDataset(weight), **loader_options(arguments))
