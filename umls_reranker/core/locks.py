"""A lock on a file, held by at most one process on Linux, macOS and Windows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import UserError

__all__ = ["hold"]

# Workers of a killed process inherit its lock, and take up to five seconds to notice that it is gone.
PATIENCE_SECONDS = 10.0


@contextmanager
def hold(path: Path, refusal: str) -> Iterator[None]:
    """Hold the lock `path`, waiting a few seconds for it. It disappears with the processes that hold it.

    Args:
        path: the lock file, which may remain; its folder must exist.
        refusal: text of the error if another process holds the lock.

    Raises:
        UserError: another process holds it.
    """
    try:
        lock = FileLock(path).acquire(timeout=PATIENCE_SECONDS)
    except (Timeout, FileNotFoundError):
        # The holder may have dropped the folder at its end.
        raise UserError(refusal) from None
    with lock:
        yield
