"""Batches of similar length under a token budget: padding is the largest waste of a transformer on short texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

__all__ = ["batch_mapper", "length_batches"]


def length_batches(lengths: np.ndarray, token_budget: int, max_batch: int = 1024) -> list[np.ndarray]:
    """Cut rows into batches whose padded size stays within a budget, longest rows first.

    The longest batch comes first, so that a batch which does not fit into memory fails at once and the estimate of
    the time left only gets better. Rows of equal length keep their order: the cut depends on the lengths alone.

    Args:
        lengths: (n,) token counts.
        token_budget: most tokens in a batch, padding included (longest row x rows). A single row that is longer
            still gets a batch of its own.
        max_batch: most rows in a batch.

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


@contextmanager
def batch_mapper(device: torch.device) -> Iterator[Callable]:
    """A `map` over batches; on a processor one thread per core, each of which computes whole batches.

    PyTorch's own threads share out every matrix product and wait for one another after it: where something else
    takes a part of a core, all of them wait for it, and encoding becomes ten times slower. Whole batches do not.
    """
    import torch

    if device.type != "cpu":
        yield map
        return
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            yield pool.map
        finally:
            torch.set_num_threads(threads)
