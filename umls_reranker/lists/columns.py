"""Checked columns of mentions and candidates from Python objects or Arrow, for `CandidateLists.from_objects`."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Collection, Iterable, Mapping, Sequence, Sized
from itertools import chain, repeat
from numbers import Real
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa

from ..core.arrays import RepeatedTexts, list_offsets, number_distinct
from ..vocab.types import TypeSets

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
# This many objects fit into a core's cache while their keys are read one by one.
ITEMS_AT_ONCE = 128


# Keys of candidates of other tools, such as Elasticsearch and QuickUMLS, and what they are here. The _id of
# Elasticsearch is none: it is the id of a document, such as one name of a concept.
OF_OTHERS = {"concept_id": "cui", "term": "name", **dict.fromkeys(("similarity", "score", "_score"), "list_score")}


class InvalidRow(TypeError, ValueError):
    """A mention that cannot be ranked, because a value is missing, blank or of the wrong type.

    Attributes:
        row: its number, from 0.
        reason: what is wrong, without the number.
    """

    def __init__(self, row: int, reason: str, mentions: int) -> None:
        super().__init__(f"mention {row}: {reason}" if mentions > 1 else reason)
        self.row, self.reason = row, reason


def require_lists(**columns: Any) -> None:
    """Raise TypeError for a column that is a single text or has no length; None is allowed.

    A text would be read as the list of its letters.
    """
    for name, values in columns.items():
        if isinstance(values, str | bytes) or not isinstance(values, Sized | None):
            raise TypeError(f"{name} must be a list, not {type(values).__name__}")


class Column:
    """Checks the values under a key of n mentions or, with `offsets`, of their candidates.

    Its methods raise `InvalidRow`, which names the mention and the candidate.
    """

    def __init__(self, key: str, mentions: int, offsets: np.ndarray | None = None) -> None:
        self.key, self.mentions, self.offsets = key, mentions, offsets

    def refuse(self, position: int, reason: str) -> NoReturn:
        """Raise the error of the value at a position."""
        row, reason = position, f"{self.key} {reason}"
        if self.offsets is not None:
            row = int(np.searchsorted(self.offsets, position, side="right")) - 1
            reason = f"candidate {position - self.offsets[row]}: {reason}"
        raise InvalidRow(row, reason, self.mentions) from None

    def texts(self, values: Sequence[Any] | pa.Array) -> Sequence[str | None] | pa.StringArray:
        """The values as texts, or None if missing."""
        if isinstance(values, pa.Array):
            if _is_text(values.type):
                return values.cast(pa.string())
            values = values.to_pylist()
        if not all(issubclass(kind, str | None) for kind in set(map(type, values))):
            at = next(row for row, value in enumerate(values) if not isinstance(value, str | None))
            self.refuse(at, f"is {reprlib.repr(values[at])}, not a string or None")
        try:
            "".join(filter(None, values)).encode()
        except UnicodeEncodeError:
            at = next(row for row, text in enumerate(values) if text and SURROGATE.search(text))
            self.refuse(at, "holds half of a surrogate pair, which is not text")
        return values

    def no_blanks(self, texts: Sequence[str | None]) -> list[str]:
        """The texts, none of which may be missing or blank."""
        for row, text in enumerate(texts):
            if text is None or not text.strip():
                self.refuse(row, "is missing or blank")
        return [*texts]  # type: ignore[list-item]

    def types(self, values: Sequence[Any] | pa.Array) -> TypeSets:
        """The values as types, lists of types, or None."""
        if isinstance(values, pa.Array):
            if values.null_count == len(values):
                return TypeSets.missing(len(values))
            if _is_list(values.type) and _is_text(values.type.value_type) and not values.flatten().null_count:
                return TypeSets.of_lists(values.cast(pa.list_(pa.string())))
            values = values.to_pylist()
        try:
            return TypeSets.of(values)
        except TypeError as error:
            (at,) = error.args
        self.refuse(at, f"is {reprlib.repr(values[at])}, not a string or a list of strings")

    def numbers(self, values: Sequence[Any] | pa.Array) -> np.ndarray:
        """The values as float64, with NaN for None."""
        if isinstance(values, pa.Array):
            if pa.types.is_floating(values.type) or pa.types.is_integer(values.type):
                return values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
            values = values.to_pylist()
        try:
            numbers = np.array(values, np.float64)
            # NumPy would read strings as numbers.
            if numbers.ndim == 1 and not any(issubclass(kind, str | bytes) for kind in set(map(type, values))):
                return numbers
        except (TypeError, ValueError, OverflowError):
            pass
        at = next(row for row, value in enumerate(values) if not _is_number(value))
        self.refuse(at, f"is {reprlib.repr(values[at])}, not a number or None")


def flat_candidates(candidates: Sequence[Collection[Any]] | pa.Array) -> tuple[np.ndarray, list[Any] | pa.Array]:
    """Offsets of the candidates of n mentions, (n + 1,), and all m candidates.

    Raises:
        InvalidRow: the candidates of a mention are not a list.
    """
    if isinstance(candidates, pa.Array):
        if _is_list(candidates.type) and not candidates.null_count:
            return list_offsets(candidates.value_lengths().to_numpy()), candidates.flatten()
        candidates = candidates.to_pylist()
    for row, items in enumerate(candidates):
        # A string, a mapping or a data frame would be read as a list of its letters, keys or columns.
        is_other = isinstance(items, str | bytes | Mapping) or hasattr(items, "columns")
        if is_other or not isinstance(items, Collection):
            reason = f"are a {type(items).__name__}, not a list of names, mappings or objects"
            Column("candidates", len(candidates)).refuse(row, reason)
    items = list(chain.from_iterable(candidates))
    keys = set().union(*(item for item in items if type(item) is dict))
    if not keys.isdisjoint(OF_OTHERS) or any(issubclass(kind, list | tuple) for kind in set(map(type, items))):
        items = list(map(own_form, items))
    return list_offsets([len(items) for items in candidates]), items


def own_form(item: Any) -> Any:
    """A candidate of another tool as one of ours: a pair of id and score, or a mapping with keys of `OF_OTHERS`.

    >>> own_form(["D003110", 0.9]), own_form({"_id": "7", "_score": 7.5, "_source": {"cui": "D003110"}})
    ({'cui': 'D003110', 'list_score': 0.9}, {'list_score': 7.5, '_id': '7', 'cui': 'D003110'})
    """
    if isinstance(item, list | tuple) and len(item) == 2 and isinstance(item[1], Real):
        return {"cui": item[0], "list_score": item[1]}
    if not isinstance(item, dict) or not (item.keys() & OF_OTHERS):
        return item
    source = item["_source"] if isinstance(item.get("_source"), dict) else {}
    item = {key: value for key, value in item.items() if key != "_source"} | source
    # Where there are both, our own key counts.
    return {OF_OTHERS.get(key, key): item[key] for key in sorted(item, key=OF_OTHERS.__contains__, reverse=True)}


def keys_found(item: Any) -> str:
    """The keys of a mapping, as the end of a message."""
    return f"; its keys are {', '.join(map(repr, item))}" if isinstance(item, Mapping) else ""


def bare_id(cui: str) -> str:
    """An id without the prefix of its vocabulary, unless a mere number is left: D003920 of MESH:D003920."""
    rest = cui.rpartition(":")[2]
    return rest if rest[:1].isalpha() else cui


def score_names(items: list[Any] | pa.Array) -> list[str]:
    """NAME of each ``NAME_score`` that any candidate has, in order."""
    if isinstance(items, pa.Array):
        keys: Iterable[str] = _own_keys(items.type) if pa.types.is_struct(items.type) else ()
    else:
        keys = dict.fromkeys(key for item in items if isinstance(item, Mapping) for key in item)
    return [key.removesuffix(SUFFIX) for key in keys if key.endswith(SUFFIX)]


def values_by_key(items: list[Any] | pa.Array, keys: Sequence[str]) -> dict[str, list[Any] | pa.Array]:
    """The values of each key in all candidates: names, mappings or objects; in Arrow, texts or structs."""
    missing = pa.nulls(len(items), pa.string())
    columns: dict[str, Any] = dict.fromkeys(keys, missing)
    if isinstance(items, pa.Array):
        if pa.types.is_struct(items.type):
            columns |= dict(zip(_own_keys(items.type), items.flatten(), strict=True))
            return {**columns, "cui": columns["id"]} if columns.get("cui") is missing and "id" in columns else columns
        return columns | {"name": items}
    kinds = set(map(type, items))
    if kinds <= {str}:
        return columns | {"name": items}
    read = dict.get if kinds == {dict} else _value
    columns = {key: [] for key in keys}
    for start in range(0, len(items), ITEMS_AT_ONCE):
        some = items[start : start + ITEMS_AT_ONCE]
        for key, column in columns.items():
            column.extend(map(read, some, repeat(key)))
    if any(cui is None for cui in columns["cui"]):
        columns["cui"] = list(map(concept_id, items))
    return columns


def concept_id(item: Any) -> Any:
    """The value under ``cui`` of a candidate or row, or else under ``id``."""
    return _value(item, "id") if (cui := _value(item, "cui")) is None and isinstance(item, Mapping) else cui


def trainable(gold: Iterable[Sequence[Sequence[str]]]) -> list[str]:
    """The gold concept of mentions, given as in `labels.gold_parts`; "", which is no concept, for several or none.

    So nothing learns from mentions with several gold concepts or none.
    """
    return [parts[0][0] if list(map(len, parts or ())) == [1] else "" for parts in gold]


def _value(item: Any, key: str) -> Any:
    if isinstance(item, str):
        return item if key == "name" else None
    return item.get(key) if isinstance(item, Mapping) else getattr(item, key, None)


def encoded_texts(texts: Sequence[str | None] | pa.StringArray | pa.ChunkedArray) -> RepeatedTexts:
    """A column that holds equal texts once, and None for missing ones."""
    if len(texts) <= FEW_TEXTS:
        return RepeatedTexts(*number_distinct(texts if isinstance(texts, Sequence) else texts.to_pylist()))
    column = pa.array(texts, pa.string()) if isinstance(texts, Sequence) else whole(texts)
    encoded = column.dictionary_encode("encode")
    return RepeatedTexts(encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64))


def as_arrow(texts: RepeatedTexts) -> pa.StringArray:
    """The inverse of `encoded_texts`; null where a row's code is -1."""
    return pa.array(texts.texts, pa.string()).take(pa.array(texts.codes, mask=texts.codes < 0))


def listed(values: Sequence[Any] | pa.Array) -> Sequence[Any]:
    """The values as Python objects."""
    return values.to_pylist() if isinstance(values, pa.Array) else values


def whole(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A column in one piece."""
    if isinstance(column, pa.Array):
        return column
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _is_number(value: Any) -> bool:
    try:
        return not isinstance(value, str | bytes) and np.array(value, np.float64).ndim == 0
    except (TypeError, ValueError, OverflowError):
        return False


def _own_keys(kind: pa.StructType) -> list[str]:
    names = [field.name for field in kind]
    # Where there are both, our own key counts.
    return [name if OF_OTHERS.get(name) in names else OF_OTHERS.get(name, name) for name in names]


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def _is_text(kind: pa.DataType) -> bool:
    """Whether a cast to texts changes no value."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)
