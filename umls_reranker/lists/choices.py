"""The column ``choice`` of a sheet: the number of the right candidate in the line."""

from collections.abc import Mapping
from typing import Any

from ..core.errors import UserError
from .cells import gold_of_cell
from .gold import CUI_LESS, gold_parts

ANSWER = "gold_cui"
CHOICE = "choice"
# The choice of a reviewer who says that the dictionary has no such concept.
NO_CONCEPT = "0"


def gold_of_line(position: Any, cells: Mapping[str, str]) -> Any:
    """The gold concept in a line of a sheet, by ``choice`` or ``gold_cui``; None: neither is given.

    Args:
        position: the line, for messages.
        cells: its cells; ``id_1`` is the id of the first candidate.

    Raises:
        UserError: ``choice`` is no number of a candidate of the line, ``gold_cui`` begins like a
            list and is none, or the two differ; names the line.
    """
    chosen = _chosen(position, cells)
    written = gold_of_cell(position, ANSWER, cells.get(ANSWER, "").removeprefix("'")) or None
    if chosen is None:
        return written
    if written is not None and gold_parts(written) != gold_parts(chosen):
        raise UserError(
            f"{position}: {CHOICE} {cells[CHOICE]} is {chosen}, but {ANSWER} is {written}; let one "
            "of the two stand"
        )
    return chosen


def _chosen(position: Any, cells: Mapping[str, str]) -> str | None:
    """The id that ``choice`` takes; None if it is blank."""
    # Programs for tables write numbers of a column with blank cells with a decimal.
    choice = cells.get(CHOICE, "").removeprefix("'").removesuffix(".0")
    if not choice:
        return None
    if choice == NO_CONCEPT:
        return CUI_LESS
    cui = cells.get(f"id_{choice}", "").removeprefix("'")
    if not cui:
        raise UserError(
            f"{position}: {CHOICE} is {cells[CHOICE]!r:.80}, but no candidate of this line has "
            f"this number and an id; write the number of one, {NO_CONCEPT} if the dictionary has "
            f"no such concept, or another id into {ANSWER}"
        )
    return cui
