"""Columns of mentions and candidates in Arrow: texts, numbers and types, each checked by its row.

A value that will not do raises an error that names its row and key.
"""

import json
import reprlib
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import numpy as np
import pyarrow as pa

from ..core.arrays import RepeatedTexts
from ..vocab.type_sets import TYPE_LISTS, type_lists

# Fields of a candidate that a template may show in addition to its name.
FIELDS = ("preferred_name", "definition")
# Keys of a candidate that are not scores.
CANDIDATE_KEYS = ("name", "cui", *FIELDS, "semantic_types")
# The end of a key that is a score.
SUFFIX = "_score"
# The end of the feature that is 1 where a retriever found a candidate, 0 where only others did.
FOUND = "_found"
# The score that a `dictionary.Dictionary` gives.
SYNONYM_SCORE = "synonym_score"
# Longest mention. A name in text is shorter; of a longer one, the search would take seconds.
MAX_MENTION_CHARS = 1_000
# What the conversion of a value raises that will not do, such as half of a surrogate pair.
CONVERSION_ERRORS = (TypeError, ValueError, OverflowError)


class InvalidRow(TypeError, ValueError):
    """A mention that cannot be ranked, because a value is missing, blank or of the wrong type.

    Attributes:
        row: its number, from 0.
        reason: what is wrong, without the number.
    """

    def __init__(self, row: int, reason: str, mentions: int) -> None:
        message = f"mention {row}: {reason}" if mentions > 1 else reason
        super().__init__(message)
        self.row = row
        self.reason = reason


def length_fault(characters: int) -> str:
    """What is wrong with a mention of this length; "" if it is not too long."""
    if characters <= MAX_MENTION_CHARS:
        return ""
    return f"has {characters:,} characters; a mention has at most {MAX_MENTION_CHARS:,}"


class Kind(NamedTuple):
    """What the values of a column are.

    Attributes:
        expected: what users give, for messages.
        convert: makes the column of Python objects; raises one of `CONVERSION_ERRORS` if it cannot.
        types: its type in Arrow, and others that are cast to it; all else is read as objects.
    """

    expected: str
    convert: Callable[[Sequence[Any]], pa.Array]
    types: tuple[pa.DataType, ...]


def _convert_texts(values: Sequence[Any]) -> pa.StringArray:
    # Arrow would read bytes as texts.
    if not all(issubclass(kind, str | None) for kind in set(map(type, values))):
        raise TypeError("a value is not a string")
    return pa.array(values, pa.string())


def _convert_numbers(values: Sequence[Any]) -> pa.DoubleArray:
    # NumPy would read strings as numbers.
    if any(issubclass(kind, str | bytes) for kind in set(map(type, values))):
        raise TypeError("a value is not a number")
    numbers = np.array(values, np.float64)
    return pa.array(numbers, mask=np.array([value is None for value in values], bool))


TEXT = Kind(
    "a string of whole characters, or None", _convert_texts, (pa.string(), pa.large_string())
)
NUMBER = Kind("a number or None", _convert_numbers, (pa.float64(), pa.float32(), pa.int64()))
TYPES = Kind("a string or a list of strings", type_lists, (TYPE_LISTS,))


@dataclass(frozen=True)
class ColumnChecker:
    """Reads columns of n mentions or, with `offsets`, of their candidates.

    Its methods raise `InvalidRow`, which names the mention, the candidate and the key of a value
    that will not do.

    Args:
        mentions: number of mentions.
        offsets: (n + 1,) where each mention's candidates start; None: the values are those of
            mentions.
    """

    mentions: int
    offsets: np.ndarray | None = None

    def refuse(self, key: str, position: int, reason: str) -> NoReturn:
        """Raise the error of the value at a position."""
        if self.offsets is None:
            raise InvalidRow(position, f"{key} {reason}", self.mentions) from None
        row = int(np.searchsorted(self.offsets, position, side="right")) - 1
        candidate = position - self.offsets[row]
        raise InvalidRow(row, f"candidate {candidate}: {key} {reason}", self.mentions) from None

    def converted(self, key: str, values: Sequence[Any], kind: Kind) -> pa.Array:
        """Python objects as an array of the kind's first type, null where they are None."""
        try:
            return kind.convert(values)
        except CONVERSION_ERRORS:
            for position, value in enumerate(values):
                self.require(key, position, value, kind)
            raise

    def column(self, key: str, values: pa.Array | None, kind: Kind) -> pa.Array:
        """The values as an array of the kind's first type, null where they are missing.

        Args:
            key: their key.
            values: an array of any type; None: all are missing.
            kind: what they have to be.
        """
        if values is None:
            count = self.mentions if self.offsets is None else int(self.offsets[-1])
            return pa.nulls(count, kind.types[0])
        has_gaps = kind is TYPES and is_list(values.type) and values.flatten().null_count
        if values.type in kind.types and not has_gaps:
            return values.cast(kind.types[0], safe=False)
        return self.converted(key, python_values(values), kind)

    def mention_texts(self, key: str, texts: pa.StringArray) -> list[str]:
        """The texts, none of which may be missing, blank or too long."""
        mentions = texts.to_pylist()
        for row, text in enumerate(mentions):
            if text is None or not text.strip():
                self.refuse(key, row, "is missing or blank")
            if len(text) > MAX_MENTION_CHARS:
                self.refuse(key, row, length_fault(len(text)))
        return mentions

    def require(self, key: str, position: int, value: Any, kind: Kind) -> None:
        """Refuse a value that is not of a kind."""
        try:
            kind.convert([value])
        except CONVERSION_ERRORS:
            self.refuse(key, position, f"is {reprlib.repr(value)}, not {kind.expected}")


# A column of values that Arrow has no one type for, each as a text in JSON.
JSON = pa.json_(pa.large_string())


def python_values(column: pa.Array) -> list[Any]:
    """The values of a column as Python objects; those of `JSON` as they were before."""
    if column.type != JSON:
        return column.to_pylist()
    values = []
    for text in column.to_pylist():
        value = None if text is None else json.loads(text)
        values.append(value)
    return values


def arrow_column(values: Sequence[Any], convert: Callable[[Sequence[Any]], pa.Array]) -> pa.Array:
    """The column that a function makes of values, or these in JSON if it cannot.

    Raises:
        TypeError, ValueError: it cannot, and a value is no JSON; the error is that of the function.
    """
    try:
        return convert(values)
    except CONVERSION_ERRORS as fault:
        try:
            return json_column(values)
        except TypeError:
            raise fault from None


def json_column(values: Iterable[Any], otherwise: Callable[[Any], Any] | None = None) -> pa.Array:
    """Values in JSON, null where they are None.

    Args:
        values: the values.
        otherwise: gets those of other types, and returns a value of JSON; None: they are refused.

    Raises:
        TypeError: a value is no JSON.
    """
    texts = []
    for value in values:
        text = None if value is None else json.dumps(value, default=otherwise)
        texts.append(text)
    return pa.array(texts, JSON)


def as_text(value: Any) -> str:
    """Text for values without a JSON type: bytes in base64, others as Python formats them."""
    return b64encode(value).decode() if isinstance(value, bytes) else str(value)


def encoded_texts(texts: pa.StringArray) -> RepeatedTexts:
    """A column that holds equal texts once, and None for missing ones."""
    encoded = texts.dictionary_encode("encode")
    return RepeatedTexts(
        encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)
    )


def as_arrow(texts: RepeatedTexts) -> pa.StringArray:
    """The inverse of `encoded_texts`; null where a row's code is -1."""
    return pa.array(texts.texts, pa.string()).take(pa.array(texts.codes, mask=texts.codes < 0))


def is_list(kind: pa.DataType) -> bool:
    """Whether values of this type are lists of any length."""
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)
