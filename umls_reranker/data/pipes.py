"""Tables of fields that end in ``|``, one row a line, as in a UMLS release: in columns, block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..core.errors import UserError
from ..core.lines import BYTE_ORDER_MARK, GZIP_ERRORS, Faults, Malformed, broken_gzip, decode, name_source, open_binary
from ..core.progress import progress
from .parallel import map_in_order

__all__ = ["Block", "LineFormat", "Lines", "read_columns"]

# With less, the calls cost more than the work; with more, memory is fetched from the system anew for each block, which
# takes half as long again.
BLOCK_BYTES = 1 << 19
LONGEST_LINE = 64 << 20
WORD_BYTES = 8
PIPE, NEWLINE = ord("|"), ord("\n")
WORD_MASKS = np.array([(1 << 64) - (1 << 8 * (WORD_BYTES - size)) for size in range(WORD_BYTES + 1)], dtype=np.uint64)


class Lines(NamedTuple):
    """Whole lines, each ended by a newline.

    Attributes:
        buffer: their bytes, and at least 8 more.
        size: number of their bytes.
    """

    buffer: bytes | bytearray
    size: int

    @classmethod
    def of(cls, lines: bytes) -> Lines:
        return cls(lines + bytes(WORD_BYTES), len(lines))

    def holds(self, byte: bytes) -> bool:
        return self.buffer.find(byte, 0, self.size) >= 0

    def bytes(self) -> bytes:
        return bytes(memoryview(self.buffer)[: self.size])


class Block:
    """Well-formed lines; a field is read from their bytes when it is asked for, of all rows or of some.

    Args:
        fields: names of the fields.
        content: the lines' bytes, and at least 8 more, uint8.
        ends: where each field ends, and last the line, (fields + 1, rows), int32.
    """

    def __init__(self, fields: Sequence[str], content: np.ndarray, ends: np.ndarray) -> None:
        self._place = {name: place for place, name in enumerate(fields)}
        self._content = content
        self._ends = ends

    def __len__(self) -> int:
        return self._ends.shape[1]

    def bounds(self, name: str, rows: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Where the field starts and ends, both (n,), int32."""
        place = self._place[name]
        starts = self._ends[place - 1] + 1
        if place == 0:
            starts = np.roll(starts, 1)
            starts[:1] = 0
        ends = self._ends[place]
        return (starts, ends) if rows is None else (starts[rows], ends[rows])

    def strings(self, name: str, rows: np.ndarray | None = None) -> pa.LargeStringArray:
        """The field's text, (n,)."""
        starts, ends = self.bounds(name, rows)
        if not len(starts):
            return pa.array([], pa.large_string())
        # Fields and what lies between them, in turns, are strings of one buffer.
        offsets = np.empty(2 * len(starts), dtype=np.int64)
        offsets[0::2], offsets[1::2] = starts, ends
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(self._content)]
        turns = pa.Array.from_buffers(pa.large_string(), len(offsets) - 1, buffers)
        return turns.take(pa.array(np.arange(0, len(offsets), 2)))

    def numbers(self, name: str, rows: np.ndarray | None = None) -> np.ndarray:
        """`cuis.cui_number` of a field that has at most 8 bytes, (n,), uint64."""
        starts, ends = self.bounds(name, rows)
        return self._words(">u8")[starts].astype(np.uint64) & WORD_MASKS[ends - starts]

    def places_in(self, name: str, values: Sequence[str], rows: np.ndarray | None = None) -> np.ndarray:
        """Where the field's text stands in `values`, (n,), int64; after the last one where it is not among them."""
        if any(len(value.encode()) >= WORD_BYTES for value in values):
            known = pa.array(values, pa.large_string())
            return pc.index_in(self.strings(name, rows), known).fill_null(len(values)).to_numpy().astype(np.int64)
        starts, _ = self.bounds(name, rows)
        words = self._words("<u8")[starts]
        places = np.full(len(words), len(values))
        for place, value in reversed(list(enumerate(values))):
            # No field holds a pipe, so a value and the pipe after it are the whole field.
            content = value.encode() + b"|"
            mask = np.uint64((1 << 8 * len(content)) - 1)
            places[(words & mask) == np.uint64(int.from_bytes(content, "little"))] = place
        return places

    def _words(self, kind: str) -> np.ndarray:
        """Every place of the bytes, seen as the first of eight."""
        size = len(self._content) - WORD_BYTES + 1
        return np.ndarray(shape=(size,), dtype=kind, buffer=self._content, strides=(1,))

    def batch(self, names: Sequence[str]) -> pa.RecordBatch:
        """Some fields as columns (large_string)."""
        return pa.record_batch([self.strings(name) for name in names], names=list(names))


class LineFormat:
    """What a well-formed line has; the arguments are those of `read_columns`."""

    def __init__(
        self,
        fields: Sequence[str],
        required: Sequence[str] = (),
        longest: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self.fields = fields
        self.required = required
        self.longest = longest

    def parse(self, lines: Lines) -> Block | None:
        """Split whole lines; None when one of them is, or may be, malformed or blank."""
        if lines.holds(b"\r"):
            lines = Lines.of(lines.bytes().replace(b"\r\n", b"\n"))
        if lines.holds(b"\0") or lines.holds(b"\r"):
            return None
        content = np.frombuffer(lines.buffer, dtype=np.uint8)
        text = content[: lines.size]
        is_newline = text == NEWLINE
        marks = np.flatnonzero(is_newline | (text == PIPE))
        width = len(self.fields) + 1
        if len(marks) != width * np.count_nonzero(is_newline):
            return None
        ends = np.array(marks.reshape(-1, width).T, dtype=np.int32, order="C")
        if not is_newline[ends[-1]].all() or (ends[-1] != ends[-2] + 1).any() or not _is_utf8(text):
            return None
        block = Block(self.fields, content, ends)
        for name in dict.fromkeys([*self.required, *self.longest]):
            starts, ends = block.bounds(name)
            sizes = ends - starts
            if (name in self.required and not sizes.all()) or (sizes > self.longest.get(name, lines.size)).any():
                return None
        return block

    def mended(self, lines: Lines, number: int, faults: Faults) -> Lines:
        """The well-formed ones of whole lines, the first of which is line `number`; `faults` takes the others."""
        kept = []
        for line_number, line in enumerate(lines.bytes().split(b"\n"), start=number):
            line = line.removesuffix(b"\r")
            if not line.strip():
                continue
            try:
                self._check(line)
            except Malformed as problem:
                faults.add(line_number, problem)
            else:
                kept.append(line + b"\n")
        return Lines.of(b"".join(kept))

    def _check(self, line: bytes) -> None:
        row = decode(line).split("|")
        if len(row) != len(self.fields) + 1 or row[-1]:
            found = len(row) - (not row[-1])
            detail = f", found {found}" + ("" if not row[-1] else " and no closing |")
            raise Malformed(f"expected {len(self.fields)} fields", detail)
        for byte, name in ((b"\0", "NUL"), (b"\r", "carriage return")):
            if byte in line:
                raise Malformed(f"{name} inside the line", f" at column {line.index(byte) + 1}")
        for name in self.required:
            if not row[self.fields.index(name)]:
                raise Malformed(f"empty {name}")
        for name, most in self.longest.items():
            if len(row[self.fields.index(name)].encode()) > most:
                raise Malformed(f"{name} longer than {most} bytes")


def read_columns(
    path: Path | Sequence[Path],
    fields: Sequence[str],
    used: Sequence[str],
    required: Sequence[str],
    faults: Faults,
    *,
    longest: Mapping[str, int] = MappingProxyType({}),
    convert: Callable[[Block], Any] | None = None,
) -> Iterator[Any]:
    """Yield record batches of the columns `used` (large_string), in order of file.

    Blocks of about 512 KiB are parsed, by a thread for each core; memory holds a few of them.

    Args:
        path: the file, plain or gzip, or its parts in order.
        fields: names of all fields; a line must have as many, each closed by a pipe.
        used: fields to give out, in the order wanted.
        required: fields that must not be empty.
        faults: takes malformed lines.
        longest: fields that may have at most so many bytes.
        convert: makes of a `Block` what is given out in place of a batch; called in threads, in any order.

    Raises:
        UserError: the file is missing, empty or a broken gzip stream; or a line is malformed.
    """
    form = LineFormat(fields, required, longest)

    def make(block: Block) -> Any:
        return convert(block) if convert else block.batch(used)

    def parse(lines: Lines) -> tuple[Lines | None, int, Any]:
        block = form.parse(lines)
        return (lines, 0, None) if block is None else (None, len(block), make(block))

    number = 1
    name = name_source(path)
    with open_binary(path) as stream, progress(desc=f"reading {Path(name).name}", unit=" lines") as bar:
        try:
            for malformed, lines, result in map_in_order(parse, _blocks(stream)):
                if malformed:
                    lines = malformed.bytes().count(b"\n")
                    result = make(form.parse(form.mended(malformed, number, faults)))
                yield result
                number += lines
                bar.update(lines)
        except GZIP_ERRORS as error:
            raise broken_gzip(path, number, error) from None
        except OverflowError:
            raise UserError(
                f"{name}:{number}: a line longer than {LONGEST_LINE >> 20} MiB; is it a text file?"
            ) from None


def _blocks(stream: BinaryIO) -> Iterator[Lines]:
    """Blocks of whole lines; the last one ends in a newline, whether or not the file does."""
    rest = stream.read(len(BYTE_ORDER_MARK)).removeprefix(BYTE_ORDER_MARK)
    while True:
        buffer = bytearray(len(rest) + BLOCK_BYTES + WORD_BYTES)
        buffer[: len(rest)] = rest
        size = len(rest) + stream.readinto(memoryview(buffer)[len(rest) : -WORD_BYTES])
        if size == len(rest):
            break
        end = buffer.rfind(b"\n", 0, size) + 1
        if end:
            yield Lines(buffer, end)
        elif size > LONGEST_LINE:
            raise OverflowError
        rest = bytes(memoryview(buffer)[end:size])
    if rest:
        yield Lines.of(rest + b"\n")


def _is_utf8(content: np.ndarray) -> bool:
    bounds = pa.py_buffer(np.array([0, len(content)], dtype=np.int64))
    try:
        pa.Array.from_buffers(pa.large_string(), 1, [None, bounds, pa.py_buffer(content)]).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True
