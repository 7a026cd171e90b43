r"""The tables of a UMLS release in Rich Release Format, read as columns, block by block.

Columns are those of the UMLS Reference Manual, chapter 3 (National Library of Medicine): fields end in ``|``, there
is no quoting, a line ends in ``\n``. Files may be gzip, and in the parts that NLM ships.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from ..core.cores import map_in_order
from ..core.errors import UserError
from ..core.lines import BYTE_ORDER_MARK, Faults, Malformed, decode, open_binary
from ..core.progress import progress
from .cuis import CUI_BYTES

# Smaller blocks cost more calls; larger ones allocate memory from the system for each block.
BLOCK_BYTES = 1 << 20
LONGEST_LINE = 64 << 20
# The last pipe closes the line, so a CSV reader finds one more column.
CLOSING = "closing"
PIPES = csv.ParseOptions(delimiter="|", quote_char=False, escape_char=False)


def positions_in(column: pa.Array, values: Sequence[str]) -> np.ndarray:
    """Index of each text in `values`, (n,), int64; the length of `values` if missing."""
    known = pa.array(values, column.type)
    return pc.index_in(column, known).fill_null(len(values)).to_numpy().astype(np.int64)


class RrfTable:
    """Form of a table's lines.

    Args:
        columns: names of all fields, as in MRFILES.RRF; a line must have as many, each closed by a pipe.
        required: fields that must not be empty.

    Attributes:
        fields: names of all fields.
        cuis: fields that hold a CUI, of at most 8 bytes.
    """

    def __init__(self, columns: str, required: Sequence[str]) -> None:
        self.fields = columns.split(",")
        self.required = required
        self.cuis = [name for name in self.fields if name in ("CUI", "CUI1", "CUI2")]

    def parse(self, lines: bytes, used: Sequence[str]) -> pa.RecordBatch | None:
        """The columns `used` of complete lines; None if a line may be malformed, or no line has a field."""
        if b"\r" in lines:
            lines = lines.replace(b"\r\n", b"\n")
        if b"\0" in lines or b"\r" in lines:
            return None
        columns = [*dict.fromkeys([*used, *self.required, *self.cuis]), CLOSING]
        options = csv.ConvertOptions(
            include_columns=columns,
            column_types=dict.fromkeys(columns, pa.large_string()),
            strings_can_be_null=False,
            check_utf8=False,
        )
        reading = csv.ReadOptions(column_names=[*self.fields, CLOSING], block_size=len(lines) + 1, use_threads=False)
        try:
            # Rejects invalid UTF-8, also in unused columns; faster than decoding in Python.
            pa.array([lines], pa.large_binary()).cast(pa.large_string())
            batches = csv.read_csv(pa.py_buffer(lines), reading, PIPES, options).to_batches()
        except pa.ArrowInvalid:
            return None
        if not batches:
            return None
        (batch,) = batches
        sizes = {name: pc.binary_length(batch[name]) for name in (*self.required, *self.cuis, CLOSING)}
        is_sound = (
            all(pc.min(sizes[name]).as_py() for name in self.required)
            and all(pc.max(sizes[name]).as_py() <= CUI_BYTES for name in self.cuis)
            and not pc.max(sizes[CLOSING]).as_py()
        )
        return batch.select(used) if is_sound else None

    def mended(self, lines: bytes, number: int, faults: Faults) -> bytes:
        """The well-formed lines of a block whose first line has this number; `faults` takes the others."""
        sound = []
        for line_number, line in enumerate(lines.split(b"\n"), start=number):
            line = line.removesuffix(b"\r")
            if not line.strip():
                continue
            try:
                self._check(line)
            except Malformed as problem:
                faults.add(line_number, problem)
            else:
                sound.append(line + b"\n")
        return b"".join(sound)

    def _check(self, line: bytes) -> None:
        *row, closing = decode(line).split("|")
        if len(row) != len(self.fields) or closing:
            detail = f", found {len(row) + 1} without a closing |" if closing else f", found {len(row)}"
            raise Malformed(f"expected {len(self.fields)} fields", detail)
        for byte, name in ((b"\0", "NUL"), (b"\r", "carriage return")):
            if byte in line:
                raise Malformed(f"{name} inside the line", f" at column {line.index(byte) + 1}")
        text_of = dict(zip(self.fields, row, strict=True))
        for name in self.required:
            if not text_of[name]:
                raise Malformed(f"empty {name}")
        for name in self.cuis:
            if len(text_of[name].encode()) > CUI_BYTES:
                raise Malformed(f"{name} longer than {CUI_BYTES} bytes")


TABLES = {
    "MRCONSO": RrfTable(
        "CUI,LAT,TS,LUI,STT,SUI,ISPREF,AUI,SAUI,SCUI,SDUI,SAB,TTY,CODE,STR,SRL,SUPPRESS,CVF", ("CUI", "STR")
    ),
    "MRSTY": RrfTable("CUI,TUI,STN,STY,ATUI,CVF", ("CUI", "TUI")),
    "MRDEF": RrfTable("CUI,AUI,ATUI,SATUI,SAB,DEF,SUPPRESS,CVF", ("CUI", "DEF")),
    "MRREL": RrfTable(
        "CUI1,AUI1,STYPE1,REL,CUI2,AUI2,STYPE2,RELA,RUI,SRUI,SAB,SL,RG,DIR,SUPPRESS,CVF", ("CUI1", "REL", "CUI2")
    ),
    "MRCUI": RrfTable("CUI1,VER,REL,RELA,MAPREASON,CUI2,MAPIN", ("CUI1", "REL")),
    "MRSAB": RrfTable(
        "VCUI,RCUI,VSAB,RSAB,SON,SF,SVER,VSTART,VEND,IMETA,RMETA,SLC,SCC,SRL,TFR,CFR,CXTY,TTYL,ATNL,LAT,CENC,CURVER,"
        "SABIN,SSN,SCIT",
        ("RSAB",),
    ),
    "MRDOC": RrfTable("DOCKEY,VALUE,TYPE,EXPL", ("DOCKEY",)),
}


def read_columns(
    table: RrfTable,
    path: Path | Sequence[Path],
    used: Sequence[str],
    faults: Faults,
    convert: Callable[[pa.RecordBatch], Any] = lambda batch: batch,
) -> Iterator[Any]:
    """Yield record batches of the columns `used` (large_string), in file order.

    Blocks of about 1 MiB are parsed by one thread per core; memory holds a few of them.

    Args:
        table: form of the lines.
        path: the file, plain or gzip, or its parts in order.
        used: fields to return, in this order.
        faults: takes malformed lines.
        convert: converts each batch before it is yielded; called in threads, in any order.

    Raises:
        UserError: the file is missing, empty or a broken gzip stream; or a line is malformed.
    """

    def parse(lines: bytes) -> tuple[bytes, Any]:
        batch = table.parse(lines, used)
        return lines, None if batch is None else convert(batch)

    number = 1
    with open_binary(path) as stream, progress(desc=f"reading {Path(faults.name).name}", unit=" lines") as bar:
        try:
            for lines, result in map_in_order(parse, _blocks(stream)):
                if result is None and (mended := table.mended(lines, number, faults)):
                    result = convert(table.parse(mended, used))
                if result is not None:
                    yield result
                size = lines.count(b"\n")
                number += size
                bar.update(size)
        except OverflowError:
            raise UserError(
                f"{faults.name}:{number}: a line longer than {LONGEST_LINE >> 20} MiB; this may not be a text file"
            ) from None


def _blocks(stream: BufferedIOBase) -> Iterator[bytes]:
    """Yield blocks of complete lines."""
    mark = stream.read(len(BYTE_ORDER_MARK))
    block = mark.removeprefix(BYTE_ORDER_MARK) + stream.read(BLOCK_BYTES)
    while block:
        rest = stream.readline(LONGEST_LINE)
        if len(rest) == LONGEST_LINE:
            raise OverflowError
        yield block + rest
        block = stream.read(BLOCK_BYTES)
