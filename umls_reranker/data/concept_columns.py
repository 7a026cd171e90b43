"""Concepts as objects, and as columns where there are millions of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .cuis import CUI_BYTES, cui_text
from .grouping import Lists
from .parallel import map_in_order

__all__ = ["CONCEPT_SCHEMA", "Concept", "ConceptColumns", "CuiColumn"]

CONCEPT_SCHEMA = pa.schema(
    {
        "cui": pa.string(),
        "name": pa.string(),
        "synonyms": pa.list_(pa.string()),
        "semantic_types": pa.list_(pa.string()),
        "definition": pa.string(),
    }
)


@dataclass(frozen=True, slots=True)
class Concept:
    """A concept of a vocabulary.

    Attributes:
        cui: UMLS concept id.
        name: the preferred name.
        synonyms: other names, each once, without the preferred one.
        semantic_types: type ids; empty where the vocabulary gives none.
        definition: one definition, or "".
    """

    cui: str
    name: str
    synonyms: tuple[str, ...] = ()
    semantic_types: tuple[str, ...] = ()
    definition: str = ""


@dataclass(frozen=True)
class ConceptColumns:
    """Concepts in columns, sorted by CUI; iterating makes a `Concept` of one after the other.

    Attributes:
        cuis: `cui_numbers` of the concepts, (n,), ascending.
        names: of each concept, the preferred one first.
        types: semantic types of each concept.
        definitions: at most one for each concept.
    """

    cuis: np.ndarray
    names: Lists
    types: Lists
    definitions: Lists

    def __len__(self) -> int:
        return len(self.cuis)

    def __iter__(self) -> Iterator[Concept]:
        for batch in self.batches(10_000):
            for cui, name, synonyms, types, definition in zip(*(c.to_pylist() for c in batch.columns), strict=True):
                yield Concept(cui, name, tuple(synonyms), tuple(types), definition)

    def kept(self, concepts: np.ndarray) -> ConceptColumns:
        """Some of the concepts, given as (n,) bool."""
        lists = (column.kept(concepts) for column in (self.names, self.types, self.definitions))
        return ConceptColumns(self.cuis[concepts], *lists)

    def batches(self, size: int) -> Iterator[pa.RecordBatch]:
        """Batches of `size` concepts in `CONCEPT_SCHEMA`, the last one smaller; made by threads."""
        return map_in_order(lambda first: self._batch(first, min(first + size, len(self))), range(0, len(self), size))

    def _batch(self, first: int, last: int) -> pa.RecordBatch:
        places, starts = self.names.slice(first, last)
        preferred = places[starts[:-1]]
        synonyms = np.delete(places, starts[:-1])
        glosses, gloss_starts = self.definitions.slice(first, last)
        has_gloss = np.diff(gloss_starts) > 0
        gloss = np.zeros(last - first, dtype=np.int64)
        gloss[has_gloss] = glosses
        types, type_starts = self.types.slice(first, last)
        columns = [
            _cui_strings(self.cuis[first:last]),
            _strings(self.names.values, preferred),
            _lists(starts - np.arange(len(starts)), _strings(self.names.values, synonyms)),
            _lists(type_starts, _strings(self.types.values, types)),
            pc.fill_null(_strings(self.definitions.values, gloss, ~has_gloss), ""),
        ]
        return pa.record_batch(columns, schema=CONCEPT_SCHEMA)


def _strings(values: pa.Array, places: np.ndarray, is_null: np.ndarray | None = None) -> pa.StringArray:
    return values.take(pa.array(places, mask=is_null)).cast(pa.string())


def _lists(starts: np.ndarray, values: pa.StringArray) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(starts, pa.int32()), values)


class CuiColumn(Sequence[str]):
    """CUIs kept as numbers; an index gives a str, a slice or an array of indices an array of them.

    Args:
        numbers: `cui_numbers`, (n,).
    """

    def __init__(self, numbers: np.ndarray) -> None:
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, rows: int) -> str: ...

    @overload
    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray: ...

    def __getitem__(self, rows: int | slice | np.ndarray) -> str | np.ndarray:
        numbers = self._numbers[rows]
        if not np.ndim(numbers):
            return cui_text(numbers)
        return np.array(_cui_strings(numbers.ravel()).to_pylist(), dtype=str).reshape(numbers.shape)

    def __arrow_array__(self, type: pa.DataType | None = None) -> pa.Array:
        return _cui_strings(self._numbers).cast(type or pa.string())

    def tolist(self) -> list[str]:
        return _cui_strings(self._numbers).to_pylist()


def _cui_strings(numbers: np.ndarray) -> pa.StringArray:
    """Inverse of `cui_numbers`, (n,)."""
    content = numbers.astype(">u8").view(f"S{CUI_BYTES}")
    return pc.cast(pa.array(content, pa.binary()), pa.string())
