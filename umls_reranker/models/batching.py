"""Batches of similar length under a token budget, because padding is the largest waste on short texts."""

from __future__ import annotations

import numpy as np

__all__ = ["length_batches", "token_batches"]


def length_batches(lengths: np.ndarray, token_budget: int, max_batch: int = 1024) -> list[np.ndarray]:
    """Divide rows into batches whose padded size stays within a budget, longest rows first.

    The longest batch comes first, so a batch that does not fit into memory fails at once. Rows of equal length keep
    their order, so the batches depend only on the lengths.

    Args:
        lengths: (n,) token counts.
        token_budget: maximum tokens per batch, padding included (longest row x rows). A longer single row gets its own
            batch.
        max_batch: maximum rows per batch.

    Returns:
        Row numbers (int64), each row in exactly one batch.

    >>> [batch.tolist() for batch in length_batches(np.array([3, 9, 4, 3]), token_budget=9)]
    [[1], [2, 0], [3]]
    """
    if token_budget < 1 or max_batch < 1:
        raise ValueError(f"token_budget and max_batch must be at least 1, got {token_budget} and {max_batch}")
    lengths = np.asarray(lengths)
    order = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        rows = max(1, min(max_batch, token_budget // max(1, int(lengths[order[start]]))))
        batches.append(order[start : start + rows])
        start += rows
    return batches


def token_batches(lengths: np.ndarray, token_budget: int) -> list[np.ndarray]:
    """Like `length_batches`, for a network without padding: a batch is as long as its rows together.

    >>> [batch.tolist() for batch in token_batches(np.array([3, 9, 4, 3]), token_budget=10)]
    [[1], [2, 0, 3]]
    """
    if token_budget < 1:
        raise ValueError(f"token_budget must be at least 1, got {token_budget}")
    order = np.argsort(-np.asarray(lengths), kind="stable")
    ends = np.cumsum(np.asarray(lengths)[order])
    batches, start, used = [], 0, 0
    while start < len(order):
        end = max(start + 1, int(np.searchsorted(ends, used + token_budget, "right")))
        batches.append(order[start:end])
        start, used = end, int(ends[end - 1])
    return batches
