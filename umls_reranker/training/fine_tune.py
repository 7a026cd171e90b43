"""Fine-tune the cross-encoder: device, base model, frozen layers, the Trainer's arguments, resuming."""

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
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    EarlyStoppingCallback,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
    get_scheduler,
    set_seed,
)
from transformers.trainer import TRAINER_STATE_NAME

from ..core.arrays import started_processes
from ..core.devices import resolve_device
from ..core.errors import UserError
from ..core.files import read_json, write_json
from ..models.arguments import ModelArguments, RunArguments
from ..models.hub_access import commit_of, resolve_model
from ..models.pairs import PairEncoder, PairTemplate
from ..models.pretrained import load_pretrained, loading
from .dev_metrics import dev_metrics
from .losses import LOSSES
from .trainer import PairCollator, RerankerTrainer, TokenizedPairs, lists_per_batch, loader_options, weight_scale
from .training_arguments import RerankerTrainingArguments


def training_device(run: RunArguments) -> torch.device:
    """The device to train on.

    Raises:
        UserError: the device is not available, or it is not the first GPU, because Accelerate assigns visible GPUs in
            order.
    """
    device = resolve_device(run.device)
    if device.type == "cuda" and device.index:
        raise UserError(
            f"device: {run.device} cannot be selected for training; set CUDA_VISIBLE_DEVICES={device.index} and "
            "device: cuda"
        )
    return device


def require_one_process(command: str) -> None:
    """Refuse a launch of several processes, for a command whose loss compares all rows of a batch.

    Raises:
        UserError: there are several.
    """
    if started_processes() > 1:
        raise UserError(f"{command} trains on one process; start it without a launcher")


# Names in accelerate, whose launch configuration can also set the dtype.
DTYPE_FILE, DTYPES = "dtype.json", {"no": "float32", "bf16": "bfloat16", "fp16": "float16"}


def load_base_model(
    model: str, revision: str | None, template: PairTemplate, attention: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the base model with a new head of one logit, and its tokenizer with the template's markers.

    Args:
        model: Hub id or local folder.
        revision: tag, branch or commit on the Hub.
        template: how it reads pairs.
        attention: ``attn_implementation`` of transformers; None: the fastest that torch has.

    Raises:
        UserError: the model cannot be found or reached, or its weights are damaged.
    """
    source = resolve_model(model, revision)
    with loading(f"model {model}"):
        tokenizer = load_pretrained(AutoTokenizer, source)
        options = {"num_labels": 1, "use_safetensors": True, "dtype": "float32", "attn_implementation": attention}
        network = load_pretrained(AutoModelForSequenceClassification, source, **options)
    require_readable("max_length", template.max_length, network.config, model)
    if template.prepare_tokenizer(tokenizer):
        network.resize_token_embeddings(len(tokenizer))
    return network, tokenizer


def require_readable(key: str, tokens: int, config: PreTrainedConfig, model: str) -> None:
    """Refuse texts that are longer than a model can read; the message names the key of the recipe."""
    longest = getattr(config, "max_position_embeddings", tokens)
    if tokens > longest:
        raise UserError(f"{key}: {tokens} is more than the {longest} tokens that {model} can read")


def set_dropout(network: PreTrainedModel, share: float) -> None:
    """Set the dropout of all layers, attention included. The saved configuration keeps its own value."""
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = share


def freeze_lowest(network: PreTrainedModel, count: int) -> None:
    """Exclude the embeddings and the lowest `count` layers from training, in any architecture.

    Raises:
        UserError: the model has not that many layers.
    """
    body, layers = network.base_model, network.config.num_hidden_layers
    stacks = [module for module in body.modules() if isinstance(module, torch.nn.ModuleList) and len(module) == layers]
    if not stacks or not 0 <= count <= layers:
        raise UserError(f"frozen_layers: {count} of the {layers} layers of {type(network).__name__} cannot be frozen")
    for module in (getattr(body, "embeddings", network.get_input_embeddings()), *stacks[0][:count]):
        module.requires_grad_(False)


ANY_LISTS = np.arange(0, 100_001, 10)


def training_arguments(
    run: RunArguments, training: Mapping[str, Any], folder: Path, offsets: np.ndarray = ANY_LISTS
) -> RerankerTrainingArguments:
    """The Trainer's arguments for a recipe; accumulation follows from the global batch and the process count.

    A run shorter than ``eval_steps`` is evaluated once, at its end.

    Args:
        run: section of the recipe.
        training: section of the recipe, the fields that it sets.
        folder: folder of the checkpoints.
        offsets: (lists + 1,) int64, the first training pair of each list; by default of lists that stand for any.

    Raises:
        UserError: a value is incompatible with others or with this machine.
    """
    place: dict[str, Any] = {"output_dir": str(folder), "run_name": run.run_name, "seed": run.seed}
    try:
        arguments = RerankerTrainingArguments(**training, **place, use_cpu=training_device(run).type == "cpu")
        steps = arguments.max_steps
        if steps < 1:
            batches = math.ceil((len(offsets) - 1) / lists_per_batch(offsets, arguments.global_batch_size))
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
    """Create objects that the Trainer creates only in training, so that an invalid value fails early."""
    optimizer = torch.optim.SGD([weight := torch.zeros(1, requires_grad=True)])
    if arguments.optim_target_modules is None:
        kind, options = Trainer.get_optimizer_cls_and_kwargs(arguments)
        optimizer = kind([weight], **options)
    get_scheduler(
        arguments.lr_scheduler_type,
        optimizer,
        arguments.get_warmup_steps(steps),
        steps,
        arguments.lr_scheduler_kwargs,  # type: ignore[arg-type]  # a text has become a dict when they were made
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

    Checkpoints are in `folder`. A killed run resumes from them with the same data order, optimizer and schedule, and,
    with the same number of processes, the same random state. Every process of a launch calls this.

    Args:
        run: section of the recipe.
        model: section of the recipe.
        training: section of the recipe, the fields that it sets.
        train: training rows (`models.pairs.training_rows`) as mined.
        dev: the lists to compare checkpoints on, as training rows.
        folder: folder to write.

    Returns:
        Summary: steps, dev metrics of the best checkpoint, numbers and lengths of pairs, dtype, processes, commit of
        the base model.
    """
    loss, template = LOSSES[training.get("loss", RerankerTrainingArguments.loss)], PairTemplate.from_recipe(model)
    scale = weight_scale(train, loss.of_lists)
    set_seed(run.seed)
    network, tokenizer = load_base_model(model.model, model.model_revision, template, model.attn_implementation)
    if training.get("frozen_layers") is not None:
        freeze_lowest(network, training["frozen_layers"])
    if training.get("dropout") is not None:
        set_dropout(network, training["dropout"])
    encoder = PairEncoder(tokenizer.backend_tokenizer, template)
    train_set, dev_set = TokenizedPairs(train, encoder, scale), TokenizedPairs(dev, encoder)
    if loss.of_teacher and np.isnan(train_set.teacher).all():
        raise UserError("teacher: this loss needs a teacher; set teacher, or give training candidates teacher_score")
    arguments = training_arguments(run, training, folder, train_set.offsets)
    trainer = RerankerTrainer(
        model=network,
        args=arguments,
        train_dataset=train_set,
        eval_dataset=dev_set,
        processing_class=tokenizer,
        data_collator=PairCollator(
            tokenizer.pad_token_id, "token_type_ids" in tokenizer.model_input_names, 1 if arguments.use_cpu else 8
        ),
        compute_metrics=dev_metrics(dev_set.owner),
        loss=loss,
        head_learning_rate=arguments.head_learning_rate,
        global_batch_size=arguments.global_batch_size,
        callbacks=[EarlyStoppingCallback(arguments.early_stopping_patience)],
    )
    # Widths vary; by default, the first ones would each be compiled separately.
    trainer.accelerator.state.dynamo_plugin.dynamic = True
    checkpoint, dtype = last_complete_checkpoint(folder), DTYPES[trainer.accelerator.mixed_precision]
    if checkpoint and (former := read_json(folder / DTYPE_FILE)["dtype"]) != dtype:
        raise UserError(
            f"bf16: the training began in {former}, not {dtype}; launch or set it as before, or add --overwrite"
        )
    if arguments.process_index == 0:
        write_json(folder / DTYPE_FILE, {"dtype": dtype})
    # A resumed run is past its start; another evaluation would count against its patience.
    arguments.eval_on_start &= checkpoint is None
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model(str(folder / "checkpoint-best"))
    lengths = train_set.pairs.lengths
    return {
        "steps": trainer.state.global_step,
        "best_step": trainer.state.best_global_step,
        "dev": _history(trainer.state.log_history, trainer.state.best_global_step),
        "train_pairs": len(train_set),
        "dev_pairs": len(dev_set),
        "pairs_at_max_length": int(np.count_nonzero(lengths == model.max_length)),
        "mean_tokens": float(lengths.mean()),
        "dtype": dtype,
        "base_commit": commit_of(str(network.name_or_path)),
        "processes": arguments.world_size,
    }


def last_complete_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint with a readable state, which the Trainer writes last, or None."""
    checkpoints = (path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdigit())
    for path in sorted(checkpoints, key=lambda path: int(path.name.removeprefix("checkpoint-")), reverse=True):
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
