"""Candidate lists in CSV or TSV with one row per candidate, as spreadsheets and data frames write them.

Successive rows with the same ``mention_id`` (and ``doc_id``) are the candidates of one mention. Values about the
mention are in its first row; later rows repeat them or leave them blank.
"""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..core.errors import UserError

DELIMITERS = {".csv": ",", ".tsv": "\t"}
# What a column about the mention is called in a mention.
MENTION_KEYS = {
    "mention_id": "mention_id",
    "doc_id": "doc_id",
    "mention": "entity",
    "entity": "entity",
    "entity_type": "entity_type",
    "left": "left",
    "right": "right",
    "split": "split",
    "gold_cui": "cui",
}
# Columns of which a file has one at most.
EXCLUSIVE = (("mention", "entity"), ("gold", "gold_cui"), ("score", "list_score"))
GOLD = {"1": True, "1.0": True, "true": True, "yes": True, "0": False, "0.0": False, "false": False, "no": False}
# The gold concept of a labelled mention, none of whose candidates is gold.
CUI_LESS = "CUI-less"


class CandidateRow(NamedTuple):
    """A row with its columns, and the number of its first line."""

    line: int
    cells: dict[str, str]


def check_header(path: Path) -> list[str]:
    """The columns of a file.

    Raises:
        UserError: the file is empty or not UTF-8, or columns are missing or exclude each other.
    """
    with path.open(encoding="utf-8-sig", newline="") as stream:
        header = next(_reader(path, stream), [])
    if not header:
        raise UserError(f"{path} is empty; the first line must name the columns")
    required = ("mention_id", "entity" if "entity" in header else "mention", "cui" if "cui" in header else "name")
    missing = [name for name in required if name not in header]
    if missing:
        separator = "commas" if path.suffix == ".csv" else "tabs"
        raise UserError(
            f"{path}: missing columns: {', '.join(missing)}; the first line must name the columns, separated by "
            f"{separator}"
        )
    for pair in EXCLUSIVE:
        if set(pair) <= set(header):
            raise UserError(f"{path}: has {' and '.join(pair)}; keep one of them")
    repeated = [name for name in header if header.count(name) > 1]
    if repeated:
        raise UserError(f"{path}: has two columns {repeated[0]}; keep one of them")
    return header


def read_candidate_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each mention as in a line of JSON Lines, with the number of its first line.

    Blank cells are absent. Further columns are keys of the candidates: ``NAME_score`` is a number, ``score`` becomes
    the number ``list_score``. A row without name and CUI is not a candidate.

    Raises:
        UserError: a row does not fit the header or its mention, or a mention goes on after another (names the line).
    """
    first_lines: dict[tuple[str, str], int] = {}
    for (document, mention_id), group in itertools.groupby(_rows(path), _mention_key):
        rows = list(group)
        line = rows[0].line
        if not mention_id:
            raise UserError(f"{path}:{line}: mention_id is missing; give each mention its own")
        first_line = first_lines.setdefault((document, mention_id), line)
        if first_line != line:
            of_document = f" of document {document!r}" if document else ""
            raise UserError(
                f"{path}:{line}: mention_id {mention_id!r}{of_document} was already used in line {first_line}, before "
                "other mentions; keep the rows of a mention together"
            )
        yield line, _mention(path, rows)


def _reader(path: Path, stream: Any) -> Iterator[list[str]]:
    reader = csv.reader(stream, delimiter=DELIMITERS[path.suffix], strict=True)
    try:
        yield from reader
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: {error}; save the file again as CSV or TSV") from None


def _rows(path: Path) -> Iterator[CandidateRow]:
    header = check_header(path)
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = _reader(path, stream)
        line = 1 + _lines(next(reader))
        for fields in reader:
            if fields and len(fields) != len(header):
                raise UserError(f"{path}:{line}: {len(fields)} fields, but the header has {len(header)}")
            # A blank line has no fields.
            if fields:
                yield CandidateRow(line, dict(zip(header, fields, strict=True)))
            line += _lines(fields)


def _lines(fields: Sequence[str]) -> int:
    """Number of lines that a row takes."""
    return 1 + sum(field.count("\n") for field in fields)


def _mention_key(row: CandidateRow) -> tuple[str, str]:
    return row.cells.get("doc_id", "").strip(), row.cells["mention_id"].strip()


def _mention(path: Path, rows: Sequence[CandidateRow]) -> dict[str, Any]:
    first = rows[0]
    mention: dict[str, Any] = {}
    for column, key in MENTION_KEYS.items():
        text = first.cells.get(column, "")
        for row in rows[1:]:
            other = row.cells.get(column, "")
            if other and other != text:
                raise UserError(
                    f"{path}:{row.line}: {column} is {other!r}, and {text!r} in line {first.line} of the same mention"
                )
        if text:
            mention[key] = _types(text) if column == "entity_type" else text
    # A text that is blank is refused with the other faults of mentions.
    mention.setdefault("entity", "")
    if "gold" in first.cells:
        gold_cui = _gold_cui(path, rows)
        mention |= {} if gold_cui is None else {"cui": gold_cui}
    candidates = [_candidate(row.cells) for row in rows if row.cells.get("name") or row.cells.get("cui")]
    return mention | {"candidates": candidates}


def _gold_cui(path: Path, rows: Sequence[CandidateRow]) -> str | None:
    """The CUI of the row that is marked as gold; None if no row has a mark."""
    gold: CandidateRow | None = None
    is_labelled = False
    for row in rows:
        text = row.cells["gold"].strip().lower()
        if not text:
            continue
        if text not in GOLD:
            raise UserError(f"{path}:{row.line}: gold is {text!r}; use 1 for the gold concept and 0 for all others")
        is_labelled = True
        if not GOLD[text]:
            continue
        cui = row.cells.get("cui", "")
        if gold is not None and gold.cells.get("cui") != cui:
            raise UserError(
                f"{path}:{row.line}: gold marks {cui!r}, and {gold.cells.get('cui')!r} in line {gold.line} of the "
                "same mention"
            )
        gold = row
    if gold is not None:
        return gold.cells.get("cui", "")
    return CUI_LESS if is_labelled else None


def _candidate(cells: Mapping[str, str]) -> dict[str, Any]:
    candidate: dict[str, Any] = {}
    for column, text in cells.items():
        if column in MENTION_KEYS or column == "gold":
            continue
        if column == "score" or column.endswith("_score"):
            candidate["list_score" if column == "score" else column] = _number(text)
        elif text:
            candidate[column] = _types(text) if column == "semantic_types" else text
    return candidate


def _types(text: str) -> list[str]:
    return [part.strip() for part in text.split("|") if part.strip()]


def _number(text: str) -> float | str | None:
    """A score; None if it is blank or not finite, and other text unchanged, which is refused with its candidate."""
    if not text.strip():
        return None
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else None
