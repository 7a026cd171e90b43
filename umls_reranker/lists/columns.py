"""Columns of mentions and candidates: names, and checked values from Python objects or Arrow."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Sized
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa

from ..core.arrays import RepeatedTexts, number_distinct
from ..vocab.types import TypeSets, are_types

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
SURROGATE = re.compile("[\ud800-\udfff]")
# Up to this many objects, Python deduplicates faster than Arrow.
FEW_TEXTS = 256


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
    """n mentions and their candidates, not yet checked.

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

    def require_lists(self) -> None:
        """Raise an error unless all are lists of n values; it uses the names of `rerank_batch`."""
        require_lists(
            entities=self.mentions,
            candidates=self.candidates,
            entity_types=self.types,
            lefts=self.lefts,
            rights=self.rights,
            index_keys=self.index_keys,
        )


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


class ColumnChecker:
    """Checks columns of n mentions or, with `offsets`, of their candidates.

    Its methods raise `InvalidRow`, which names the mention, the candidate and the key of a value
    that will not do.

    Args:
        mentions: number of mentions.
        offsets: (n + 1,) where each mention's candidates start; None: the values are those of
            mentions.
    """

    def __init__(self, mentions: int, offsets: np.ndarray | None = None) -> None:
        self._mentions = mentions
        self._offsets = offsets

    def refuse(self, key: str, position: int, reason: str) -> NoReturn:
        """Raise the error of the value at a position."""
        if self._offsets is None:
            raise InvalidRow(position, f"{key} {reason}", self._mentions) from None
        row = int(np.searchsorted(self._offsets, position, side="right")) - 1
        candidate = position - self._offsets[row]
        raise InvalidRow(row, f"candidate {candidate}: {key} {reason}", self._mentions) from None

    def texts(
        self, key: str, values: Sequence[Any] | pa.Array
    ) -> Sequence[str | None] | pa.StringArray:
        """The values as texts, or None if missing."""
        if isinstance(values, pa.Array):
            if _is_text(values.type):
                return values.cast(pa.string())
            values = values.to_pylist()
        if not set(map(type, values)) <= {str, type(None)}:
            self._require(
                key, values, lambda value: isinstance(value, str | None), "a string or None"
            )
        try:
            "".join(filter(None, values)).encode()
        except UnicodeEncodeError:
            at = next(row for row, text in enumerate(values) if text and SURROGATE.search(text))
            self.refuse(key, at, "holds half of a surrogate pair, which is not text")
        return values

    def filled_texts(self, key: str, values: Sequence[Any] | pa.Array) -> list[str]:
        """The values as texts, none of which may be missing or blank."""
        texts = listed(self.texts(key, values))
        for row, text in enumerate(texts):
            if text is None or not text.strip():
                self.refuse(key, row, "is missing or blank")
        return [*texts]

    def texts_or_empty(self, key: str, values: Sequence[Any] | pa.Array | None) -> list[str]:
        """The values as texts, "" where they are missing."""
        texts = [None] * self._mentions if values is None else listed(self.texts(key, values))
        return [text or "" for text in texts]

    def arrow_texts(self, key: str, values: Sequence[Any] | pa.Array) -> pa.StringArray:
        """The values as texts in Arrow, null where they are missing."""
        texts = self.texts(key, values)
        return texts if isinstance(texts, pa.Array) else pa.array(texts, pa.string())

    def types(self, key: str, values: Sequence[Any] | pa.Array | None) -> TypeSets:
        """The values as types, lists of types, or None."""
        if values is None:
            return TypeSets.missing(self._mentions)
        if isinstance(values, pa.Array):
            if values.null_count == len(values):
                return TypeSets.missing(len(values))
            if (
                is_list(values.type)
                and _is_text(values.type.value_type)
                and not values.flatten().null_count
            ):
                return TypeSets.of_lists(values.cast(pa.list_(pa.string())))
            values = values.to_pylist()
        try:
            return TypeSets.of(values)
        except TypeError:
            self._require(key, values, are_types, "a string or a list of strings")
            raise

    def numbers(self, key: str, values: Sequence[Any] | pa.Array) -> np.ndarray:
        """The values as float64, with NaN for None."""
        if isinstance(values, pa.Array):
            if pa.types.is_floating(values.type) or pa.types.is_integer(values.type):
                return values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
            values = values.to_pylist()
        # NumPy would read strings as numbers.
        if not any(issubclass(kind, str | bytes) for kind in set(map(type, values))):
            with suppress(TypeError, ValueError, OverflowError):
                numbers = np.array(values, np.float64)
                if numbers.ndim == 1:
                    return numbers
        self._require(key, values, _is_number, "a number or None")
        return np.array(values, np.float64)

    def _require(
        self, key: str, values: Sequence[Any], is_valid: Callable[[Any], bool], expected: str
    ) -> None:
        """Refuse the first value that is not what is expected."""
        for position, value in enumerate(values):
            if not is_valid(value):
                self.refuse(key, position, f"is {reprlib.repr(value)}, not {expected}")


def encoded_texts(texts: Sequence[str | None] | pa.StringArray) -> RepeatedTexts:
    """A column that holds equal texts once, and None for missing ones."""
    if len(texts) <= FEW_TEXTS:
        return RepeatedTexts(*number_distinct(listed(texts)))
    encoded = pa.array(texts, pa.string()).dictionary_encode("encode")
    codes = encoded.indices.to_numpy().astype(np.int64)
    return RepeatedTexts(encoded.dictionary.to_pylist(), codes)


def as_arrow(texts: RepeatedTexts) -> pa.StringArray:
    """The inverse of `encoded_texts`; null where a row's code is -1."""
    return pa.array(texts.texts, pa.string()).take(pa.array(texts.codes, mask=texts.codes < 0))


def listed(values: Sequence[Any] | pa.Array) -> Sequence[Any]:
    """The values as Python objects."""
    return values.to_pylist() if isinstance(values, pa.Array) else values


def _is_number(value: Any) -> bool:
    try:
        return not isinstance(value, str | bytes) and np.array(value, np.float64).ndim == 0
    except (TypeError, ValueError, OverflowError):
        return False


def is_list(kind: pa.DataType) -> bool:
    """Whether values of this type are lists of any length."""
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def _is_text(kind: pa.DataType) -> bool:
    """Whether a cast to texts changes no value."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)
