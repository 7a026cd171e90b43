"""Errors of reading a file, which name it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..core.errors import UserError


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the file in the errors of reading it."""
    try:
        yield
    except OSError as error:
        # Arrow's own errors have neither number nor reason.
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from None
    except (ValueError, LookupError, RecursionError, NotImplementedError) as error:
        raise UserError(
            f"{path} cannot be read ({error}); write it again as UTF-8 text or as a whole table"
        ) from None
