"""Each field of transformers.TrainingArguments is refused in a recipe, or has its effect."""

import importlib.util
import re
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from loss_on_processes import make_pairs, make_trainer
from tiny_models import tiny_cross_encoder
from transformers import TrainingArguments

from umls_reranker.core.errors import UserError
from umls_reranker.core.keys import RunArguments
from umls_reranker.pipeline.options import load_recipe, parse_recipe
from umls_reranker.pipeline.recipe import KEYS
from umls_reranker.training.recipe_arguments import training_arguments
from umls_reranker.training.trainer_keys import REFUSED
from umls_reranker.training.training_arguments import OWN_FIELDS, RerankerTrainingArguments

DOCS = Path(__file__).resolve().parents[2] / "docs"
# Modules that read fields.
TRAINER = "transformers.trainer"
OPTIMIZER = "transformers.trainer_optimizer"
CALLBACKS = "transformers.trainer_callback"
ARGUMENTS = "transformers.training_args"
LOGGERS = "transformers.integrations.integration_utils"
OWN_TRAINER = "umls_reranker.training.trainer"
PACKED = "umls_reranker.training.packed_training"
LOADERS = "umls_reranker.training.loaders"
BY_RECIPE = "umls_reranker.training.recipe_arguments"
FINE_TUNING = "umls_reranker.training.fine_tuning"
OWN_ARGUMENTS = "umls_reranker.training.training_arguments"
STAGE = "umls_reranker.pipeline.training"
# Field -> who reads it when a recipe is trained. A field of a new version of transformers belongs
# here, if what reads it is not overridden by RerankerTrainer, or in REFUSED.
READERS = {
    # Steps and the optimizer
    "num_train_epochs": TRAINER,
    "max_steps": TRAINER,
    "learning_rate": TRAINER,
    "lr_scheduler_type": TRAINER,
    "lr_scheduler_kwargs": TRAINER,
    "warmup_steps": OPTIMIZER,
    "optim": OPTIMIZER,
    "optim_args": TRAINER,
    "optim_target_modules": OPTIMIZER,
    "weight_decay": OPTIMIZER,
    "adam_beta1": OPTIMIZER,
    "adam_beta2": OPTIMIZER,
    "adam_epsilon": TRAINER,
    "max_grad_norm": TRAINER,
    "neftune_noise_alpha": PACKED,
    # Batches and data loading
    "per_device_train_batch_size": OWN_ARGUMENTS,
    "per_device_eval_batch_size": ARGUMENTS,
    "data_seed": OWN_TRAINER,
    "dataloader_num_workers": LOADERS,
    "dataloader_pin_memory": OWN_TRAINER,
    "dataloader_persistent_workers": LOADERS,
    "dataloader_prefetch_factor": LOADERS,
    "dataloader_multiprocessing_context": LOADERS,
    "dataloader_in_order": LOADERS,
    # Precision, memory and speed
    "bf16": OWN_ARGUMENTS,
    "fp16": OWN_ARGUMENTS,
    "tf32": ARGUMENTS,
    "activation_checkpointing": TRAINER,
    "activation_checkpointing_kwargs": TRAINER,
    "gradient_checkpointing": PACKED,
    "gradient_checkpointing_kwargs": ARGUMENTS,
    "torch_compile": PACKED,
    "torch_compile_backend": TRAINER,
    "torch_compile_mode": TRAINER,
    "torch_empty_cache_steps": TRAINER,
    # Evaluations and checkpoints
    "eval_steps": BY_RECIPE,
    "eval_delay": CALLBACKS,
    "eval_on_start": FINE_TUNING,
    "eval_use_gather_object": TRAINER,
    "eval_accumulation_steps": TRAINER,
    "metric_for_best_model": TRAINER,
    "save_total_limit": TRAINER,
    "save_on_each_node": ARGUMENTS,
    "enable_jit_checkpoint": TRAINER,
    "ignore_data_skip": TRAINER,
    "full_determinism": TRAINER,
    # Logs
    "logging_strategy": CALLBACKS,
    "logging_steps": BY_RECIPE,
    "logging_first_step": CALLBACKS,
    "log_on_each_node": ARGUMENTS,
    "logging_nan_inf_filter": TRAINER,
    "include_num_input_tokens_seen": TRAINER,
    "log_level": ARGUMENTS,
    "log_level_replica": ARGUMENTS,
    "disable_tqdm": TRAINER,
    "report_to": TRAINER,
    "project": LOGGERS,
    "trackio_space_id": LOGGERS,
    "trackio_bucket_id": LOGGERS,
    "trackio_static_space_id": LOGGERS,
    # Of the Space of trackio.
    "hub_private_repo": LOGGERS,
    "debug": PACKED,
    "skip_memory_metrics": TRAINER,
    # Processes
    "ddp_find_unused_parameters": TRAINER,
    "ddp_bucket_cap_mb": TRAINER,
    "ddp_broadcast_buffers": TRAINER,
    "ddp_static_graph": TRAINER,
    "ddp_timeout": STAGE,
}
# They are read under a name in quotes.
NAMED_IN_QUOTES = {"gradient_checkpointing_kwargs", "ddp_timeout"}
# Keys of a recipe's section `run`.
OF_THE_RUN = {"output_dir", "run_name", "seed"}
RUN = RunArguments(run_name="mine", seed=5, device="cpu")


def source_of(module):
    return Path(importlib.util.find_spec(module).origin).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_cross_encoder(tmp_path_factory.mktemp("keys") / "model", spread=0.1))


@pytest.fixture
def trainer(model, tmp_path):
    def make(**options):
        return make_trainer(model, str(tmp_path), make_pairs(model, 30), **options)

    return make


# Every field


@pytest.mark.parametrize("name", [entry.name for entry in fields(TrainingArguments) if entry.init])
def test_each_field_is_refused_or_has_a_reader(name):
    assert (name in REFUSED) + (name in READERS) + (name in OF_THE_RUN) == 1
    if name in READERS:
        pattern = rf'["\']{name}["\']' if name in NAMED_IN_QUOTES else rf"\w\.{name}\b"
        assert re.search(pattern, source_of(READERS[name]))


def test_keys_of_the_run_become_arguments(tmp_path):
    assert KEYS.keys() > OF_THE_RUN
    arguments = training_arguments(RUN, {}, tmp_path)
    assert (arguments.output_dir, arguments.run_name, arguments.seed) == (str(tmp_path), "mine", 5)


# Refused fields


@pytest.mark.parametrize("name", REFUSED)
def test_a_recipe_and_a_command_line_refuse_what_would_have_no_effect(tmp_path, name):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("seed: 1\n")
    with pytest.raises(UserError, match=f"--{name}"):
        parse_recipe("", ("run",), argv=[str(recipe), f"--{name.replace('_', '-')}", "1"])
    recipe.write_text(f"{name}: 1\n")
    with pytest.raises(UserError, match=rf"recipe\.yaml: {name}"):
        load_recipe(recipe)


@pytest.mark.parametrize("key", ["batch_size", "gradient_accumulation_steps"])
def test_keys_for_the_memory_name_the_one_to_lower_and_the_one_that_stays(tmp_path, key):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("seed: 1\n")
    with pytest.raises(UserError) as on_command_line:
        parse_recipe("", ("train",), argv=[str(recipe), f"--{key}", "16"])
    recipe.write_text(f"{key}: 16\n")
    with pytest.raises(UserError) as in_recipe:
        load_recipe(recipe)
    for raised in (on_command_line, in_recipe):
        words = re.findall(r"\w+", str(raised.value))
        assert words.index(key) < words.index("per_device_train_batch_size")
        assert "global_batch_size" in words


def test_the_guide_names_what_is_refused_and_keys_in_its_place():
    guide = (DOCS / "training.md").read_text(encoding="utf-8")
    assert [name for name in REFUSED if f"`{name}`" not in guide] == []
    known = KEYS.keys() | READERS.keys() | set(OWN_FIELDS)
    words = {word for advice in REFUSED.values() for word in re.findall(r"\b[a-z]+_\w+", advice)}
    assert words <= known


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gradient_accumulation_steps", 4),
        ("auto_find_batch_size", True),
        ("eval_strategy", "no"),
        ("save_strategy", "no"),
        ("save_steps", 7),
        ("load_best_model_at_end", False),
        ("greater_is_better", False),
        ("restore_callback_states_from_checkpoint", False),
    ],
)
def test_arguments_made_in_python_do_not_change_what_was_said(name, value):
    with pytest.raises(UserError, match=name):
        RerankerTrainingArguments(use_cpu=True, **{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("auto_find_batch_size", True),
        ("label_smoothing_factor", 0.1),
        ("dataloader_drop_last", True),
        ("train_sampling_strategy", "group_by_length"),
        ("average_tokens_across_devices", False),
    ],
)
def test_the_trainer_refuses_what_it_does_not_read(trainer, name, value):
    with pytest.raises(ValueError, match=name):
        trainer(**{name: value})


# Effects of what RerankerTrainer reads in its own way


def losses(trainer):
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_noise_on_embeddings_changes_the_loss(trainer):
    plain, noisy = [
        losses(trainer(max_steps=1, neftune_noise_alpha=alpha)) for alpha in (None, 50.0)
    ]
    assert noisy != pytest.approx(plain, abs=1e-6)


def test_a_watch_on_overflow_stops_the_training(trainer):
    watched = trainer(max_steps=1, debug="underflow_overflow")
    next(watched.model.parameters()).data.fill_(torch.nan)
    with pytest.raises(ValueError, match="inf/nan"):
        watched.train()


def test_the_order_of_pairs_has_a_seed_of_its_own(trainer):
    orders = []
    for seeds in ({"seed": 1}, {"seed": 1, "data_seed": 2}, {"seed": 2}):
        batches = trainer(per_device_train_batch_size=6, **seeds).get_train_dataloader()
        orders.append([row for batch in batches for row in batch["row"].tolist()])
    assert orders[0] != orders[1] == orders[2]


def test_the_loader_is_made_as_it_was_asked_for(trainer):
    options = {
        "num_workers": 1,
        "persistent_workers": True,
        "prefetch_factor": 3,
        "in_order": False,
    }
    loader = trainer(**{f"dataloader_{key}": value for key, value in options.items()})
    made = loader.get_train_dataloader()
    assert {name: getattr(made, name) for name in options} == options
