"""The training section of a recipe: keys of our own, and the fields of `transformers.TrainingArguments`.

Fields that recipes and guides name are keys like all others. The class is asked for the rest only when a recipe or a
command line has an otherwise unknown key, so ``--help`` is printed without importing transformers.
"""

from __future__ import annotations

import functools
import typing
from dataclasses import Field, asdict, dataclass, field, fields
from functools import partial
from typing import Any

from .losses import LOSSES
from .settings import recipe_key

TRAINER = "Training: fields of transformers.TrainingArguments"
_trainer = partial(recipe_key, group=TRAINER)


@dataclass
class TrainingStageArguments:
    """Training: the loss and other keys that transformers.TrainingArguments has no field for."""

    loss: str = recipe_key("bce", "loss to minimize", LOSSES)
    global_batch_size: int | None = recipe_key(
        None,
        "pairs per optimizer step over all processes; sets gradient_accumulation_steps, so results do not depend on "
        "the number of devices",
        least=1,
    )
    max_dev_pairs: int = recipe_key(
        50_000,
        "maximum number of dev candidates for comparing checkpoints, sampled from all documents",
        least=1,
        rare=True,
    )
    dropout: float | None = recipe_key(
        None,
        "dropout in training; 0 works better for a single pass over the pairs; empty: the base model's default "
        "(BERT: 0.1)",
        least=0,
        most=1,
    )
    head_learning_rate: float | None = recipe_key(
        None,
        "peak learning rate of the randomly initialized head; about ten times learning_rate helps in short runs; "
        "empty: learning_rate",
        least=0,
    )
    early_stopping_patience: int = recipe_key(3, "evaluations without improvement before training stops", least=1)

    learning_rate: float = _trainer(2e-5, "peak learning rate (the library's default is 5e-5)")
    num_train_epochs: float = _trainer(3.0, "passes over the pairs")
    max_steps: int = _trainer(-1, "stop after this many optimizer steps; -1: num_train_epochs decides")
    per_device_train_batch_size: int = _trainer(
        64,
        "pairs per forward pass on one device (the library's default is 8); lower it if memory runs out, then resume",
        least=1,
    )
    gradient_accumulation_steps: int | None = _trainer(
        None, "forward passes per optimizer step; empty: 1, or as global_batch_size requires", least=1, rare=True
    )
    lr_scheduler_type: str = _trainer("linear", "linear, cosine, constant_with_warmup, polynomial and so on")
    warmup_steps: float = _trainer(
        0.06, "learning-rate warmup steps; below 1: a share of all steps (the library's default is 0)"
    )
    weight_decay: float = _trainer(0.01, "weight decay (the library's default is 0)", rare=True)
    bf16: bool | None = _trainer(
        None,
        "bfloat16; empty: if the hardware supports it and fp16 is not set (the library's default is false)",
    )
    fp16: bool = _trainer(False, "float16 with a scaled loss; needs a GPU")
    tf32: bool | None = _trainer(
        None, "TF32 matrix products on Ampere and newer GPUs; empty: as torch is set", rare=True
    )
    gradient_checkpointing: bool = _trainer(False, "saves memory at about 20 % more time")
    eval_steps: float = _trainer(
        500,
        "optimizer steps between evaluations, each with a checkpoint; below 1: a share of all steps",
        least=1e-6,
    )
    eval_on_start: bool = _trainer(False, "also evaluate before the first step", rare=True)
    metric_for_best_model: str = _trainer(
        "roc_auc",
        "dev metric that selects the best checkpoint; list_loss: cross-entropy of the gold candidate over the list",
        ("roc_auc", "f1", "acc@1", "log_loss", "list_loss"),
    )
    save_total_limit: int = _trainer(
        2, "checkpoints kept in addition to the best one (the library's default is all)", least=1, rare=True
    )
    report_to: str | list[str] = _trainer(
        "tensorboard",
        "where to log in addition to the console; install wandb and trackio yourself (the library's default is none)",
        ("tensorboard", "wandb", "trackio", "none"),
    )
    dataloader_num_workers: int = _trainer(0, "processes that load batches; 0 loads in the training process", least=0)

    further_fields: dict[str, Any] = field(default_factory=dict)
    """Values of all other fields of the class that the recipe sets."""

    def pairs_per_step(self, processes: int) -> int:
        """Pairs per optimizer step, over all processes."""
        passes = self.gradient_accumulation_steps or 1
        return self.global_batch_size or self.per_device_train_batch_size * passes * processes

    def to_dict(self) -> dict[str, Any]:
        """All keys and fields by name."""
        values = asdict(self)
        return values | values.pop("further_fields")

    def trainer_values(self) -> dict[str, Any]:
        """The values of all fields of `transformers.TrainingArguments`, which are set or have a default here."""
        names = [entry.name for entry in fields(self) if entry.metadata.get("group") == TRAINER]
        return {name: getattr(self, name) for name in names} | self.further_fields


@functools.cache
def trainer_fields() -> dict[str, tuple[Field, Any]]:
    """Name -> field and type for each field of `transformers.TrainingArguments` that a recipe may set; takes seconds.

    Empty if transformers is not installed, as where a model is only served.
    """
    try:
        from transformers import TrainingArguments
    except ImportError:
        return {}
    types = typing.get_type_hints(TrainingArguments)
    return {
        entry.name: (entry, types[entry.name]) for entry in fields(TrainingArguments) if entry.name not in RESERVED
    }


# Fields of `transformers.TrainingArguments` that a recipe cannot set, by reason.
_REASONS = {
    "each evaluation, every eval_steps, saves a checkpoint, and the best one is kept": (
        "eval_strategy save_strategy save_steps load_best_model_at_end eval_delay"
    ),
    "it follows from metric_for_best_model": "greater_is_better",
    "an evaluation needs the scores of all dev pairs, computed as in training": (
        "prediction_loss_only include_for_metrics batch_eval_metrics eval_do_concat_batches eval_use_gather_object "
        "bf16_full_eval fp16_full_eval"
    ),
    "the loss counts pairs and lists over all processes itself": "average_tokens_across_devices",
    "the loss separates correct from incorrect pairs; calibration gives probabilities": "label_smoothing_factor",
    "the loss needs additional columns": "remove_unused_columns label_names",
    "each pair is seen once per epoch, in batches of similar length; the key seed decides the order": (
        "dataloader_drop_last dataloader_in_order train_sampling_strategy length_column_name accelerator_config "
        "data_seed ignore_data_skip"
    ),
    "lower per_device_train_batch_size and rerun the command; training resumes": "auto_find_batch_size",
    "an interrupted run resumes automatically from its last complete checkpoint": (
        "save_only_model resume_from_checkpoint restore_callback_states_from_checkpoint enable_jit_checkpoint"
    ),
    "the run folder is on storage that all machines share": "save_on_each_node",
    "umls-reranker publish does that, with the keys repo_id, tag and private": (
        "push_to_hub hub_token hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision"
    ),
    "the key of this name applies to the whole run": "output_dir run_name seed",
    "the key device decides": "use_cpu ddp_backend",
    "accelerate launch decides, with its --config_file (see accelerate_configs/)": (
        "fsdp fsdp_config deepspeed parallelism_config local_rank"
    ),
    "it does not apply to text encoders": "use_liger_kernel liger_kernel_config use_cache",
    "each command is one stage": "do_train do_eval do_predict",
    "use the equivalent gradient_checkpointing and gradient_checkpointing_kwargs": (
        "activation_checkpointing activation_checkpointing_kwargs"
    ),
}
RESERVED = {name: reason for reason, names in _REASONS.items() for name in names.split()}
