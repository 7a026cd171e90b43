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
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import yaml

from ..calibration.arguments import CalibrationArguments
from ..calibration.calibrators import AUTO, CALIBRATORS, not_for_lists
from ..calibration.features import FEATURES
from ..core.errors import UserError
from ..core.keys import RunArguments, recipe_key
from ..corpora.arguments import ConceptArguments, MentionArguments
from ..corpora.formats import describe_formats
from ..models.arguments import RUN_ENCODER, ModelArguments
from ..retrieval.arguments import EncoderArguments, IndexArguments, MiningArguments
from ..retrieval.retrievers import RETRIEVERS
from ..serving.arguments import ServingArguments
from ..training.trainer_keys import REFUSED, TRAINER_KEYS
from .command import (
    DICTIONARY_HELP,
    EACH_ROW_IS_A_DOCUMENT,
    LISTS_HELP,
    CommandParser,
    find_recipe,
    is_recipe,
    number_in,
    shipped_recipes,
)

EPILOG = """\
Every key of a recipe can be set with --key value, those of other commands and the fields of
transformers.TrainingArguments included; the command line overrides the recipe.
"""
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


# What completes the help of a key.
NOTES: dict[str, Callable[[], str]] = {
    "corpus": describe_formats,
    "features": lambda: explained(FEATURES),
}
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


def training_keys() -> dict[str, Key]:
    """The fields of `RerankerTrainingArguments` with defaults of our own."""
    from ..training.training_arguments import OWN_FIELDS, RerankerTrainingArguments

    return pick(keys_of(RerankerTrainingArguments), OWN_FIELDS)


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
