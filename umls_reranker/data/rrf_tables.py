r"""The tables of a UMLS release in Rich Release Format, read as columns.

Columns are those of the UMLS Reference Manual, chapter 3 (National Library of Medicine): fields end in ``|``, there
is no quoting, a line ends in ``\n``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from ..core.errors import UserError
from ..core.lines import Malformed, decode, open_binary, read_lines
from ..core.progress import progress

# A line must not be longer.
BLOCK_BYTES = 4 << 20
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


TABLES = {
    name: RrfTable(fields.split(","), required.split(","))
    for name, fields, required in (
        ("MRCONSO", "CUI,LAT,TS,LUI,STT,SUI,ISPREF,AUI,SAUI,SCUI,SDUI,SAB,TTY,CODE,STR,SRL,SUPPRESS,CVF", "CUI,STR"),
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


def read_table(name: str, path: Path, used: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield record batches of the columns `used` (string), in file order; memory holds a few of them.

    Args:
        name: a table of `TABLES`.
        path: the file, plain or gzip.
        used: fields to return, in this order.

    Raises:
        UserError: the file is missing, empty or damaged, or a line is malformed (names file and line).
    """
    table = TABLES[name]
    columns = [*dict.fromkeys([*used, *table.required]), CLOSING]
    convert = csv.ConvertOptions(
        include_columns=columns, column_types=dict.fromkeys(columns, pa.string()), strings_can_be_null=False
    )
    reading = csv.ReadOptions(column_names=[*table.fields, CLOSING], block_size=BLOCK_BYTES)
    with open_binary(path) as stream, progress(desc=f"reading {path.name}", unit=" lines") as bar:
        try:
            for batch in csv.open_csv(stream, reading, PIPES, convert):
                is_sound = all(pc.all(pc.not_equal(batch[field], "")).as_py() for field in table.required)
                if not is_sound or pc.any(pc.not_equal(batch[CLOSING], "")).as_py():
                    raise pa.ArrowInvalid("a field is missing")
                yield batch.select(used)
                bar.update(len(batch))
        except pa.ArrowInvalid as error:
            raise _malformed(path, table, str(error).splitlines()[0]) from None


def _malformed(path: Path, table: RrfTable, reason: str) -> UserError:
    """The error for a file, which names its first malformed line."""
    required = [table.fields.index(field) for field in table.required]
    for number, line in read_lines(path):
        try:
            *row, closing = decode(line).split("|")
        except Malformed as problem:
            return UserError(f"{path}:{number}: {problem}; fix the line or download the file again")
        if line and (len(row) != len(table.fields) or closing or not all(row[position] for position in required)):
            return UserError(
                f"{path}:{number}: expected {len(table.fields)} fields, each closed by |, of which "
                f"{', '.join(table.required)} are not empty; fix the line or download the file again"
            )
    return UserError(f"{path} cannot be read ({reason}); download it again")
