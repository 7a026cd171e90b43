"""Fine-tuning from mined pairs to ``checkpoint-best``, resumable at every checkpoint."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from datasets import DatasetDict
from safetensors.torch import load_model
from torch.utils.data import DataLoader, TensorDataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProgressCallback,
    Trainer,
    TrainingArguments,
    get_scheduler,
    set_seed,
)
from transformers.utils import SAFE_WEIGHTS_NAME

from ..core.devices import resolve_dtype
from ..core.errors import UserError
from ..core.fetch import resolve_model
from ..core.losses import GOLD_LABEL, LOSSES
from ..core.settings import ModelArguments, RunArguments
from ..core.trainer_fields import TrainingStageArguments
from ..models.pretrained import load_pretrained, loading
from ..models.template import PairTemplate
from ..models.tokens import PairEncoder
from .callbacks import (
    CheckpointCallback,
    ConsoleCallback,
    EarlyStopping,
    ThroughputCallback,
    ended_state,
    last_complete_checkpoint,
)
from .collator import PairCollator
from .dataset import tokenize_pairs, weight_scale
from .dev_lists import dev_metrics
from .processes import training_device
from .sampling import MentionLists
from .trainer import LABEL_NAMES, OneGpuArguments, RerankerTrainer, loader_options

# Names in accelerate, whose launch configuration can also set the dtype.
DTYPES = {"no": "float32", "bf16": "bfloat16", "fp16": "float16"}


def load_base_model(
    model: str, revision: str | None, template: PairTemplate
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the base model with a new head of one logit, and its tokenizer with the template's markers.

    Raises:
        UserError: the model cannot be found or reached, or its weights are damaged.
    """
    source = resolve_model(model, revision)
    with loading(f"model {model}"):
        tokenizer = load_pretrained(AutoTokenizer, source)
        network = load_pretrained(
            AutoModelForSequenceClassification, source, num_labels=1, use_safetensors=True, dtype="float32"
        )
    longest = getattr(network.config, "max_position_embeddings", template.max_length)
    if template.max_length > longest:
        raise UserError(f"max_length: {template.max_length} is more than the {longest} tokens that {model} can read")
    if template.prepare_tokenizer(tokenizer):
        network.resize_token_embeddings(len(tokenizer))
    return network, tokenizer


def freeze_lowest(network: PreTrainedModel, layers: int) -> None:
    """Exclude the embeddings and the lowest layers from training; their gradients are not computed.

    Tokens that were added to the vocabulary keep their initial vectors.

    Raises:
        UserError: the network has fewer layers, or its layers have other names than BERT's.
    """
    body: Any = network.base_model
    try:
        embeddings, all_layers = body.embeddings, body.encoder.layer
    except AttributeError:
        raise UserError(f"frozen_layers: not supported for {network.config.model_type}; remove it") from None
    if not 0 <= layers < len(all_layers):
        raise UserError(f"frozen_layers: {layers} must be from 0 to {len(all_layers) - 1}")
    for module in (embeddings, *all_layers[:layers]):
        module.requires_grad_(False)


def set_dropout(network: PreTrainedModel, share: float) -> None:
    """Set the dropout of all layers, attention included. The saved configuration keeps its own value."""
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = share


def training_arguments(
    run: RunArguments,
    training: TrainingStageArguments,
    folder: Path,
    train_pairs: int,
    lists: MentionLists | None = None,
) -> TrainingArguments:
    """The Trainer's arguments for a recipe; accumulation follows from the global batch and the process count.

    A run shorter than ``eval_steps`` is evaluated once, at its end.

    Args:
        run: section of the recipe.
        training: section of the recipe.
        folder: folder of the checkpoints.
        train_pairs: number of training pairs.
        lists: their mentions, if batches hold whole mentions.

    Raises:
        UserError: a value is incompatible with others or with this machine.
    """
    device = training_device(run)
    batch, passes = _batch(training, PartialState().num_processes)
    steps = training.max_steps
    if steps < 1:
        batches = train_pairs / batch if lists is None else len(lists) / lists.per_batch(batch)
        steps = math.ceil(math.ceil(batches) * training.num_train_epochs)
    share = training.eval_steps < 1
    eval_steps = min(math.ceil(training.eval_steps * steps) if share else training.eval_steps, steps)
    defaults = {
        "per_device_eval_batch_size": training.per_device_train_batch_size * 2,
        "logging_steps": max(1, math.ceil(eval_steps / 10)),
        # The library's defaults hide NaN losses, show no bar, and search for unused weights at every step.
        "logging_nan_inf_filter": False,
        "disable_tqdm": False,
        "ddp_find_unused_parameters": False,
    }
    fields = (
        defaults
        | training.trainer_values()
        | {
            "output_dir": str(folder),
            "run_name": run.run_name,
            "seed": run.seed,
            "use_cpu": device.type == "cpu",
            "gradient_accumulation_steps": passes,
            "remove_unused_columns": False,
            "label_names": LABEL_NAMES,
            "eval_strategy": "steps",
            "eval_steps": eval_steps,
            "save_strategy": "steps",
            "save_steps": eval_steps,
            "save_total_limit": None,  # CheckpointCallback removes older ones when a checkpoint is complete
            "load_best_model_at_end": True,
            "greater_is_better": not training.metric_for_best_model.endswith("loss"),
            "report_to": _reports(training.report_to),
        }
    )
    if training.lr_scheduler_type in ("reduce_lr_on_plateau", "greedy"):
        # They follow metric_for_best_model, where lower counts as better by default.
        mode = "max" if fields["greater_is_better"] else "min"
        fields["lr_scheduler_kwargs"] = {"mode": mode} | (fields.get("lr_scheduler_kwargs") or {})
    fields |= mixed_precision(training, device)
    if "activation_checkpointing" in TrainingArguments.__dataclass_fields__:
        # Renamed in transformers 5.24; the old name warns.
        for name in ("gradient_checkpointing", "gradient_checkpointing_kwargs"):
            fields[name.replace("gradient", "activation")] = fields.pop(name, None)
    try:
        arguments = OneGpuArguments(**fields)
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


def mixed_precision(training: TrainingStageArguments, device: torch.device) -> dict[str, bool]:
    """``bf16`` and ``fp16`` of a recipe on a device.

    Raises:
        UserError: float16 without a GPU.
    """
    if training.fp16 and device.type == "cpu":
        raise UserError("fp16: float16 needs a GPU; add --fp16 no")
    bf16 = training.bf16
    if bf16 is None:
        bf16 = not training.fp16 and resolve_dtype("auto", device) == "bfloat16"
    return {"bf16": bf16, "fp16": training.fp16}


def _batch(training: TrainingStageArguments, processes: int) -> tuple[int, int]:
    """Pairs of a global batch, and its forward passes on each device."""
    batch, on_device = training.pairs_per_step(processes), training.per_device_train_batch_size
    passes, rest = divmod(batch, on_device * processes)
    if rest:
        raise UserError(
            f"global_batch_size: {batch} is not a multiple of per_device_train_batch_size {on_device} x {processes} "
            "processes; change one of them"
        )
    if training.gradient_accumulation_steps not in (None, passes):
        raise UserError(
            f"gradient_accumulation_steps: global_batch_size {batch} makes it {passes}; set only one of the two"
        )
    return batch, passes


def _reports(named: str | Sequence[str]) -> list[str]:
    """The Trainer's integrations in a recipe, after checking that they are installed."""
    reports = [name for name in ([named] if isinstance(named, str) else named) if name != "none"]
    for name in reports:
        if importlib.util.find_spec(name) is None:
            raise UserError(f"report_to: {name} is not installed; pip install {name}")
    return reports


def fine_tune(
    run: RunArguments,
    model: ModelArguments,
    training: TrainingStageArguments,
    pairs: DatasetDict,
    folder: Path,
) -> dict[str, Any]:
    """Train on ``pairs["train"]``, stop early on ``pairs["dev"]``, write ``folder/checkpoint-best``.

    Checkpoints are in `folder`. A killed run resumes from them with the same data order, optimizer and schedule, and,
    with the same number of processes, the same random state. Every process of a launch calls this.

    Args:
        run: section of the recipe.
        model: section of the recipe.
        training: section of the recipe.
        pairs: ``train`` as mined, and ``dev`` from `dev_lists.dev_pairs`.
        folder: folder to write.

    Returns:
        Summary: steps, dev metrics of the best checkpoint, numbers and lengths of pairs, dtype and processes.
    """
    loss, scale = LOSSES[training.loss], weight_scale(pairs["train"])
    list_scale = weight_scale(pairs["train"], label=GOLD_LABEL) / scale if loss.of_lists else 1.0
    lists = MentionLists(pairs["train"].with_format("numpy")["mention_id"][:]) if loss.of_lists else None
    arguments = training_arguments(run, training, folder, len(pairs["train"]), lists)
    template = PairTemplate.from_recipe(model)
    set_seed(run.seed)
    network, tokenizer = load_base_model(model.model, model.model_revision, template)
    if training.dropout is not None:
        set_dropout(network, training.dropout)
    if training.frozen_layers is not None:
        freeze_lowest(network, training.frozen_layers)
    encoder = PairEncoder(tokenizer.backend_tokenizer, template)
    with arguments.main_process_first(local=False, desc="tokenizing"):
        train_set = tokenize_pairs(pairs["train"], encoder, scale, folder / "tokenized-train")
        dev_set = tokenize_pairs(pairs["dev"], encoder, scale, folder / "tokenized-dev")
    batch = training.pairs_per_step(arguments.world_size)
    pairs_per_step = batch if lists is None else lists.per_batch(batch) * float(lists.sizes.mean())
    stopping = EarlyStopping(training.early_stopping_patience)
    trainer = RerankerTrainer(
        model=network,
        args=arguments,
        train_dataset=train_set,
        eval_dataset=dev_set,
        processing_class=tokenizer,
        data_collator=PairCollator(
            tokenizer.pad_token_id,
            "token_type_ids" in tokenizer.model_input_names,
            pad_to_multiple_of=1 if arguments.use_cpu else 8,
        ),
        compute_metrics=dev_metrics(pairs["dev"].with_format("numpy")["mention_id"][:]),
        loss=loss,
        lists=lists,
        scale=list_scale,
        head_learning_rate=training.head_learning_rate,
        callbacks=[CheckpointCallback(training.save_total_limit), stopping],
    )
    # Before the integrations of report_to, which log its value.
    trainer.callback_handler.callbacks.insert(0, ThroughputCallback(pairs_per_step))
    # Widths vary; by default, the first ones would each be compiled separately.
    trainer.accelerator.state.dynamo_plugin.dynamic = True
    if not arguments.disable_tqdm:
        trainer.remove_callback(ProgressCallback)
        trainer.add_callback(ConsoleCallback)
    checkpoint = last_complete_checkpoint(folder)
    # A resumed run is past its start; another evaluation would count against its patience.
    arguments.eval_on_start &= checkpoint is None
    ended = ended_state(checkpoint, arguments, stopping)
    if ended is None:
        trainer.train(resume_from_checkpoint=checkpoint)
    else:
        # Resuming from there would train longer than an uninterrupted run.
        trainer.state = ended
        # The state names a path, but the folder may have moved. If every metric was NaN, no step is the best.
        best = ended.best_global_step or ended.global_step
        load_model(network, folder / f"checkpoint-{best}" / SAFE_WEIGHTS_NAME)
    trainer.save_model(str(folder / "checkpoint-best"))
    lengths = train_set.lengths
    return {
        "steps": trainer.state.global_step,
        "best_step": trainer.state.best_global_step,
        "dev": _history(trainer.state.log_history, trainer.state.best_global_step),
        "train_pairs": len(train_set),
        "dev_pairs": len(dev_set),
        "pairs_at_max_length": int(np.count_nonzero(lengths == model.max_length)),
        "mean_tokens": float(lengths.mean()),
        "dtype": DTYPES[trainer.accelerator.mixed_precision],
        "processes": arguments.world_size,
    }


def _history(log: list[dict[str, Any]], step: int | None) -> dict[str, float]:
    entry = next((entry for entry in log if entry["step"] == step and "eval_f1" in entry), {})
    names = ("f1", "precision", "recall", "roc_auc", "acc@1", "ece", "log_loss", "list_loss")
    return {name: entry[f"eval_{name}"] for name in names if f"eval_{name}" in entry}
