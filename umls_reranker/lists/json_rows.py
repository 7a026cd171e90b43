"""Rows of JSON: one in each line, or all in one array."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .sheets import DELIMITERS
from .table import ERROR

# Levels of lists and mappings in a row of JSON.
MAX_DEPTH = 32


def json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of the lines that are not blank, or of one array, each with its number."""
    with path.open("rb") as stream:
        if stream.peek(1)[:1] == b"[":  # type: ignore[attr-defined]
            for number, row in enumerate(json.load(stream), start=1):
                yield number, _repeatable(row)
            return
        for number, line in enumerate(stream, start=1):
            if line.isspace():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                text = line.decode(errors="replace").strip()
                row = {"line": text, ERROR: _why_not_json(text, error)}
            yield number, _repeatable(row)


def _repeatable(row: Any) -> dict[str, Any]:
    """A row that an output can repeat, or what it has of one and why it is none."""
    if not isinstance(row, dict):
        return _repeatable({"line": row, ERROR: "not a JSON object"})
    if not "".join(row).isascii():
        # Half of a surrogate pair would be no name of a column.
        row = {key.encode(errors="backslashreplace").decode(): row[key] for key in row}
    if _is_too_deep(row):
        texts = {key: value for key, value in row.items() if isinstance(value, str)}
        return texts | {ERROR: f"nested more than {MAX_DEPTH} levels deep"}
    return row


def _is_too_deep(row: dict[str, Any]) -> bool:
    """Whether a row has lists or mappings on more than `MAX_DEPTH` levels."""
    # The lists and mappings of one level, beginning with the row.
    level: list[Any] = [row]
    for _ in range(MAX_DEPTH):
        next_level = []
        for parent in level:
            children = parent.values() if isinstance(parent, dict) else parent
            next_level += [child for child in children if isinstance(child, dict | list)]
        level = next_level
    return bool(level)


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
