"""Mentions that ask the same, as one query, and blocks of queries."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa


def distinct_queries(
    mentions: pa.Table, reads_context: bool, by_document: bool = False
) -> tuple[np.ndarray, pa.Table]:
    """The distinct queries: strings, or strings with context if context is read.

    Args:
        mentions: n rows with the column ``mention``, and ``left`` and ``right`` if context is read.
        reads_context: whether context is read.
        by_document: whether mentions of different documents (``doc_id``) are different queries.

    Returns:
        (n,) int64, number of each row's query, and the queries, with these columns; those of a
        string are adjacent.
    """
    columns = ["mention"]
    if reads_context:
        columns += ["left", "right"]
    if by_document:
        columns.append("doc_id")
    numbered = mentions.select(columns).append_column("row", pa.array(np.arange(mentions.num_rows)))
    groups = numbered.group_by(columns, use_threads=False).aggregate([("row", "list")])
    group_of = np.empty(mentions.num_rows, np.int64)
    members = groups["row_list"].combine_chunks()
    group_of[members.flatten().to_numpy()] = np.repeat(
        np.arange(len(members)), members.value_lengths().to_numpy()
    )
    order = np.argsort(_string_numbers(groups), kind="stable")
    positions = np.empty(len(order), np.int64)
    positions[order] = np.arange(len(order))
    return positions[group_of], groups.select(columns).take(pa.array(order))


def query_blocks(queries: pa.Table, size: int) -> list[tuple[int, int]]:
    """First query and end of blocks of about `size` queries; blocks do not share a string.

    Args:
        queries: rows of `distinct_queries`, all or some, in their order.
        size: approximate number of queries in a block.
    """
    numbers = _string_numbers(queries)
    starts = np.append(np.flatnonzero(np.diff(numbers, prepend=-1)), len(numbers))
    # Each block ends where a string does.
    after = np.searchsorted(starts, np.arange(0, len(numbers), size))
    edges = np.unique(np.append(starts[after], len(numbers)))
    return list(pairwise(edges.tolist()))


def _string_numbers(queries: pa.Table) -> np.ndarray:
    """The number of each query's string, in order of first appearance."""
    return queries["mention"].combine_chunks().dictionary_encode().indices.to_numpy()
