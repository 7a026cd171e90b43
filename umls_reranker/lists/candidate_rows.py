"""Mentions of CSV and TSV with a row for each candidate.

Successive rows with the same ``mention_id`` and ``doc_id`` are one mention. Rows of a mention that
are not successive, or contradict each other, are refused.
"""

from __future__ import annotations

import itertools
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..core.errors import UserError, warn_caller
from .cells import cell_value
from .gold import CUI_LESS, gold_parts
from .rows import RowPosition
from .sheets import table_rows

# Columns of CSV about the mention -> keys of its row; all others but "gold" are keys of candidates.
MENTION_CELLS = {
    "mention_id": "mention_id",
    "doc_id": "doc_id",
    "entity": "entity",
    "mention": "entity",
    "entity_type": "entity_type",
    "left": "left",
    "right": "right",
    "split": "split",
    "is_random_sample": "is_random_sample",
    "gold_cui": "cui",
    "index_key": "index_key",
}
CANDIDATE_COLUMNS = (("mention_id",), ("mention", "entity"), ("cui", "id", "name"))


class MentionKey(NamedTuple):
    """The ids by which rows belong to one mention; None where the cell is blank."""

    doc_id: str | None
    mention_id: str | None


class CellLine(NamedTuple):
    """A row of CSV: the number of its line, and the values of its cells by column."""

    number: int
    cells: Mapping[str, Any]


def candidate_rows(
    path: Path, mentions: dict[MentionKey, RowPosition]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The mentions of a file; `mentions` has where those of all files begin, to find repeated ones.

    Raises:
        UserError: a mention has no id, or its rows do not follow or contradict each other.
    """
    blank_gold = 0
    for key, group in itertools.groupby(_cell_lines(path), _key_of):
        lines = list(group)
        first = lines[0]
        position = RowPosition(path, first.number)
        if not key.mention_id:
            raise UserError(f"{position}: mention_id is missing; give each mention its own")
        earlier = mentions.setdefault(key, position)
        if earlier is not position:
            raise UserError(
                f"{position}: mention_id {key.mention_id!r} was already used in {earlier}; sort "
                "the rows so that those of a mention follow each other in one file, and give each "
                "mention an id of its own"
            )
        mention = _mention_row(path, lines)
        if mention.get("cui") == CUI_LESS and first.cells.get("gold_cui") == "":
            blank_gold += 1
        yield position.number, mention
    if blank_gold:
        warn_caller(
            f"{path}: a blank gold_cui counts as {CUI_LESS}: {blank_gold:,} mentions; "
            "leave out the rows of mentions that nobody labelled"
        )


def _cell_lines(path: Path) -> Iterator[CellLine]:
    """The rows, with the values of the cells that are not blank, or ``gold_cui``."""
    for number, row in table_rows(path, *CANDIDATE_COLUMNS):
        keys = {"score": "list_score"}
        if "cui" not in row:
            keys["id"] = "cui"
        position = RowPosition(path, number)
        cells = {}
        for column, cell in row.items():
            if cell.strip() or column == "gold_cui":
                cells[keys.get(column, column)] = cell_value(position, column, cell)
        yield CellLine(number, cells)


def _key_of(line: CellLine) -> MentionKey:
    """The ids of document and mention in a row."""
    return MentionKey(line.cells.get("doc_id"), line.cells.get("mention_id"))


def _mention_row(path: Path, lines: Sequence[CellLine]) -> dict[str, Any]:
    """The mention of successive rows, which may mark its gold concepts or hold ``gold_cui``.

    Raises:
        UserError: two of them say different things about it: they are of several mentions.
    """
    about = _about_mention(path, lines)
    mention = {key: about[column] for column, key in MENTION_CELLS.items() if about[column] != ""}
    rows = [line.cells for line in lines]
    if any("gold" in cells for cells in rows):
        marked = _marked_gold(rows)
        gold = mention.get("cui", marked)
        if gold_parts(gold) != gold_parts(marked):
            raise UserError(
                f"{path}:{lines[0].number}: gold marks {marked}, but gold_cui is {gold}; let one "
                "of the two stand"
            )
        mention["cui"] = marked
    elif any("gold_cui" in cells for cells in rows):
        mention.setdefault("cui", CUI_LESS)
    mention["candidates"] = _candidates_of(rows)
    return mention


def _about_mention(path: Path, lines: Sequence[CellLine]) -> dict[str, Any]:
    """Each column of `MENTION_CELLS` -> its value in the rows of one mention, "" if all are blank.

    Raises:
        UserError: two rows have different values.
    """
    about: dict[str, Any] = {}
    for number, cells in lines:
        for column in MENTION_CELLS:
            value = cells.get(column, "")
            if about.setdefault(column, value) == "":
                about[column] = value
            elif value not in (about[column], ""):
                raise UserError(
                    f"{path}:{number}: {column} is {reprlib.repr(value)}, but "
                    f"{reprlib.repr(about[column])} from line {lines[0].number} on, which has the "
                    f"same mention_id, {about['mention_id']!r}; give each mention an id of its own"
                )
    return about


def _marked_gold(rows: Sequence[Mapping[str, Any]]) -> Any:
    """The ids of the candidates that are marked as gold: one, a list of several, or `CUI_LESS`."""
    ids = list(dict.fromkeys(cells.get("cui", "") for cells in rows if cells.get("gold")))
    if not ids:
        return CUI_LESS
    return ids[0] if len(ids) == 1 else ids


def _candidates_of(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The candidates of the rows of a mention; a row without id and name has none."""
    keys_of_mention = {*MENTION_CELLS, "gold"}
    candidates = []
    for cells in rows:
        if "name" in cells or "cui" in cells:
            candidates.append({key: cells[key] for key in cells if key not in keys_of_mention})
    return candidates
