"""Recipes: one flat YAML file is one run. The command line overrides it, and unknown keys are refused by name."""

from __future__ import annotations

import argparse
import difflib
import functools
import json
import math
import re
import sys
import types
import typing
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, fields
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import MappingProxyType, NoneType
from typing import Any, NamedTuple

import yaml

from .errors import UserError
from .files import find_recipe, is_recipe, read_json, shipped_recipes
from .script import CommandParser
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
from .trainer_fields import RESERVED, TRAINER, TrainingStageArguments, trainer_fields

TRAINER_DOCS = "https://huggingface.co/docs/transformers/main_classes/trainer"


@dataclass
class Recipe:
    """All sections of one recipe, typed."""

    run: RunArguments
    concepts: ConceptArguments
    mentions: MentionArguments
    encoder: EncoderArguments
    index: IndexArguments
    mining: MiningArguments
    model: ModelArguments
    training: TrainingStageArguments
    calibration: CalibrationArguments
    evaluation: EvaluationArguments
    publish: PublishArguments
    serving: ServingArguments

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> Recipe:
        """Build the sections from flat, typed values; missing keys get their defaults.

        Names that are not keys are fields of `transformers.TrainingArguments`.
        """
        sections = [section(**{key: values[key] for key in keys_of(section) if key in values}) for section in SECTIONS]
        recipe = cls(*sections)
        recipe.training.further_fields = {name: value for name, value in values.items() if name not in KEYS}
        return recipe

    def to_dict(self) -> dict[str, Any]:
        """The flat form, as a YAML file would hold it."""
        return {name: value for section in self._by_section() for name, value in section.items()}

    def _by_section(self) -> list[dict[str, Any]]:
        return list((asdict(self) | {"training": self.training.to_dict()}).values())

    def portable(self) -> Recipe:
        """The recipe without details of this machine: only the last part of each path, no passwords in URLs."""

        def short(value: Any) -> Any:
            if isinstance(value, list):
                return [short(item) for item in value]
            return portable_locator(value) if isinstance(value, str) else value

        return Recipe.from_values({name: short(value) for name, value in self.to_dict().items()})

    def to_yaml(self, sections: Collection[type] | None = None) -> str:
        """The flat form as YAML, sections in order with their headings.

        Args:
            sections: some of `SECTIONS`; None: all.
        """
        parts = []
        for section, values in zip(SECTIONS, self._by_section(), strict=True):
            if sections is None or section in sections:
                parts.append(f"# {section.__doc__}\n" + yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
        return "\n".join(parts)


class Key(NamedTuple):
    """A recipe key: its field, which holds help, choices and range, and its type."""

    field: Field
    kind: Any


@functools.cache
def keys_of(section: type) -> dict[str, Key]:
    """Name -> key, for a section or for a script's own options."""
    kinds = typing.get_type_hints(section)
    return {entry.name: Key(entry, kinds[entry.name]) for entry in fields(section) if "help" in entry.metadata}


SECTIONS: tuple[type, ...] = tuple(typing.get_type_hints(Recipe).values())
KEYS = {name: key for section in SECTIONS for name, key in keys_of(section).items()}


def portable_locator(locator: str) -> str:
    """The publishable part of a path or URL; relative paths, Hub ids and other text are unchanged."""
    if re.match(r"https?://", locator, re.IGNORECASE):
        # A query may contain a signature.
        return re.sub(r"(?<=://)[^/]*@", "", re.split(r"[?#]", locator)[0])
    path = PureWindowsPath(locator) if PureWindowsPath(locator).drive else PurePosixPath(locator)
    is_local = path.is_absolute() or locator.startswith(("~", "file:")) or ".." in path.parts
    return (path.name or "folder") if is_local else locator


def parse_recipe(
    description: str,
    sections: Sequence[type],
    argv: Sequence[str] | None = None,
    extra: type | None = None,
    or_model: str | None = None,
    notes: Mapping[str, str] = MappingProxyType({}),
) -> Any:
    """Parse ``RECIPE [--key value ...]`` into a `Recipe`.

    Args:
        description: what the script does, the first paragraph of ``--help``.
        sections: the sections that ``--help`` explains; every other key is accepted too.
        argv: the command line; None: that of the process.
        extra: a dataclass of the script's own options, which are not recipe keys.
        or_model: key of a section or of `extra` for a model that may be named in place of a recipe, which then has
            all defaults. None: a recipe is required.
        notes: key -> text that completes its help with what a layer above this one knows.

    Returns:
        `Recipe`, or ``(Recipe, extra instance)`` when `extra` is given.

    Raises:
        UserError: the recipe cannot be read, or has an unknown key, a value of the wrong type, or a feature that does
            not exist and that candidate lists cannot bring.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = make_parser(description, sections, extra, notes, everything="--help_all" in argv)
    _add_trainer_fields(parser, argv)
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        parser.error(_not_known(unknown[0], parser._option_string_actions, "argument"))
    overrides = vars(arguments)
    name = overrides.pop("recipe")
    if not or_model or is_recipe(name):
        _refuse_list_calibrated(Path(name))
    values = _read(name, or_model) | overrides
    options = {key: values.pop(key) for key in keys_of(extra) if key in values} if extra else {}
    recipe = Recipe.from_values(values)
    new_features = [name for name in recipe.calibration.features or () if name not in FEATURES]
    # Scores of user-provided lists are features too, whatever they are called.
    if new_features and not recipe.mentions.candidate_lists:
        raise UserError(f"features: {new_features[0]!r} is unknown; choose from {', '.join(FEATURES)}")
    return (recipe, extra(**options)) if extra else recipe


def load_recipe(path: str | Path, or_model: str | None = None) -> Recipe:
    """Read a recipe from YAML, with defaults for missing keys.

    Args:
        path: file, folder or name of the recipe.
        or_model: as for `parse_recipe`.
    """
    return Recipe.from_values(_read(str(path), or_model))


def _read(name: str, or_model: str | None) -> dict[str, Any]:
    if or_model and not is_recipe(name):
        return {or_model: name}
    return _read_yaml(find_recipe(name))


def _refuse_list_calibrated(path: Path) -> None:
    """Refuse a model, or the recipe in it, that umls-reranker calibrate made on labelled lists, without a run."""
    folder = path.parent if path.name == "recipe.yaml" else path
    calibrator = folder / "calibrator.json"
    state = read_json(calibrator) if calibrator.is_file() else None
    fitted_on = state.get("fitted_on") if isinstance(state, dict) else None
    if isinstance(fitted_on, dict) and "lists" in fitted_on:
        raise UserError(
            f"{folder} was calibrated on labelled lists, not by a run; recalibrate it with umls-reranker calibrate "
            f"{folder} --lists FILE --output NEW_MODEL"
        )


class _OneOrList(argparse.Action):
    """Keeps a single value unchanged, for a field with one value or a list, and null for an optional list."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        alone = len(values) == 1 and (self.const or values[0] is None)
        setattr(namespace, self.dest, values[0] if alone else values)


def _not_known(word: str, known: Iterable[str], kind: str) -> str:
    """Why a key or argument is unknown, and which one was probably meant."""
    dashes = "--" if word.startswith("--") else ""
    name = word.removeprefix("--").split("=")[0]
    if name in RESERVED:
        return f"{name} cannot be set: {RESERVED[name]}"
    near = difflib.get_close_matches(word, [*known, *(dashes + name for name in trainer_fields())], n=1, cutoff=0.5)
    return f"unknown {kind} {word!r}" + (f"; did you mean {near[0]!r}?" if near else "")


def make_parser(
    description: str,
    sections: Sequence[type],
    extra: type | None = None,
    notes: Mapping[str, str] = MappingProxyType({}),
    everything: bool = True,
) -> CommandParser:
    """The argument parser of a script: a recipe, and every recipe key as an option.

    Args:
        description: as for `parse_recipe`.
        sections: as for `parse_recipe`.
        extra: as for `parse_recipe`.
        notes: as for `parse_recipe`.
        everything: whether the help also explains the rare keys of the sections.
    """
    parser = CommandParser(
        description,
        usage="%(prog)s RECIPE [--KEY VALUE ...]",
        argument_default=argparse.SUPPRESS,
        epilog="--help_all also lists rarely changed keys. Every recipe key can be set with --key value, optional "
        "keys\nare unset with --key null, and the command line overrides the recipe.",
    )
    parser.add_argument("recipe", help="file or folder of a recipe, or the name of one in the package")
    for section in ((extra,) if extra else ()) + SECTIONS:
        is_explained = section is extra or section in sections
        groups: dict[str, Any] = {}
        for name, key in keys_of(section).items():
            if not is_explained or (key.field.metadata.get("rare") and not everything):
                _add_option(parser, key, argparse.SUPPRESS)
                continue
            title = key.field.metadata.get("group") or (section.__doc__ or "").rstrip(".")
            if title not in groups:
                more = f"All other fields are accepted too: {TRAINER_DOCS}" if title == TRAINER else None
                groups[title] = parser.add_argument_group(title, more)
            _add_option(groups[title], key, _help_of(key, notes.get(name, "")))
    return parser


def add_keys(parser: argparse.ArgumentParser, section: type, names: Iterable[str]) -> None:
    """Add options with the types, ranges, defaults and help of recipe keys to another parser."""
    for name in names:
        key = keys_of(section)[name]
        _add_option(parser, key, _help_of(key), default=key.field.default)


def _add_trainer_fields(parser: CommandParser, argv: Sequence[str]) -> None:
    """Add an option for each field of `transformers.TrainingArguments` in the command line that is not a key."""
    names = {word.removeprefix("--").split("=")[0] for word in argv if word.startswith("--")}
    for name in sorted(names - {option.removeprefix("--") for option in parser._option_string_actions} - {*RESERVED}):
        if name in trainer_fields():
            _add_option(parser, Key(*trainer_fields()[name]), argparse.SUPPRESS)


def _add_option(group: Any, key: Key, help_text: str, **options: Any) -> None:
    field, (plain, forms) = key.field, _plain_type(key.kind)
    is_list = list in forms
    group.add_argument(
        f"--{field.name}",
        type=lambda text: None if text in ("", "null") and NoneType in forms else _convert(text, plain, field),
        nargs="*" if is_list else ("?" if plain is bool else None),
        action=_OneOrList if is_list else "store",
        const=True if plain is bool or (is_list and plain in forms) else None,
        metavar="JSON" if plain is dict else plain.__name__.upper(),
        help=help_text,
        **options,
    )


def _help_of(key: Key, note: str = "") -> str:
    field, choices = key.field, key.field.metadata.get("choices")
    default: Any = field.default if field.default_factory is MISSING else " ".join(field.default_factory())
    text = field.metadata["help"] + (f": {note}" if note else "")
    if isinstance(choices, Mapping):
        text = "; ".join([text, *(f"{name}: {choice.help}" for name, choice in choices.items())])
    if choices:
        text += f" [{', '.join(choices)}]"
    if default not in (None, ""):
        text += f" (default: {default})"
    return text.replace("%", "%%")


def _plain_type(kind: Any) -> tuple[type, set[type]]:
    """Type of a single value, and the allowed forms: `list` of such values, the type itself, `NoneType`.

    ``list[str]`` -> (str, {list}); ``int | None`` -> (int, {int, NoneType}).
    """
    kinds = typing.get_args(kind) if typing.get_origin(kind) in (types.UnionType, typing.Union) else (kind,)
    forms = {typing.get_origin(one) or one for one in kinds}
    # Lists and enumerations hold text.
    return next((plain for plain in (dict, str, bool, int, float) if plain in forms), str), forms


def _convert(text: Any, plain: type, field: Field) -> Any:
    """One value, from YAML or the command line, as the field's type; raises ValueError with the reason."""
    choices = field.metadata.get("choices")
    if text == "":
        raise argparse.ArgumentTypeError("has no value; give one or remove the key")
    if plain is dict:
        return _options(text)
    if plain is bool:
        words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
        if str(text).lower() not in words:
            raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
        return words[str(text).lower()]
    try:
        value = plain(str(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not of type {plain.__name__}") from None
    if choices and not field.metadata.get("open") and value not in choices:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(choices)}")
    if plain in (int, float):
        _require_range(value, *field.metadata.get("range", (-math.inf, math.inf)))
    return value


def _require_range(value: float, least: float, most: float) -> None:
    if least <= value <= most and abs(value) < math.inf:
        return
    span = (
        f"from {least:,} to {most:,}" if most < math.inf else f"{least:,} or more" if least > -math.inf else "finite"
    )
    raise argparse.ArgumentTypeError(f"{value} is out of range; give a number that is {span}")


def _options(mapping: Any) -> dict[str, Any]:
    """A mapping from YAML, with values that are still text, or JSON from the command line."""
    if isinstance(mapping, str):
        try:
            mapping = json.loads(mapping)
        except (ValueError, RecursionError):
            mapping = None
        if isinstance(mapping, dict):
            return mapping
        raise argparse.ArgumentTypeError("must be a mapping, given as JSON on the command line")

    def read(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: read(item) for name, item in value.items()}
        if isinstance(value, list):
            return [read(item) for item in value]
        try:
            return json.loads(value.lower() if value in ("True", "False", "Null") else value)
        except (ValueError, RecursionError):
            return value

    return read(mapping)


class _Loader(yaml.BaseLoader):
    """Keeps every scalar as written (2e-5, no), so that the field decides its type."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping with distinct keys; plain YAML silently takes the last of equal ones."""
        names = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in names:
                    line = key.start_mark.line + 1
                    raise UserError(f"line {line}: duplicate key {key.value!r}; give each key once")
                names.add(key.value)
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader) or {}
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except FileNotFoundError:
        folder = path.parent
        for made in (folder / "recipe.yaml", folder / "model" / "recipe.yaml"):
            if path.name == "config.yaml" and made.is_file():
                raise UserError(f"{folder} is a run folder, not a recipe; give its recipe, such as {made}") from None
        names = ", ".join(shipped_recipes())
        raise UserError(f"recipe {path} does not exist; recipes in the package: {names}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"recipe {path} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"recipe {path} must consist of `key: value` lines")
    values = {}
    for name, raw in content.items():
        if name not in KEYS and (name in RESERVED or name not in trainer_fields()):
            raise UserError(f"{path}: {_not_known(str(name), KEYS, 'key')}")
        values[name] = _typed(raw, KEYS[name] if name in KEYS else Key(*trainer_fields()[name]), path)
    return values


def _typed(raw: Any, key: Key, path: Path) -> Any:
    field, (plain, forms) = key.field, _plain_type(key.kind)
    texts = raw if isinstance(raw, list) else [raw]
    form = list if isinstance(raw, list) else plain
    if isinstance(raw, dict) and plain is dict:
        return _options(raw)
    if raw in ("", "null", "~") and NoneType in forms:
        return None
    if (form not in forms and raw != "") or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{path}: {field.name} must be {'a list, e.g. [a, b]' if list in forms else 'a single value'}")
    try:
        if isinstance(raw, list) or plain not in forms:
            return [_convert(item, plain, field) for item in raw]
        return _convert(raw, plain, field)
    except argparse.ArgumentTypeError as error:
        raise UserError(f"{path}: {field.name}: {error}") from None
