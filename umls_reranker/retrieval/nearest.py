"""The concepts nearest to training mentions, searched in shards by any number of processes; a killed run resumes.

A shard always holds the same queries and does not depend on others, so the result is bitwise the same for any number
of processes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ..core.files import written
from ..core.progress import progress
from .concept_search import Candidates
from .queries import query_blocks

if TYPE_CHECKING:
    from .retriever import Retriever

__all__ = ["NearestConcepts"]

# Queries per shard: enough to use a CPU or GPU well, few enough to divide evenly.
SHARD = 4_096


class NearestConcepts:
    """The k concepts that the retriever lists first for m distinct queries.

    Numbers are int32 and cosines float32: 768 bytes per query at k = 64, 115 MB for 150,000 queries.

    Args:
        queries: m rows of `queries.distinct_queries`.
        retriever: finds the candidates that serving will see.
        k: concepts per query.
        folder: of the shards; created if missing.
    """

    def __init__(self, queries: pa.Table, retriever: Retriever, k: int, folder: Path) -> None:
        self._queries, self._retriever = queries, retriever
        self._found: list[Candidates] = []
        # Position of each query's candidates: its number for the first search, another one for a deeper search.
        self._level = np.zeros(len(queries), np.int8)
        self._place = np.arange(len(queries), dtype=np.int32)
        self.k = k
        self._blocks = query_blocks(queries, SHARD)
        shards = len(self._blocks)
        self._files = [folder / f".nearest-{number:05}-of-{shards:05}.npz" for number in range(shards)]

    @property
    def first(self) -> Candidates:
        """Result of `search`, (m, k), int32; a deeper search does not change it."""
        return self._found[0]

    def search_share(self, process: int, processes: int) -> None:
        """Search and write every `processes`-th shard, except existing ones."""
        missing = [n for n in range(process, len(self._files), processes) if not self._files[n].is_file()]
        if not missing:
            return
        self._files[0].parent.mkdir(parents=True, exist_ok=True)
        blocks = [self._blocks[number] for number in missing]
        with progress(
            total=sum(end - start for start, end in blocks), desc="searching mentions", unit=" strings"
        ) as bar:
            for number, (start, end) in zip(missing, blocks, strict=True):
                found = self._search(np.arange(start, end), self.k)
                with written(self._files[number]) as partial, partial.open("wb") as stream:
                    np.savez(stream, rows=found.rows, name_ids=found.name_ids, scores=found.scores)
                bar.update(end - start)

    def search(self) -> None:
        """Search the missing shards, and read all shards."""
        self.search_share(0, 1)
        parts = []
        for file in self._files:
            with np.load(file, allow_pickle=False) as arrays:
                parts.append(Candidates(arrays["rows"], arrays["name_ids"], arrays["scores"]))
        self._found = [_concatenate(parts, self.k)]

    def search_deeper(self, queries: np.ndarray) -> int:
        """Search some queries again for twice as many concepts as before; returns the number.

        Args:
            queries: their numbers, ascending.
        """
        k = 2 * self._found[-1].rows.shape[1]
        blocks = query_blocks(self._queries.take(pa.array(queries)), SHARD)
        parts = [self._search(queries[start:end], k) for start, end in blocks]
        self._level[queries], self._place[queries] = len(self._found), np.arange(len(queries))
        self._found.append(_concatenate(parts, k))
        return k

    def take(self, queries: np.ndarray) -> Candidates:
        """The candidates of n queries, by number, from the deepest search of each; some rows are padded."""
        levels = self._level[queries]
        near = Candidates.padding(len(queries), self._found[levels.max(initial=0)].rows.shape[1])
        for level in np.unique(levels):
            rows = np.flatnonzero(levels == level)
            part = self._found[level].take(self._place[queries[rows]])
            columns = slice(part.rows.shape[1])
            near.rows[rows, columns], near.name_ids[rows, columns] = part.rows, part.name_ids
            near.scores[rows, columns] = part.scores
        return near

    def remove_shards(self) -> None:
        """Remove the files after the pairs are complete."""
        for file in self._files:
            file.unlink(missing_ok=True)

    def encode(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Vectors of the distinct strings of n queries, by number, (m, dimension), and the number of each's (n,)."""
        strings = self._queries["mention"].take(pa.array(queries)).combine_chunks().dictionary_encode()
        return self._retriever.encoder.encode(strings.dictionary.to_pylist()), strings.indices.to_numpy()

    def _search(self, queries: np.ndarray, k: int) -> Candidates:
        found = self._retriever.search_queries(self._queries.take(pa.array(queries)), k)
        return Candidates(found.rows.astype(np.int32), found.name_ids.astype(np.int32), found.scores)


def _concatenate(parts: list[Candidates], k: int) -> Candidates:
    empty = Candidates(np.empty((0, k), np.int32), np.empty((0, k), np.int32), np.empty((0, k), np.float32))
    return Candidates.concatenate(parts or [empty])
