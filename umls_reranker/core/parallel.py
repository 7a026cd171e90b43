"""Work of many items: cores, threads, launched processes, and progress bars."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

MOST_THREADS = 8
SECONDS_BETWEEN_LINES = 30.0

Item = TypeVar("Item")
Result = TypeVar("Result")


def openmp_threads() -> int | None:
    """Threads of a process by ``OMP_NUM_THREADS``, or None if it is not a number.

    Of a list, which OpenMP reads as nested levels, the first number counts.
    """
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) or None if first.isdecimal() else None


def started_processes(name: str = "WORLD_SIZE") -> int:
    """The launcher's number of processes, or of those on this machine (``LOCAL_WORLD_SIZE``)."""
    return int(os.environ.get(name, "1"))


def usable_cores() -> int:
    """Cores that this process may use, or all where the system does not tell (macOS, Windows)."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def map_in_order(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield ``function(item)`` for each item in order, with one thread per core.

    It suits functions that spend their time in Arrow and NumPy. Only a few items are processed
    ahead of the yielded one. An exception of `function` is raised at the turn of its item.
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


def progress(
    iterable: Iterable | None = None,
    *,
    total: int | None = None,
    desc: str | None = "",
    unit: str = "it",
) -> Any:
    """A `tqdm` bar: redrawn and then removed on a terminal, one state every half minute in a log.

    Args:
        iterable: to iterate over, or None for a bar moved by ``bar.update(n)``.
        total: expected number of units; by default ``len(iterable)``.
        desc: short name of the work, shown before the bar; None shows no bar.
        unit: what is counted, e.g. ``" names"``.

    Setting ``UMLS_RERANKER_PROGRESS=0`` turns all bars off.
    """
    from tqdm.auto import tqdm

    on_terminal = sys.stderr.isatty()
    interval = 0.2 if on_terminal else SECONDS_BETWEEN_LINES
    delay = 0 if on_terminal else SECONDS_BETWEEN_LINES
    return tqdm(
        iterable,
        total=total,
        desc=desc,
        unit=unit,
        unit_scale=True,
        dynamic_ncols=on_terminal,
        leave=not on_terminal,
        mininterval=interval,
        delay=delay,
        disable=desc is None or os.environ.get("UMLS_RERANKER_PROGRESS") == "0",
    )
