"""Tables of fields that end in ``|``, one row per line, as in a UMLS release, read as columns, block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BufferedIOBase
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from ..core.errors import UserError
from ..core.lines import BYTE_ORDER_MARK, GZIP_ERRORS, Faults, Malformed, broken_gzip, decode, name_source, open_binary
from ..core.progress import progress
from .parallel import map_in_order

__all__ = ["LineFormat", "places_in", "read_columns"]

# Smaller blocks cost more calls; larger ones allocate memory from the system for each block.
BLOCK_BYTES = 1 << 20
LONGEST_LINE = 64 << 20
# The last pipe closes the line, so a CSV reader finds one more column.
CLOSING = "closing"
PIPES = csv.ParseOptions(delimiter="|", quote_char=False, escape_char=False)


def places_in(column: pa.Array, values: Sequence[str]) -> np.ndarray:
    """Index of each text in `values`, (n,), int64; the length of `values` if missing."""
    known = pa.array(values, column.type)
    return pc.index_in(column, known).fill_null(len(values)).to_numpy().astype(np.int64)


@dataclass(frozen=True)
class LineFormat:
    """Format of a well-formed line; the attributes are the arguments of `read_columns`."""

    fields: Sequence[str]
    used: Sequence[str]
    required: Sequence[str] = ()
    longest: Mapping[str, int] = field(default_factory=dict)

    def parse(self, lines: bytes) -> pa.RecordBatch | None:
        """The columns of whole lines; None if a line is, or may be, malformed, or no line has a field."""
        if b"\r" in lines:
            lines = lines.replace(b"\r\n", b"\n")
        if b"\0" in lines or b"\r" in lines or not _is_utf8(lines):
            return None
        columns = [*dict.fromkeys([*self.used, *self.required, *self.longest]), CLOSING]
        options = csv.ConvertOptions(
            include_columns=columns,
            column_types=dict.fromkeys(columns, pa.large_string()),
            strings_can_be_null=False,
            check_utf8=False,
        )
        reading = csv.ReadOptions(column_names=[*self.fields, CLOSING], block_size=len(lines) + 1, use_threads=False)
        try:
            batches = csv.read_csv(pa.py_buffer(lines), reading, PIPES, options).to_batches()
        except pa.ArrowInvalid:
            return None
        if not batches:
            return None
        (batch,) = batches
        sizes = {name: pc.binary_length(batch[name]) for name in (*self.required, *self.longest, CLOSING)}
        is_sound = (
            all(pc.min(sizes[name]).as_py() for name in self.required)
            and all(pc.max(sizes[name]).as_py() <= most for name, most in self.longest.items())
            and not pc.max(sizes[CLOSING]).as_py()
        )
        return batch.select(self.used) if is_sound else None

    def mended(self, lines: bytes, number: int, faults: Faults) -> bytes:
        """The well-formed lines, the first of which has the number `number`; `faults` gets the others."""
        kept = []
        for line_number, line in enumerate(lines.split(b"\n"), start=number):
            line = line.removesuffix(b"\r")
            if not line.strip():
                continue
            try:
                self._check(line)
            except Malformed as problem:
                faults.add(line_number, problem)
            else:
                kept.append(line + b"\n")
        return b"".join(kept)

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
    convert: Callable[[pa.RecordBatch], Any] = lambda batch: batch,
) -> Iterator[Any]:
    """Yield record batches of the columns `used` (large_string), in order of file.

    Blocks of about 1 MiB are parsed by one thread per core; memory holds a few of them.

    Args:
        path: the file, plain or gzip, or its parts in order.
        fields: names of all fields; a line must have as many, each closed by a pipe.
        used: fields to return, in this order.
        required: fields that must not be empty.
        faults: takes malformed lines.
        longest: field -> maximum number of bytes.
        convert: converts each batch before it is yielded; called in threads, in any order.

    Raises:
        UserError: the file is missing, empty or a broken gzip stream; or a line is malformed.
    """
    form = LineFormat(fields, used, required, longest)

    def parse(lines: bytes) -> tuple[bytes, Any]:
        batch = form.parse(lines)
        return lines, None if batch is None else convert(batch)

    number = 1
    name = name_source(path)
    with open_binary(path) as stream, progress(desc=f"reading {Path(name).name}", unit=" lines") as bar:
        try:
            for lines, result in map_in_order(parse, _blocks(stream)):
                if result is None and (mended := form.mended(lines, number, faults)):
                    result = convert(form.parse(mended))
                if result is not None:
                    yield result
                size = lines.count(b"\n")
                number += size
                bar.update(size)
        except GZIP_ERRORS as error:
            raise broken_gzip(path, number, error) from None
        except OverflowError:
            raise UserError(
                f"{name}:{number}: a line longer than {LONGEST_LINE >> 20} MiB; is it a text file?"
            ) from None


def _blocks(stream: BufferedIOBase) -> Iterator[bytes]:
    """Blocks of whole lines; the last one ends in a newline, even if the file does not."""
    rest = stream.read(len(BYTE_ORDER_MARK)).removeprefix(BYTE_ORDER_MARK)
    while block := stream.read(BLOCK_BYTES):
        lines, newline, tail = block.rpartition(b"\n")
        if newline:
            yield rest + lines + newline
            rest = tail
        else:
            rest += tail
            if len(rest) > LONGEST_LINE:
                raise OverflowError
    if rest:
        yield rest + b"\n"


def _is_utf8(content: bytes) -> bool:
    bounds = pa.py_buffer(np.array([0, len(content)], dtype=np.int64))
    try:
        pa.Array.from_buffers(pa.large_string(), 1, [None, bounds, pa.py_buffer(content)]).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True
