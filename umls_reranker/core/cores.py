"""How many cores and processes there are to share work among."""

import os

from .errors import UserError

__all__ = ["openmp_threads", "started_processes", "usable_cores"]


def openmp_threads() -> int | None:
    """Threads of a process by ``OMP_NUM_THREADS``, or None if it gives no number.

    Of a list, which OpenMP takes for nested levels, the first number counts.
    """
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) or None if first.isdecimal() else None


def started_processes(name: str = "WORLD_SIZE") -> int:
    """Processes of this launch, or of it on this machine (``LOCAL_WORLD_SIZE``), as its launcher says; 1 without one.

    Raises:
        UserError: the variable is no such number.
    """
    given = os.environ.get(name, "1")
    if not given.isdecimal() or int(given) < 1:
        raise UserError(f"the environment's {name} is {given!r}, which is no number of processes; unset it")
    return int(given)


def usable_cores() -> int:
    """Cores that this process may use, or all of the machine where the system does not tell (macOS, Windows)."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
