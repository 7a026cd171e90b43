"""How many cores there are to share work among."""

import os

__all__ = ["usable_cores"]


def usable_cores() -> int:
    """Cores that this process may use, or all of the machine where the system does not tell (macOS, Windows)."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
