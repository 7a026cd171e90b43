"""Concepts as objects, and as columns for millions of them; sorting and grouping of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..core.arrays import list_offsets
from ..core.cores import map_in_order
from .cuis import cui_strings

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
        semantic_types: type ids; empty if the vocabulary has none.
        definition: one definition, or "".
    """

    cui: str
    name: str
    synonyms: tuple[str, ...] = ()
    semantic_types: tuple[str, ...] = ()
    definition: str = ""


def ordered(*keys: np.ndarray) -> np.ndarray:
    """Order of the rows by the first key, then the next, then their position, (n,), int64.

    Args:
        keys: arrays of numbers from 0 up, (n,).
    """
    size = len(keys[0])
    if len(keys) == 1 and (keys[0][1:] >= keys[0][:-1]).all():
        return np.arange(size)
    position_bits = size.bit_length()
    bits = [int(key.max(initial=0)).bit_length() for key in keys]
    if sum(bits) + position_bits > 64:
        return np.lexsort(keys[::-1])
    # All keys and the position in one number: sorting these is six times faster than lexsort.
    packed = np.zeros(size, dtype=np.uint64)
    for key, width in zip(keys, bits, strict=True):
        packed <<= np.uint64(width)
        packed |= key.astype(np.uint64)
    packed <<= np.uint64(position_bits)
    packed |= np.arange(size, dtype=np.uint64)
    packed.sort()
    packed &= np.uint64((1 << position_bits) - 1)
    return packed.view(np.int64)


def first_of_each(*keys: np.ndarray) -> np.ndarray:
    """Whether each row is the first with its keys, (n,) bool; `keys` is as for `ordered`."""
    order = ordered(*keys)
    again = np.ones(max(len(order) - 1, 0), dtype=bool)
    for key in keys:
        in_order = key[order]
        again &= in_order[1:] == in_order[:-1]
    first = np.ones(len(order), dtype=bool)
    first[order[1:][again]] = False
    return first


@dataclass(frozen=True)
class Lists:
    """A list of strings for each concept: those of concept i are ``values[positions[starts[i] : starts[i + 1]]]``.

    Attributes:
        values: strings, in any order.
        positions: (m,) positions in `values`.
        starts: (n + 1,) int64, where each list starts.
    """

    values: pa.Array
    positions: np.ndarray
    starts: np.ndarray

    @classmethod
    def empty(cls, size: int) -> Lists:
        """`size` lists without a string."""
        return cls(pa.array([], pa.large_string()), np.empty(0, dtype=np.int64), np.zeros(size + 1, dtype=np.int64))

    @classmethod
    def grouped(cls, values: pa.Array, positions: np.ndarray, concepts: np.ndarray, size: int) -> Lists:
        """Lists from the concept of each of `positions`, ascending, for `size` concepts."""
        return cls(values, positions, list_offsets(np.bincount(concepts, minlength=size)))

    def sizes(self) -> np.ndarray:
        """Number of strings of each concept, (n,), int64."""
        return np.diff(self.starts)

    def kept(self, concepts: np.ndarray) -> Lists:
        """The lists of some concepts, (n,) bool."""
        sizes = self.sizes()
        return Lists(self.values, self.positions[np.repeat(concepts, sizes)], list_offsets(sizes[concepts]))

    def any_of(self, wanted: Sequence[str]) -> np.ndarray:
        """Whether each concept has one of the `wanted` strings, (n,), bool."""
        hits = pc.is_in(self.values, pa.array(wanted, self.values.type)).to_numpy(zero_copy_only=False)[self.positions]
        return np.diff(list_offsets(hits)[self.starts]) > 0

    def slice(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """The positions of concepts `first` to `last`, and where those of each start, (last - first + 1,)."""
        start, end = self.starts[first], self.starts[last]
        return self.positions[start:end], self.starts[first : last + 1] - start


@dataclass(frozen=True)
class ConceptColumns:
    """Concepts in columns, sorted by CUI; iterating yields a `Concept` each.

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
        """Some of the concepts, (n,) bool."""
        lists = (column.kept(concepts) for column in (self.names, self.types, self.definitions))
        return ConceptColumns(self.cuis[concepts], *lists)

    def batches(self, size: int) -> Iterator[pa.RecordBatch]:
        """Batches of `size` concepts in `CONCEPT_SCHEMA`, the last one smaller; created in threads."""
        return map_in_order(lambda first: self._batch(first, min(first + size, len(self))), range(0, len(self), size))

    def _batch(self, first: int, last: int) -> pa.RecordBatch:
        positions, starts = self.names.slice(first, last)
        preferred = positions[starts[:-1]]
        synonyms = np.delete(positions, starts[:-1])
        glosses, gloss_starts = self.definitions.slice(first, last)
        has_gloss = np.diff(gloss_starts) > 0
        gloss = np.zeros(last - first, dtype=np.int64)
        gloss[has_gloss] = glosses
        types, type_starts = self.types.slice(first, last)
        columns = [
            cui_strings(self.cuis[first:last]),
            _strings(self.names.values, preferred),
            _lists(starts - np.arange(len(starts)), _strings(self.names.values, synonyms)),
            _lists(type_starts, _strings(self.types.values, types)),
            pc.fill_null(_strings(self.definitions.values, gloss, ~has_gloss), ""),
        ]
        return pa.record_batch(columns, schema=CONCEPT_SCHEMA)


def _strings(values: pa.Array, positions: np.ndarray, is_null: np.ndarray | None = None) -> pa.StringArray:
    return values.take(pa.array(positions, mask=is_null)).cast(pa.string())


def _lists(starts: np.ndarray, values: pa.StringArray) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(starts, pa.int32()), values)
