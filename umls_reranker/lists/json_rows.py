"""Rows of JSON: one in each line, or all in one array."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..core.json_files import RepeatedKey, marking_repeated
from .sheets import DELIMITERS
from .table import READING_ERROR

# Levels of lists and mappings in a row of JSON.
MAX_DEPTH = 32


def json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of the lines that are not blank, or of one array, each with its number."""
    with path.open("rb") as stream:
        if stream.peek(1)[:1] == b"[":  # type: ignore[attr-defined]
            array = json.load(stream, object_pairs_hook=marking_repeated)
            for number, row in enumerate(array, start=1):
                yield number, _repeatable(row)
            return
        for number, line in enumerate(stream, start=1):
            if line.isspace():
                continue
            try:
                row = json.loads(line, object_pairs_hook=marking_repeated)
            except (ValueError, RecursionError) as error:
                text = line.decode(errors="replace").strip()
                row = {"line": text, READING_ERROR: _why_not_json(text, error)}
            yield number, _repeatable(row)


def _repeatable(row: Any) -> dict[str, Any]:
    """A row that an output can repeat, or what it has of one and why it is none."""
    if not isinstance(row, dict):
        return _repeatable({"line": row, READING_ERROR: "not a JSON object"})
    fault = _fault_of(row)
    if fault:
        row = {key: value for key, value in row.items() if not isinstance(value, dict | list)}
        row[READING_ERROR] = fault
    if not "".join(row).isascii():
        # Half of a surrogate pair would be no name of a column.
        row = {key.encode(errors="backslashreplace").decode(): row[key] for key in row}
    return row


def _fault_of(row: dict[str, Any]) -> str | None:
    """That an object of a row has a key twice, or that there are more than `MAX_DEPTH` levels.

    Levels are of lists and mappings.
    """
    # The lists and mappings of one level, beginning with the row.
    level: list[Any] = [row]
    for _ in range(MAX_DEPTH):
        next_level = []
        for parent in level:
            if isinstance(parent, RepeatedKey):
                return f"the key {parent.key!r:.60} is there twice; remove one of the two"
            children = parent.values() if isinstance(parent, dict) else parent
            next_level += [child for child in children if isinstance(child, dict | list)]
        level = next_level
    return f"nested more than {MAX_DEPTH} levels deep" if level else None


def _why_not_json(line: str, error: Exception) -> str:
    """Why a line is not JSON, which is often something else."""
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 ({error}); write the file again as UTF-8"
    is_cut_off = isinstance(error, json.JSONDecodeError) and (
        error.pos >= len(line) or error.msg.startswith("Unterminated string")
    )
    if is_cut_off and line.startswith("{"):
        return "the line ends inside its object: it was cut off; write the file again"
    looks_like_cells = line[:1] not in ("{", "") and any(
        delimiter in line for delimiter in DELIMITERS.values()
    )
    hint = "; a table with a candidate per row must end in .csv or .tsv" if looks_like_cells else ""
    return f"not JSON ({error}){hint}"
