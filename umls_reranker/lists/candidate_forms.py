"""Candidates in the forms of users and other tools, and their values by key."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain, repeat
from numbers import Real
from typing import Any

import numpy as np
import pyarrow as pa

from ..core.arrays import list_offsets
from .columns import SUFFIX, ColumnChecker, is_list

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


def flat_candidates(
    candidates: Sequence[Collection[Any]] | pa.Array,
) -> tuple[np.ndarray, list[Any] | pa.Array]:
    """Offsets of the candidates of n mentions, (n + 1,), and all m candidates.

    Raises:
        InvalidRow: the candidates of a mention are not a list.
    """
    if isinstance(candidates, pa.Array):
        if is_list(candidates.type) and not candidates.null_count:
            return list_offsets(candidates.value_lengths().to_numpy()), candidates.flatten()
        candidates = candidates.to_pylist()
    for row, items in enumerate(candidates):
        # A string, mapping or data frame would be read as a list of its letters, keys or columns.
        is_other = isinstance(items, str | bytes | Mapping) or hasattr(items, "columns")
        if is_other or not isinstance(items, Collection):
            reason = f"are a {type(items).__name__}, not a list of names, mappings or objects"
            ColumnChecker(len(candidates)).refuse("candidates", row, reason)
    items = list(chain.from_iterable(candidates))
    keys = set().union(*(item for item in items if type(item) is dict))
    has_pairs = any(issubclass(kind, list | tuple) for kind in set(map(type, items)))
    if has_pairs or not keys.isdisjoint(FOREIGN_KEYS):
        items = list(map(standard_candidate, items))
    return list_offsets([len(items) for items in candidates]), items


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


def all_score_keys(items: list[Any] | pa.Array) -> list[str]:
    """Each key ``NAME_score`` that any candidate has, in order."""
    if isinstance(items, pa.Array):
        keys: Iterable[str] = _standard_keys(items.type) if pa.types.is_struct(items.type) else ()
    else:
        keys = dict.fromkeys(key for item in items if isinstance(item, Mapping) for key in item)
    return [key for key in keys if key.endswith(SUFFIX)]


def values_by_key(
    items: list[Any] | pa.Array, keys: Sequence[str]
) -> dict[str, list[Any] | pa.Array]:
    """The values of each key in all candidates: names, mappings or objects, or Arrow."""
    missing = pa.nulls(len(items), pa.string())
    if isinstance(items, pa.Array) and pa.types.is_struct(items.type):
        fields = dict(zip(_standard_keys(items.type), items.flatten(), strict=True))
        fields.setdefault("cui", fields.get("id", missing))
        return {key: fields.get(key, missing) for key in keys}
    kinds = {str} if isinstance(items, pa.Array) else set(map(type, items))
    if kinds <= {str}:
        return dict.fromkeys(keys, missing) | {"name": items}
    read = dict.get if kinds == {dict} else _value
    columns: dict[str, Any] = {key: [] for key in keys}
    for start in range(0, len(items), ITEMS_AT_ONCE):
        block = items[start : start + ITEMS_AT_ONCE]
        for key, column in columns.items():
            column.extend(map(read, block, repeat(key)))
    if any(cui is None for cui in columns["cui"]):
        columns["cui"] = list(map(concept_id, items))
    return columns


def concept_id(item: Any) -> Any:
    """The value under ``cui`` of a candidate or row, or else under ``id``."""
    cui = _value(item, "cui")
    return item.get("id") if cui is None and isinstance(item, Mapping) else cui


def _value(item: Any, key: str) -> Any:
    if isinstance(item, str):
        return item if key == "name" else None
    return item.get(key) if isinstance(item, Mapping) else getattr(item, key, None)


def _standard_keys(kind: pa.StructType) -> list[str]:
    names = [field.name for field in kind]
    # Where there are both, our own key counts.
    return [
        name if FOREIGN_KEYS.get(name) in names else FOREIGN_KEYS.get(name, name) for name in names
    ]
