"""Fine-tune the cross-encoder of a recipe: device, the Trainer's arguments, resuming."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import DataLoader, TensorDataset
from transformers import Trainer, TrainingArguments, get_scheduler, set_seed
from transformers.trainer import TRAINER_STATE_NAME

from ..core.arrays import started_processes
from ..core.devices import resolve_attention, resolve_device
from ..core.errors import UserError
from ..core.files import read_json, write_json
from ..core.run_arguments import RunArguments
from ..models.arguments import ModelArguments
from ..models.model_files import commit_of
from ..models.pairs import PairTemplate
from ..models.pretrained import load_base_model
from .pair_dataset import lists_per_batch, values_of_pairs
from .trainer import RerankerTrainer, loader_options
from .training_arguments import RerankerTrainingArguments

DTYPE_FILE = "dtype.json"
# Names in accelerate, whose launch configuration can also set the dtype.
DTYPES = {"no": "float32", "bf16": "bfloat16", "fp16": "float16"}


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


def require_one_process(command: str) -> None:
    """Refuse a launch of several processes, for a command whose loss compares all rows of a batch.

    Raises:
        UserError: there are several.
    """
    if started_processes() > 1:
        raise UserError(f"{command} trains on one process; start it without a launcher")


def training_arguments(
    run: RunArguments,
    training: Mapping[str, Any],
    folder: Path,
    lists: int = 10_000,
    pairs: int = 100_000,
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
            batches = math.ceil(lists / lists_per_batch(lists, pairs, arguments.global_batch_size))
            steps = math.ceil(batches * arguments.num_train_epochs)
        interval = arguments.eval_steps
        arguments.eval_steps = min(math.ceil(interval * steps) if interval < 1 else interval, steps)
        arguments.save_steps = arguments.eval_steps
        if "logging_steps" not in training:
            arguments.logging_steps = max(1, math.ceil(arguments.eval_steps / 10))
        _try_out(arguments, steps)
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        raise UserError(f"the training section is invalid: {error}") from None
    return arguments


def _try_out(arguments: TrainingArguments, steps: int) -> None:
    """Create objects that the Trainer creates only in training, so that bad values fail early."""
    optimizer = torch.optim.SGD([weight := torch.zeros(1, requires_grad=True)])
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


def fine_tune(
    run: RunArguments,
    model: ModelArguments,
    training: Mapping[str, Any],
    train: pa.Table,
    dev: pa.Table,
    folder: Path,
) -> dict[str, Any]:
    """Train on lists, stop early on the dev lists, write ``folder/checkpoint-best``.

    Checkpoints are in `folder`. A killed run resumes from them with the same data order, optimizer
    and schedule, and, with the same number of processes, the same random state. Every process of a
    launch calls this.

    Args:
        run: section of the recipe.
        model: section of the recipe.
        training: section of the recipe, the fields that it sets.
        train: training rows (`models.pairs.pair_rows`) as mined.
        dev: the lists to compare checkpoints on, as training rows.
        folder: folder to write.

    Returns:
        Summary: steps, dev metrics of the best checkpoint, numbers and lengths of pairs, dtype,
        processes, commit of the base model.
    """
    template = PairTemplate.from_recipe(model)
    set_seed(run.seed)
    pairs = len(values_of_pairs(train, "labels"))
    arguments = training_arguments(run, training, folder, train.num_rows, pairs)
    attention = resolve_attention(model.attn_implementation, arguments.device)
    cross_encoder, tokenizer = load_base_model(
        model.model, model.model_revision, template, attention
    )
    trainer = RerankerTrainer(
        cross_encoder, arguments, train, dev, template=template, processing_class=tokenizer
    )
    checkpoint = last_complete_checkpoint(folder)
    dtype = _require_same_dtype(trainer, folder, checkpoint)
    # A resumed run is past its start; another evaluation would count against its patience.
    arguments.eval_on_start &= checkpoint is None
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model(str(folder / "checkpoint-best"))
    lengths = trainer.train_dataset.pairs.lengths
    return {
        "steps": trainer.state.global_step,
        "best_step": trainer.state.best_global_step,
        "dev": _history(trainer.state.log_history, trainer.state.best_global_step),
        "train_pairs": pairs,
        "dev_pairs": len(trainer.eval_dataset),
        "pairs_at_max_length": int(np.count_nonzero(lengths == model.max_length)),
        "mean_tokens": float(lengths.mean()),
        "dtype": dtype,
        "base_commit": commit_of(str(cross_encoder.name_or_path)),
        "processes": arguments.world_size,
    }


def _require_same_dtype(trainer: RerankerTrainer, folder: Path, checkpoint: str | None) -> str:
    """The dtype of a training, which is written into its folder; refuses to go on in another."""
    dtype = DTYPES[trainer.accelerator.mixed_precision]
    if checkpoint and (former := read_json(folder / DTYPE_FILE)["dtype"]) != dtype:
        raise UserError(
            f"bf16: the training began in {former}, not {dtype}; "
            "launch or set it as before, or add --overwrite"
        )
    if trainer.args.process_index == 0:
        write_json(folder / DTYPE_FILE, {"dtype": dtype})
    return dtype


def last_complete_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint with a readable state, which the Trainer writes last, or None."""
    checkpoints = (
        path
        for path in folder.glob("checkpoint-*")
        if path.name.removeprefix("checkpoint-").isdigit()
    )
    for path in sorted(
        checkpoints, key=lambda path: int(path.name.removeprefix("checkpoint-")), reverse=True
    ):
        try:
            json.loads((path / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        return str(path)
    return None


def _history(log: list[dict[str, Any]], step: int | None) -> dict[str, float]:
    entry = next((entry for entry in log if entry["step"] == step and "eval_f1" in entry), {})
    names = ("f1", "precision", "recall", "roc_auc", "acc@1", "ece", "log_loss", "list_loss")
    return {name: entry[f"eval_{name}"] for name in names if f"eval_{name}" in entry}
