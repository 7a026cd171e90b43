"""Names of many concepts at once, and concepts by name, from memory-mapped files.

A concept is found by a sorted key for each normalized name. A key is one 64-bit number: the upper 28 bits of
`hash_names` of the name, the concept's row in 28 bits, and the name's position among the concept's names in 8. The
same concepts give the same file on every machine. Different names may have the same hash, so callers compare the names
themselves; among eight million names, one search in 34 finds a wrong match.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..core.arrays import expand_ranges, list_offsets
from ..core.cores import map_in_order
from ..core.errors import UserError
from .arrow import MappedTable, leave_pages, map_numbers, write_numbers
from .normalization import hash_names, normalize_names

__all__ = ["LAST_POSITION", "ConceptNames", "NameKeys", "write_name_keys"]

# In a table of millions, the pages of this many concepts take about 25 MB.
ROWS_PER_STEP = 5_000
KEYS_FILE = "name_keys_xxh3.npy"
NAMES_PER_STEP = 5_000
POSITION_BITS, ROW_BITS = 8, 28
HASH_SHIFT = np.uint64(ROW_BITS + POSITION_BITS)
LOWER_BITS = np.uint64((1 << (ROW_BITS + POSITION_BITS)) - 1)
LAST_POSITION = (1 << POSITION_BITS) - 1
"""Represents itself and all later positions."""


class ConceptNames:
    """The columns ``name`` and ``synonyms`` of a concept folder.

    For many rows, pages are read in order and released, so they do not count as this process' memory.
    """

    def __init__(self, mapped: MappedTable) -> None:
        self._mapped = mapped
        self._preferred, self._synonyms = mapped.table["name"], mapped.table["synonyms"]
        self._starts = list_offsets([len(chunk) for chunk in self._preferred.chunks])

    def preferred(self, rows: np.ndarray) -> pa.StringArray:
        """The preferred names of `rows`, (n,); null for -1."""
        return self.take(self._preferred, rows)

    def all(self, rows: np.ndarray) -> tuple[pa.StringArray, np.ndarray]:
        """All names of `rows`, the preferred one of each first, and the start of each row's names, (n + 1,), int64.

        Row -1 has none.
        """
        synonyms = self.take(self._synonyms, rows)
        counts = pc.fill_null(pc.add(pc.list_value_length(synonyms), 1), 0).to_numpy()
        offsets = list_offsets(counts)
        names = pa.concat_arrays([self.preferred(rows[rows >= 0]), pc.list_flatten(synonyms)])
        is_first = np.zeros(len(names), dtype=bool)
        is_first[offsets[:-1][counts > 0]] = True
        place = np.empty(len(names), dtype=np.int64)
        known = np.count_nonzero(counts)
        place[is_first], place[~is_first] = np.arange(known), np.arange(known, len(names))
        return names.take(pa.array(place)), offsets

    def at(self, rows: np.ndarray, positions: np.ndarray) -> pa.StringArray:
        """One name of each of `rows`, (n,): 0 is the preferred one, 1 the first synonym."""
        pieces, places = [pa.array([], pa.string())], [np.empty(0, dtype=np.int64)]
        for chunk, own, local in self._by_chunk(rows):
            position = positions[own]
            synonyms = self._synonyms.chunk(chunk)
            starts = synonyms.offsets.to_numpy()[local]
            is_first = position == 0
            pieces.append(self._preferred.chunk(chunk).take(pa.array(local[is_first])))
            pieces.append(synonyms.values.take(pa.array((starts + position - 1)[~is_first])))
            places += [own[is_first], own[~is_first]]
        return _in_place(pieces, places)

    def take(self, column: pa.ChunkedArray, rows: np.ndarray) -> pa.Array:
        """A column of the folder at `rows`, (n,)."""
        # Chunk by chunk, because ChunkedArray.take first joins all chunks.
        pieces, places = [pa.array([], column.type)], [np.empty(0, dtype=np.int64)]
        for chunk, own, local in self._by_chunk(rows):
            pieces.append(column.chunk(chunk).take(pa.array(local)))
            places.append(own)
        places.append(np.flatnonzero(rows < 0))
        pieces.append(pa.nulls(len(places[-1]), column.type))
        return _in_place(pieces, places)

    def _by_chunk(self, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Each chunk that has some of `rows`: its number, their places in `rows`, and their rows in the chunk."""
        order = np.argsort(rows, kind="stable")
        bounds = np.searchsorted(rows[order], self._starts)
        read = 0
        for chunk in np.flatnonzero(np.diff(bounds)).tolist():
            own = order[bounds[chunk] : bounds[chunk + 1]]
            yield chunk, own, rows[own] - self._starts[chunk]
            read += len(own)
            if read >= ROWS_PER_STEP:
                self._mapped.leave_pages()
                read = 0


def _in_place(pieces: list[pa.Array], places: list[np.ndarray]) -> pa.Array:
    """The values of all `pieces`, each brought to its place."""
    back = np.empty(sum(map(len, places)), dtype=np.int64)
    back[np.concatenate(places)] = np.arange(len(back))
    return pa.concat_arrays(pieces).take(pa.array(back))


class NameKeys:
    """The keys of a concept folder, by hash and then by row."""

    def __init__(self, keys: np.memmap) -> None:
        # NumPy's annotations lack that the base of a memmap is its mapping.
        self._pages: mmap.mmap = keys.base  # type: ignore[assignment]
        self._keys = keys.view(np.ndarray)

    @classmethod
    def load(cls, folder: Path) -> NameKeys:
        """Memory-map the keys of a concept folder; nothing is read yet.

        Raises:
            UserError: the file is missing or broken.
        """
        return cls(map_numbers(folder / KEYS_FILE))

    def search(self, forms: pa.StringArray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Concepts that may have a name of each normalized form.

        Args:
            forms: (n,) string, `normalize_names` of the names looked for.

        Returns:
            for each match the index of the form, the concept's row and the name's position, all (m,), int64; sorted by
            index, then by row, with repetitions.
        """
        hashes = hash_names(forms) >> HASH_SHIFT << HASH_SHIFT
        order = np.argsort(hashes, kind="stable")
        places, keys = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.uint64)]
        # In order of the keys, so that pages are read once and released.
        for step in np.split(order, range(NAMES_PER_STEP, len(order), NAMES_PER_STEP)):
            starts = np.searchsorted(self._keys, hashes[step])
            ends = np.searchsorted(self._keys, hashes[step] | LOWER_BITS, side="right")
            owners, found = expand_ranges(starts, ends)
            places.append(step[owners])
            keys.append(self._keys[found])
            leave_pages(self._pages)
        place, key = np.concatenate(places), np.concatenate(keys)
        by_place = np.argsort(place, kind="stable")
        low = (key[by_place] & LOWER_BITS).astype(np.int64)
        return place[by_place], low >> POSITION_BITS, low & LAST_POSITION


def write_name_keys(batches: Iterable[tuple[pa.StringArray, np.ndarray, np.ndarray]], folder: Path) -> None:
    """Write the keys of all names into their concept folder.

    Args:
        batches: names, their concepts' rows, and their positions among the concept's names, each (n,); in any order.

    Raises:
        UserError: there are too many concepts for the keys.
    """

    def keys_of(batch: tuple[pa.StringArray, np.ndarray, np.ndarray]) -> np.ndarray:
        names, rows, positions = batch
        if rows.max(initial=0) >> ROW_BITS:
            raise UserError(f"there are more than {1 << ROW_BITS:,} concepts; filter them by source, type or group")
        low = rows << POSITION_BITS | np.minimum(positions, LAST_POSITION)
        return (hash_names(normalize_names(names)) >> HASH_SHIFT << HASH_SHIFT) | low.astype(np.uint64)

    keys = np.concatenate([np.empty(0, dtype=np.uint64), *map_in_order(keys_of, batches)])
    keys.sort()
    write_numbers(folder / KEYS_FILE, keys)
