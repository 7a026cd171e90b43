"""A recipe as a YAML file: its values, typed, and its keys, of which unknown ones are refused."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from ..core.errors import UserError
from ..models.arguments import RUN_ENCODER
from ..training.trainer_keys import REFUSED, TRAINER_KEYS
from .recipe import KEYS, ONLY_OPTIONS, training_names
from .recipe_keys import TRUTH, Key, pick
from .shipped import shipped_recipes

# Words of YAML for no value; the key keeps its default.
EMPTY = ("", "null", "~")
# The null character, and halves of characters.
UNUSABLE = re.compile("[\0\ud800-\udfff]")
# A key that recipes had before `model` could name the run's encoder.
FORMER_KEY = "start_from_encoder"


class TextLoader(yaml.BaseLoader):
    """Reads text as it is written (2e-5, no), so that the field decides the type; a repeated key is
    an error.
    """

    def construct_scalar(self, node: yaml.ScalarNode) -> str:
        """A text; YAMLError: it has half of a character, or one that no name of a file may have."""
        text = str(super().construct_scalar(node))
        if UNUSABLE.search(text):
            raise yaml.YAMLError(f"{text!r} in line {node.start_mark.line + 1} is no text")
        return text

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping; YAMLError: it has a key twice."""
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            line = key.start_mark.line + 1
            if key.value in lines:
                raise yaml.YAMLError(
                    f"{key.value!r} is in line {lines[key.value]} and again in line {line}; "
                    "remove one of them"
                )
            lines[key.value] = line
        return super().construct_mapping(node, deep)


class MappingLoader(yaml.SafeLoader):
    """Reads mappings as YAML 1.1 types them, but 1e-6 is a number, as in YAML 1.2."""


MappingLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def read_recipe(path: Path, keys: Mapping[str, Key]) -> dict[str, Any]:
    """The values that a recipe sets, typed by the keys; those of training are text.

    Raises:
        UserError: a key is unknown or no key of recipes, or its value does not fit; names the key.
    """
    content = without_former_key(read_yaml(path), path)
    for name in ONLY_OPTIONS:
        if name in content:
            raise UserError(f"{path}: {name} is no key, but an option of commands: --{name}")
    require_known(content, keys, f"{path}: ", "")
    values = {}
    for name, value in content.items():
        # The class refuses it.
        is_nameless = name == "run_name" and value == ""
        try:
            if is_nameless or value not in EMPTY:
                values[name] = keys[name].read_yaml(value) if name in keys else value
        except argparse.ArgumentTypeError as error:
            raise UserError(f"{path}: {name}: {error}") from None
    return values


def without_former_key(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The content of a recipe with ``model: encoder`` in place of ``start_from_encoder: true``.

    Raises:
        UserError: the former key is neither true nor false, or is true where `model` is another
            model than `encoder`.
    """
    current = dict(content)
    word = str(current.pop(FORMER_KEY, ""))
    if word in EMPTY:
        return current
    if word.lower() not in TRUTH:
        raise UserError(f"{path}: {FORMER_KEY}: {word!r} is neither true nor false")
    if not TRUTH[word.lower()]:
        return current
    encoder = current.get("encoder") or KEYS["encoder"].default
    model = current.get("model") or encoder
    revision = current.pop("model_revision", "")
    is_same_revision = revision in (*EMPTY, current.get("encoder_revision"))
    if model != RUN_ENCODER and (model != encoder or not is_same_revision):
        named = " ".join(filter(None, (str(model), str(revision))))
        raise UserError(
            f"{path}: {FORMER_KEY} starts from encoder {encoder}, but model is {named}; remove "
            f"{FORMER_KEY}, and write model: {RUN_ENCODER} to start from the encoder"
        )
    return current | {"model": RUN_ENCODER}


def require_known(names: Iterable[str], keys: Collection[str], place: str, prefix: str) -> None:
    """Refuse what is neither one of the keys nor of the training section, or would do nothing.

    Args:
        names: the keys that a recipe or a command line sets.
        keys: the keys of all other sections.
        place: where they are set, for the message.
        prefix: what is before each of them there.
    """
    others = [name for name in names if name not in keys]
    for name in others:
        if name in REFUSED:
            raise UserError(f"{place}{prefix}{name} cannot be set: {REFUSED[name]}")
        if name == FORMER_KEY:
            raise UserError(f"{place}{prefix + name} is gone; write {prefix}model {RUN_ENCODER}")
    undeclared = [name for name in others if name not in TRAINER_KEYS]
    # Only here, because transformers takes seconds to import.
    keys_of_training = sorted(training_names() - REFUSED.keys()) if undeclared else []
    for name in undeclared:
        if name not in keys_of_training:
            near = difflib.get_close_matches(name, [*keys, *keys_of_training], n=1, cutoff=0.5)
            advice = f"; did you mean {near[0]!r}?" if near else ""
            raise UserError(f"{place}unknown key {prefix + name!r}{advice}")


def read_yaml(path: Path) -> dict[str, Any]:
    """The content of a recipe: text and lists as they are written, mappings as YAML types them.

    Raises:
        UserError: there is no such file, or it is no YAML of keys and values.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.load(text, Loader=TextLoader) or {}
        if not isinstance(content, dict):
            raise UserError(f"recipe {path} must consist of `key: value` lines")
        mappings = [name for name, value in content.items() if isinstance(value, dict)]
        if not mappings:
            return content
        return content | pick(yaml.load(text, Loader=MappingLoader), mappings)
    except FileNotFoundError:
        raise UserError(
            f"recipe {path} does not exist; in the package: {', '.join(shipped_recipes())}"
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"recipe {path} is not valid YAML: {error}") from None
