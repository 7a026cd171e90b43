"""Candidates in the forms of users and other tools, and their values by key."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain, repeat
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ..core.arrays import list_offsets
from .columns import CANDIDATE_KEYS, SUFFIX, ColumnChecker, is_list

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
    for row, items in enumerate(candidates):
        # A string, mapping or data frame would be read as a list of its letters, keys or columns.
        is_other = isinstance(items, str | bytes | Mapping) or hasattr(items, "columns")
        if is_other or not isinstance(items, Collection):
            reason = f"are a {type(items).__name__}, not a list of names, mappings or objects"
            ColumnChecker(len(candidates)).refuse("candidates", row, reason)
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
    wanted += score_keys if scores is None else [name + SUFFIX for name in scores]
    read: Callable[[Any, str], Any] = _value
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


def _columns_of_structs(candidates: pa.ListArray) -> CandidateColumns:
    items = candidates.flatten()
    names = items.type.names
    # Where there are both, our own key counts.
    keys = [
        name if FOREIGN_KEYS.get(name) in names else FOREIGN_KEYS.get(name, name) for name in names
    ]
    values = dict(zip(keys, items.flatten(), strict=True))
    if "id" in values:
        values.setdefault("cui", values["id"])
    score_keys = [key for key in keys if key.endswith(SUFFIX)]
    return CandidateColumns(
        list_offsets(candidates.value_lengths().to_numpy()), items, values, score_keys
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
    cui = _value(item, "cui")
    return item.get("id") if cui is None and isinstance(item, Mapping) else cui


def _value(item: Any, key: str) -> Any:
    if isinstance(item, str):
        return item if key == "name" else None
    return item.get(key) if isinstance(item, Mapping) else getattr(item, key, None)
