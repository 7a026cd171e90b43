"""Search the concepts of an index by words or by an id, for people who look for another concept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..vocab.concept_table import ConceptTable
    from .linker import ConceptLinker


def concept_with_id(concepts: ConceptTable, text: str) -> list[Mapping[str, Any]]:
    """The concept with an id, if there is one, with the keys of a candidate."""
    rows = concepts.rows([text])
    row = int(rows[0])
    if row < 0:
        return []
    name = concepts.names(row)[0]
    definition = concepts.column("definition", rows)[0].as_py()
    return [
        {
            "cui": concepts.cuis[row].as_py(),
            "name": name,
            "preferred_name": name,
            "definition": definition,
            "semantic_types": concepts.semantic_types(row),
        }
    ]


def search_concepts(linker: ConceptLinker, text: str, top: int) -> list[Mapping[str, Any]]:
    """Concepts whose names are like a text, as retrieved; first the one with this id.

    Args:
        linker: opens the index.
        text: words, or an id.
        top: number of concepts at most.

    Returns:
        Candidates with ``cui``, ``name``, ``preferred_name``, ``definition`` and
        ``semantic_types``.

    Raises:
        ValueError: the text is blank or too long.
    """
    (retrieved,) = linker.candidates(linker.read([text])).to_pylist()
    return with_id_first(linker.concepts, text, retrieved)[:top]


def with_id_first(
    concepts: ConceptTable, text: str, retrieved: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """What was retrieved for a text, after the concept that has the text as its id."""
    found = concept_with_id(concepts, text)
    ids = {item["cui"] for item in found}
    found += [item for item in retrieved if item["cui"] not in ids]
    return found
