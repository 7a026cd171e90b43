"""Lines of a text file, plain or gzip, numbered; and what happens to the malformed ones."""

from __future__ import annotations

import gzip
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..errors import UserError

__all__ = ["Faults", "Malformed", "broken_gzip", "decode", "open_binary", "read_lines", "shown"]

GZIP_MAGIC = b"\x1f\x8b"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Malformed(Exception):
    """A line that breaks its format: `reason` is what gets counted, `detail` completes the message."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}{detail}")
        self.reason = reason


class Faults:
    """What happens to the malformed lines of one file: the first one stops the reading, or all are counted.

    Args:
        path: the file, for messages.
        on_error: ``"stop"`` raises `UserError` with file and line; ``"skip"`` counts.
        reasons: where skipped lines are counted by reason.
    """

    def __init__(self, path: Path, on_error: str, reasons: Counter[str]) -> None:
        if on_error not in ("stop", "skip"):
            raise ValueError(f"on_error must be 'stop' or 'skip', not {on_error!r}")
        self.path = path
        self.stops = on_error == "stop"
        self.reasons = reasons

    def add(self, number: int, problem: Malformed, lines: int = 1) -> None:
        """Report line `number` (from 1); in all, `lines` lines are passed over because of it."""
        if self.stops:
            raise UserError(f"{self.path}:{number}: {problem}; mend the line, or skip it with on_error: skip")
        self.reasons[problem.reason] += lines


@contextmanager
def open_binary(path: Path) -> Iterator[BinaryIO]:
    """Open a file that may be gzip (told by its first bytes, not its name).

    Raises:
        UserError: the file is missing, a folder, unreadable or empty.
    """
    try:
        raw = path.open("rb")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; check the path in the recipe") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); the recipe must name a readable file") from None
    with raw:
        magic = raw.peek(2)[:2]
        if not magic:
            raise UserError(f"{path} is empty; get the file again")
        if magic != GZIP_MAGIC:
            yield raw
            return
        with gzip.GzipFile(fileobj=raw) as stream:
            yield stream


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    r"""Yield ``(number from 1, line without \n or \r\n)``; only ``\n`` ends a line.

    Raises:
        UserError: as `open_binary`, or the gzip stream is cut short or corrupt.
    """
    number = 0
    with open_binary(path) as stream:
        try:
            for number, line in enumerate(stream, start=1):
                if number == 1:
                    line = line.removeprefix(BYTE_ORDER_MARK)
                yield number, line.rstrip(b"\r\n")
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise broken_gzip(path, number + 1, error) from None


def broken_gzip(path: Path, number: int, error: Exception) -> UserError:
    """The error for a gzip stream that ends or breaks about line `number`."""
    return UserError(f"{path}:{number}: the gzip stream is cut short or corrupt ({error}); get the file again")


def decode(line: bytes) -> str:
    """Decode UTF-8; raises `Malformed` naming the first byte that does not fit."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed("not UTF-8", f" (byte 0x{line[error.start]:02x} at column {error.start + 1})") from None


def shown(text: str) -> str:
    """A piece of the input as a message quotes it: short and printable on one line."""
    return ascii(text if len(text) <= 60 else text[:57] + "...")
