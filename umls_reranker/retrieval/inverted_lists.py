"""Inverted lists: for each trigram the strings that have it, to search for the nearest strings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.sparse import csr_array

from .sparse_files import open_sparse, write_sparse

# Strings per block of inverted lists: the sums of a query over one block fit the CPU's cache, and
# the time to call a sum is small beside it.
STRINGS_PER_BLOCK = 1_048_576
# Sums are looked through in groups of so many, by the largest of each.
GROUP = 128


class InvertedLists:
    """The vectors of strings by trigram, in blocks of strings.

    Args:
        path: the folder that `write` wrote into.
        strings: number of strings.
        block: strings per block.
    """

    def __init__(self, path: Path, strings: int, block: int) -> None:
        # The first string and the inverted lists, (trigrams, strings), of every block.
        self._blocks = [
            (first, open_sparse(_stem(path, first), min(block, strings - first)))
            for first in range(0, strings, block)
        ]

    @staticmethod
    def write(vectors: csr_array, path: Path, block: int) -> None:
        """Write the lists of n strings.

        Args:
            vectors: (n, trigrams) float32.
            path: existing folder to write into.
            block: strings per block; it changes no result.
        """
        for first in range(0, vectors.shape[0], block):
            write_sparse(vectors[first : first + block].T.tocsr(), _stem(path, first))

    def nearest(self, queries: csr_array, width: int) -> tuple[np.ndarray, np.ndarray]:
        """The strings with the largest products with q queries, the best first, ties by number.

        Args:
            queries: (q, trigrams) float32.
            width: number of strings.

        Returns:
            (q, width) float32 products; (q, width) int64 numbers of strings, -1 where no further
            string has a trigram of the query.
        """
        n = queries.shape[0]
        scores = np.zeros((n, width), np.float32)
        strings = np.full((n, width), -1, np.int64)
        for first_string, lists in self._blocks:
            # Not a power of two: sums of a group would share a place in the CPU's cache.
            groups = -(-lists.shape[1] // GROUP) | 16
            sums = np.empty((GROUP, groups), np.float32)
            for query in range(n):
                _sum_lists(lists, queries, query, sums.reshape(-1))
                numbers, values = _largest(sums, width, scores[query, -1])
                values = np.concatenate([scores[query], values])
                numbers = np.concatenate([strings[query], first_string + numbers])
                best = np.argsort(-values, kind="stable")[:width]
                scores[query] = values[best]
                strings[query] = numbers[best]
        return scores, strings


def _stem(path: Path, first: int) -> Path:
    """The beginning of the files of a block, by its first string."""
    return path / f"lists_{first}"


def _sum_lists(lists: csr_array, queries: csr_array, query: int, sums: np.ndarray) -> None:
    """Write the sums of one query over the strings of inverted lists, one list after the other."""
    sums[:] = 0
    for entry in range(*queries.indptr[query : query + 2]):
        trigram = queries.indices[entry]
        strings = slice(*lists.indptr[trigram : trigram + 2])
        np.add.at(sums, lists.indices[strings], queries.data[entry] * lists.data[strings])


def _largest(sums: np.ndarray, width: int, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Numbers and values of the `width` largest sums above `least`, more if some are equal.

    They are in the order of numbers. Most sums are too small with their group, a column.
    """
    largest = sums.max(axis=0)
    limit = np.nextafter(least, np.float32(np.inf))
    if not least and width < len(largest):
        # So many sums are as large: one in each of so many groups.
        limit = max(limit, np.partition(largest, -width)[-width])
    groups = np.flatnonzero(largest >= limit)
    candidates = sums.take(groups, axis=1).reshape(-1)
    above = np.flatnonzero(candidates >= limit)
    if len(above) > width:
        values = candidates[above]
        above = above[values >= np.partition(values, -width)[-width]]
    row, group = np.divmod(above, max(1, len(groups)))
    return row * len(largest) + groups[group], candidates[above]
