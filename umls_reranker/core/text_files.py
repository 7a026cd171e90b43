"""Lines and tables of text files, plain or gzip, with bounds on what is read."""

import csv
import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Protocol, TextIO, TypeVar

from .errors import Malformed, UserError

GZIP_MAGIC = b"\x1f\x8b"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
START_BYTES = 1 << 16
# A line may hold a whole document; and the largest table of a UMLS release has some 10^8 lines. A
# file that unpacks to more would fill the memory.
LONGEST_LINE = 1 << 26
MOST_LINES = 1_000_000_000
# Of a file that is read at once.
MOST_BYTES = 1 << 32
csv.field_size_limit(LONGEST_LINE)

Line = TypeVar("Line", str, bytes, covariant=True)


class HasLines(Protocol[Line]):
    """An open file of text or bytes."""

    def readline(self, size: int, /) -> Line:
        """The next line, or its first `size` characters; empty at the end."""


@contextmanager
def open_binary(path: Path) -> Iterator[io.BufferedReader | gzip.GzipFile]:
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
        UserError: as `open_binary` and `bounded_lines`.
    """
    with open_binary(path) as stream:
        for number, line in enumerate(bounded_lines(path, stream), start=1):
            if number == 1:
                line = line.removeprefix(BYTE_ORDER_MARK)
            yield number, line.rstrip(b"\r\n")


def read_whole(path: Path, most: int = MOST_BYTES) -> bytes:
    """The unpacked bytes of a file.

    Raises:
        UserError: as `open_binary`; or there are more than `most`.
    """
    with open_binary(path) as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise UserError(f"{path} has more than {most:,} bytes; divide it")
    return content


def bounded_lines(
    path: Path, stream: HasLines[Line], longest: int = LONGEST_LINE, most: int = MOST_LINES
) -> Iterator[Line]:
    """Yield the lines of an open file.

    Args:
        path: the file, for messages.
        stream: the file, of bytes or text.
        longest: bytes or characters of a line, at most.
        most: number of lines, at most.

    Raises:
        UserError: a line is longer, or there are more (names file and line).
    """
    number = 0
    while line := stream.readline(longest + 1):
        number += 1
        if len(line) > longest:
            raise UserError(
                f"{path}:{number}: the line is longer than {longest:,} characters; is it the right "
                "file? Divide the line, or download the file again"
            )
        if number > most:
            raise UserError(
                f"{path}:{number}: the file has more than {most:,} lines; is it the right file? "
                "Divide it, or download it again"
            )
        yield line


def read_table(
    path: Path, stream: TextIO, delimiter: str, has_quotes: bool = True
) -> Iterator[tuple[int, list[str]]]:
    """Yield ``(number of its first line, cells)`` of each row that is not blank, the header first.

    Args:
        path: the file, for messages.
        stream: the file, opened with ``newline=""``.
        delimiter: what separates cells.
        has_quotes: whether quotes may enclose a cell; otherwise they are characters of it.

    Raises:
        UserError: a quote is not closed or not at the edge of its cell, or a row has not as many
            cells as the first (names file and line); or as `bounded_lines`.
    """
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if has_quotes else csv.QUOTE_NONE
    lines = bounded_lines(path, stream)
    reader = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)
    number = 1
    size = None
    try:
        for cells in reader:
            if any(cells):
                size = size or len(cells)
                if len(cells) != size:
                    raise UserError(
                        f"{path}:{number}: the row has {len(cells)} cells, but the first line "
                        f"{size}"
                    )
                yield number, cells
            number = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"{path}:{number}: {error}; a quotation mark inside a cell is doubled, in quotes"
        ) from None


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
    if len(text) > 60:
        text = text[:57] + "..."
    return ascii(text)
