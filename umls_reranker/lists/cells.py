"""What a cell of CSV says: a list, a mark, gold concepts or a number."""

from __future__ import annotations

import json
import reprlib
from contextlib import suppress
from typing import Any

from ..core.errors import UserError
from .gold import gold_parts
from .rows import RowPosition

# Columns of marks, and what these may be, in lower case; a blank cell is no mark.
MARK_COLUMNS = ("gold", "is_random_sample")
MARKS = dict.fromkeys(("1", "1.0", "true", "yes", "y", "x"), True) | dict.fromkeys(
    ("0", "0.0", "false", "no", "n"), False
)


def gold_of_cell(position: RowPosition, column: str, cell: str) -> Any:
    """The gold concepts in a cell: an id, alternatives as ``A|B``, or any of `gold_parts` as JSON.

    Raises:
        UserError: it begins like a list, and is none of ids.
    """
    if not cell.lstrip().startswith("["):
        ids = [part.strip() for part in cell.split("|")]
        return ids if len(ids) > 1 else cell
    with suppress(ValueError, RecursionError):
        gold = json.loads(cell)
        if gold_parts(gold) is not None:
            return gold
    raise UserError(
        f"{position}: {column} is {reprlib.repr(cell)}, which is no list of ids in JSON; "
        "write an id, alternatives as A|B, or a list"
    )


def cell_value(position: RowPosition, column: str, cell: str) -> Any:
    """What a row in JSON would have in place of a cell."""
    if column in ("entity_type", "semantic_types"):
        return [part.strip() for part in cell.split("|") if part.strip()]
    if column in MARK_COLUMNS:
        mark = MARKS.get(cell.strip().lower())
        if mark is None:
            true_words = ", ".join(word for word, value in MARKS.items() if value is True)
            false_words = ", ".join(word for word, value in MARKS.items() if value is False)
            raise UserError(
                f"{position}: {column} is {reprlib.repr(cell)}; write {true_words}, "
                f"or {false_words}, or leave the cell blank"
            )
        return mark
    if column == "gold_cui":
        return gold_of_cell(position, column, cell)
    if column == "score" or column.endswith("_score"):
        # A text is refused with its row, like one in JSON.
        with suppress(ValueError):
            return float(cell)
    return cell
