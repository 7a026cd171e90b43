"""Fields of RerankerTrainingArguments that recipes may set, and what to do instead of others.

The training of a recipe decides the others, or nothing here reads them. Imports nothing, so that a
command line is checked at once; to import the class takes seconds.
"""

# Of all versions of transformers that setup.cfg allows; those that only some have are looked up in
# the class.
TRAINER_KEYS = frozenset(
    {
        "adam_beta1",
        "adam_beta2",
        "adam_epsilon",
        "bf16",
        "data_seed",
        "dataloader_in_order",
        "dataloader_multiprocessing_context",
        "dataloader_num_workers",
        "dataloader_persistent_workers",
        "dataloader_pin_memory",
        "dataloader_prefetch_factor",
        "ddp_broadcast_buffers",
        "ddp_bucket_cap_mb",
        "ddp_find_unused_parameters",
        "ddp_static_graph",
        "ddp_timeout",
        "debug",
        "disable_tqdm",
        "dropout",
        "early_stopping_patience",
        "enable_jit_checkpoint",
        "eval_accumulation_steps",
        "eval_delay",
        "eval_on_start",
        "eval_steps",
        "eval_use_gather_object",
        "fp16",
        "full_determinism",
        "global_batch_size",
        "gradient_checkpointing",
        "gradient_checkpointing_kwargs",
        "head_learning_rate",
        "hub_private_repo",
        "ignore_data_skip",
        "include_num_input_tokens_seen",
        "learning_rate",
        "log_level",
        "log_level_replica",
        "log_on_each_node",
        "logging_first_step",
        "logging_nan_inf_filter",
        "logging_steps",
        "logging_strategy",
        "loss",
        "lr_scheduler_kwargs",
        "lr_scheduler_type",
        "max_dev_pairs",
        "max_grad_norm",
        "max_steps",
        "metric_for_best_model",
        "neftune_noise_alpha",
        "num_train_epochs",
        "optim",
        "optim_args",
        "optim_target_modules",
        "output_dir",
        "per_device_eval_batch_size",
        "per_device_train_batch_size",
        "project",
        "report_to",
        "run_name",
        "save_on_each_node",
        "save_total_limit",
        "seed",
        "skip_memory_metrics",
        "tf32",
        "torch_compile",
        "torch_compile_backend",
        "torch_compile_mode",
        "torch_empty_cache_steps",
        "trackio_bucket_id",
        "trackio_space_id",
        "trackio_static_space_id",
        "warmup_steps",
        "weight_decay",
    }
)

_SIZES = (
    "lower per_device_train_batch_size if memory runs out; global_batch_size, the pairs of a step, "
    "stays, and accumulation follows"
)
_BATCHES = "batches hold pairs or lists of similar length, each pair once an epoch"
_OWN_BATCHES = "the trainer makes its own batches"
_EVALUATIONS = "set eval_steps; each evaluation has a checkpoint"
_BEST = "set metric_for_best_model; its best checkpoint is the result"
_METRICS = "checkpoints are compared by figures of whole lists; set metric_for_best_model"
_RESUMING = "the same command resumes a stopped training, and --overwrite starts anew"
_EVALUATION_DTYPE = "dev pairs are scored in the dtype of training; set bf16 or fp16"
_LAUNCH = "start with accelerate launch and one of the configurations of umls-reranker recipes"
_COMMANDS = "train, evaluate and rerank are commands of umls-reranker"
_PUBLISHING = "umls-reranker publish sends the calibrated model"
_DECODERS = "it has no effect on a cross-encoder that is an encoder"

# Name -> what to do instead.
REFUSED = {
    "gradient_accumulation_steps": _SIZES,
    "auto_find_batch_size": _SIZES,
    # No field, but the key of many other trainers.
    "batch_size": _SIZES,
    "dataloader_drop_last": _BATCHES,
    "train_sampling_strategy": _BATCHES,
    "length_column_name": _BATCHES,
    "remove_unused_columns": _OWN_BATCHES,
    "label_names": _OWN_BATCHES,
    "label_smoothing_factor": "no loss smooths labels; choose another loss",
    "average_tokens_across_devices": "the loss always counts the pairs of all processes",
    "eval_strategy": _EVALUATIONS,
    "save_strategy": _EVALUATIONS,
    "save_steps": _EVALUATIONS,
    "load_best_model_at_end": _BEST,
    "greater_is_better": _BEST,
    "prediction_loss_only": _METRICS,
    "batch_eval_metrics": _METRICS,
    "eval_do_concat_batches": _METRICS,
    "include_for_metrics": _METRICS,
    "bf16_full_eval": _EVALUATION_DTYPE,
    "fp16_full_eval": _EVALUATION_DTYPE,
    "save_only_model": "a stopped training could not resume; set save_total_limit to save space",
    "restore_callback_states_from_checkpoint": _RESUMING,
    "resume_from_checkpoint": _RESUMING,
    "use_cpu": "set device: cpu",
    "ddp_backend": "it follows from device",
    "local_rank": _LAUNCH,
    "fsdp": _LAUNCH,
    "fsdp_config": _LAUNCH,
    "deepspeed": _LAUNCH,
    "accelerator_config": _LAUNCH,
    "parallelism_config": _LAUNCH,
    "do_train": _COMMANDS,
    "do_eval": _COMMANDS,
    "do_predict": _COMMANDS,
    "push_to_hub": _PUBLISHING,
    "hub_model_id": _PUBLISHING,
    "hub_strategy": _PUBLISHING,
    "hub_token": _PUBLISHING,
    "hub_always_push": _PUBLISHING,
    "hub_revision": _PUBLISHING,
    "use_liger_kernel": _DECODERS,
    "liger_kernel_config": _DECODERS,
    "use_cache": _DECODERS,
}
