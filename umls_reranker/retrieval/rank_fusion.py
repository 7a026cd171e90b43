"""Reciprocal rank fusion: one list of concepts from the ranked lists of several retrievers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Cormack, Clarke and Buettcher (2009), "Reciprocal rank fusion outperforms Condorcet and individual
# rank learning methods", section 3.
RANK_CONSTANT = 60


def fuse_ranks(lists: Sequence[np.ndarray], k: int) -> np.ndarray:
    """Reciprocal rank fusion: the k concepts with the largest sums of 1 / (60 + rank).

    The sum is over the lists that a concept is in.

    Args:
        lists: (n, depth) ranked concept rows of each retriever, distinct in a list, padded with -1.
        k: number of concepts.

    Returns:
        (n, k) int64 concept rows, padded with -1; ties go to the concept in an earlier list.

    >>> fuse_ranks([np.array([[7, 3, 5]]), np.array([[3, 8, -1]])], 4).tolist()
    [[3, 7, 8, 5]]
    """
    rows = np.concatenate(lists, axis=1)
    # What a concept gains in each column, that is, at each rank of each list.
    gains = np.concatenate(
        [1 / (RANK_CONSTANT + 1 + np.arange(ranked.shape[1])) for ranked in lists]
    )
    query, column = np.nonzero(rows >= 0)
    # One key for each pair of query and concept.
    stride = rows.max(initial=0) + 1
    keys, first, key_of = np.unique(
        query * stride + rows[query, column], return_index=True, return_inverse=True
    )
    total_gain = np.bincount(key_of, gains[column])
    order = np.lexsort((column[first], -total_gain, query[first]))
    query_of_pair = query[first][order]
    starts = np.searchsorted(query_of_pair, np.arange(len(rows)))
    rank = np.arange(len(order)) - starts[query_of_pair]
    is_retained = rank < k
    concepts = (keys % stride)[order]
    fused = np.full((len(rows), k), -1, np.int64)
    fused[query_of_pair[is_retained], rank[is_retained]] = concepts[is_retained]
    return fused
