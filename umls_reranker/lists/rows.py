"""`Rows`: successive rows of a file or a program, each with its place for messages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from .table import mappings_of, row_table


class RowPosition(NamedTuple):
    """A row of a file, for messages: the number of its line, or in a table of its row, from 1."""

    path: Path
    number: int

    def __str__(self) -> str:
        return f"{self.path}:{self.number}"


class Rows(NamedTuple):
    """Successive rows of a file or a program.

    Attributes:
        positions: `RowPosition` of each, or of annotated text its place as a text.
        content: the rows (`table.row_table`).
        documents: the text of each row's document, if mentions to link were read (None without
            one); the rows may lack it.
    """

    positions: Sequence[Any]
    content: pa.Table
    documents: Sequence[str | None] = ()

    @classmethod
    def of(cls, rows: Any) -> Rows:
        """Rows of a program, in any form of `table.row_table`; in messages the first is ``rows:1``.

        Raises:
            UserError: a row is no mapping (it is named).
        """
        content = row_table(rows)
        return cls([RowPosition(Path("rows"), row + 1) for row in range(len(content))], content)

    def mappings(self) -> list[dict[str, Any]]:
        """The rows as Python objects."""
        return mappings_of(self.content)
