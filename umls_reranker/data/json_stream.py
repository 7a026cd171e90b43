"""JSON of corpora and ontologies: the objects of a file one by one, and values that must have a certain form.

Objects come in a list, one after another (JSON Lines), or inside lists of an object.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Collection, Iterator, Mapping
from io import BufferedIOBase
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.lines import Malformed, excerpt, of_characters, open_binary

CHUNK_BYTES = 1 << 20
LONGEST_OBJECT = 64 << 20
# A value whose end has not been read yet gives an error near the end of the text: inside a word, number or escape.
TORN = 16
DECODER = json.JSONDecoder()
REMEDY = "download the file again"
OFFSET = re.compile(r"[0-9]{1,9}")


def stream_objects(path: Path, lists: Collection[str]) -> Iterator[tuple[int, Any]]:
    """Yield each object with the number of its first line; memory holds one object.

    For an object with a list under one of the keys `lists`, the items of that list are yielded in its place. Brackets
    and commas between the outermost objects separate them in any order.

    Args:
        path: the file, plain or gzip.
        lists: keys whose lists hold the objects.

    Raises:
        UserError: the file is missing, empty, broken, cut short, or not JSON (names the line); or an object is longer
            than 64 MiB.
    """
    with open_binary(path) as stream:
        text = _Text(path, stream)
        depth = 0
        while character := text.next():
            if character == "{":
                yield from _items(text, lists)
            elif character in "[]":
                depth += 1 if character == "[" else -1
                text.skip()
            else:
                raise text.error("expected an object")
        if depth:
            raise text.error("unbalanced brackets; it may be truncated")


def _items(text: _Text, lists: Collection[str]) -> Iterator[tuple[int, Any]]:
    line, members, has_list = text.line, {}, False
    text.skip()
    while text.next() != "}":
        key = text.value()
        if text.next() != ":":
            raise text.error("expected a colon")
        text.skip()
        if key in lists and text.next() == "[":
            has_list = True
            text.skip()
            while text.next() != "]":
                yield text.line, text.value()
            text.skip()
        else:
            members[key] = text.value()
    text.skip()
    if not has_list:
        yield line, members


class _Text:
    """The part of a text that is being decoded.

    Attributes:
        line: number of the line that the next character is in.
    """

    def __init__(self, path: Path, stream: BufferedIOBase) -> None:
        self.line = 1
        self._path, self._stream = path, stream
        self._text, self._at, self._ended = "", 0, False
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")()

    def next(self) -> str:
        """The next character that is neither blank nor a comma; "" at the end."""
        while True:
            while self._at < len(self._text):
                character = self._text[self._at]
                if character not in ", \t\r\n":
                    return character
                self.skip()
            if self._ended:
                return ""
            self._read()

    def skip(self) -> None:
        """Skip the next character."""
        self.line += self._text[self._at] == "\n"
        self._at += 1

    def value(self) -> Any:
        """The next JSON value."""
        self.next()
        while True:
            try:
                value, end = DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                is_torn = error.pos >= len(self._text) - TORN or error.msg.startswith("Unterminated string")
                if self._ended or not is_torn:
                    self.line += self._text.count("\n", self._at, error.pos)
                    raise self.error(error.msg) from None
            except (RecursionError, ValueError) as error:
                raise self.error(str(error)) from None
            else:
                # A number at the end may have more digits.
                if end < len(self._text) or self._ended:
                    self.line += self._text.count("\n", self._at, end)
                    self._at = end
                    return value
            self._read()

    def error(self, reason: str) -> UserError:
        return UserError(f"{self._path}:{self.line}: unreadable JSON ({reason}); {REMEDY}")

    def _read(self) -> None:
        rest = self._text[self._at :]
        if len(rest) > LONGEST_OBJECT:
            raise self.error(f"a value longer than {LONGEST_OBJECT >> 20} MiB")
        # As much again as is waiting: a long object is not decoded from its start once per chunk.
        content = self._stream.read(max(CHUNK_BYTES, len(rest)))
        self._ended = not content
        try:
            self._text, self._at = rest + self._utf8.decode(content, final=self._ended), 0
        except UnicodeDecodeError as error:
            raise self.error(f"not UTF-8, byte 0x{error.object[error.start]:02x}") from None


def as_object(value: Any, noun: str, *, optional: bool = False) -> dict[str, Any]:
    """The value as an object; empty for null if it is `optional`."""
    if value is None and optional:
        return {}
    if not isinstance(value, dict):
        raise Malformed(f"{noun} is not an object", f": {excerpt(repr(value))}")
    return value


def as_list(owner: Mapping[str, Any], key: str) -> list[Any]:
    """The list under a key; empty if it is missing or null."""
    value = owner.get(key)
    if value is not None and not isinstance(value, list):
        raise Malformed(f"{key} is not a list", f": {excerpt(repr(value))}")
    return value or []


def as_text(value: Any, noun: str) -> str:
    """The value as a text that files can hold."""
    if not isinstance(value, str):
        raise Malformed(f"{noun} is not a string", f": {excerpt(repr(value))}")
    try:
        return of_characters(value)
    except ValueError as error:
        raise Malformed(f"{noun} {error}", f": {excerpt(value)}") from None


def as_offset(value: Any) -> int:
    """A number of characters, as a number or in digits."""
    if isinstance(value, bool) or not isinstance(value, int | str) or not OFFSET.fullmatch(str(value)):
        raise Malformed("offsets are not integers", f": {excerpt(repr(value))}")
    return int(value)
