"""Concepts as objects, and as Arrow tables for millions of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

CONCEPT_SCHEMA = pa.schema(
    {
        "cui": pa.string(),
        "name": pa.string(),
        "synonyms": pa.list_(pa.string()),
        "semantic_types": pa.list_(pa.string()),
        "definition": pa.string(),
        "alternates": pa.list_(pa.string()),
    }
)
# Rows that are turned into Python objects, or hashed, at a time; it changes no result.
ROWS_PER_BATCH = 10_000


@dataclass(frozen=True, slots=True)
class Concept:
    """A concept of a vocabulary.

    Attributes:
        cui: UMLS concept id, or another non-empty one.
        name: the preferred name.
        synonyms: other names, each once, without the preferred one.
        semantic_types: type ids; empty if the vocabulary has none.
        definition: one definition, or "".
        alternates: further ids, none of which is the id of another concept.
    """

    cui: str
    name: str
    synonyms: tuple[str, ...] = ()
    semantic_types: tuple[str, ...] = ()
    definition: str = ""
    alternates: tuple[str, ...] = ()


class NameLists(NamedTuple):
    """Names and further ids of n concepts.

    Attributes:
        ids: (n,) the concept ids, ascending.
        names: (n,) lists, the distinct names of each, the preferred one first.
        types: (n,) lists, the semantic types of each; None: not read.
        alternates: (n,) lists, the further ids of each; None: there are none.
    """

    ids: pa.StringArray
    names: pa.ListArray
    types: pa.ListArray = None
    alternates: pa.ListArray = None


def concept_table(concepts: Iterable[Concept]) -> pa.Table:
    """The concepts as a table of `CONCEPT_SCHEMA`, in their order."""
    rows = list(concepts)
    columns = {name: [getattr(concept, name) for concept in rows] for name in CONCEPT_SCHEMA.names}
    return pa.table(columns, CONCEPT_SCHEMA)


def table_of_lists(lists: NameLists, definitions: pa.StringArray | None = None) -> pa.Table:
    """The table of `CONCEPT_SCHEMA` for n concepts with these names and definitions."""
    no_lists = pa.array([[]] * len(lists.ids), pa.list_(pa.string()))
    columns = {
        "cui": lists.ids,
        "name": pc.list_element(lists.names, 0),
        "synonyms": pc.list_slice(lists.names, 1),
        "semantic_types": lists.types or no_lists,
        "definition": definitions or pa.repeat("", len(lists.ids)),
        "alternates": lists.alternates or no_lists,
    }
    return pa.table(columns, CONCEPT_SCHEMA)


def iter_concepts(table: pa.Table) -> Iterator[Concept]:
    """Yield the rows of a table of `CONCEPT_SCHEMA`."""
    for batch in table.to_batches(ROWS_PER_BATCH):
        for row in batch.to_pylist():
            yield Concept(
                cui=row["cui"],
                name=row["name"],
                synonyms=tuple(row["synonyms"]),
                semantic_types=tuple(row["semantic_types"]),
                definition=row["definition"],
                alternates=tuple(row["alternates"]),
            )


def count_typed(concepts: pa.Table) -> int:
    """Number of concepts with a semantic type."""
    type_counts = pc.list_value_length(concepts["semantic_types"])
    # The sum of no rows is null.
    return pc.sum(pc.greater(type_counts, 0)).as_py() or 0
