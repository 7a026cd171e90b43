"""The training section of a recipe: `transformers.TrainingArguments`, and keys that it has no field for.

The fields are listed here so that a recipe is read and ``--help`` is printed without loading transformers. A test
compares the list with the class: each of its fields is either offered, or reserved with a reason.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from .arguments import recipe_key
from .losses import LOSSES

__all__ = ["RESERVED", "TrainingStageArguments"]

_schedule = partial(recipe_key, group="Schedule and optimizer (fields of transformers.TrainingArguments)")
_compute = partial(recipe_key, group="Precision, memory and speed (fields of transformers.TrainingArguments)")
_watch = partial(recipe_key, group="Evaluations, checkpoints and logs (fields of transformers.TrainingArguments)")
_load = partial(recipe_key, group="Data loading and processes (fields of transformers.TrainingArguments)")

LOG_LEVELS = ("passive", "debug", "detail", "info", "warning", "error", "critical")


@dataclass
class TrainingStageArguments:
    """Training: the loss and other keys that transformers.TrainingArguments has no field for."""

    loss: str = recipe_key("bce", "what training minimizes", LOSSES)
    global_batch_size: int | None = recipe_key(
        None,
        "pairs per optimizer step over all processes; sets gradient_accumulation_steps, so a run is the same on any "
        "number of devices",
    )
    max_dev_pairs: int = recipe_key(
        50_000,
        "maximum number of dev candidates, drawn from all documents, for comparing checkpoints",
    )
    frozen_layers: int | None = recipe_key(
        None,
        "leave the embeddings and this many of the lowest layers as they are, which saves a third of a step or more; "
        "0: the embeddings alone; empty: train everything",
    )
    dropout: float | None = recipe_key(
        None,
        "dropout of all layers in training; 0 learns more from one pass over the pairs; empty: as the base model says "
        "(BERT: 0.1)",
        least=0,
        most=1,
    )
    head_learning_rate: float | None = recipe_key(
        None,
        "peak learning rate of the head, which starts from random weights; some ten times learning_rate helps where "
        "there are few steps; empty: learning_rate",
        least=0,
    )
    early_stopping_patience: int = recipe_key(3, "evaluations without improvement before training stops")

    learning_rate: float = _schedule(2e-5, "peak learning rate (the library's default is 5e-5)")
    num_train_epochs: float = _schedule(3.0, "passes over the pairs")
    max_steps: int = _schedule(-1, "stop after this many optimizer steps; -1: by epochs")
    per_device_train_batch_size: int = _schedule(
        64,
        "pairs per forward pass on one device (the library's default is 8); lower it if memory runs out, then resume",
    )
    gradient_accumulation_steps: int | None = _schedule(
        None, "forward passes per optimizer step; empty: 1, or as global_batch_size requires"
    )
    lr_scheduler_type: str = _schedule("linear", "linear, cosine, constant_with_warmup, polynomial and so on")
    lr_scheduler_kwargs: dict | None = _schedule(None, 'options of that schedule, e.g. {"num_cycles": 0.5}')
    warmup_steps: float = _schedule(
        0.06, "steps with rising learning rate; below 1 a share of all steps (the library's default is 0)"
    )
    optim: str = _schedule("adamw_torch_fused", "optimizer: adamw_torch_fused, adamw_torch, adafactor, sgd and so on")
    optim_args: str | None = _schedule(None, "options of that optimizer, e.g. momentum=0.9,nesterov=True")
    optim_target_modules: str | list[str] | None = _schedule(None, "modules that GaLore and APOLLO optimize")
    weight_decay: float = _schedule(0.01, "weight decay (the library's default is 0)")
    adam_beta1: float = _schedule(0.9, "decay of AdamW's mean of gradients")
    adam_beta2: float = _schedule(0.999, "decay of AdamW's mean of squared gradients")
    adam_epsilon: float = _schedule(1e-8, "AdamW's epsilon")
    max_grad_norm: float = _schedule(1.0, "gradient norm is clipped to this; 0: not clipped")
    neftune_noise_alpha: float | None = _schedule(None, "noise added to embeddings (NEFTune), e.g. 5")

    bf16: bool | None = _compute(
        None,
        "bfloat16; empty: if the hardware supports it and fp16 is not set (the library's default is false)",
    )
    fp16: bool = _compute(False, "float16 with a scaled loss; needs a GPU")
    tf32: bool | None = _compute(None, "TF32 matrix products on Ampere and newer GPUs; empty: as torch is set")
    gradient_checkpointing: bool = _compute(False, "less memory for some 20 % more time")
    gradient_checkpointing_kwargs: dict | None = _compute(None, "its options")
    torch_compile: bool = _compute(False, "compile the model; needs a C++ compiler on a CPU")
    torch_compile_backend: str | None = _compute(None, "backend of torch.compile; empty: inductor")
    torch_compile_mode: str | None = _compute(None, "mode of torch.compile, e.g. max-autotune")
    torch_empty_cache_steps: int | None = _compute(None, "steps between calls of torch.cuda.empty_cache")
    full_determinism: bool = _compute(False, "deterministic kernels only; slower")
    debug: str | None = _compute(None, "underflow_overflow watches the network's values", ("underflow_overflow",))
    skip_memory_metrics: bool = _compute(True, "false logs how much memory was used; slower")

    eval_steps: float = _watch(
        500, "optimizer steps between evaluations, each with a checkpoint; below 1 a share of all steps"
    )
    per_device_eval_batch_size: int | None = _watch(
        None, "pairs per forward pass of an evaluation; empty: twice per_device_train_batch_size"
    )
    eval_accumulation_steps: int | None = _watch(None, "passes of an evaluation kept on the device; empty: all")
    eval_on_start: bool = _watch(False, "evaluate before the first step too")
    metric_for_best_model: str = _watch(
        "roc_auc",
        "dev metric that selects the best checkpoint; list_loss: cross-entropy of the gold pair in the softmax",
        ("roc_auc", "f1", "acc@1", "log_loss", "list_loss"),
    )
    save_total_limit: int = _watch(2, "checkpoints kept in addition to the best one (the library's default is all)")
    report_to: str | list[str] = _watch(
        "tensorboard",
        "where to log in addition to the console; install wandb and trackio yourself (the library's default is none)",
        ("tensorboard", "wandb", "trackio", "none"),
    )
    project: str = _watch("huggingface", "project of trackio; for wandb, set WANDB_PROJECT in the environment")
    trackio_space_id: str | None = _watch(None, "Hub Space that trackio logs to; empty: this machine")
    trackio_bucket_id: str | None = _watch(None, "Hub bucket of that Space")
    trackio_static_space_id: str | None = _watch(None, "Space that keeps the finished run")
    logging_strategy: str = _watch("steps", "when the loss is logged", ("no", "steps", "epoch"))
    logging_steps: float | None = _watch(
        None, "optimizer steps between logs (the library's default is 500); empty: a tenth of eval_steps"
    )
    logging_first_step: bool = _watch(False, "log the first step too")
    logging_nan_inf_filter: bool = _watch(
        False, "log the previous loss instead of NaN (the library's default is true)"
    )
    log_on_each_node: bool = _watch(True, "false logs on the first machine only")
    log_level: str = _watch("passive", "log level of transformers; passive leaves it unchanged", LOG_LEVELS)
    log_level_replica: str = _watch("warning", "log level of all processes but the first", LOG_LEVELS)
    include_num_input_tokens_seen: str = _watch("no", "log how many tokens were seen", ("no", "all", "non_padding"))
    disable_tqdm: bool = _watch(
        False, "print the log instead of a progress bar (the library's default depends on the log level)"
    )

    dataloader_num_workers: int = _load(0, "processes that load batches; 0 loads in the training process")
    dataloader_prefetch_factor: int | None = _load(None, "batches that each process loads in advance; empty: 2")
    dataloader_persistent_workers: bool = _load(False, "keep these processes between epochs")
    dataloader_multiprocessing_context: str | None = _load(
        None, "how these processes start", ("fork", "spawn", "forkserver")
    )
    dataloader_pin_memory: bool = _load(True, "keep batches for a GPU in pinned memory")
    ddp_find_unused_parameters: bool = _load(False, "search for weights without a gradient at every step")
    ddp_bucket_cap_mb: int | None = _load(None, "megabytes of gradients exchanged at once; empty: 25")
    ddp_broadcast_buffers: bool | None = _load(None, "broadcast buffers from the first process at every step")
    ddp_static_graph: bool | None = _load(None, "the same weights are used at every step")
    ddp_timeout: int = _load(1800, "seconds that processes wait for each other")

    def pairs_per_step(self, processes: int) -> int:
        """Pairs per optimizer step, over all processes."""
        passes = self.gradient_accumulation_steps or 1
        return self.global_batch_size or self.per_device_train_batch_size * passes * processes

    def trainer_fields(self) -> dict[str, Any]:
        """The fields of `transformers.TrainingArguments` among the keys."""
        return {name: value for name, value in asdict(self).items() if name not in OWN}


# Keys that `transformers.TrainingArguments` does not have.
OWN = (
    *("loss", "global_batch_size", "max_dev_pairs", "frozen_layers", "dropout"),
    *("head_learning_rate", "early_stopping_patience"),
)

# Fields of `transformers.TrainingArguments` that a recipe cannot set, by reason.
_REASONS = {
    "evaluations and checkpoints happen together, every eval_steps, and the best checkpoint is kept": (
        "eval_strategy save_strategy save_steps load_best_model_at_end eval_delay"
    ),
    "it follows from metric_for_best_model": "greater_is_better",
    "an evaluation needs the scores of all dev pairs, computed as in training": (
        "prediction_loss_only include_for_metrics batch_eval_metrics eval_do_concat_batches eval_use_gather_object "
        "bf16_full_eval fp16_full_eval"
    ),
    "the loss counts pairs and lists over all processes itself": "average_tokens_across_devices",
    "the loss separates right from wrong pairs; calibration makes them probabilities": "label_smoothing_factor",
    "the loss needs columns of its own": "remove_unused_columns label_names",
    "each pair comes once per epoch, in batches of similar length; the key seed decides the order": (
        "dataloader_drop_last dataloader_in_order train_sampling_strategy length_column_name accelerator_config "
        "data_seed ignore_data_skip"
    ),
    "lower per_device_train_batch_size yourself and repeat the command; training resumes": "auto_find_batch_size",
    "a killed run resumes automatically from its last complete checkpoint": (
        "save_only_model resume_from_checkpoint restore_callback_states_from_checkpoint enable_jit_checkpoint"
    ),
    "the run folder is on storage that all machines share": "save_on_each_node",
    "umls-reranker publish does that, by the keys repo_id, tag and private": (
        "push_to_hub hub_token hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision"
    ),
    "the key of this name applies to the whole run": "output_dir run_name seed",
    "the key device decides": "use_cpu ddp_backend",
    "accelerate launch decides, with its --config_file (see accelerate_configs/)": (
        "fsdp fsdp_config deepspeed parallelism_config local_rank"
    ),
    "it is not made for text encoders": "use_liger_kernel liger_kernel_config use_cache",
    "each command is one step": "do_train do_eval do_predict",
    "use gradient_checkpointing and gradient_checkpointing_kwargs, which mean the same": (
        "activation_checkpointing activation_checkpointing_kwargs"
    ),
}
RESERVED = {name: reason for reason, names in _REASONS.items() for name in names.split()}
