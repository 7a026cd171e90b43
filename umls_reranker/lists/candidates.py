"""Candidates as users and other tools give them, in one form: lists of structs in Arrow."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain, repeat
from numbers import Real
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

# Each key of a candidate that is no score -> what its values are.
KINDS: dict[str, Kind] = dict.fromkeys(("name", "cui", *FIELDS), TEXT) | {"semantic_types": TYPES}
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
        kind = KINDS.get(key, NUMBER)
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
    score_keys = [key for key in keys if key.endswith(SUFFIX)]
    wanted = [*CANDIDATE_KEYS, *score_keys]
    read: Callable[[Any, str], Any] = dict.get
    if set(map(type, items)) == {dict}:
        wanted = ["name", *(key for key in wanted[1:] if key in keys)]
    else:
        read = _value_under
        wanted += [name + SUFFIX for name in scores if name + SUFFIX not in keys]
    values: dict[str, list[Any]] = {key: [] for key in wanted}
    for start in range(0, len(items), ITEMS_AT_ONCE):
        block = items[start : start + ITEMS_AT_ONCE]
        for key, column in values.items():
            column.extend(map(read, block, repeat(key)))
    if "id" in keys:
        values["cui"] = list(map(concept_id, items))
    return values


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


def fields_of(structs: pa.StructArray) -> dict[str, pa.Array]:
    """Our key -> its values of m candidates; where they have a foreign key, too, ours counts."""
    names = structs.type.names
    fields = {}
    for name, values in zip(names, structs.flatten(), strict=True):
        own_name = FOREIGN_KEYS.get(name, name)
        fields[name if own_name in names else own_name] = values
    if "id" in fields:
        fields.setdefault("cui", fields["id"])
    return fields


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


def concept_id(item: Any) -> Any:
    """The value under ``cui`` of a candidate or row, or else under ``id``."""
    cui = _value_under(item, "cui")
    return item.get("id") if cui is None and isinstance(item, Mapping) else cui


def _value_under(item: Any, key: str) -> Any:
    """The value of a key of a candidate, which may be a name, a mapping or an object."""
    if isinstance(item, str):
        return item if key == "name" else None
    return item.get(key) if isinstance(item, Mapping) else getattr(item, key, None)
