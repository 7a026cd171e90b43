"""Keys of recipes: fields of plain dataclasses, with their help and the values they may have.

A field without them is no key of a recipe.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import field
from typing import Any

LARGEST = 2**32 - 1


def recipe_key(
    default: object,
    help: str,
    choices: Collection[str] | None = None,
    least: float | None = None,
    most: float = LARGEST,
) -> Any:
    """A field of a section of a recipe.

    Args:
        default: value of a recipe without this key.
        help: its text in ``--help``.
        choices: the allowed values; in a mapping, each with an object whose `help` explains it.
        least: lowest value of a number; None: any number is allowed.
        most: highest value of a number.
    """
    # Any, as dataclasses.field has it: the value has the type of its annotation.
    metadata: dict[str, Any] = {"help": help}
    if choices is not None:
        metadata["choices"] = choices
    if least is not None:
        metadata["range"] = (least, most)
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)
