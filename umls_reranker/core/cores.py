"""Numbers of cores and processes, and work shared among threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

MOST_THREADS = 8

Item = TypeVar("Item")
Result = TypeVar("Result")


def openmp_threads() -> int | None:
    """Threads of a process by ``OMP_NUM_THREADS``, or None if it is not a number.

    Of a list, which OpenMP reads as nested levels, the first number counts.
    """
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) or None if first.isdecimal() else None


def started_processes(name: str = "WORLD_SIZE") -> int:
    """Processes of this launch, or of it on this machine (``LOCAL_WORLD_SIZE``), as its launcher says."""
    return int(os.environ.get(name, "1"))


def usable_cores() -> int:
    """Cores that this process may use, or all of the machine where the system does not tell (macOS, Windows)."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def map_in_order(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield ``function(item)`` for each item in order, with one thread per core.

    It suits functions that spend their time in Arrow and NumPy. Only a few items are processed ahead of the yielded
    one. An exception of `function` is raised at the turn of its item.
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
