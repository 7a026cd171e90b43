"""Which rows of a table cannot be read, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa


def row_errors(
    read: Callable[[Any], Any], rows: Sequence[Mapping[str, Any]] | pa.Table
) -> list[str | None]:
    """Why a function that reads rows cannot read each of n, None if it can.

    Halves are read until one holds a single row: mostly, few rows have an error.
    """
    try:
        read(rows)
        return [None] * len(rows)
    except (TypeError, ValueError) as error:
        if len(rows) < 2:
            return [str(error)] * len(rows)
    middle = len(rows) // 2
    return row_errors(read, rows[:middle]) + row_errors(read, rows[middle:])
