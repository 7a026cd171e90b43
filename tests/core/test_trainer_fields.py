"""The static list of the Trainer's fields agrees with the class of the release that is installed."""

import subprocess
import sys
import types
import typing
from dataclasses import MISSING, fields
from pathlib import Path

from transformers import TrainingArguments

from umls_reranker.core.trainer_fields import OWN, RESERVED, TrainingStageArguments

ROOT = Path(__file__).resolve().parents[2]
THEIRS = {field.name: field for field in fields(TrainingArguments)}
OURS = {field.name: field for field in fields(TrainingStageArguments) if field.name not in OWN}
# Reserved fields that older releases do not have.
LATER = {"activation_checkpointing", "activation_checkpointing_kwargs"}
# Empty here, and set to what the class takes before it gets them.
FILLED = {"gradient_accumulation_steps", "bf16", "per_device_eval_batch_size", "logging_steps", "debug"}


def test_every_field_is_offered_or_reserved():
    assert set(OURS) | set(RESERVED) == set(THEIRS) | LATER
    assert not set(OURS) & set(RESERVED) and not set(OWN) & set(THEIRS)


def members(kind):
    """The plain types of a type hint: ``list[str] | None`` -> {list, NoneType}."""
    parts = typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)
    return {typing.get_origin(part) or part for part in parts}


def test_types_are_those_of_the_class():
    ours, theirs = typing.get_type_hints(TrainingStageArguments), typing.get_type_hints(TrainingArguments)
    for name in OURS:
        found = members(ours[name]) - ({type(None)} if name in FILLED else set())
        assert found <= members(theirs[name]), name


def test_a_default_that_differs_says_so():
    differing = {name for name in OURS if OURS[name].default != THEIRS[name].default not in (None, MISSING)}
    told = {name for name, field in OURS.items() if "the library's default" in field.metadata["help"]}
    assert differing - told <= FILLED | {"gradient_checkpointing"}
    assert not {name for name in told if OURS[name].default == THEIRS[name].default}


def test_help_and_recipes_load_no_transformers():
    code = (
        "import runpy, sys\nscript = sys.argv[1]\nsys.argv = [script, '--help']\n"
        "try:\n    runpy.run_path(script, run_name='__main__')\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'transformers', 'datasets', 'accelerate'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, ROOT / "scripts" / "train.py"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True).stdout
    assert shown.splitlines()[-1] == "[]"
    for words in ("--per_device_train_batch_size INT", "Schedule and optimizer", "(default: 64)", "usage: "):
        assert words in shown
