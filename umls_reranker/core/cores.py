"""How many cores there are to share work among."""

import os

__all__ = ["openmp_threads", "usable_cores"]


def openmp_threads() -> int | None:
    """Threads of a process by ``OMP_NUM_THREADS``, or None if it gives no number.

    Of a list, which OpenMP takes for nested levels, the first number counts.
    """
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) or None if first.isdecimal() else None


def usable_cores() -> int:
    """Cores that this process may use, or all of the machine where the system does not tell (macOS, Windows)."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
