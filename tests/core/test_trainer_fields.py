"""Keys that are fields of the Trainer agree with the class of the release that is installed."""

import subprocess
import sys
from dataclasses import MISSING, fields
from pathlib import Path

from transformers import TrainingArguments

from umls_reranker.core.trainer_fields import RESERVED, TRAINER, TrainingStageArguments, trainer_fields

ROOT = Path(__file__).resolve().parents[2]
THEIRS = {field.name: field for field in fields(TrainingArguments)}
KEYS = {field.name: field for field in fields(TrainingStageArguments) if field.metadata.get("help")}
# Fields that are no keys and work under their names; of later releases each has to be looked at.
FURTHER = """
adam_beta1 adam_beta2 adam_epsilon dataloader_multiprocessing_context dataloader_persistent_workers
dataloader_pin_memory dataloader_prefetch_factor ddp_broadcast_buffers ddp_bucket_cap_mb
ddp_find_unused_parameters ddp_static_graph ddp_timeout debug disable_tqdm eval_accumulation_steps
full_determinism gradient_checkpointing_kwargs include_num_input_tokens_seen log_level log_level_replica
log_on_each_node logging_first_step logging_nan_inf_filter logging_steps logging_strategy
lr_scheduler_kwargs max_grad_norm neftune_noise_alpha optim optim_args optim_target_modules
per_device_eval_batch_size project skip_memory_metrics torch_compile torch_compile_backend
torch_compile_mode torch_empty_cache_steps trackio_bucket_id trackio_space_id trackio_static_space_id
"""
# Reserved fields that older releases do not have.
LATER = {"activation_checkpointing", "activation_checkpointing_kwargs"}
# Empty here, and set to what the class takes before it gets them.
FILLED = {"gradient_accumulation_steps", "bf16", "gradient_checkpointing"}


def test_every_field_is_offered_or_reserved_and_keys_of_our_own_are_none():
    of_trainer = {name for name, field in KEYS.items() if field.metadata["group"] == TRAINER}
    assert of_trainer == KEYS.keys() & THEIRS.keys()
    assert trainer_fields().keys() == of_trainer | {*FURTHER.split()}
    assert trainer_fields().keys() | RESERVED.keys() == THEIRS.keys() | LATER


def test_a_default_that_differs_says_so():
    ours = {name: KEYS[name] for name in KEYS.keys() & THEIRS.keys()}
    differing = {name for name in ours if ours[name].default != THEIRS[name].default not in (None, MISSING)}
    told = {name for name, field in ours.items() if "the library's default" in field.metadata["help"]}
    assert differing - told <= FILLED
    assert not {name for name in told if ours[name].default == THEIRS[name].default}


def test_help_and_recipes_load_no_transformers():
    code = (
        "import runpy, sys\nscript = sys.argv[1]\nsys.argv = [script, '--help']\n"
        "try:\n    runpy.run_path(script, run_name='__main__')\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'transformers', 'datasets', 'accelerate'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, ROOT / "scripts" / "train.py"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True).stdout
    assert shown.splitlines()[-1] == "[]"
    for words in ("--per_device_train_batch_size INT", "fields of transformers", "(default: 64)", "usage: "):
        assert words in shown
