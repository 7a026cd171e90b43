"""Candidates as users and other tools give them, in one form: lists of structs in Arrow."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain, repeat
from typing import Any

import pyarrow as pa

from ..core.arrays import list_offsets
from .columns import (
    CANDIDATE_KEYS,
    CONVERSION_ERRORS,
    FIELDS,
    NUMBER,
    SUFFIX,
    TEXT,
    TYPES,
    ColumnChecker,
    Kind,
    arrow_column,
    is_list,
)
from .foreign_candidates import FOREIGN_KEYS, standard_candidate

# Each key of a candidate that is no score -> what its values are.
KIND_OF_KEY: dict[str, Kind] = dict.fromkeys(("name", "cui", *FIELDS), TEXT) | {
    "semantic_types": TYPES
}
# This many objects fit into a core's cache while their keys are read one by one.
ITEMS_AT_ONCE = 128


def are_structs(candidates: pa.Array) -> bool:
    """Whether a column has a list of structs in each row, as `candidate_structs` makes it."""
    kind = candidates.type
    return is_list(kind) and pa.types.is_struct(kind.value_type) and not candidates.null_count


def candidate_structs(
    candidates: Sequence[Collection[Any]], scores: Iterable[str] = ()
) -> pa.ListArray:
    """The candidates of n mentions as n lists of structs, with the keys that are read.

    Args:
        candidates: of each mention: names, mappings or objects.
        scores: retrievers whose scores to read of objects, which do not name their attributes.

    Values of a key that are not all of its kind are left in JSON, and refused if they are read.

    Raises:
        InvalidRow: the candidates of a mention are not a list, a name is missing or blank, or a
            value is neither of the kind of its key nor JSON.
    """
    _require_lists(candidates)
    items = list(chain.from_iterable(candidates))
    offsets = list_offsets(list(map(len, candidates)))
    values = _values_of(items, scores)
    checker = ColumnChecker(len(candidates), offsets)
    for position, name in enumerate(values["name"]):
        if name is None or (isinstance(name, str) and not name.strip()):
            refuse_name(checker, position, items[position])
    fields = {}
    for key, column in values.items():
        # Half of a surrogate pair would be no name of a field.
        field = key.encode(errors="backslashreplace").decode()
        kind = KIND_OF_KEY.get(key, NUMBER)
        try:
            fields[field] = arrow_column(column, kind.convert)
        except CONVERSION_ERRORS:
            fields[field] = checker.converted(key, column, kind)
    structs = pa.StructArray.from_arrays(list(fields.values()), list(fields))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), structs)


def _values_of(items: list[Any], scores: Iterable[str]) -> dict[str, list[Any]]:
    """Key -> its value in each of m candidates; a key that none has may be missing."""
    kinds = set(map(type, items))
    if kinds <= {str}:
        return {"name": items}
    keys = _keys_of(items)
    has_pairs = any(issubclass(kind, list | tuple) for kind in kinds)
    if has_pairs or not FOREIGN_KEYS.keys().isdisjoint(keys):
        items = list(map(standard_candidate, items))
        keys = _keys_of(items)
    value_under: Callable[[Any, str], Any]
    if set(map(type, items)) == {dict}:
        value_under = dict.get
        read_keys = _keys_of_mappings(keys)
    else:
        value_under = _value_under
        read_keys = _keys_of_objects(keys, scores)
    values: dict[str, list[Any]] = {key: [] for key in read_keys}
    for start in range(0, len(items), ITEMS_AT_ONCE):
        block = items[start : start + ITEMS_AT_ONCE]
        for key, column in values.items():
            column.extend(map(value_under, block, repeat(key)))
    if "id" in keys:
        values["cui"] = list(map(concept_id, items))
    return values


def _keys_of_mappings(keys: Collection[str]) -> list[str]:
    """Those keys of mappings that are read, and ``name``, without which they are refused."""
    own_keys = [key for key in CANDIDATE_KEYS if key == "name" or key in keys]
    return [*own_keys, *_score_keys(keys)]


def _keys_of_objects(keys: Collection[str], scores: Iterable[str]) -> list[str]:
    """The keys that are read of objects, which do not say what they have.

    Args:
        keys: the keys of mappings among them.
        scores: as for `candidate_structs`.
    """
    named_scores = [name + SUFFIX for name in scores if name + SUFFIX not in keys]
    return [*CANDIDATE_KEYS, *_score_keys(keys), *named_scores]


def _score_keys(keys: Iterable[str]) -> list[str]:
    """Those keys that are scores."""
    return [key for key in keys if key.endswith(SUFFIX)]


def refuse_name(checker: ColumnChecker, position: int, item: Any) -> None:
    """Refuse a candidate whose name is missing or blank; `InvalidRow`."""
    reason = f"is missing or blank{keys_found(item)}; a dictionary has names of ids"
    checker.refuse("name", position, reason)


def _require_lists(candidates: Sequence[Any]) -> None:
    """Refuse candidates of a mention that are no list; `InvalidRow`."""
    for row, items in enumerate(candidates):
        # A string, mapping or data frame would be read as a list of its letters, keys or columns.
        is_other = isinstance(items, str | bytes | Mapping) or hasattr(items, "columns")
        if is_other or not isinstance(items, Collection):
            reason = f"are a {type(items).__name__}, not a list of names, mappings or objects"
            ColumnChecker(len(candidates)).refuse("candidates", row, reason)


def _keys_of(items: Sequence[Any]) -> Collection[str]:
    """The keys of those candidates that are mappings, each once."""
    return dict.fromkeys(chain.from_iterable(item for item in items if isinstance(item, Mapping)))


def keys_found(item: Any) -> str:
    """The keys of a mapping, as the end of a message."""
    if not isinstance(item, Mapping):
        return ""
    return f"; its keys are {', '.join(map(repr, item))}"


def concept_id(item: Any) -> Any:
    """The value under ``cui`` of a candidate or row, or else under ``id``."""
    cui = _value_under(item, "cui")
    if cui is None and isinstance(item, Mapping):
        return item.get("id")
    return cui


def _value_under(item: Any, key: str) -> Any:
    """The value of a key of a candidate, which may be a name, a mapping or an object."""
    if isinstance(item, str):
        return item if key == "name" else None
    if isinstance(item, Mapping):
        return item.get(key)
    return getattr(item, key, None)
