"""Values of JSON or of nested tables that must have a certain form; anything else is `Malformed`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..core.lines import Malformed, of_characters, shown

__all__ = ["as_list", "as_object", "as_offset", "as_text"]

OFFSET = re.compile(r"[0-9]{1,9}")


def as_object(value: Any, noun: str, *, optional: bool = False) -> dict[str, Any]:
    """An object; empty for null if it is `optional`."""
    if value is None and optional:
        return {}
    if not isinstance(value, dict):
        raise Malformed(f"{noun} is not an object", f": {shown(repr(value))}")
    return value


def as_list(owner: Mapping[str, Any], key: str) -> list[Any]:
    """The list under a key; empty if it is missing or null."""
    value = owner.get(key)
    if value is not None and not isinstance(value, list):
        raise Malformed(f"{key} is not a list", f": {shown(repr(value))}")
    return value or []


def as_text(value: Any, noun: str) -> str:
    if not isinstance(value, str):
        raise Malformed(f"{noun} is not a text", f": {shown(repr(value))}")
    try:
        return of_characters(value)
    except ValueError as error:
        raise Malformed(f"{noun} {error}", f": {shown(value)}") from None


def as_offset(value: Any) -> int:
    """A number of characters, as a number or in digits."""
    if isinstance(value, bool) or not isinstance(value, int | str) or not OFFSET.fullmatch(str(value)):
        raise Malformed("offsets are not numbers", f": {shown(repr(value))}")
    return int(value)
