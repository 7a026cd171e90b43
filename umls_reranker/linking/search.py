"""Concepts that somebody looks for by words or by an id, and tables of concepts to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..core.errors import UserError, printable
from ..serving.apart import about_candidates, shown_name

if TYPE_CHECKING:
    from ..vocab.codes import ConceptCodes
    from ..vocab.concepts import ConceptTable
    from .linker import ConceptLinker, LinkedConcept

Candidate = Mapping[str, Any]
# Of a column, in characters; what is longer is cut. The last column is as wide as it must be.
WIDEST = 48
GAP = "  "
CUT = "..."


def search_concepts(linker: ConceptLinker, words: str) -> list[Candidate]:
    """Concepts whose names are like some words, as retrieved; that with this id comes first.

    Raises:
        UserError: the words are blank or too long.
    """
    try:
        table = linker.read([words.strip()])
    except ValueError as error:
        raise UserError(f"{words!r:.80} cannot be searched for: {error}") from None
    return id_first(linker.concepts, words.strip(), linker.candidates(table).to_pylist()[0])


def id_first(concepts: ConceptTable, text: str, retrieved: Sequence[Candidate]) -> list[Candidate]:
    """The retrieved candidates, after the concept of which a text is the id, if there is one."""
    found: list[Candidate] = []
    rows = concepts.rows([text])
    row = int(rows[0])
    if row >= 0:
        name = concepts.names(row)[0]
        concept = {
            "cui": concepts.cuis[row].as_py(),
            "name": name,
            "preferred_name": name,
            "definition": concepts.column("definition", rows)[0].as_py(),
            "semantic_types": concepts.semantic_types(row),
        }
        found.append(concept)
    known = {item["cui"] for item in found}
    return found + [item for item in retrieved if item["cui"] not in known]


def search_lines(
    concepts: ConceptTable, found: Sequence[Candidate], codes: ConceptCodes
) -> list[str]:
    """A table of concepts: id, name, semantic types, and what tells those of one name apart."""
    head = ("id", "name", "types", "about")
    return table_lines([head, *_concept_rows(concepts, found, codes)])


def answer_lines(
    concepts: ConceptTable, linked: Sequence[LinkedConcept], codes: ConceptCodes
) -> list[str]:
    """A table of linked concepts, the best first: score and tier, and as `search_lines`."""
    head = ("score", "tier", "id", "name", "types", "about")
    rows: list[Sequence[str]] = [head]
    described = _concept_rows(concepts, [concept.candidate for concept in linked], codes)
    for concept, about in zip(linked, described, strict=True):
        rows.append((f"{concept.score:.3f}", concept.tier or "", *about))
    if not any(concept.tier for concept in linked):
        rows = [(row[0], *row[2:]) for row in rows]
    return table_lines(rows)


def table_lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines, in columns as wide as their longest cell, at most `WIDEST`."""
    lines = [""] * len(rows)
    *padded, last = zip(*rows, strict=True)
    for cells in padded:
        texts = list(map(_cut, cells))
        width = max(map(len, texts))
        for number, text in enumerate(texts):
            lines[number] += text.ljust(width) + GAP
    return [(line + printable(cell)).rstrip() for line, cell in zip(lines, last, strict=True)]


def _concept_rows(
    concepts: ConceptTable, items: Sequence[Candidate], codes: ConceptCodes
) -> list[tuple[str, str, str, str]]:
    """Of each concept id, name, types, and what these do not say."""
    # The types have a column of their own.
    without_types = [{**item, "semantic_types": ()} for item in items]
    rows = []
    for item, about in zip(items, about_candidates(without_types, concepts, codes), strict=True):
        types = ", ".join(map(concepts.hierarchy.name, item["semantic_types"]))
        rows.append((item["cui"], shown_name(item), types, about))
    return rows


def _cut(text: str) -> str:
    shown = printable(text)
    if len(shown) <= WIDEST:
        return shown
    return shown[: WIDEST - len(CUT)] + CUT
