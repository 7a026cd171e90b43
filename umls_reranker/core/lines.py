"""Numbered lines of a text file, plain or gzip, whole or in parts; malformed lines; and reports of reading."""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar

from .errors import UserError

GZIP_MAGIC = b"\x1f\x8b"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
START_BYTES = 1 << 16
CHUNK_BYTES = 1 << 17

Item = TypeVar("Item")
Parsed = TypeVar("Parsed")
Arguments = ParamSpec("Arguments")


class Malformed(Exception):
    """A malformed line: `reason` is counted, `detail` completes the message."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}{detail}")
        self.reason = reason


class Faults:
    """Handles the malformed lines of one file: the first one stops the reading, or all are counted.

    Args:
        path: the file or its parts, for messages.
        on_error: ``"stop"`` raises `UserError` with file and line; ``"skip"`` counts.

    Attributes:
        reasons: number of lines skipped, by reason.
    """

    def __init__(self, path: Path | Sequence[Path], on_error: str) -> None:
        if on_error not in ("stop", "skip"):
            raise ValueError(f"on_error must be 'stop' or 'skip', not {on_error!r}")
        self.name = name_source(path)
        self.stops = on_error == "stop"
        self.reasons: Counter[str] = Counter()

    def add(self, where: int | str, problem: Malformed, lines: int = 1) -> None:
        """Report a malformed line by its number (from 1), or another place; `lines` lines are skipped for it."""
        if self.stops:
            raise UserError(f"{self.name}:{where}: {problem}; fix it, or skip such lines with --on_error skip")
        self.reasons[problem.reason] += lines


def each_parsed(
    items: Iterable[tuple[int | str, Item]], parse: Callable[[Item], Parsed], faults: Faults
) -> Iterator[tuple[int | str, Parsed]]:
    """Yield the parsed items, each with its place in the file; `faults` takes those that are `Malformed`."""
    for where, item in items:
        try:
            parsed = parse(item)
        except Malformed as problem:
            faults.add(where, problem)
        else:
            yield where, parsed


def skipped_lines(*faults: Faults) -> dict[str, Any]:
    """``skipped`` and ``reasons`` (the most frequent first) of one or more files, for a report."""
    reasons = sum((each.reasons for each in faults), Counter())
    by_count = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    return {"skipped": reasons.total(), "reasons": dict(by_count)}


class Reading(Iterator[Item], Generic[Item]):
    """Items one by one, and at the end a report of what was read and skipped.

    Args:
        items: yields the items and returns the report.

    Attributes:
        report: JSON-able; available after the last item.
    """

    report: dict[str, Any]

    def __init__(self, items: Generator[Item, None, dict[str, Any]]) -> None:
        self._items = items

    def __next__(self) -> Item:
        try:
            return next(self._items)
        except StopIteration as end:
            if not hasattr(self, "report"):
                self.report = end.value
            raise


def reading(
    read: Callable[Arguments, Generator[Item, None, dict[str, Any]]],
) -> Callable[Arguments, Reading[Item]]:
    """Make a generator function that returns a report return a `Reading`."""

    @wraps(read)
    def start(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Reading[Item]:
        return Reading(read(*args, **kwargs))

    return start


def name_source(path: Path | Sequence[Path]) -> str:
    """Name of a file in messages; for parts, that of the file that they form, as lines are counted across parts."""
    if isinstance(path, Path):
        return str(path)
    if len(path) == 1:
        return str(path[0])
    first = path[0].with_suffix("") if path[0].suffix == ".gz" else path[0]
    return f"{first.with_suffix('')} ({len(path)} parts joined)"


@contextmanager
def open_binary(path: Path | Sequence[Path]) -> Iterator[io.BufferedIOBase]:
    """Open a file, plain or gzip (detected by its first bytes), or its parts as one stream.

    Each part may be plain or gzip; a line may continue in the next part.

    Raises:
        UserError: the file or a part is missing, a folder, unreadable or empty; or, while the stream is read, it is
            a gzip stream that is cut short or corrupt.
    """
    paths = [path] if isinstance(path, Path) else path
    if len(paths) == 1:
        with _open_part(paths[0]) as stream:
            yield stream
    else:
        with io.BufferedReader(_Joined(paths), CHUNK_BYTES) as joined:
            yield joined


@contextmanager
def _open_part(path: Path) -> Iterator[io.BufferedIOBase]:
    try:
        raw = path.open("rb")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; check the path in the recipe") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check its permissions") from None
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
                f"{path}: the gzip stream is truncated or corrupt ({error}); download the file again"
            ) from None


class _Joined(io.RawIOBase):
    """Parts of a file as one stream, each opened when it is needed."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._chunks = _read_parts(paths)
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._rest = self._rest or next(self._chunks, b"")
        size = min(len(self._rest), len(buffer))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    def close(self) -> None:
        self._chunks.close()
        super().close()


def _read_parts(paths: Sequence[Path]) -> Generator[bytes, None, None]:
    for path in paths:
        with _open_part(path) as stream:
            while chunk := stream.read(CHUNK_BYTES):
                yield chunk


def read_lines(path: Path | Sequence[Path]) -> Iterator[tuple[int, bytes]]:
    r"""Yield ``(number from 1, line without \n or \r\n)``; only ``\n`` ends a line; lines are counted across parts.

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
        raise Malformed("not UTF-8", f" (byte 0x{line[error.start]:02x} at column {error.start + 1})") from None


def of_characters(text: str) -> str:
    """The text as it is; raises ValueError if it holds half of a surrogate pair, which no file can hold."""
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
