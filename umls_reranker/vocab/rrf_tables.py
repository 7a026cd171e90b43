r"""The tables of a UMLS release in Rich Release Format, read as columns.

Columns are those of the UMLS Reference Manual, chapter 3 (National Library of Medicine): fields end
in ``|``, there is no quoting, a line ends in ``\n``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from ..core.errors import Malformed, UserError
from ..core.parallel import progress
from ..core.text_files import MOST_LINES, decode, open_binary, read_lines

# The last pipe closes the line, so a CSV reader finds one more column.
CLOSING = "closing"
PIPES = csv.ParseOptions(delimiter="|", quote_char=False, escape_char=False)


class RrfTable(NamedTuple):
    """Form of a table's lines.

    Attributes:
        fields: names of all fields, as in MRFILES.RRF; a line has as many, each closed by a pipe.
        required: fields that must not be empty.
    """

    fields: list[str]
    required: list[str]


RRF_TABLES = {
    name: RrfTable(fields.split(","), required.split(","))
    for name, fields, required in (
        (
            "MRCONSO",
            "CUI,LAT,TS,LUI,STT,SUI,ISPREF,AUI,SAUI,SCUI,SDUI,SAB,TTY,CODE,STR,SRL,SUPPRESS,CVF",
            "CUI,STR",
        ),
        ("MRSTY", "CUI,TUI,STN,STY,ATUI,CVF", "CUI,TUI"),
        ("MRDEF", "CUI,AUI,ATUI,SATUI,SAB,DEF,SUPPRESS,CVF", "CUI,DEF"),
        (
            "MRREL",
            "CUI1,AUI1,STYPE1,REL,CUI2,AUI2,STYPE2,RELA,RUI,SRUI,SAB,SL,RG,DIR,SUPPRESS,CVF",
            "CUI1,REL,CUI2",
        ),
        ("MRCUI", "CUI1,VER,REL,RELA,MAPREASON,CUI2,MAPIN", "CUI1,REL"),
    )
}


def read_rrf_table(
    name: str, path: Path, used: Sequence[str], block_bytes: int = 4 << 20
) -> Iterator[pa.RecordBatch]:
    """Yield record batches of the columns `used` (string), in file order, a few in memory.

    Args:
        name: a table of `RRF_TABLES`.
        path: the file, plain or gzip.
        used: fields to return, in this order.
        block_bytes: bytes that are read at a time; a line must not be longer.

    Raises:
        UserError: the file is missing, empty or damaged, or a line is malformed (names file and
            line).
    """
    table = RRF_TABLES[name]
    columns = [*dict.fromkeys([*used, *table.required]), CLOSING]
    convert = csv.ConvertOptions(
        include_columns=columns,
        column_types=dict.fromkeys(columns, pa.string()),
        strings_can_be_null=False,
    )
    reading = csv.ReadOptions(column_names=[*table.fields, CLOSING], block_size=block_bytes)
    with open_binary(path) as stream, progress(desc=f"reading {path.name}", unit=" lines") as bar:
        lines = 0
        try:
            for batch in csv.open_csv(stream, reading, PIPES, convert):
                if not _is_sound(batch, table):
                    raise pa.ArrowInvalid("a field is missing")
                yield batch.select(used)
                lines += len(batch)
                if lines > MOST_LINES:
                    raise UserError(
                        f"{path}:{lines}: the file has more than {MOST_LINES:,} lines; download it "
                        "again"
                    )
                bar.update(len(batch))
        except pa.ArrowInvalid as error:
            raise _malformed(path, table, str(error).splitlines()[0]) from None


def _is_sound(batch: pa.RecordBatch, table: RrfTable) -> bool:
    """Whether all lines have all required fields and no more fields than the table."""
    has_more_fields = pc.not_equal(batch[CLOSING], "")
    if pc.any(has_more_fields).as_py():
        return False
    return all(pc.all(pc.not_equal(batch[field], "")).as_py() for field in table.required)


def _malformed(path: Path, table: RrfTable, reason: str) -> UserError:
    """The error for a file, which names its first malformed line."""
    required = [table.fields.index(field) for field in table.required]
    for number, line in read_lines(path):
        try:
            *row, closing = decode(line).split("|")
        except Malformed as problem:
            return UserError(f"{path}:{number}: {problem}; fix the line or download the file again")
        is_closed = len(row) == len(table.fields) and not closing
        if line and not (is_closed and all(row[position] for position in required)):
            return UserError(
                f"{path}:{number}: expected {len(table.fields)} fields, "
                f"each closed by |, of which {', '.join(table.required)} are not empty; "
                "fix the line or download the file again"
            )
    return UserError(f"{path} cannot be read ({reason}); download it again")
