"""Batches of similar length under a token budget, because padding is the largest waste on short texts."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

__all__ = ["batch_mapper", "length_batches", "token_batches", "worker_pool"]


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


def batch_mapper(device: torch.device) -> Callable:
    """A `map` over batches; on a CPU with one thread per core, each computing whole batches.

    PyTorch's threads split every matrix product and then wait for each other. If something else uses part of a core,
    all of them wait, and encoding becomes ten times slower. Threads with whole batches do not wait.
    """
    pool = worker_pool() if device.type == "cpu" else None
    return map if pool is None else pool.map


def worker_pool() -> ThreadPoolExecutor | None:
    """This process' threads for whole batches, each computing with one thread; None if PyTorch has only one.

    Their number is the first ``torch.get_num_threads()`` above one.
    """
    global _pool
    threads = torch.get_num_threads()
    if threads == 1:
        return None
    with _pool_lock:
        if _pool is None:
            _pool = _started_pool(threads)
        return _pool


_pool: ThreadPoolExecutor | None = None
_pool_lock = threading.Lock()


def _started_pool(threads: int) -> ThreadPoolExecutor:
    all_started = threading.Barrier(threads)

    def start() -> None:
        torch.set_num_threads(1)
        # The first call fixes a thread's number; a later one would take over the number set below.
        torch.get_num_threads()
        all_started.wait()

    pool = ThreadPoolExecutor(threads, "batches", initializer=start)
    for started in [pool.submit(int) for _ in range(threads)]:
        started.result()
    # The value that a thread sets is also the initial value of later threads.
    torch.set_num_threads(threads)
    return pool


def _forget_pool() -> None:
    global _pool, _pool_lock
    _pool, _pool_lock = None, threading.Lock()


# A forked process does not inherit the threads; Windows has no fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
