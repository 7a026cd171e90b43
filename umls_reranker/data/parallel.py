"""Process pieces of a file or table in threads, for functions that spend their time in Arrow and NumPy."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from ..core.launch import usable_cores

__all__ = ["map_in_order"]

MOST_THREADS = 8

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_order(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield ``function(item)`` for each item in order, with one thread per core.

    Only a few items are processed ahead of the yielded one. An exception of `function` is raised at the turn of its
    item.
    """
    threads = min(usable_cores(), MOST_THREADS)
    pool = ThreadPoolExecutor(threads)
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
