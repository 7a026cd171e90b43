"""Columns of mentions and candidates: what users give, in Arrow, or an error that names its row."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import numpy as np
import pyarrow as pa

from ..core.arrays import RepeatedTexts
from ..vocab.types import TYPE_LISTS, type_lists

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
# What the conversion of a value raises that will not do, such as half of a surrogate pair.
CONVERSION_ERRORS = (TypeError, ValueError, OverflowError)


class InvalidRow(TypeError, ValueError):
    """A mention that cannot be ranked, because a value is missing, blank or of the wrong type.

    Attributes:
        row: its number, from 0.
        reason: what is wrong, without the number.
    """

    def __init__(self, row: int, reason: str, mentions: int) -> None:
        super().__init__(f"mention {row}: {reason}" if mentions > 1 else reason)
        self.row = row
        self.reason = reason


@dataclass(frozen=True)
class MentionColumns:
    """n mentions and their candidates as users give them, not yet checked: objects or Arrow.

    Attributes:
        mentions: n texts.
        candidates: the candidates of each mention: names, mappings or objects, as for
            `UMLSReranker.rerank`.
        types: types of n mentions, each an id or name or several; None: no mention has one.
        lefts: n texts before the mentions; None: there is none.
        rights: n texts after the mentions; None: there is none.
        index_keys: for n mentions the key of the index that gave their candidates; None: unknown.
    """

    mentions: Sequence[str]
    candidates: Sequence[Collection[Any]] | pa.Array
    types: Sequence[str | Iterable[str] | None] | pa.Array | None = None
    lefts: Sequence[str | None] | pa.Array | None = None
    rights: Sequence[str | None] | pa.Array | None = None
    index_keys: Sequence[str] | None = None


def require_lists(**columns: Any) -> None:
    """Raise TypeError for a column that is a text or has no length, ValueError for unequal lengths.

    A text would be read as the list of its letters. None is allowed.
    """
    for name, values in columns.items():
        if isinstance(values, str | bytes) or not isinstance(values, Sized | None):
            raise TypeError(f"{name} must be a list, not {type(values).__name__}")
    lengths = {name: len(values) for name, values in columns.items() if values is not None}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{length} {name}" for name, length in lengths.items())
        raise ValueError(f"columns need the same number of values, not {counts}")


def row_column(rows: Sequence[Mapping[str, Any]] | pa.Table, key: str) -> list[Any] | pa.Array:
    """The value of a key in each of n rows, None or null where it is missing."""
    if not isinstance(rows, pa.Table):
        return [row.get(key) for row in rows]
    has_key = key in rows.column_names
    return rows[key].combine_chunks() if has_key else pa.nulls(len(rows), pa.string())


def first_values(rows: Sequence[Mapping[str, Any]] | pa.Table, *keys: str) -> list[Any]:
    """The value of the first of some keys that each of n rows has, else None."""
    columns = [listed(row_column(rows, key)) for key in keys]
    return [
        next((value for value in values if value is not None), None)
        for values in zip(*columns, strict=True)
    ]


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
    return pa.array(np.array(values, np.float64))


TEXT = Kind(
    "a string of whole characters, or None", _convert_texts, (pa.string(), pa.large_string())
)
NUMBER = Kind("a number or None", _convert_numbers, (pa.float64(), pa.float32(), pa.int64()))
TYPES = Kind("a string or a list of strings", type_lists, (TYPE_LISTS,))


@dataclass(frozen=True)
class ColumnChecker:
    """Reads columns of n mentions or, with `offsets`, of their candidates.

    A column is None, n Python objects, or an array. Its methods raise `InvalidRow`, which names the
    mention, the candidate and the key of a value that will not do.

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

    def filled_texts(self, key: str, values: Sequence[Any] | pa.Array) -> list[str]:
        """The values as texts, none of which may be missing or blank."""
        texts = self.column(key, values, TEXT).to_pylist()
        for row, text in enumerate(texts):
            if text is None or not text.strip():
                self.refuse(key, row, "is missing or blank")
        return texts

    def texts_or_empty(self, key: str, values: Sequence[Any] | pa.Array | None) -> list[str]:
        """The values as texts, "" where they are missing."""
        return [text or "" for text in self.column(key, values, TEXT).to_pylist()]

    def column(self, key: str, values: Sequence[Any] | pa.Array | None, kind: Kind) -> pa.Array:
        """The values as an array of the kind's first type, null where they are missing."""
        if values is None:
            count = self.mentions if self.offsets is None else int(self.offsets[-1])
            return pa.nulls(count, kind.types[0])
        if isinstance(values, pa.Array):
            has_gaps = kind is TYPES and is_list(values.type) and values.flatten().null_count
            if values.type in kind.types and not has_gaps:
                return values.cast(kind.types[0], safe=False)
            values = values.to_pylist()
        try:
            return kind.convert(values)
        except CONVERSION_ERRORS:
            for position, value in enumerate(values):
                try:
                    kind.convert([value])
                except CONVERSION_ERRORS:
                    reason = f"is {reprlib.repr(value)}, not {kind.expected}"
                    self.refuse(key, position, reason)
            raise


def encoded_texts(texts: pa.StringArray) -> RepeatedTexts:
    """A column that holds equal texts once, and None for missing ones."""
    encoded = texts.dictionary_encode("encode")
    codes = encoded.indices.to_numpy().astype(np.int64)
    return RepeatedTexts(encoded.dictionary.to_pylist(), codes)


def as_arrow(texts: RepeatedTexts) -> pa.StringArray:
    """The inverse of `encoded_texts`; null where a row's code is -1."""
    return pa.array(texts.texts, pa.string()).take(pa.array(texts.codes, mask=texts.codes < 0))


def listed(values: Sequence[Any] | pa.Array | pa.Table) -> Sequence[Any]:
    """The values, or the rows of a table, as Python objects."""
    return values.to_pylist() if isinstance(values, pa.Array | pa.Table) else values


def missing_rows(values: Sequence[Any] | pa.Array) -> np.ndarray:
    """The rows without a value."""
    if isinstance(values, pa.Array):
        return np.flatnonzero(values.is_null())
    return np.flatnonzero([value is None for value in values])


def is_list(kind: pa.DataType) -> bool:
    """Whether values of this type are lists of any length."""
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)
