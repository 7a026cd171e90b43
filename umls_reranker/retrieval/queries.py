"""Distinct queries of many mentions."""

import numpy as np
import pyarrow as pa

__all__ = ["distinct_queries", "query_blocks"]


def distinct_queries(mentions: pa.Table, reads_context: bool) -> tuple[np.ndarray, pa.Table]:
    """The distinct queries: strings, or strings with context if context is read.

    Args:
        mentions: n rows with the column ``mention``, and ``left`` and ``right`` if context is read.

    Returns:
        (n,) int64, the number of each row's query, and the queries: ``mention``, and ``left`` and ``right`` where
        context is read. Queries of the same string stand together.
    """
    columns = ["mention", "left", "right"] if reads_context else ["mention"]
    numbered = mentions.select(columns).append_column("row", pa.array(np.arange(mentions.num_rows)))
    groups = numbered.group_by(columns, use_threads=False).aggregate([("row", "list")])
    inverse = np.empty(mentions.num_rows, np.int64)
    members = groups["row_list"].combine_chunks()
    inverse[members.flatten().to_numpy()] = np.repeat(np.arange(len(members)), members.value_lengths().to_numpy())
    order = np.argsort(_string_numbers(groups), kind="stable")
    places = np.empty(len(order), np.int64)
    places[order] = np.arange(len(order))
    return places[inverse], groups.select(columns).take(pa.array(order))


def query_blocks(queries: pa.Table, size: int) -> list[tuple[int, int]]:
    """First query and end of blocks of about `size` queries; blocks do not share a string.

    Args:
        queries: rows of `distinct_queries`, all or some, in their order.
    """
    numbers = _string_numbers(queries)
    starts = np.append(np.flatnonzero(np.diff(numbers, prepend=-1)), len(numbers))
    edges = np.unique(starts[np.searchsorted(starts, np.arange(0, len(numbers), size))])
    edges = np.unique(np.append(edges, len(numbers))).tolist()
    return list(zip(edges[:-1], edges[1:], strict=True))


def _string_numbers(queries: pa.Table) -> np.ndarray:
    """The number of each query's string, in order of first appearance."""
    return queries["mention"].combine_chunks().dictionary_encode().indices.to_numpy()
