"""Names of many concepts at once, out of a memory-mapped concept table."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .arrow import MappedTable

__all__ = ["ConceptNames"]

# Of a table of millions, the pages of these many concepts take some 25 MB.
ROWS_PER_STEP = 5_000


class ConceptNames:
    """The columns ``name`` and ``synonyms`` of a concept folder.

    Where many rows are asked for, pages are read in order and left behind: they do not count as this process' memory.
    """

    def __init__(self, mapped: MappedTable) -> None:
        self._mapped = mapped
        self._preferred, self._synonyms = mapped.table["name"], mapped.table["synonyms"]
        self._starts = np.concatenate([[0], np.cumsum([len(chunk) for chunk in self._preferred.chunks])])

    def preferred(self, rows: np.ndarray) -> pa.StringArray:
        """The preferred names of `rows`, (n,)."""
        return self._take(self._preferred, rows)

    def all(self, rows: np.ndarray) -> tuple[pa.StringArray, np.ndarray]:
        """All names of `rows`, the preferred one of each first, and where those of each start, (n + 1,), int64."""
        synonyms = self._take(self._synonyms, rows)
        offsets = np.concatenate([[0], np.cumsum(1 + pc.list_value_length(synonyms).to_numpy())])
        names = pa.concat_arrays([self.preferred(rows), pc.list_flatten(synonyms)])
        is_first = np.zeros(len(names), dtype=bool)
        is_first[offsets[:-1]] = True
        place = np.empty(len(names), dtype=np.int64)
        place[is_first], place[~is_first] = np.arange(len(rows)), np.arange(len(rows), len(names))
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

    def _take(self, column: pa.ChunkedArray, rows: np.ndarray) -> pa.Array:
        # Chunk by chunk, since ChunkedArray.take makes one array of all chunks first.
        pieces, places = [pa.array([], column.type)], [np.empty(0, dtype=np.int64)]
        for chunk, own, local in self._by_chunk(rows):
            pieces.append(column.chunk(chunk).take(pa.array(local)))
            places.append(own)
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
