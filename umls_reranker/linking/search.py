"""Search the concepts of an index by words or by an id, for people who look for another concept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ..vocab.concepts import ConceptTable
    from .linker import ConceptLinker

LONGEST_DESCRIPTION = 200


def concept_with_id(concepts: ConceptTable, text: str) -> list[Mapping[str, Any]]:
    """The concept with an id, if there is one, with the keys of a candidate."""
    rows = concepts.rows([text])
    row = int(rows[0])
    if row < 0:
        return []
    name = concepts.names(row)[0]
    definition = concepts.column("definition", np.array([row]))[0].as_py()
    return [
        {
            "cui": concepts.cuis[row].as_py(),
            "name": name,
            "preferred_name": name,
            "definition": definition,
            "semantic_types": concepts.semantic_types(row),
        }
    ]


def description(item: Mapping[str, Any]) -> str:
    """What tells a candidate of an index from others of its preferred name; "" if nothing does.

    The name that was found may be another than the preferred one, and tells why it was found.
    """
    parts = []
    if item["name"] != item["preferred_name"]:
        parts.append(item["name"])
    if item["definition"]:
        parts.append(item["definition"])
    return shorten("; ".join(parts), LONGEST_DESCRIPTION)


def search_concepts(linker: ConceptLinker, text: str, top: int) -> list[Mapping[str, Any]]:
    """Concepts whose names are like a text, as retrieved; first the one with this id.

    Args:
        linker: opens the index.
        text: words, or an id.
        top: number of concepts at most.

    Returns:
        Candidates with ``cui``, ``preferred_name``, ``definition``, ``semantic_types`` and
        ``name``: the name that was found, or if that is the preferred one, another of the concept.

    Raises:
        ValueError: the text is blank or too long.
    """
    (retrieved,) = linker.candidates(linker.read([text])).to_pylist()
    found = with_id_first(linker.concepts, text, retrieved)[:top]
    return [{**item, "name": _other_name(linker.concepts, item)} for item in found]


def with_id_first(
    concepts: ConceptTable, text: str, retrieved: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """What was retrieved for a text, after the concept that has the text as its id."""
    found = concept_with_id(concepts, text)
    ids = {item["cui"] for item in found}
    found += [item for item in retrieved if item["cui"] not in ids]
    return found


def _other_name(concepts: ConceptTable, item: Mapping[str, Any]) -> str:
    """The name of a candidate, or another where it is the preferred one, if there is another."""
    if item["name"] != item["preferred_name"]:
        return item["name"]
    preferred, *others = concepts.names(int(concepts.rows([item["cui"]])[0]))
    return others[0] if others else preferred
