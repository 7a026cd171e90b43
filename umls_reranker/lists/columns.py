"""Columns of mentions and candidates: what users give, in Arrow, or an error that names its row.

Candidates may have the forms of other tools. Scores with a meaning of their own are those of our
retrievers and a teacher's. A gold concept is an id, several alternatives, or a composite of parts.
"""

import math
import reprlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from itertools import chain, repeat
from numbers import Real
from typing import Any, NamedTuple, NoReturn

import numpy as np
import pyarrow as pa

from ..core.arrays import RepeatedTexts, list_offsets, lists_with_any
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


def length_fault(characters: int) -> str:
    """What is wrong with a mention of this length; "" if it is not too long."""
    if characters <= MAX_MENTION_CHARS:
        return ""
    return f"has {characters:,} characters; a mention has at most {MAX_MENTION_CHARS:,}"


def require_lists(**columns: Any) -> None:
    """Raise TypeError for a column that is a text or has no length, ValueError for unequal lengths.

    A text would be read as the list of its letters, a data frame as that of the names of its
    columns. None is allowed.
    """
    for name, values in columns.items():
        if (
            isinstance(values, str | bytes)
            or hasattr(values, "columns")
            or not isinstance(values, Sized | None)
        ):
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
    return list(map(_first_given, *columns))


def _first_given(*values: Any) -> Any:
    """The first value that is not None, if there is any."""
    return next((value for value in values if value is not None), None)


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

    def mention_texts(self, key: str, values: Sequence[Any] | pa.Array) -> list[str]:
        """The values as texts, none of which may be missing, blank or too long."""
        texts = self.column(key, values, TEXT).to_pylist()
        for row, text in enumerate(texts):
            if text is None or not text.strip():
                self.refuse(key, row, "is missing or blank")
            if fault := length_fault(len(text)):
                self.refuse(key, row, fault)
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
                self.require(key, position, value, kind)
            raise

    def require(self, key: str, position: int, value: Any, kind: Kind) -> None:
        """Refuse a value that is not of a kind."""
        try:
            kind.convert([value])
        except CONVERSION_ERRORS:
            self.refuse(key, position, f"is {reprlib.repr(value)}, not {kind.expected}")


def encoded_texts(texts: pa.StringArray) -> RepeatedTexts:
    """A column that holds equal texts once, and None for missing ones."""
    encoded = texts.dictionary_encode("encode")
    return RepeatedTexts(
        encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)
    )


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


# This many objects fit into a core's cache while their keys are read one by one.
ITEMS_AT_ONCE = 128
# Keys of candidates of other tools, such as Elasticsearch and QuickUMLS, and what they are here.
# The _id of Elasticsearch is none: it is the id of a document, such as one name of a concept.
FOREIGN_KEYS = {
    "concept_id": "cui",
    "term": "name",
    "similarity": "list_score",
    "score": "list_score",
    "_score": "list_score",
}


class CandidateColumns(NamedTuple):
    """All m candidates of n mentions.

    Attributes:
        offsets: (n + 1,) where each mention's candidates start.
        items: the m candidates.
        values: key -> m values; a key that no candidate has may be missing.
        score_keys: each key ``NAME_score`` that any candidate has, in order.
    """

    offsets: np.ndarray
    items: Sequence[Any] | pa.StructArray
    values: Mapping[str, Sequence[Any] | pa.Array]
    score_keys: list[str]

    def lists_with(self, key: str) -> np.ndarray:
        """Whether any candidate of each mention has a value under a score's key, (n,) bool."""
        lacking = missing_rows(self.values[key])
        return lists_with_any(~np.isin(np.arange(len(self.items)), lacking), self.offsets)

    @property
    def are_scored(self) -> np.ndarray:
        """(n,) bool, whether any candidate of a mention has a score of a retriever."""
        retrievers = (key for key in self.score_keys if key != SYNONYM_SCORE)
        return np.logical_or.reduce(
            [np.zeros(len(self.offsets) - 1, bool), *map(self.lists_with, retrievers)]
        )


def candidate_columns(
    candidates: Sequence[Collection[Any]] | pa.Array, scores: Iterable[str] | None
) -> CandidateColumns:
    """The candidates of n mentions by key: names, mappings, objects, or lists of structs in Arrow.

    Args:
        candidates: of each mention.
        scores: retrievers whose scores to read; None: all.

    Raises:
        InvalidRow: the candidates of a mention are not a list.
    """
    if isinstance(candidates, pa.Array):
        kind = candidates.type
        if is_list(kind) and pa.types.is_struct(kind.value_type) and not candidates.null_count:
            return _columns_of_structs(candidates)
        candidates = candidates.to_pylist()
    _require_lists(candidates)
    items = list(chain.from_iterable(candidates))
    offsets = list_offsets(list(map(len, candidates)))
    kinds = set(map(type, items))
    if kinds <= {str}:
        return CandidateColumns(offsets, items, {"name": items}, [])
    keys = _keys_of(items)
    has_pairs = any(issubclass(kind, list | tuple) for kind in kinds)
    if has_pairs or not FOREIGN_KEYS.keys().isdisjoint(keys):
        items = list(map(standard_candidate, items))
        keys = _keys_of(items)
    score_keys = [key for key in keys if key.endswith(SUFFIX)]
    wanted = [*CANDIDATE_KEYS]
    wanted += dict.fromkeys([*score_keys, *(name + SUFFIX for name in scores or ())])
    read: Callable[[Any, str], Any] = _value_under
    if set(map(type, items)) == {dict}:
        read = dict.get
        wanted = [key for key in wanted if key in keys]
    values: dict[str, list[Any]] = {key: [] for key in wanted}
    for start in range(0, len(items), ITEMS_AT_ONCE):
        block = items[start : start + ITEMS_AT_ONCE]
        for key, column in values.items():
            column.extend(map(read, block, repeat(key)))
    if "id" in keys:
        values["cui"] = list(map(concept_id, items))
    return CandidateColumns(offsets, items, values, score_keys)


def _require_lists(candidates: Sequence[Any]) -> None:
    """Refuse candidates of a mention that are no list; `InvalidRow`."""
    for row, items in enumerate(candidates):
        # A string, mapping or data frame would be read as a list of its letters, keys or columns.
        is_other = isinstance(items, str | bytes | Mapping) or hasattr(items, "columns")
        if is_other or not isinstance(items, Collection):
            reason = f"are a {type(items).__name__}, not a list of names, mappings or objects"
            ColumnChecker(len(candidates)).refuse("candidates", row, reason)


def _own_key(name: str, names: Collection[str]) -> str:
    """Our name of a key of some candidates; where they have both, our own key counts."""
    own_name = FOREIGN_KEYS.get(name, name)
    return name if own_name in names else own_name


def _columns_of_structs(candidates: pa.ListArray) -> CandidateColumns:
    items = candidates.flatten()
    names = items.type.names
    keys = [_own_key(name, names) for name in names]
    values = dict(zip(keys, items.flatten(), strict=True))
    if "id" in values:
        values.setdefault("cui", values["id"])
    return CandidateColumns(
        list_offsets(candidates.value_lengths().to_numpy()),
        items,
        values,
        [key for key in keys if key.endswith(SUFFIX)],
    )


def _keys_of(items: Sequence[Any]) -> Collection[str]:
    """The keys of those candidates that are mappings, each once."""
    return dict.fromkeys(chain.from_iterable(item for item in items if isinstance(item, Mapping)))


def standard_candidate(item: Any) -> Any:
    """A candidate of another tool as one of ours: a pair of id and score, or with `FOREIGN_KEYS`.

    >>> standard_candidate(["D003110", 0.9])
    {'cui': 'D003110', 'list_score': 0.9}
    >>> standard_candidate({"_id": "7", "_score": 7.5, "_source": {"cui": "D003110"}})
    {'list_score': 7.5, '_id': '7', 'cui': 'D003110'}
    """
    if isinstance(item, list | tuple) and len(item) == 2 and isinstance(item[1], Real):
        return {"cui": item[0], "list_score": item[1]}
    if not isinstance(item, dict) or not (item.keys() & FOREIGN_KEYS):
        return item
    source = item["_source"] if isinstance(item.get("_source"), dict) else {}
    values = {key: value for key, value in item.items() if key != "_source"} | source
    renamed = {FOREIGN_KEYS[key]: value for key, value in values.items() if key in FOREIGN_KEYS}
    # Where there are both, our own key counts.
    return renamed | {key: value for key, value in values.items() if key not in FOREIGN_KEYS}


def keys_found(item: Any) -> str:
    """The keys of a mapping, as the end of a message."""
    return f"; its keys are {', '.join(map(repr, item))}" if isinstance(item, Mapping) else ""


def bare_id(cui: str) -> str:
    """An id without its vocabulary, unless a mere number is left: D003920 of MESH:D003920."""
    rest = cui.rpartition(":")[2]
    return rest if rest[:1].isalpha() else cui


def concept_id(item: Any) -> Any:
    """The value under ``cui`` of a candidate or row, or else under ``id``."""
    cui = _value_under(item, "cui")
    return item.get("id") if cui is None and isinstance(item, Mapping) else cui


def _value_under(item: Any, key: str) -> Any:
    """The value of a key of a candidate, which may be a name, a mapping or an object."""
    if isinstance(item, str):
        return item if key == "name" else None
    return item.get(key) if isinstance(item, Mapping) else getattr(item, key, None)


# Keys of a row's gold concept, the first before the other.
GOLD_KEYS = ("gold_cui", "cui")
# The gold concept of a mention that has none, and what else is written for it, in lower case.
CUI_LESS = "CUI-less"
NIL = ("cui-less", "cui_less", "nil", "-1", "-")


def gold_parts(value: Any) -> tuple[tuple[str, ...], ...] | None:
    """The gold concepts of a mention: the ids of each part, of which any is correct; () for none.

    A text is one id, verbatim, but for those of `NIL`; a list holds alternatives of one part; and a
    list of lists is a composite of parts. None is returned for anything else.

    >>> gold_parts("D003110"), gold_parts(["D003110", "C562477"])
    ((('D003110',),), (('D003110', 'C562477'),))
    >>> gold_parts([["D001943"], ["D010051"]])
    (('D001943',), ('D010051',))
    """
    parts = value if isinstance(value, list) else [[value]]
    if parts and not any(isinstance(part, list) for part in parts):
        parts = [parts]
    texts = list(map(_ids_of_part, parts))
    ids = tuple(tuple(filter(None, part)) for part in texts)
    return None if None in chain(*texts) else ids


def _ids_of_part(part: Any) -> list[str | None]:
    """The ids of a part; None for what is no id, and of what is no list."""
    return list(map(_gold_id, part)) if isinstance(part, list) else [None]


def _gold_id(value: Any) -> str | None:
    text = id_text(value)
    return CUI_LESS if text is not None and text.lower() in NIL else text


def trainable(gold: Iterable[Sequence[Sequence[str]]]) -> list[str]:
    """The gold concept of mentions, given as in `gold_parts`; "" for several or none.

    So nothing learns from mentions with several gold concepts or none.
    """
    return list(map(_sole_id, gold))


def _sole_id(parts: Sequence[Sequence[str]] | None) -> str:
    """The id of one part with one id, else ""."""
    if not parts or len(parts) > 1 or len(parts[0]) != 1:
        return ""
    return parts[0][0]


def id_text(value: Any) -> str | None:
    """An id as text, the same after a spreadsheet turned 7 into 7.0, or a blank cell into NaN."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return None if value is None or isinstance(value, list | dict) else str(value).strip() or None
