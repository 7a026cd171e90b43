"""Recipes: one flat YAML file is one run. The command line overrides it, and unknown keys are refused by name."""

from __future__ import annotations

import argparse
import difflib
import json
import re
import sys
import types
import typing
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, fields
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import MappingProxyType
from typing import Any

import yaml

from .files import find_recipe, is_recipe, shipped_recipes
from .script import DICTIONARY_HELP, LISTS_HELP, CommandParser
from .settings import (
    FEATURES,
    CalibrationArguments,
    ConceptArguments,
    EncoderArguments,
    EvaluationArguments,
    IndexArguments,
    MentionArguments,
    MiningArguments,
    ModelArguments,
    PublishArguments,
    RunArguments,
    ServingArguments,
)
from .text_files import UserError

EPILOG = """\
Every key of a recipe can be set with --key value, those of other commands and all fields of
transformers.TrainingArguments included; the command line overrides the recipe.
"""
# What a key that is true or false may say.
TRUE, FALSE = {"true", "yes", "t", "y", "1"}, {"false", "no", "f", "n", "0"}


@dataclass
class Recipe:
    """All sections of one recipe, typed.

    `training` holds the fields of `training_arguments.RerankerTrainingArguments` that the recipe sets. Only what
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
        """Build the sections from flat, typed values; missing keys get defaults, and other keys are training's."""
        sections: list[Any] = [section(**_part(values, keys_of(section))) for section in SECTIONS]
        return cls(*sections, _part(values, values.keys() - KEYS.keys()))  # type: ignore[call-arg]

    def to_dict(self) -> dict[str, Any]:
        """The flat form, as a YAML file would hold it."""
        return {name: value for section in asdict(self).values() for name, value in section.items()}

    def portable(self) -> Recipe:
        """The recipe without details of this machine: only the last part of each path, no passwords in URLs."""

        def short(value: Any) -> Any:
            if isinstance(value, list):
                return [short(item) for item in value]
            return portable_locator(value) if isinstance(value, str) else value

        return Recipe.from_values({name: short(value) for name, value in self.to_dict().items()})

    def to_yaml(self, sections: Collection[type] | None = None) -> str:
        """The flat form as YAML, sections in order.

        Args:
            sections: some of `SECTIONS`; None: all, and the training section.
        """
        kinds = {name: type(section) for name, section in vars(self).items()}
        parts = [part for name, part in asdict(self).items() if sections is None or kinds[name] in sections]
        return "\n".join(yaml.safe_dump(part, sort_keys=False, allow_unicode=True) for part in parts if part)


def keys_of(section: type) -> dict[str, Field]:
    """Name -> field of a section, with help and choices in its metadata."""
    return {entry.name: entry for entry in fields(section)}


def _part(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values}


SECTIONS: tuple[type, ...] = tuple(typing.get_type_hints(Recipe).values())[:-1]
KEYS = {name: entry for section in SECTIONS for name, entry in keys_of(section).items()}


def portable_locator(locator: str) -> str:
    """The publishable part of a path or URL; relative paths, Hub ids and other text are unchanged."""
    if re.match(r"https?://", locator, re.IGNORECASE):
        # A query may contain a signature.
        return re.sub(r"(?<=://)[^/]*@", "", re.split(r"[?#]", locator)[0])
    path = PureWindowsPath(locator) if PureWindowsPath(locator).drive else PurePosixPath(locator)
    is_local = path.is_absolute() or locator.startswith(("~", "file:")) or ".." in path.parts
    return (path.name or "folder") if is_local else locator


def recipe_parser(
    description: str,
    sections: Sequence[type] = (),
    extra: type | None = None,
    notes: Mapping[str, str] = MappingProxyType({}),
    trains: bool = False,
) -> Any:
    """The command line of a script that takes a recipe: every key is an option.

    Args:
        description: what the script does.
        sections: the sections that ``--help`` explains.
        extra: a dataclass of the script's own options, which are not recipe keys.
        notes: key -> text that completes its help with what a layer above this one knows.
        trains: whether the fields of `RerankerTrainingArguments` are options too; its import takes seconds.
    """
    own = [extra] if extra else []
    explained = {"recipe"}.union(*(keys_of(section) for section in (*sections, *own)))
    # The names of the run and of its folder, and the seed, are also fields of the trainer: the section's count.
    options: dict[str, Any] = {"usage": "%(prog)s RECIPE [--KEY VALUE ...]", "epilog": EPILOG}
    options["conflict_handler"] = "resolve"
    if trains:
        from .training_arguments import OWN_FIELDS, TrainingParser

        explained |= OWN_FIELDS
        parser: CommandParser = TrainingParser(description, **options)
    else:
        parser = CommandParser(description, **options)
    for section in (*own, *SECTIONS):
        _add_section(parser, section)
    parser.add_argument("recipe", help="file or folder of a recipe, or name of one in the package; also as --config")
    if "features" in explained:
        notes = {"features": _explained(FEATURES), **notes}
    for action in parser._actions:
        action.nargs = "*" if action.nargs == "+" else action.nargs
        if action.dest not in explained:
            action.help = argparse.SUPPRESS if action.dest != "help" else action.help
            continue
        texts = (action.help, notes.get(action.dest), _explained(action.choices))
        default = "" if action.default in (None, [], argparse.SUPPRESS) else f" (default: {action.default})"
        action.help = ("; ".join(text for text in texts if text) + default).replace("%", "%%")
    return parser


def _add_section(parser: CommandParser, section: type) -> None:
    """Add an option for each key, as HfArgumentParser would, but serving does without transformers."""
    group, hints = parser.add_argument_group((section.__doc__ or "").rstrip(".")), typing.get_type_hints(section)
    for name, key in keys_of(section).items():
        kind = hints[name]
        if isinstance(kind, types.UnionType):
            # X | None
            kind = typing.get_args(kind)[0]
        options = {"type": kind, "default": key.default, **key.metadata}
        if typing.get_origin(kind) is list:
            options |= {"type": str, "nargs": "*"}
        if kind is bool:
            options |= {"type": _truth, "nargs": "?", "const": True}
        if key.default_factory is not MISSING:
            options["default"] = key.default_factory()
        group.add_argument(f"--{name}", **options)


def _truth(word: str) -> bool:
    if word.lower() not in TRUE | FALSE:
        raise argparse.ArgumentTypeError(f"{word!r} is neither true nor false")
    return word.lower() in TRUE


def _explained(choices: Iterable[Any] | None) -> str:
    if isinstance(choices, Mapping):
        return "; ".join(f"{name}: {entry.help}" for name, entry in choices.items())
    return f"one of {', '.join(map(str, choices))}" if choices else ""


def parse_recipe(
    description: str,
    sections: Sequence[type],
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
        or_model: key of a section or of `extra` for a model that may be named in place of a recipe, which then has
            all defaults. None: a recipe is required.
        notes: as for `recipe_parser`.
        trains: whether ``--help`` explains the training section.

    Returns:
        `Recipe`, or ``(Recipe, extra instance)`` when `extra` is given.

    Raises:
        UserError: the recipe cannot be read, or has an unknown key, a value of the wrong type, or a feature that does
            not exist and that candidate lists cannot bring.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    # As other trainers have it.
    argv = [part for word in argv for part in (word.split("=", 1) if word.startswith("--config=") else [word])]
    if "--config" in argv:
        at = argv.index("--config")
        argv = [*argv[at + 1 : at + 2], *argv[:at], *argv[at + 2 :]]
    parser = recipe_parser(description, sections, extra, notes, trains)
    keys = {action.dest: action for action in parser._actions}
    options, further_words = parser.parse_known_args(argv)
    name = options.recipe
    content = {or_model: name} if or_model and not is_recipe(name) else _read_yaml(find_recipe(name))
    if not trains and (further_words or content.keys() - keys.keys()):
        # They may be fields of the trainer.
        return parse_recipe(description, sections, argv, extra, or_model, notes, trains=True)
    try:
        _refuse_unknown(content.keys() - keys.keys(), keys)
        for key, value in content.items():
            if isinstance(value, list) and keys[key].nargs != "*":
                raise UserError(f"{key} takes a single value, not a list")
        options = parser.parse_args([name, *_words(content)])
    except UserError as error:
        raise UserError(f"{find_recipe(name)}: {error}") from None
    options, further_words = parser.parse_known_args(argv, options)
    _refuse_unknown(further_words, keys)
    given = {word.removeprefix("--").partition("=")[0].replace("-", "_") for word in argv} | content.keys()
    own = {"recipe", *(keys_of(extra) if extra else ())}
    values = {key: value for key, value in vars(options).items() if key in KEYS or key in given - own}
    recipe = Recipe.from_values(values)
    new_features = [name for name in recipe.calibration.features or () if name not in FEATURES]
    # Scores of user-provided lists are features too, whatever they are called; a model folder's recipe may name them.
    if sections and new_features and not recipe.mentions.candidate_lists:
        raise UserError(f"features: {new_features[0]!r} is unknown; choose from {', '.join(FEATURES)}")
    return (recipe, extra(**_part(vars(options), keys_of(extra)))) if extra else recipe


def load_served(model: str) -> Recipe:
    """The recipe that names a served model, or the defaults with `model` as the one.

    Raises:
        UserError: the recipe cannot be read, or names no model.
    """
    recipe = load_recipe(model, or_model="served_model")
    if not recipe.serving.served_model:
        raise UserError(f"{model} names no served_model; set it, or give a model instead of the recipe")
    return recipe


def load_recipe(path: str | Path, or_model: str | None = None) -> Recipe:
    """Read a recipe from YAML, with defaults for missing keys; arguments and errors as for `parse_recipe`."""
    return parse_recipe("", (), [str(path)], or_model=or_model)


def lists_parser(description: str, keys: Collection[str], **of_model: Any) -> CommandParser:
    """The command line of the form of a script that works on labelled lists, without a recipe.

    Args:
        description: as for `recipe_parser`.
        keys: recipe keys that are options, besides device, seed and dry_run.
        of_model: options of the argument ``model``.
    """
    parser = CommandParser(description, usage="%(prog)s --output FOLDER [--OPTION VALUE ...]")
    # Errors refer to the help of this form.
    parser.prog += f" {'[MODEL]' if 'nargs' in of_model else 'MODEL'} --lists FILE"
    parser.add_argument("model", metavar="MODEL", **of_model)
    parser.add_argument("--lists", type=Path, required=True, help=LISTS_HELP)
    parser.add_argument("--output", type=Path, required=True, help="folder to write; must not exist")
    parser.add_argument("--dictionary", type=Path, help=DICTIONARY_HELP)
    parser.add_argument("--revision", help="tag, branch or commit on the Hub")
    parser.add_argument("--dtype", help="auto, float32, bfloat16 or float16 (default: auto)")
    for action in recipe_parser("", SECTIONS)._actions:
        if action.dest in {"device", "seed", "dry_run", *keys}:
            parser._add_action(action)
    return parser


def is_on_lists() -> bool:
    """Whether the command line is that of `lists_parser`."""
    return any(word.split("=")[0] in ("--lists", "--output") for word in sys.argv[1:])


def _refuse_unknown(words: Iterable[str], known: Iterable[str]) -> None:
    for word in words:
        near = difflib.get_close_matches(word.removeprefix("--").partition("=")[0], known, n=1, cutoff=0.5)
        raise UserError(f"unknown key {word!r}" + (f"; did you mean {near[0]!r}?" if near else ""))


def _words(content: Mapping[str, Any]) -> Iterator[str]:
    """The command line that says what a recipe says; empty keys keep their defaults."""
    for name, value in content.items():
        if isinstance(value, list):
            yield from (f"--{name}", *map(str, value))
        elif value not in ("", "null", "~"):
            yield f"--{name}={json.dumps(value) if isinstance(value, dict) else value}"


def _read_yaml(path: Path) -> dict[str, Any]:
    """The content of a recipe, with every value as it is written (2e-5, no), so that the field decides its type."""
    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.load(text, Loader=yaml.BaseLoader) or {}
        if not isinstance(content, dict):
            raise UserError(f"recipe {path} must consist of `key: value` lines")
        mappings = [name for name, value in content.items() if isinstance(value, dict)]
        return content | _part(yaml.safe_load(text) if mappings else {}, mappings)
    except FileNotFoundError:
        names = ", ".join(shipped_recipes())
        raise UserError(f"recipe {path} does not exist; recipes in the package: {names}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"recipe {path} is not valid YAML: {error}") from None
