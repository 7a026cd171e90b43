"""Candidates of other tools, such as Elasticsearch and QuickUMLS, as ones of ours."""

from numbers import Real
from typing import Any

import pyarrow as pa

# Keys of candidates of other tools, and what they are here.
# The _id of Elasticsearch is none: it is the id of a document, such as one name of a concept.
FOREIGN_KEYS = {
    "concept_id": "cui",
    "term": "name",
    "similarity": "list_score",
    "score": "list_score",
    "_score": "list_score",
}


def fields_of(structs: pa.StructArray) -> dict[str, pa.Array]:
    """Our key -> its values of m candidates; where they have a foreign key, too, ours counts."""
    keys = structs.type.names
    fields = {}
    for key, values in zip(keys, structs.flatten(), strict=True):
        own_key = FOREIGN_KEYS.get(key, key)
        has_own_key = own_key in keys
        fields[key if has_own_key else own_key] = values
    if "id" in fields:
        fields.setdefault("cui", fields["id"])
    return fields


def standard_candidate(item: Any) -> Any:
    """A candidate of another tool as one of ours: a pair of id and score, or with `FOREIGN_KEYS`.

    >>> standard_candidate(["D003110", 0.9])
    {'cui': 'D003110', 'list_score': 0.9}
    >>> standard_candidate({"_id": "7", "_score": 7.5, "_source": {"cui": "D003110"}})
    {'list_score': 7.5, '_id': '7', 'cui': 'D003110'}
    """
    if isinstance(item, list | tuple) and len(item) == 2 and isinstance(item[1], Real):
        cui, score = item
        return {"cui": cui, "list_score": score}
    if not isinstance(item, dict) or FOREIGN_KEYS.keys().isdisjoint(item):
        return item
    values = dict(item)
    # Elasticsearch has the fields of a document in here.
    source = values.pop("_source", None)
    if isinstance(source, dict):
        values |= source
    renamed = {}
    own = {}
    for key, value in values.items():
        if key in FOREIGN_KEYS:
            renamed[FOREIGN_KEYS[key]] = value
        else:
            own[key] = value
    # Where there are both, our own key counts.
    return renamed | own
