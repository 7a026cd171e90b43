"""The keys of recipes and their types: what a word on the command line or in a recipe means."""

from __future__ import annotations

import argparse
import types
import typing
from collections import ChainMap
from collections.abc import Collection, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

from ..calibration.calibrators import AUTO, CALIBRATORS
from ..retrieval.retrievers import RETRIEVERS
from .command import EMPTY_LIST, number_in

# What a key that is true or false may say, in any case.
TRUE_WORDS = dict.fromkeys(("true", "yes", "t", "y", "1"), True)
FALSE_WORDS = dict.fromkeys(("false", "no", "f", "n", "0"), False)
TRUTH = TRUE_WORDS | FALSE_WORDS


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
        if not word and self.is_list:
            raise argparse.ArgumentTypeError("an item is empty")
        # An empty word takes back a value that has no default: ``--model_revision ""``.
        if not word and self.default is None:
            return None
        return word

    def read_yaml(self, value: Any) -> Any:
        """Read a recipe's value, whose scalars are text; ArgumentTypeError says what is wrong."""
        if isinstance(value, dict) or (isinstance(value, list) and not self.is_list):
            raise argparse.ArgumentTypeError(f"takes a single value, not {value}")
        if self.is_list:
            if value == EMPTY_LIST:
                return []
            items = value if isinstance(value, list) else [value]
            for item in items:
                if not isinstance(item, str):
                    raise argparse.ArgumentTypeError(f"takes a list of words; {item} is none")
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


# Key -> its choices, of keys whose choices extensions of the package add to.
REGISTRIES: dict[str, Mapping[str, Any]] = {
    "calibrator": ChainMap({"auto": AUTO}, CALIBRATORS),  # type: ignore[dict-item]
    "retrievers": RETRIEVERS,
}
