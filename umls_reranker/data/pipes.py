"""Tables of fields that end in ``|``, one row a line, as in a UMLS release: to Arrow, block by block."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from ..errors import UserError
from ..progress import progress
from .lines import BYTE_ORDER_MARK, Faults, Malformed, broken_gzip, decode, open_binary

__all__ = ["read_columns"]

BLOCK_BYTES = 4 << 20
LONGEST_LINE = 64 << 20
CLOSING = "after the last pipe"


def read_columns(
    path: Path, fields: Sequence[str], used: Sequence[str], required: Sequence[str], faults: Faults
) -> Iterator[pa.RecordBatch]:
    """Yield the columns `used` (large_string) in order of file; memory holds a block of about 4 MiB.

    Args:
        path: the file, plain or gzip.
        fields: names of all fields; a line must have as many, each closed by a pipe.
        used: fields to give out, in the order wanted.
        required: fields that must not be empty.
        faults: takes malformed lines.

    Raises:
        UserError: the file is missing, empty or a broken gzip stream; or a line is malformed.
    """
    number = 1
    with open_binary(path) as stream, progress(desc=f"reading {path.name}", unit=" lines") as bar:
        try:
            for block in _blocks(stream):
                batch = _parse_fast(block, fields, used, required)
                if batch is None:
                    batch = _parse_exactly(block, number, fields, used, required, faults)
                yield batch
                lines = block.count(b"\n")
                number += lines
                bar.update(lines)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise broken_gzip(path, number, error) from None
        except OverflowError:
            raise UserError(
                f"{path}:{number}: a line longer than {LONGEST_LINE >> 20} MiB; is it a text file?"
            ) from None


def _blocks(stream: BinaryIO) -> Iterator[bytes]:
    """Blocks of whole lines."""
    rest = stream.read(len(BYTE_ORDER_MARK)).removeprefix(BYTE_ORDER_MARK)
    while chunk := stream.read(BLOCK_BYTES):
        end = chunk.rfind(b"\n") + 1
        if end:
            yield rest + chunk[:end]
            rest = chunk[end:]
        else:
            rest += chunk
            if len(rest) > LONGEST_LINE:
                raise OverflowError
    if rest:
        yield rest


def _parse_fast(
    block: bytes, fields: Sequence[str], used: Sequence[str], required: Sequence[str]
) -> pa.RecordBatch | None:
    """Parse a block with Arrow; None when anything in it is malformed."""
    columns = [*used, CLOSING]
    try:
        table = pa.csv.read_csv(
            pa.BufferReader(block),
            read_options=pa.csv.ReadOptions(column_names=[*fields, CLOSING], block_size=len(block), use_threads=False),
            parse_options=pa.csv.ParseOptions(delimiter="|", quote_char=False, escape_char=False),
            convert_options=pa.csv.ConvertOptions(
                column_types=dict.fromkeys(columns, pa.large_string()),
                include_columns=columns,
                strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid:
        return None
    if pc.max(pc.binary_length(table[CLOSING])).as_py() != 0:
        return None
    if any(pc.min(pc.binary_length(table[name])).as_py() == 0 for name in required):
        return None
    return table.select(used).combine_chunks().to_batches()[0]


def _parse_exactly(
    block: bytes, number: int, fields: Sequence[str], used: Sequence[str], required: Sequence[str], faults: Faults
) -> pa.RecordBatch:
    """Parse a block line by line, from line `number`, so that faults are named by line."""
    columns: dict[str, list[str]] = {name: [] for name in used}
    places = [fields.index(name) for name in used]
    must = [(fields.index(name), name) for name in required]
    for line_number, line in enumerate(block.split(b"\n"), start=number):
        line = line.removesuffix(b"\r")
        if not line.strip():
            continue
        try:
            row = decode(line).split("|")
            if len(row) != len(fields) + 1 or row[-1]:
                found = len(row) - (not row[-1])
                detail = f", found {found}" + ("" if not row[-1] else " and no closing |")
                raise Malformed(f"expected {len(fields)} fields", detail)
            for place, name in must:
                if not row[place]:
                    raise Malformed(f"empty {name}")
        except Malformed as problem:
            faults.add(line_number, problem)
            continue
        for name, place in zip(used, places, strict=True):
            columns[name].append(row[place])
    arrays = [pa.array(columns[name], pa.large_string()) for name in used]
    return pa.record_batch(arrays, names=list(used))
