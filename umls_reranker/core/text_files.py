"""Numbered lines of text files, plain or gzip, and what they may hold."""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import Malformed, UserError

GZIP_MAGIC = b"\x1f\x8b"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
START_BYTES = 1 << 16


@contextmanager
def open_binary(path: Path) -> Iterator[io.BufferedIOBase]:
    """Open a file, plain or gzip (detected by its first bytes).

    Raises:
        UserError: the file is missing, a folder, unreadable or empty; or, while the stream is read,
            it is a gzip stream that is cut short or corrupt.
    """
    try:
        raw = path.open("rb")
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); check the path and its permissions"
        ) from None
    with raw:
        magic = raw.peek(2)[:2]
        if not magic:
            raise UserError(f"{path} is empty; download it again")
        if magic != GZIP_MAGIC:
            yield raw
            return
        try:
            with gzip.GzipFile(fileobj=raw) as stream:
                yield stream
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise UserError(
                f"{path}: the gzip stream is damaged ({error}); download the file again"
            ) from None


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    r"""Yield ``(number from 1, line without \n or \r\n)``; only ``\n`` ends a line.

    Raises:
        UserError: as `open_binary`.
    """
    with open_binary(path) as stream:
        for number, line in enumerate(stream, start=1):
            if number == 1:
                line = line.removeprefix(BYTE_ORDER_MARK)
            yield number, line.rstrip(b"\r\n")


def start_of(path: Path) -> bytes:
    """The first bytes of a file, unpacked and without a byte order mark.

    Raises:
        UserError: as `open_binary`.
    """
    with open_binary(path) as stream:
        return stream.read(START_BYTES).removeprefix(BYTE_ORDER_MARK)


def decode(line: bytes) -> str:
    """Decode UTF-8; raises `Malformed` with the first invalid byte."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed(
            "not UTF-8", f" (byte 0x{line[error.start]:02x} at column {error.start + 1})"
        ) from None


def of_characters(text: str) -> str:
    """The text as it is; ValueError if it has half of a surrogate pair, which no file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("contains a lone surrogate, which is not a character") from None
    return text


def is_finite(number: float) -> bool:
    """Whether a number that was read is finite as a float; an integer may be too large for any."""
    return abs(number) <= sys.float_info.max


def excerpt(text: str) -> str:
    """A piece of the input for messages: short, printable, one line."""
    return ascii(text if len(text) <= 60 else text[:57] + "...")
