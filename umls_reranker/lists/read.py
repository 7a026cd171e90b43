"""Rows of mentions with candidates from a file, a folder or stdin: JSON, CSV, TSV, Parquet, Arrow.

A row, of which only ``entity`` and ``candidates`` are needed to rank:

    {"doc_id", "mention_id", "entity", "entity_type", "left", "right", "cui",
     "candidates": [{"cui", "name", "NAME_score", ...}]}

CSV and TSV have one row per candidate (`candidate_rows`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from .arrow_tables import ARROW_ENDINGS, arrow_tables
from .candidate_rows import MentionKey, candidate_rows
from .cells import gold_of_cell
from .gold import GOLD_KEYS
from .json_rows import json_rows
from .reading_errors import naming
from .rows import RowPosition, Rows
from .sheets import DELIMITERS, table_rows
from .table import table_of_mappings

BATCH_ROWS = 4_096
# Instead of a file: stdin, which is read once.
STDIN = Path("-")
ENDINGS = (".jsonl", ".json", *DELIMITERS, *ARROW_ENDINGS)
# A table of CSV with a mention in each row has one of these columns.
MENTION_COLUMNS = ("mention", "entity", "document", "text")


def mention_files(path: Path) -> list[Path]:
    """The file, or the files of a folder with one of `ENDINGS`, in the order of their names.

    Raises:
        UserError: there is none.
    """
    if path == STDIN:
        return [Path("/dev/stdin")]
    paths = sorted(path.iterdir()) if path.is_dir() else [path]
    files = [file for file in paths if file.suffix in ENDINGS and file.is_file()]
    if not files:
        raise UserError(
            f"{path} is no file of mentions, nor a folder of such files; give {', '.join(ENDINGS)}"
        )
    return files


def read_rows(
    path: Path, batch_rows: int = BATCH_ROWS, *, has_candidates: bool = True
) -> Iterator[Rows]:
    """Yield rows of `mention_files` in batches; a line that is not JSON has `READING_ERROR`.

    Args:
        path: a file, a folder, or `STDIN`.
        batch_rows: number of rows of a batch, at most.
        has_candidates: whether a row of CSV or TSV is a candidate; otherwise it is a mention, and
            its cells are texts, as they are.

    Raises:
        UserError: a file cannot be read; names it, and of CSV the line.
    """
    # Of all files of a folder: a mention's rows may have been parted between two.
    mentions: dict[MentionKey, RowPosition] = {}
    for file in mention_files(path):
        with naming(file):
            if file.suffix in ARROW_ENDINGS:
                start = 1
                for table in arrow_tables(file, batch_rows):
                    yield Rows([RowPosition(file, start + row) for row in range(len(table))], table)
                    start += len(table)
                continue
            if file.suffix not in DELIMITERS:
                numbered = json_rows(file)
            elif has_candidates:
                numbered = candidate_rows(file, mentions)
            else:
                numbered = _mention_rows(file)
            while batch := list(itertools.islice(numbered, batch_rows)):
                positions = [RowPosition(file, number) for number, _ in batch]
                yield Rows(positions, table_of_mappings([row for _, row in batch]))


def _mention_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a table of mentions, whose cells are texts but for those of gold concepts."""
    for number, row in table_rows(path, MENTION_COLUMNS):
        for key in (key for key in GOLD_KEYS if key in row):
            row[key] = gold_of_cell(RowPosition(path, number), key, row[key])
        yield number, row
