"""The command line of what takes a recipe: its keys are options, which win over the file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..calibration.features import FEATURES
from ..core.errors import UserError
from ..corpora.formats import describe_formats
from .command import DICTIONARY_HELP, EACH_ROW_IS_A_DOCUMENT, LISTS_HELP, CommandParser
from .recipe import KEYS, SECTIONS, Recipe, training_keys
from .recipe_file import read_recipe, require_known
from .recipe_keys import Key, keys_of
from .shipped import find_recipe, is_recipe

EPILOG = """\
Every key of a recipe can be set with --key value, those of other commands and the fields of
transformers.TrainingArguments included; the command line overrides the recipe.
"""
# What completes the help of a key.
NOTES: dict[str, Callable[[], str]] = {
    "corpus": describe_formats,
    "features": lambda: explained(FEATURES),
}


def recipe_parser(
    description: str,
    sections: Collection[str] = (),
    extra: type | None = None,
    *,
    needs_recipe: bool = True,
) -> CommandParser:
    """The command line of a script that takes a recipe: its keys are options, but for training.

    Only what is said has a value.

    Args:
        description: what the script does.
        sections: names of the sections and single keys that ``--help`` explains; of training, only
            the keys with help of our own, whose import takes seconds.
        extra: a dataclass of the script's own options, which are not recipe keys.
        needs_recipe: whether a recipe must be named.
    """
    parser = CommandParser(
        description,
        usage="%(prog)s RECIPE [--KEY VALUE ...]",
        epilog=EPILOG,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument(
        "recipe",
        nargs=None if needs_recipe else "?",
        help="file or folder of a recipe, or name of one in the package; also as --config",
    )
    if extra is not None:
        add_section(parser, extra)
    for name, section in SECTIONS.items():
        hidden = () if name in sections else keys_of(section).keys() - {*sections}
        add_section(parser, section, hidden)
    if "training" in sections:
        add_options(parser, "Training", training_keys().values())
    return parser


def add_section(parser: CommandParser, section: type, hidden: Collection[str] = ()) -> None:
    """Add an option for each key of a section, as for `add_options`."""
    add_options(parser, (section.__doc__ or "").rstrip("."), keys_of(section).values(), hidden)


def add_options(
    parser: CommandParser, title: str, keys: Iterable[Key], hidden: Collection[str] = ()
) -> None:
    """Add an option for each key.

    Args:
        parser: the command line.
        title: heading of the options in ``--help``.
        keys: the keys.
        hidden: names of those that are not in ``--help``.
    """
    group = parser.add_argument_group(title)
    for key in keys:
        options: dict[str, Any] = {"type": key.read, "help": argparse.SUPPRESS}
        if parser.argument_default is None:
            options["default"] = key.default
        if key.is_list:
            options["nargs"] = "*"
        elif key.kind is bool:
            options |= {"nargs": "?", "const": True}
        if key.name not in hidden:
            texts = [key.help, NOTES.get(key.name, str)(), explained(key.choices)]
            ending = "" if key.default in (None, []) else f" (default: {key.default})"
            options["help"] = ("; ".join(filter(None, texts)) + ending).replace("%", "%%")
        group.add_argument(f"--{key.name}", **options)


def explained(choices: Iterable[Any] | None) -> str:
    """Choices as text, each with its help if it has one."""
    if isinstance(choices, Mapping):
        return "; ".join(f"{name}: {entry.help}" for name, entry in choices.items())
    return f"one of {', '.join(map(str, choices))}" if choices else ""


def parse_recipe(
    description: str,
    sections: Collection[str],
    extra: type | None = None,
    argv: Sequence[str] | None = None,
    or_model: str | None = None,
    *,
    needs_recipe: bool = True,
) -> Any:
    """Read the recipe that a command line names, and its further options, which win.

    Args:
        description: the script's docstring, first paragraph of ``--help``.
        sections: as for `recipe_parser`; every other key is accepted too.
        extra: as for `recipe_parser`.
        argv: the command line; None: that of the process.
        or_model: key of a section or of `extra` for a model that may be named in place of a recipe,
            which then has all defaults. None: a recipe is required.
        needs_recipe: as for `recipe_parser`.

    Returns:
        `Recipe`, or ``(Recipe, extra instance)`` when `extra` is given.

    Raises:
        UserError: the recipe cannot be read, or has an unknown key, a value of the wrong type, or a
            feature that does not exist.
    """
    own_keys = keys_of(extra) if extra else {}
    keys = KEYS | own_keys
    if argv is None:
        argv = sys.argv[1:]
    words, training = divide_words(recipe_first(argv), keys)
    parser = recipe_parser(description, sections, extra, needs_recipe=needs_recipe)
    stated = vars(parser.parse_args(words))
    require_known(training, keys, "", "--")
    name = stated.pop("recipe", None)
    values = {}
    if or_model and name is not None and not is_recipe(name):
        values = {or_model: name}
    elif name is not None:
        values = read_recipe(find_recipe(name), keys)
    values |= stated | training
    own_values = {key: values.pop(key) for key in own_keys if key in values}
    recipe = Recipe.from_values(values)
    new_features = [name for name in recipe.calibration.features or () if name not in FEATURES]
    # A model folder's recipe may name scores of the lists that it was calibrated on.
    if sections and new_features:
        raise UserError(
            f"features: {new_features[0]!r} is unknown; choose from {', '.join(FEATURES)}"
        )
    return (recipe, extra(**own_values)) if extra else recipe


def divide_words(
    words: Iterable[str], keys: Collection[str]
) -> tuple[list[str], dict[str, str | list[str]]]:
    """The words of a command line for the parser, and what it says of all keys but these."""
    own: list[str] = []
    others: dict[str, list[str]] = {}
    values = own
    for word in words:
        option, mark, value = word.partition("=")
        name = option.removeprefix("--").replace("-", "_")
        if not word.startswith("--"):
            values.append(word)
        elif name in keys or name == "help":
            values = own
            own.append(word)
        else:
            values = [value] if mark else []
            others[name] = values
    return own, {name: _value_of_words(values) for name, values in others.items()}


def _value_of_words(words: list[str]) -> str | list[str]:
    """The value of a key by the words after it; a flag has none."""
    if not words:
        return "true"
    return words[0] if len(words) == 1 else words


def recipe_first(argv: Iterable[str]) -> list[str]:
    """The command line with ``--config RECIPE``, which other trainers have, as first argument."""
    words: list[str] = []
    for word in argv:
        if word.startswith("--config="):
            words += word.split("=", 1)
        else:
            words.append(word)
    if "--config" not in words:
        return words
    position = words.index("--config")
    return [*words[position + 1 : position + 2], *words[:position], *words[position + 2 :]]


def load_serving_recipe(model: str) -> Recipe:
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
    return parse_recipe("", (), argv=[str(path)], or_model=or_model)


def lists_parser(description: str, names: Collection[str], **model_options: Any) -> CommandParser:
    """The command line of the form of a script that works on labelled lists, without a recipe.

    Args:
        description: as for `recipe_parser`.
        names: recipe keys that are options, besides device, seed and dry_run.
        model_options: options of the argument ``model``.
    """
    parser = CommandParser(description, usage="%(prog)s --output FOLDER [--OPTION VALUE ...]")
    # Errors refer to the help of this form.
    model = "[MODEL]" if "nargs" in model_options else "MODEL"
    parser.prog += f" {model} --lists FILE"
    parser.add_argument("model", metavar="MODEL", **model_options)
    parser.add_argument("--lists", type=Path, required=True, help=LISTS_HELP)
    parser.add_argument(
        "--output", type=Path, required=True, help="folder to write; must not exist"
    )
    parser.add_argument("--dictionary", type=Path, help=DICTIONARY_HELP)
    parser.add_argument(
        "--each_row_is_a_document", action="store_true", help=EACH_ROW_IS_A_DOCUMENT
    )
    parser.add_argument("--revision", help="tag, branch or commit on the Hub")
    parser.add_argument("--dtype", help="auto, float32, bfloat16 or float16 (default: auto)")
    add_options(
        parser,
        "Keys of recipes",
        [key for key in KEYS.values() if key.name in {"device", "seed", "dry_run", *names}],
    )
    return parser


def parse_form(parser: CommandParser, sections: Collection[str]) -> argparse.Namespace | Recipe:
    """The options of a script's form on lists, or the recipe of its other form.

    Args:
        parser: that of `lists_parser`; its options end the help of the other form.
        sections: as for `recipe_parser`.
    """
    if is_on_lists():
        return parser.parse_args()
    description = parser.description
    parser.description = None
    return parse_recipe(f"{description}\n{parser.format_help()}", sections)


def is_on_lists(words: Sequence[str] | None = None) -> bool:
    """Whether a command line is that of `lists_parser`.

    Args:
        words: the command line; None: that of the process.
    """
    form = CommandParser("", add_help=False, argument_default=argparse.SUPPRESS)
    form.add_argument("--lists", nargs="*")
    form.add_argument("--output", nargs="?")
    options, _ = form.parse_known_args(words)
    return bool(vars(options))
