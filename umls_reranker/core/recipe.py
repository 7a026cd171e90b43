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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, fields
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import MappingProxyType
from typing import Any

import yaml

from .arguments import (
    CalibrationArguments,
    ConceptArguments,
    EncoderArguments,
    EvaluationArguments,
    IndexArguments,
    MentionArguments,
    MiningArguments,
    ModelArguments,
    MonitoringArguments,
    PublishArguments,
    RunArguments,
    ServingArguments,
)
from .errors import UserError
from .lines import is_finite, shown
from .script import CommandParser
from .shipped import find_recipe, is_recipe, shipped_recipes
from .sockets import FEATURES
from .trainer_fields import RESERVED, TrainingStageArguments

__all__ = ["SECTIONS", "Recipe", "load_recipe", "parse_recipe", "portable_locator"]

# Of whole numbers: NumPy, tokenizers and sockets fail on larger ones, and no key needs them.
LARGEST = 2**32 - 1


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
    monitoring: MonitoringArguments

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> Recipe:
        """Build the sections from flat, typed values; missing keys get their defaults."""
        sections = []
        for section in SECTIONS:
            names = {field.name for field in fields(section)}
            sections.append(section(**{name: value for name, value in values.items() if name in names}))
        return cls(*sections)

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

    def to_yaml(self) -> str:
        """The flat form as YAML, sections in order with their headings."""
        parts = []
        for section, values in zip(SECTIONS, asdict(self).values(), strict=True):
            parts.append(f"# {section.__doc__}\n" + yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
        return "\n".join(parts)


# Class -> field -> type; found out once, since it takes milliseconds.
_types_of = functools.cache(typing.get_type_hints)
SECTIONS = tuple(_types_of(Recipe).values())


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
    or_model: bool = False,
    notes: Mapping[str, str] = MappingProxyType({}),
) -> Any:
    """Parse ``RECIPE [--key value ...]`` into a `Recipe`.

    Args:
        description: what the script does, the first paragraph of ``--help``.
        sections: the sections that ``--help`` explains; every other key is accepted too.
        extra: a dataclass of the script's own options, which are not recipe keys.
        or_model: whether a model may be given instead of the recipe, which is then the default one with this model.
        notes: key -> text that completes its help with what a room above this one knows.

    Returns:
        `Recipe`, or ``(Recipe, extra instance)`` when `extra` is given.

    Raises:
        UserError: the recipe cannot be read, has an unknown key, a value of the wrong type, or a feature that neither
            there is nor candidate lists can bring.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = make_parser(description, sections, extra, notes)
    given, unknown = parser.parse_known_args(argv)
    if unknown:
        parser.error(_not_known(unknown[0], parser._option_string_actions, "argument"))
    values = _read(given.recipe, or_model)
    overrides = {name: value for name, value in vars(given).items() if name != "recipe"}
    extra_names = {field.name for field in fields(extra)} if extra else set()
    recipe = Recipe.from_values(values | {k: v for k, v in overrides.items() if k not in extra_names})
    unknown = [name for name in recipe.calibration.features or () if name not in FEATURES]
    # Scores of user-provided lists are features too, whatever they are called.
    if unknown and not recipe.mentions.candidate_lists:
        raise UserError(f"features: {unknown[0]!r} is unknown; choose from {', '.join(FEATURES)}")
    if extra is None:
        return recipe
    return recipe, extra(**{name: value for name, value in overrides.items() if name in extra_names})


def load_recipe(path: str | Path, or_model: bool = False) -> Recipe:
    """Read a recipe from YAML, with defaults for missing keys.

    Args:
        path: file, folder or name of the recipe.
        or_model: as of `parse_recipe`.
    """
    return Recipe.from_values(_read(str(path), or_model))


def _read(name: str, or_model: bool) -> dict[str, Any]:
    if or_model and not is_recipe(name):
        return {"served_model": name}
    return _read_yaml(find_recipe(name))


class _OneOrList(argparse.Action):
    """Keeps a single value unchanged, for a field with one value or a list, and null for an optional list."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        alone = len(values) == 1 and (self.const or values[0] is None)
        setattr(namespace, self.dest, values[0] if alone else values)


def _not_known(word: str, known: Iterable[str], kind: str) -> str:
    """Why a key or argument is unknown, and which one was probably meant."""
    name = word.removeprefix("--").split("=")[0]
    if name in RESERVED:
        return f"{name} cannot be set: {RESERVED[name]}"
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"unknown {kind} {word!r}" + (f"; did you mean {near[0]!r}?" if near else "")


def make_parser(
    description: str,
    sections: Sequence[type],
    extra: type | None = None,
    notes: Mapping[str, str] = MappingProxyType({}),
) -> CommandParser:
    """The argument parser of a script: a recipe, and every recipe key as an option; the arguments are those of
    `parse_recipe`.
    """
    parser = CommandParser(
        description,
        usage="%(prog)s RECIPE [--KEY VALUE ...]",
        argument_default=argparse.SUPPRESS,
        epilog="Every key of the recipe can be set as --key value, and an optional one be left empty by --key null; "
        "the command line wins over the recipe.",
    )
    parser.add_argument("recipe", help="file or folder of the recipe, or the name of one in the package")
    for section in ((extra,) if extra else ()) + SECTIONS:
        shown = section is extra or section in sections
        groups: dict[str, Any] = {}
        types_of = _types_of(section)
        for field in fields(section):
            title = field.metadata.get("group") or section.__doc__.rstrip(".")
            if shown and title not in groups:
                groups[title] = parser.add_argument_group(title)
            _add_option(groups.get(title, parser), field, types_of[field.name], shown, notes.get(field.name, ""))
    return parser


def _add_option(group: Any, field: Field, kind: Any, shown: bool, more: str) -> None:
    plain, forms = _plain_type(kind)
    is_list = list in forms
    default: Any = field.default if field.default_factory is MISSING else " ".join(field.default_factory())
    help_text = argparse.SUPPRESS
    if shown:
        choices = field.metadata.get("choices")
        note = "" if default in (None, "") else f" (default: {default})"
        meanings = (
            [f"{name}: {choice.help}" for name, choice in choices.items()] if isinstance(choices, Mapping) else []
        )
        text = "; ".join([field.metadata["help"] + (f": {more}" if more else ""), *meanings])
        help_text = (text + (f" [{', '.join(choices)}]" if choices else "") + note).replace("%", "%%")
    group.add_argument(
        f"--{field.name}",
        type=lambda text: None if text in ("", "null") and type(None) in forms else _convert(text, plain, field),
        nargs="*" if is_list else ("?" if plain is bool else None),
        action=_OneOrList if is_list else "store",
        const=True if plain is bool or (is_list and plain in forms) else None,
        metavar="JSON" if plain is dict else plain.__name__.upper(),
        help=help_text,
    )


def _plain_type(kind: Any) -> tuple[type, set[type]]:
    """Type of a single value, and the allowed forms: `list` of such values, the type itself, `NoneType`.

    ``list[str]`` -> (str, {list}); ``int | None`` -> (int, {int, NoneType}).
    """
    parts = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    forms = {typing.get_origin(part) or part for part in parts}
    lists = [part for part in parts if typing.get_origin(part) is list]
    plain = typing.get_args(lists[0])[0] if lists else next(part for part in parts if part is not type(None))
    return plain, forms


def _convert(text: Any, plain: type, field: Field) -> Any:
    """One value, from YAML or the command line, as the field's type; raises ValueError with the reason."""
    choices = field.metadata.get("choices")
    if text == "":
        raise argparse.ArgumentTypeError("has no value; give one, or leave the key out")
    if plain is dict:
        return _options(text)
    if plain is str:
        _require_characters(str(text))
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


def _require_characters(text: str) -> None:
    """Refuse what an escape in YAML can make, and no path can hold."""
    try:
        # Bytes of a path on the command line that are not UTF-8 arrive as such escapes.
        text.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{shown(text)} holds half of a surrogate pair; remove it") from None
    if "\0" in text:
        raise argparse.ArgumentTypeError(f"{shown(text)} holds a NUL, which no path or name can; remove it")


def _require_range(value: float, least: float, most: float) -> None:
    if least <= value <= most and is_finite(value):
        if isinstance(value, int) and abs(value) > LARGEST:
            raise argparse.ArgumentTypeError(f"{value} is out of range; give a number that is at most {LARGEST:,}")
        return
    span = (
        f"from {least:,} to {most:,}" if most < math.inf else f"{least:,} or more" if least > -math.inf else "finite"
    )
    raise argparse.ArgumentTypeError(f"{value} is out of range; give a number that is {span}")


def _options(given: Any) -> dict[str, Any]:
    """A mapping from YAML, with values that are still text, or JSON from the command line."""
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError):
            given = None
        if isinstance(given, dict):
            return given
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

    return read(given)


class _Loader(yaml.BaseLoader):
    """Keeps every scalar as written (2e-5, no), so that the field decides its type."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping with distinct keys; plain YAML silently takes the last of equal ones."""
        given = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in given:
                line = key.start_mark.line + 1
                raise UserError(f"line {line}: the key {key.value!r} is repeated; give each key once")
            given.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
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
                raise UserError(f"{folder} is what a run made, no recipe; give its recipe, such as {made}") from None
        names = ", ".join(shipped_recipes())
        raise UserError(f"recipe {path} does not exist; these come with the package: {names}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"recipe {path} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"recipe {path} must be lines of `key: value`")
    known = {field.name: (field, _types_of(section)[field.name]) for section in SECTIONS for field in fields(section)}
    values = {}
    for key, raw in content.items():
        if key not in known:
            raise UserError(f"{path}: {_not_known(str(key), known, 'key')}")
        values[key] = _typed(raw, *known[key], path)
    return values


def _typed(raw: Any, field: Field, kind: Any, path: Path) -> Any:
    plain, forms = _plain_type(kind)
    texts = raw if isinstance(raw, list) else [raw]
    form = list if isinstance(raw, list) else plain
    if isinstance(raw, dict) and plain is dict:
        return _options(raw)
    if raw in ("", "null", "~") and type(None) in forms:
        return None
    if (form not in forms and raw != "") or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{path}: {field.name} must be {'a list, e.g. [a, b]' if list in forms else 'a single value'}")
    try:
        if isinstance(raw, list) or plain not in forms:
            return [_convert(item, plain, field) for item in raw]
        return _convert(raw, plain, field)
    except argparse.ArgumentTypeError as error:
        raise UserError(f"{path}: {field.name}: {error}") from None
