"""Recipes: one flat YAML file is one run.

The command line overrides it, and unknown keys are refused by name.
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
import types
import typing
from collections import ChainMap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from ..calibration.arguments import CalibrationArguments
from ..calibration.calibrators import AUTO, CALIBRATORS
from ..calibration.features import FEATURES
from ..core.errors import UserError
from ..corpora.arguments import ConceptArguments, MentionArguments
from ..evaluation.arguments import EvaluationArguments
from ..hub.arguments import PublishArguments
from ..models.arguments import ModelArguments
from ..retrieval.arguments import IndexArguments, MiningArguments
from ..retrieval.retrievers import RETRIEVERS
from ..serving.arguments import ServingArguments
from ..training.arguments import EncoderArguments, RunArguments
from .command import DICTIONARY_HELP, LISTS_HELP, CommandParser, number_in
from .shipped import find_recipe, is_recipe, shipped_recipes

EPILOG = """\
Every key of a recipe can be set with --key value, those of other commands and all fields of
transformers.TrainingArguments included; the command line overrides the recipe.
"""
# What a key that is true or false may say.
TRUE = ("true", "yes", "t", "y", "1")
FALSE = ("false", "no", "f", "n", "0")
# Of fields of the trainer, which keep its own defaults.
UNSET: Any = object()
# In YAML; an empty key keeps its default.
EMPTY = ("", "null", "~")


@dataclass
class Recipe:
    """All sections of one recipe, typed.

    `training` holds the fields of `RerankerTrainingArguments` that the recipe sets. Only what
    trains makes the arguments of them, because the class takes seconds to import.
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
    publish: PublishArguments
    serving: ServingArguments
    training: dict[str, Any]

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Recipe:
        """Build the sections from flat, typed values; missing keys get defaults.

        Keys of no other section are training's.
        """
        training = {name: value for name, value in values.items() if name not in KEYS}
        sections = {
            name: section(**pick(values, keys_of(section))) for name, section in SECTIONS.items()
        }
        return cls(**sections, training=training)

    def to_dict(self) -> dict[str, Any]:
        """The flat form, as a YAML file would hold it."""
        return {name: value for section in asdict(self).values() for name, value in section.items()}

    def to_yaml(self) -> str:
        """The flat form as YAML, sections in order."""
        sections = [values for values in asdict(self).values() if values]
        return "\n".join(
            yaml.safe_dump(values, sort_keys=False, allow_unicode=True) for values in sections
        )


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
            return truth(word)
        if self.kind in (int, float):
            return number_in(self.kind, *self.limits)(word)
        if self.choices is not None and word not in self.choices:
            raise argparse.ArgumentTypeError(
                f"{word!r} is unknown; choose from {', '.join(self.choices)}"
            )
        return word

    def read_yaml(self, value: Any) -> Any:
        """Read a recipe's value, whose scalars are text; ArgumentTypeError says what is wrong."""
        if isinstance(value, dict) or (isinstance(value, list) and not self.is_list):
            raise argparse.ArgumentTypeError(f"takes a single value, not {value}")
        if self.is_list:
            return [self.read(item) for item in (value if isinstance(value, list) else [value])]
        return self.read(value)


def keys_of(section: type) -> dict[str, Key]:
    """Name -> key of a section."""
    hints = typing.get_type_hints(section)
    keys = {}
    for entry in fields(section):
        kind = hints[entry.name]
        if isinstance(kind, types.UnionType):
            # X | None
            kind = typing.get_args(kind)[0]
        is_list = typing.get_origin(kind) is list
        keys[entry.name] = Key(
            name=entry.name,
            kind=str if is_list else kind,
            is_list=is_list,
            default=entry.default if entry.default_factory is MISSING else entry.default_factory(),
            help=entry.metadata.get("help", ""),
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


def recipe_parser(
    description: str,
    sections: Collection[type] = (),
    extra: type | None = None,
    notes: Mapping[str, str] = MappingProxyType({}),
    trains: bool = False,
) -> CommandParser:
    """The command line of a script that takes a recipe: every key is an option.

    Args:
        description: what the script does.
        sections: the sections that ``--help`` explains.
        extra: a dataclass of the script's own options, which are not recipe keys.
        notes: key -> text that completes its help.
        trains: whether the fields of `RerankerTrainingArguments` with defaults of our own are
            options too, and explained; its import takes seconds.
    """
    parser = CommandParser(description, usage="%(prog)s RECIPE [--KEY VALUE ...]", epilog=EPILOG)
    parser.add_argument(
        "recipe", help="file or folder of a recipe, or name of one in the package; also as --config"
    )
    notes = {"features": explained(FEATURES), **notes}
    if extra is not None:
        add_options(parser, title_of(extra), keys_of(extra).values(), notes)
    for section in SECTIONS.values():
        add_options(
            parser,
            title_of(section),
            keys_of(section).values(),
            notes if section in sections else None,
        )
    if trains:
        add_options(parser, "Training", training_keys().values(), notes)
        parser.set_defaults(**dict.fromkeys(training_keys(), UNSET))
    return parser


def training_keys() -> dict[str, Key]:
    """The fields of `RerankerTrainingArguments` with defaults of our own."""
    from ..training.training_arguments import OWN_FIELDS, RerankerTrainingArguments

    return pick(keys_of(RerankerTrainingArguments), OWN_FIELDS)


def title_of(section: type) -> str:
    """The heading of a section in ``--help``."""
    return (section.__doc__ or "").rstrip(".")


def add_options(
    parser: CommandParser,
    title: str,
    keys: Iterable[Key],
    notes: Mapping[str, str] | None = MappingProxyType({}),
) -> None:
    """Add an option for each key.

    Args:
        parser: the command line.
        title: heading of the options in ``--help``.
        keys: the keys.
        notes: texts that complete the help of keys; None: ``--help`` leaves them out.
    """
    group = parser.add_argument_group(title)
    for key in keys:
        options: dict[str, Any] = {
            "type": key.read,
            "default": key.default,
            "help": argparse.SUPPRESS,
        }
        if key.is_list:
            options["nargs"] = "*"
        elif key.kind is bool:
            options |= {"nargs": "?", "const": True}
        if notes is not None:
            texts = [key.help, notes.get(key.name), explained(key.choices)]
            ending = "" if key.default in (None, []) else f" (default: {key.default})"
            options["help"] = ("; ".join(text for text in texts if text) + ending).replace(
                "%", "%%"
            )
        group.add_argument(f"--{key.name}", **options)


def truth(word: str) -> bool:
    """Whether a word means true; ArgumentTypeError: it means neither true nor false."""
    if word.lower() not in TRUE + FALSE:
        raise argparse.ArgumentTypeError(f"{word!r} is neither true nor false")
    return word.lower() in TRUE


def explained(choices: Iterable[Any] | None) -> str:
    """Choices as text, each with its help if it has one."""
    if isinstance(choices, Mapping):
        return "; ".join(f"{name}: {entry.help}" for name, entry in choices.items())
    return f"one of {', '.join(map(str, choices))}" if choices else ""


def parse_recipe(
    description: str,
    sections: Collection[type],
    argv: Sequence[str] | None = None,
    extra: type | None = None,
    or_model: str | None = None,
    notes: Mapping[str, str] = MappingProxyType({}),
    trains: bool = False,
) -> Any:
    """Parse ``RECIPE [--key value ...]`` into a `Recipe`.

    Args:
        description: what the script does, the first paragraph of ``--help``.
        sections: the sections that ``--help`` explains; every other key is accepted too.
        argv: the command line; None: that of the process.
        extra: as for `recipe_parser`.
        or_model: key of a section or of `extra` for a model that may be named in place of a recipe,
            which then has all defaults. None: a recipe is required.
        notes: as for `recipe_parser`.
        trains: whether ``--help`` explains the training section.

    Returns:
        `Recipe`, or ``(Recipe, extra instance)`` when `extra` is given.

    Raises:
        UserError: the recipe cannot be read, or has an unknown key, a value of the wrong type, or a
            feature that does not exist and that candidate lists cannot bring.
    """
    words = recipe_first(sys.argv[1:] if argv is None else argv)
    parser = recipe_parser(description, sections, extra, notes, trains)
    options, further_words = parser.parse_known_args(words)
    name = options.recipe
    content = {or_model: name} if or_model and not is_recipe(name) else read_yaml(find_recipe(name))
    keys = KEYS | (keys_of(extra) if extra else {}) | (training_keys() if trains else {})
    further = {key: value for key, value in content.items() if key not in keys}
    if not trains and (further or further_words):
        # They may be fields of the trainer.
        return parse_recipe(description, sections, argv, extra, or_model, notes, trains=True)
    try:
        for key, value in content.items():
            if key in keys and value not in EMPTY:
                parser.set_defaults(**{key: keys[key].read_yaml(value)})
    except argparse.ArgumentTypeError as error:
        raise UserError(f"{find_recipe(name)}: {key}: {error}") from None
    options, further_words = parser.parse_known_args(words)
    values = {key: value for key, value in pick(vars(options), keys).items() if value is not UNSET}
    if trains:
        values |= read_training(further, further_words, find_recipe(name), keys)
    extra_values = {key: values.pop(key) for key in (keys_of(extra) if extra else ())}
    recipe = Recipe.from_values(values)
    new_features = [name for name in recipe.calibration.features or () if name not in FEATURES]
    # Scores of user-provided lists are features too, whatever they are called; a model folder's
    # recipe may name them.
    if sections and new_features and not recipe.mentions.candidate_lists:
        raise UserError(
            f"features: {new_features[0]!r} is unknown; choose from {', '.join(FEATURES)}"
        )
    return (recipe, extra(**extra_values)) if extra else recipe


def recipe_first(argv: Iterable[str]) -> list[str]:
    """The command line with ``--config RECIPE``, which other trainers have, as first argument."""
    words = [
        part
        for word in argv
        for part in (word.split("=", 1) if word.startswith("--config=") else [word])
    ]
    if "--config" not in words:
        return words
    position = words.index("--config")
    return [*words[position + 1 : position + 2], *words[:position], *words[position + 2 :]]


def read_training(
    content: Mapping[str, Any], words: Iterable[str], recipe: Path, keys: Iterable[str]
) -> dict[str, Any]:
    """The fields of ``transformers.TrainingArguments`` that a recipe and the command line set.

    Args:
        content: what the recipe says, besides its other keys.
        words: what the command line says, besides its other options.
        recipe: file of the recipe, for errors.
        keys: names of the other keys and options, which an unknown one may mean.

    Raises:
        UserError: no such field or key exists, or a value does not fit.
    """
    from transformers import HfArgumentParser, TrainingArguments

    parser = HfArgumentParser(
        TrainingArguments,  # type: ignore[arg-type]
        allow_abbrev=False,
        add_help=False,
        exit_on_error=False,
    )
    names = [entry.name for entry in fields(TrainingArguments) if entry.init]
    parser.set_defaults(**dict.fromkeys(names, UNSET))
    try:
        options, unknown = parser.parse_known_args([*words_of(content), *words])
    except argparse.ArgumentError as error:
        raise UserError(f"{recipe}: {error}") from None
    for word in unknown:
        key = word.removeprefix("--").partition("=")[0]
        near = difflib.get_close_matches(key, [*keys, *names], n=1, cutoff=0.5)
        advice = f"; did you mean {near[0]!r}?" if near else ""
        if key in content:
            raise UserError(f"{recipe}: unknown key {key!r}{advice}")
        raise UserError(f"unknown key {word!r}{advice}")
    return {name: value for name, value in vars(options).items() if value is not UNSET}


def words_of(content: Mapping[str, Any]) -> Iterator[str]:
    """The command line that says what a recipe says; empty keys keep their defaults."""
    for name, value in content.items():
        if isinstance(value, list):
            yield f"--{name}"
            yield from map(str, value)
        elif value not in EMPTY:
            yield f"--{name}={json.dumps(value) if isinstance(value, dict) else value}"


def load_served(model: str) -> Recipe:
    """The recipe that names a served model, or the defaults with `model` as the one.

    Raises:
        UserError: the recipe cannot be read, or names no model.
    """
    recipe = load_recipe(model, or_model="served_model")
    if not recipe.serving.served_model:
        raise UserError(
            f"{model} names no served_model; set it, or give a model instead of the recipe"
        )
    return recipe


def load_recipe(path: str | Path, or_model: str | None = None) -> Recipe:
    """Read a recipe from YAML, with defaults for missing keys; otherwise as `parse_recipe`."""
    return parse_recipe("", (), [str(path)], or_model=or_model)


def lists_parser(description: str, names: Collection[str], **model_options: Any) -> CommandParser:
    """The command line of the form of a script that works on labelled lists, without a recipe.

    Args:
        description: as for `recipe_parser`.
        names: recipe keys that are options, besides device, seed and dry_run.
        model_options: options of the argument ``model``.
    """
    parser = CommandParser(description, usage="%(prog)s --output FOLDER [--OPTION VALUE ...]")
    # Errors refer to the help of this form.
    parser.prog += f" {'[MODEL]' if 'nargs' in model_options else 'MODEL'} --lists FILE"
    parser.add_argument("model", metavar="MODEL", **model_options)
    parser.add_argument("--lists", type=Path, required=True, help=LISTS_HELP)
    parser.add_argument(
        "--output", type=Path, required=True, help="folder to write; must not exist"
    )
    parser.add_argument("--dictionary", type=Path, help=DICTIONARY_HELP)
    parser.add_argument("--revision", help="tag, branch or commit on the Hub")
    parser.add_argument("--dtype", help="auto, float32, bfloat16 or float16 (default: auto)")
    add_options(
        parser,
        "Keys of recipes",
        [key for key in KEYS.values() if key.name in {"device", "seed", "dry_run", *names}],
    )
    return parser


def is_on_lists() -> bool:
    """Whether the command line is that of `lists_parser`."""
    return any(word.split("=")[0] in ("--lists", "--output") for word in sys.argv[1:])


def read_yaml(path: Path) -> dict[str, Any]:
    """The content of a recipe as it is written (2e-5, no), so that the field decides the type."""
    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.load(text, Loader=yaml.BaseLoader) or {}
        if not isinstance(content, dict):
            raise UserError(f"recipe {path} must consist of `key: value` lines")
        mappings = [name for name, value in content.items() if isinstance(value, dict)]
        return content | pick(yaml.safe_load(text) if mappings else {}, mappings)
    except FileNotFoundError:
        names = ", ".join(shipped_recipes())
        raise UserError(f"recipe {path} does not exist; recipes in the package: {names}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"recipe {path} is not valid YAML: {error}") from None
