"""Checked columns of mentions and candidates from Python objects or Arrow, for `CandidateLists.from_objects`.

An Arrow column that is not of the usual type is checked as Python objects.
"""

from __future__ import annotations

import reprlib
from collections.abc import Collection, Iterable, Mapping, Sequence, Sized
from itertools import chain, repeat
from typing import Any, NamedTuple, NoReturn

import numpy as np
import pyarrow as pa

from ..core.arrays import RepeatedTexts, list_offsets, number_distinct
from .semantic_types import TypeHierarchy
from .type_sets import TypeSets

# Fields of a candidate that a template may show in addition to its name.
FIELDS = ("preferred_name", "definition")
# Of a mention, columns that a call of rerank takes.
MENTION_FIELDS = ("entity", "candidates", "entity_type", "left", "right")
# The other name of ``entity`` in files, tables and requests.
MENTION = "mention"
DIFFERENT = "has entity and mention, which differ; keep one of them"
# The score that a `dictionary.Dictionary` gives.
SYNONYM_SCORE = "synonym_score"
# Keys of a candidate that are not scores.
CANDIDATE_KEYS = ("name", "cui", *FIELDS, "semantic_types")

TEXTS = (str, bytes)

# Up to this many objects, Python deduplicates faster than Arrow.
FEW_TEXTS = 256
# This many objects fit into a core's cache while their keys are read one by one.
ITEMS_AT_ONCE = 128


class CandidateColumns(NamedTuple):
    """The values of m candidates; attributes and their order are those of `CandidateLists`."""

    names: RepeatedTexts
    cuis: RepeatedTexts
    preferred_names: pa.StringArray
    definitions: pa.StringArray
    candidate_types: TypeSets
    scores: dict[str, np.ndarray]


def require_lists(**columns: Any) -> None:
    """Raise TypeError for a column that is a single text or has no length; None is allowed.

    A text would be read as the list of its letters.
    """
    for name, values in columns.items():
        if isinstance(values, str | bytes) or not isinstance(values, Sized | None):
            raise TypeError(f"{name} must be a list, not {type(values).__name__}")


def entity_of(row: Mapping[str, Any]) -> Any:
    """The text of a mention under ``entity`` or ``mention``.

    Raises:
        ValueError: there is neither, or both, and they differ.
    """
    if "entity" not in row and MENTION not in row:
        raise ValueError("lacks entity (or mention), the text to link")
    entity = row["entity"] if "entity" in row else row[MENTION]
    if row.get(MENTION, entity) != entity:
        raise ValueError(DIFFERENT)
    return entity


def with_entity(table: pa.Table) -> pa.Table:
    """A table with the texts of a column ``mention`` moved to ``entity``.

    Raises:
        ValueError: it has both, and they differ.
    """
    if MENTION not in table.column_names:
        return table
    if "entity" not in table.column_names:
        return table.rename_columns({MENTION: "entity"})
    if objects("entity", table["entity"]) != objects(MENTION, table[MENTION]):
        raise ValueError(DIFFERENT)
    return table


def mention_texts(key: str, values: Sequence[Any], *, may_be_blank: bool = True) -> Sequence[str]:
    """Check the texts of n mentions.

    Raises:
        TypeError: a value is not text; names the mention if there are several.
        ValueError: a text is blank, or cannot be encoded because it holds half of a surrogate pair.
    """
    column = _Column(key, len(values))
    texts = column.texts(values)
    "".join(texts).encode()
    if not may_be_blank:
        for row, text in enumerate(texts):
            if not text.strip():
                column.refuse(row, ValueError, f"{key} is blank; leave out mentions without text")
    return texts


def mention_types(values: Sequence[Any] | pa.Array) -> TypeSets:
    """Check the types of n mentions, without resolving them.

    Raises:
        TypeError: a value is neither text nor a list of texts; names the mention if there are several.
    """
    return _Column("entity_type", len(values)).types(values)


def flat_candidates(candidates: Sequence[Collection[Any]] | pa.Array) -> tuple[np.ndarray, list[Any] | pa.Array]:
    """Offsets of the candidates of n mentions, (n + 1,), and all m candidates.

    Raises:
        TypeError: the candidates of a mention are not a list; names the mention if there are several.
    """
    if isinstance(candidates, pa.Array):
        if _is_list(candidates.type) and not candidates.null_count:
            return list_offsets(candidates.value_lengths().to_numpy()), candidates.flatten()
        candidates = objects("candidates", candidates)
    for row, items in enumerate(candidates):
        # A string, a mapping or a data frame would be read as a list of its letters, keys or columns.
        is_other = isinstance(items, str | bytes | Mapping) or hasattr(items, "columns")
        if is_other or not isinstance(items, Collection):
            reason = f"candidates are a {type(items).__name__}, not a list of names, mappings or objects"
            _Column("candidates", len(candidates)).refuse(row, TypeError, reason)
    return list_offsets([len(items) for items in candidates]), list(chain.from_iterable(candidates))


def candidate_columns(
    items: list[Any] | pa.Array,
    offsets: np.ndarray,
    hierarchy: TypeHierarchy,
    fields: Sequence[str],
    scores: Iterable[str],
) -> CandidateColumns:
    """Read the values of m candidates of n mentions.

    Args:
        items: names, mappings or objects; in Arrow, texts or structs.
        offsets: (n + 1,) where each mention's candidates start.
        hierarchy: as for `CandidateLists.from_objects`.
        fields: as for `CandidateLists.from_objects`.
        scores: as for `CandidateLists.from_objects`.

    Raises:
        TypeError: a value is of the wrong type; names the candidate, and its mention if there are several.
        ValueError: a name is blank; names it likewise.
    """
    score_keys = {name: f"{name}_score" for name in scores}
    by_key = _by_key(items, (*CANDIDATE_KEYS, *score_keys.values()))
    nothing = pa.nulls(len(items), pa.string())

    def column(key: str) -> _Column:
        return _Column(key, len(offsets) - 1, offsets, items)

    def values(key: str) -> list[Any] | pa.Array:
        return by_key.get(key, nothing)

    names = encoded_texts(column("name").texts(values("name")))
    blank = [code for code, text in enumerate(names.texts) if not text.strip()]
    if blank:
        position = int(np.flatnonzero(np.isin(names.codes, blank))[0])
        column("name").refuse(position, ValueError, "has a blank name; leave out candidates without text")
    cuis = encoded_texts(column("cui").texts(values("cui"), may_lack=True))
    types, _ = column("semantic_types").types(values("semantic_types")).resolved(hierarchy)
    displayed = {}
    for key in FIELDS:
        texts = column(key).texts(values(key), may_lack=True)
        displayed[key] = _string_array(texts) if key in fields else nothing
    return CandidateColumns(
        names,
        cuis,
        displayed["preferred_name"],
        displayed["definition"],
        types,
        {name: column(key).numbers(values(key)) for name, key in score_keys.items()},
    )


def _by_key(items: list[Any] | pa.Array, keys: Sequence[str]) -> dict[str, list[Any] | pa.Array]:
    """The values of each key in all candidates; a key that no candidate has may be absent."""
    if isinstance(items, pa.Array):
        if pa.types.is_struct(items.type):
            return dict(zip((field.name for field in items.type), items.flatten(), strict=True))
        if _is_text(items.type):
            return {"name": items}
        items = objects("candidates", items)
    kinds = set(map(type, items))
    if kinds <= {str}:
        return {"name": items}
    read = dict.get if kinds == {dict} else _value
    columns: dict[str, list[Any]] = {key: [] for key in keys}
    for start in range(0, len(items), ITEMS_AT_ONCE):
        some = items[start : start + ITEMS_AT_ONCE]
        for key, column in columns.items():
            column.extend(map(read, some, repeat(key)))
    return columns


def _value(item: Any, key: str) -> Any:
    if isinstance(item, str):
        return item if key == "name" else None
    return item.get(key) if isinstance(item, Mapping) else getattr(item, key, None)


class _Column:
    """Checks the values under a key of n mentions or, with `offsets` and `items`, of their candidates."""

    def __init__(
        self, key: str, mentions: int, offsets: np.ndarray | None = None, items: Sequence[Any] | pa.Array = ()
    ) -> None:
        self.key, self.mentions, self.offsets, self.items = key, mentions, offsets, items

    def refuse(self, position: int, kind: type[Exception], reason: str) -> NoReturn:
        """Raise an error that names the mention or candidate."""
        row = position
        if self.offsets is not None:
            row = int(np.searchsorted(self.offsets, position, side="right")) - 1
            reason = f"candidate {position - self.offsets[row]} {reason}"
        raise kind(f"mention {row}: {reason}" if self.mentions > 1 else reason) from None

    def texts(self, values: Sequence[Any] | pa.Array, *, may_lack: bool = False) -> Sequence[Any] | pa.StringArray:
        """The values as texts; None only if they `may_lack`."""
        if isinstance(values, pa.Array):
            texts = values.cast(pa.string()) if _is_text(values.type) else None
            if texts is not None and (may_lack or not texts.null_count):
                return texts
            values = objects(self.key, values)
        wanted = (str, type(None)) if may_lack else (str,)
        if not all(issubclass(kind, wanted) for kind in set(map(type, values))):
            self._refuse_text(next(row for row, value in enumerate(values) if not isinstance(value, wanted)), values)
        return values

    def _refuse_text(self, position: int, values: Sequence[Any]) -> NoReturn:
        value = values[position]
        if self.offsets is None:
            reason = f"{self.key} must be a string, not {type(value).__name__}"
        elif self.key == "name":
            item = self.items[position]
            item = item.as_py() if isinstance(item, pa.Scalar) else item
            reason = (
                f"({type(item).__name__}) has no name that is a string; pass a str, a mapping with 'name' and 'cui', "
                "or an object with .name and .cui"
            )
        else:
            hint = _pandas_hint(value)
            reason = f"has a {self.key} that is not a string: {reprlib.repr(value)}; pass a str or None{hint}"
        self.refuse(position, TypeError, reason)

    def types(self, values: Sequence[Any] | pa.Array) -> TypeSets:
        """The values as types, lists of types, or None."""
        if isinstance(values, pa.Array):
            if values.null_count == len(values):
                return TypeSets.missing(len(values))
            if _is_list(values.type) and _is_text(values.type.value_type) and not values.flatten().null_count:
                return TypeSets.of_lists(values.cast(pa.list_(pa.string())))
            values = objects(self.key, values)
        try:
            return TypeSets.of(values)
        except TypeError as error:
            (position,) = error.args
        value = [*values][position]
        if self.offsets is None:
            reason = (
                f"{self.key} must be a string or a list of strings, not {reprlib.repr(value)}{_pandas_hint(value)}"
            )
        else:
            reason = f"has {self.key} that is not a list of strings: {reprlib.repr(value)}"
        self.refuse(position, TypeError, reason)

    def numbers(self, values: Sequence[Any] | pa.Array) -> np.ndarray:
        """The values as float64, with NaN for None."""
        if isinstance(values, pa.Array):
            try:
                # A cast would read strings as numbers.
                if _is_numeric(values.type):
                    return values.cast(pa.float64()).to_numpy(zero_copy_only=False)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                pass
            values = objects(self.key, values)
        try:
            numbers = np.array(values, np.float64)
            # NumPy would read strings as numbers.
            if numbers.ndim == 1 and not any(issubclass(kind, TEXTS) for kind in set(map(type, values))):
                return numbers
        except (TypeError, ValueError, OverflowError):
            pass
        position = next(row for row, value in enumerate(values) if not _is_number(value))
        reason = f"has a {self.key} that is not a number: {reprlib.repr(values[position])}; pass a number or None"
        self.refuse(position, TypeError, reason)


def _is_number(value: Any) -> bool:
    if isinstance(value, TEXTS):
        return False
    try:
        return np.array(value, np.float64).ndim == 0
    except (TypeError, ValueError, OverflowError):
        return False


def _pandas_hint(value: Any) -> str:
    """A hint how to convert the NaN of pandas for a missing text to None."""
    is_nan = isinstance(value, float) and value != value
    return "; in pandas, replace missing values by frame.astype(object).where(frame.notna(), None)" if is_nan else ""


def encoded_texts(texts: Sequence[str | None] | pa.StringArray | pa.ChunkedArray) -> RepeatedTexts:
    """A column that holds equal texts once, and None for missing ones.

    Raises:
        ValueError: a text cannot be encoded because it holds half of a surrogate pair.
    """
    if len(texts) <= FEW_TEXTS:
        distinct, codes = number_distinct(texts if isinstance(texts, Sequence) else texts.to_pylist())
        "".join(filter(None, distinct)).encode()
        return RepeatedTexts(distinct, codes)
    column = pa.array(texts, pa.string()) if isinstance(texts, Sequence) else whole(texts)
    encoded = column.dictionary_encode("encode")
    return RepeatedTexts(encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64))


def _string_array(texts: Sequence[str | None] | pa.StringArray) -> pa.StringArray:
    return texts if isinstance(texts, pa.Array) else pa.array(texts, pa.string())


def as_arrow(texts: RepeatedTexts) -> pa.StringArray:
    """The inverse of `encoded_texts`; null where a row's code is -1."""
    return pa.array(texts.texts, pa.string()).take(pa.array(texts.codes, mask=texts.codes < 0))


def whole(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A column in one piece."""
    if isinstance(column, pa.Array):
        return column
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def table_rows(table: pa.Table, refusal: str) -> list[dict[str, Any]]:
    """The rows of a table as Python objects.

    Args:
        table: the table.
        refusal: message for a column that cannot be converted, with ``{name}``, ``{kind}`` and ``{error}``.

    Raises:
        ValueError: a column holds dates or a time zone that Python lacks.
    """
    columns = [objects(name, column, refusal) for name, column in zip(table.column_names, table.columns, strict=True)]
    return [dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True)]


def objects(
    name: str,
    column: pa.Array | pa.ChunkedArray,
    refusal: str = "{name} cannot be read as {kind} ({error}); convert it to strings",
) -> list[Any]:
    """The values of a column as Python objects; errors are as for `table_rows`."""
    try:
        return column.to_pylist()
    # An unknown time zone is a LookupError with pytz installed and a ValueError without it.
    except (OverflowError, LookupError, ValueError) as error:
        raise ValueError(refusal.format(name=name, kind=column.type, error=error)) from None


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def _is_numeric(kind: pa.DataType) -> bool:
    kinds = pa.types
    return any(test(kind) for test in (kinds.is_integer, kinds.is_floating, kinds.is_decimal, kinds.is_boolean))


def _is_text(kind: pa.DataType) -> bool:
    """Whether a cast to texts changes no value."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)
