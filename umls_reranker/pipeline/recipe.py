"""Recipes: one flat YAML file is one run.

Unknown keys are refused by name.
"""

from __future__ import annotations

import argparse
import difflib
import json
import types
import typing
from collections import ChainMap
from collections.abc import Collection, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import yaml

from ..calibration.arguments import CalibrationArguments
from ..calibration.calibrators import AUTO, CALIBRATORS, not_for_lists
from ..core.errors import UserError
from ..core.keys import RunArguments, recipe_key
from ..corpora.arguments import ConceptArguments, MentionArguments
from ..models.arguments import RUN_ENCODER, ModelArguments
from ..retrieval.arguments import EncoderArguments, IndexArguments, MiningArguments
from ..retrieval.retrievers import RETRIEVERS
from ..serving.arguments import ServingArguments
from ..training.trainer_keys import REFUSED, TRAINER_KEYS
from .command import number_in
from .shipped import shipped_recipes

# What a key that is true or false may say.
TRUTH = dict.fromkeys(("true", "yes", "t", "y", "1"), True) | dict.fromkeys(
    ("false", "no", "f", "n", "0"), False
)
# In YAML; an empty key keeps its default.
EMPTY = ("", "null", "~")
# Of every command that makes something; no recipe says them.
ONLY_OPTIONS = ("overwrite", "dry_run")
# A key that recipes had before `model` could name the run's encoder.
FORMER_KEY = "start_from_encoder"
DUMP_OPTIONS: dict[str, Any] = {"sort_keys": False, "allow_unicode": True}


@dataclass
class EvaluationArguments:
    """Evaluation: the targets that the report on the test split is checked against."""

    targets: list[str] = recipe_key(
        [],
        'metrics that umls-reranker validate checks, e.g. "acc@1 >= 0.75"; '
        "a missed target fails the run",
    )


@dataclass
class Recipe:
    """All sections of one recipe, typed.

    `training` holds what the recipe says of the fields of `RerankerTrainingArguments`, as text.
    Only what trains gives them types (`typed_training`): the class takes seconds to import.
    """

    run: RunArguments
    concepts: ConceptArguments
    mentions: MentionArguments
    encoder: EncoderArguments
    index: IndexArguments
    mining: MiningArguments
    model: ModelArguments
    calibration: CalibrationArguments
    evaluation: EvaluationArguments
    serving: ServingArguments
    training: dict[str, str | list[str]]

    def __post_init__(self) -> None:
        revision = self.model.model_revision
        if self.model.model == RUN_ENCODER and revision not in (None, self.index.encoder_revision):
            raise UserError(
                f"model_revision: model is {RUN_ENCODER}, whose revision is encoder_revision; "
                'leave model_revision out (--model_revision "")'
            )
        # Here, because it would show only after the training.
        method = CALIBRATORS.get(self.calibration.calibrator)
        weighs_features = self.calibration.features != []
        if method is not None and weighs_features and not method.fits_lists:
            raise not_for_lists(method.name)

    @property
    def base(self) -> tuple[str, str | None]:
        """The model that the cross-encoder starts from, before any training, and its revision."""
        if self.model.model == RUN_ENCODER:
            return self.index.encoder, self.index.encoder_revision
        return self.model.model, self.model.model_revision

    @property
    def starts_from_trained_encoder(self) -> bool:
        """Whether the cross-encoder starts from an encoder that the run fine-tunes."""
        return self.model.model == RUN_ENCODER and self.encoder.encoder_training_steps > 0

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Recipe:
        """Build the sections from flat, typed values; missing keys get defaults.

        Keys of no other section are training's, typed or as text.
        """
        rest = {name: value for name, value in values.items() if value is not None}
        training = {name: as_text(value) for name, value in rest.items() if name not in KEYS}
        sections = {
            name: section(**pick(values, keys_of(section))) for name, section in SECTIONS.items()
        }
        return cls(**sections, training=training)

    def to_dict(self) -> dict[str, Any]:
        """The flat form, as a YAML file would hold it."""
        return dict(chain.from_iterable(values.items() for values in self._sections()))

    def to_yaml(self) -> str:
        """The flat form as YAML, sections in order."""
        *sections, training = self._sections()
        texts = [yaml.safe_dump(values, **DUMP_OPTIONS) for values in sections]
        if training:
            texts.append(yaml.dump(training, Dumper=TextDumper, **DUMP_OPTIONS))
        return "\n".join(texts)

    def _sections(self) -> list[dict[str, Any]]:
        """The keys of each section, that of training last."""
        sections = []
        for name, section in SECTIONS.items():
            names = [key for key in keys_of(section) if key not in ONLY_OPTIONS]
            sections.append(pick(vars(getattr(self, name)), names))
        return [*sections, self.training]


class TextLoader(yaml.BaseLoader):
    """Reads text as it is written (2e-5, no), so that the field decides the type; a repeated key is
    an error.
    """

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


class TextDumper(yaml.SafeDumper):
    """Writes text without quotes, such as 2e-5 and no, because that is how it is read."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[Any]]] = {}


def as_text(value: Any) -> str | list[str]:
    """A value of the training section as a recipe says it."""
    if isinstance(value, list):
        return [str(as_text(item)) for item in value]
    return value if isinstance(value, str) else json.dumps(value)


@dataclass(frozen=True)
class Key:
    """A key of a recipe, or an option of a command: a field of a section.

    Attributes:
        name: its name.
        kind: type of its value, or of the items of a list.
        is_list: whether it takes a list.
        default: its value where nothing is said.
        help: its text in ``--help``.
        choices: the values that it may have; None: any.
        limits: lowest and highest value of a number; empty: any.
    """

    name: str
    kind: type
    is_list: bool
    default: Any
    help: str
    choices: Collection[str] | None
    limits: tuple[float, ...]

    def read(self, word: str) -> Any:
        """Read a value, or an item of a list, from a word; ArgumentTypeError says what is wrong."""
        if self.kind is bool:
            if word.lower() not in TRUTH:
                raise argparse.ArgumentTypeError(f"{word!r} is neither true nor false")
            return TRUTH[word.lower()]
        if self.kind in (int, float):
            return number_in(self.kind, *self.limits)(word)
        if self.choices is not None and word not in self.choices:
            raise argparse.ArgumentTypeError(
                f"{word!r} is unknown; choose from {', '.join(self.choices)}"
            )
        # Of a key without a default, as of a base that has no revision: ``--model_revision ""``.
        return None if not word and self.default is None else word

    def read_yaml(self, value: Any) -> Any:
        """Read a recipe's value, whose scalars are text; ArgumentTypeError says what is wrong."""
        if isinstance(value, dict) or (isinstance(value, list) and not self.is_list):
            raise argparse.ArgumentTypeError(f"takes a single value, not {value}")
        if self.is_list:
            items = value if isinstance(value, list) else [value]
            return [self.read(item) for item in items]
        return self.read(value)


def keys_of(section: type) -> dict[str, Key]:
    """Name -> key of a section."""
    hints = typing.get_type_hints(section)
    keys = {}
    for entry in fields(section):
        if "help" not in entry.metadata:
            continue
        kind = hints[entry.name]
        if isinstance(kind, types.UnionType):
            # X | None
            kind = typing.get_args(kind)[0]
        is_list = typing.get_origin(kind) is list
        if is_list:
            # All lists are of text.
            kind = str
        default = entry.default
        if entry.default_factory is not MISSING:
            default = entry.default_factory()
        keys[entry.name] = Key(
            name=entry.name,
            kind=kind,
            is_list=is_list,
            default=default,
            help=entry.metadata["help"],
            choices=REGISTRIES.get(entry.name, entry.metadata.get("choices")),
            limits=entry.metadata.get("range", ()),
        )
    return keys


def pick(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Those of the values that have one of the names."""
    return {name: values[name] for name in names if name in values}


# Choices that extension points add to.
REGISTRIES: dict[str, Mapping[str, Any]] = {
    "calibrator": ChainMap({"auto": AUTO}, CALIBRATORS),  # type: ignore[dict-item]
    "retrievers": RETRIEVERS,
}
# Name -> section, of all but that of training.
SECTIONS: dict[str, type] = typing.get_type_hints(Recipe)
del SECTIONS["training"]
KEYS = {name: key for section in SECTIONS.values() for name, key in keys_of(section).items()}


def training_keys() -> dict[str, Key]:
    """The fields of `RerankerTrainingArguments` with defaults of our own."""
    from ..training.training_arguments import OWN_FIELDS, RerankerTrainingArguments

    return pick(keys_of(RerankerTrainingArguments), OWN_FIELDS)


def read_recipe(path: Path, keys: Mapping[str, Key]) -> dict[str, Any]:
    """The values that a recipe sets, typed by the keys; those of training are text."""
    content = without_former_key(read_yaml(path), path)
    for name in ONLY_OPTIONS:
        if name in content:
            raise UserError(f"{path}: {name} is no key, but an option of commands: --{name}")
    require_known(content, keys, f"{path}: ", "")
    values = {}
    for name, value in content.items():
        try:
            if value not in EMPTY:
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
    known = sorted(training_names() - REFUSED.keys()) if undeclared else []
    for name in undeclared:
        if name not in known:
            near = difflib.get_close_matches(name, [*keys, *known], n=1, cutoff=0.5)
            advice = f"; did you mean {near[0]!r}?" if near else ""
            raise UserError(f"{place}unknown key {prefix + name!r}{advice}")


def training_names() -> frozenset[str]:
    """Names of the training keys of the installed transformers, whose import takes seconds."""
    from ..training.training_arguments import RerankerTrainingArguments

    return frozenset(entry.name for entry in fields(RerankerTrainingArguments) if entry.init)


def typed_training(training: Mapping[str, str | list[str]]) -> dict[str, Any]:
    """The fields of `RerankerTrainingArguments` that a recipe sets, for what trains.

    Raises:
        UserError: a value does not fit; names its key.
    """
    from transformers import HfArgumentParser, TrainingArguments

    own = training_keys()
    library = HfArgumentParser(
        TrainingArguments,  # type: ignore[arg-type]
        allow_abbrev=False,
        add_help=False,
        exit_on_error=False,
    )
    values: dict[str, Any] = {}
    for name, text in training.items():
        try:
            if name in own:
                values[name] = own[name].read_yaml(text)
                continue
            words = [f"--{name}", *text] if isinstance(text, list) else [f"--{name}={text}"]
            typed, rest = library.parse_known_args(words)
        except (argparse.ArgumentError, argparse.ArgumentTypeError) as error:
            raise UserError(f"{name}: {error}") from None
        if rest:
            raise UserError(f"{name}: takes a single value, not {text}")
        values[name] = getattr(typed, name)
    return values


def read_yaml(path: Path) -> dict[str, Any]:
    """The content of a recipe as it is written, but for mappings, which have no fields."""
    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.load(text, Loader=TextLoader) or {}
        if not isinstance(content, dict):
            raise UserError(f"recipe {path} must consist of `key: value` lines")
        mappings = [name for name, value in content.items() if isinstance(value, dict)]
        if not mappings:
            return content
        return content | pick(yaml.safe_load(text), mappings)
    except FileNotFoundError:
        raise UserError(
            f"recipe {path} does not exist; in the package: {', '.join(shipped_recipes())}"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"recipe {path} is not valid YAML: {error}") from None
