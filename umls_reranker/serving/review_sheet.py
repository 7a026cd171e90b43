"""Rows for reviewers to label: candidate lists as JSON Lines, and a sheet with a line a mention."""

import csv
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..lists.answers import FREQUENCY, first_of, term_of
from ..lists.candidates import concept_id
from ..lists.choices import ANSWER, CHOICE
from ..lists.gold import GOLD_KEYS, gold_parts, id_text
from ..lists.read import read_rows
from ..lists.sheets import DELIMITERS, sheet_rows
from ..lists.table import ERROR
from .candidate_descriptions import describe_candidates, display_name
from .input_columns import RANKED
from .output_format import FormatSettings, LinesFormat, OutputFormat, json_line
from .rows import RankedRows

# Columns of a sheet about the mention, of those that any row fills: before the candidates what one
# reads to choose, and at the end what says which mention it is.
TO_READ = ("mention", "left", "right", "entity_type")
TO_IDENTIFY = (
    "doc_id",
    "mention_id",
    "start",
    "source_code",
    "source_vocabulary",
    "frequency",
)
# Number of candidates in a line, if nobody says.
SHEET_TOP = 5


class ListLines(LinesFormat):
    """Rows of candidate lists."""

    name = "jsonl"
    endings = (".jsonl",)
    help = "JSON Lines: the row of each mention, with its candidates"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        # (document, mention id) -> number of the first row that has them, from 1.
        self._first_rows: dict[tuple[Any, Any], int] = {}
        self._count = 0

    def lines(self, rows: RankedRows) -> Iterator[bytes]:
        """The rows without ``ranked``, or with ``error``.

        Raises:
            UserError: a mention_id of a document is repeated: labels would be of both.
        """
        for row, error in zip(rows.mappings(), rows.errors, strict=True):
            self._count += 1
            document = id_text(row.get("doc_id"))
            mention_id = id_text(row.get("mention_id"))
            first = self._first_rows.setdefault((document, mention_id), self._count)
            if mention_id is not None and first != self._count:
                raise UserError(
                    f"mention_id {mention_id!r} of document {document} is that of rows {first} and "
                    f"{self._count}; give each mention an id of its own, or none"
                )
            line = {name: value for name, value in row.items() if name != RANKED}
            if error:
                line[ERROR] = error
            yield json_line(line) + b"\n"
        self.counts["documents"] = len({document for document, _ in self._first_rows})


class ReviewSheet(OutputFormat):
    """A line for each mention: its first candidates, and columns for the answer.

    Attributes:
        only_open: whether mentions with an accepted answer are left out.
    """

    only_open = False
    name = "csv"
    endings = (".csv",)
    help = "a sheet to label, a line for each mention"
    beside = ".lists.jsonl"
    about_beside = "the lists of the sheet"

    def write_beside(self, path: Path, parts: Iterable[RankedRows]) -> None:
        """Write the lists."""
        lists = ListLines(self.settings)
        lists.write(path, parts)
        self.counts = lists.counts

    def write(self, path: Path, parts: Iterable[RankedRows]) -> None:
        """Write the lines of all rows, with the columns of mentions that any row fills."""
        filled: set[str] = set()
        for row, _ in self._lines(parts):
            values = _about_mention(row)
            filled.update(column for column, value in values.items() if value not in ("", None))
        columns = _columns(filled, self.settings.top or SHEET_TOP)
        with path.open("w", encoding="utf-8", newline="", errors="backslashreplace") as stream:
            sheet = csv.DictWriter(stream, columns, extrasaction="ignore")
            sheet.writeheader()
            for row, items in self._lines(parts):
                line = _about_mention(row) | {ANSWER: _gold_cell(row)}
                line |= _about_candidates(items, self.settings.top or SHEET_TOP, self.settings)
                sheet.writerow({key: self.cell(value) for key, value in line.items()})

    def _lines(
        self, parts: Iterable[RankedRows]
    ) -> Iterator[tuple[Mapping[str, Any], Sequence[Any]]]:
        """The rows of the lines, each with its list, or else its ranked candidates."""
        for rows in parts:
            ranked = rows.ranked.to_pylist()
            for row, items, answers in zip(rows.mappings(), ranked, rows.concepts(1), strict=True):
                is_accepted = bool(answers) and answers[0]["accepted"]
                if self.only_open and is_accepted:
                    continue
                yield row, row.get("candidates") or items or row.get(RANKED) or []


def require_unanswered(sheet: Path) -> None:
    """Refuse to replace a sheet with answers of a reviewer; any other file is fine.

    Raises:
        UserError: answers would be lost; names the line of the first.
    """
    if sheet.suffix not in DELIMITERS or not sheet.is_file():
        return
    from_input: set[tuple[str, str]] | None = None
    for position, cells in sheet_rows(sheet):
        # A table of answers has the columns of its input, such as those of a sheet.
        if CHOICE not in cells or "answer" in cells:
            return
        if cells.get(ANSWER) and from_input is None:
            from_input = _golds_of_lists(sheet.with_name(sheet.stem + ReviewSheet.beside))
        gold = (cells.get("mention_id", ""), cells.get(ANSWER, ""))
        if cells[CHOICE] or (from_input is not None and gold[1] and gold not in from_input):
            raise UserError(
                f"{position}: the sheet has answers, which would be lost; move it, or choose "
                "another output"
            )


def _golds_of_lists(path: Path) -> set[tuple[str, str]]:
    """The cells of mention and gold concept of lists beside a sheet, which their input brought."""
    golds = set()
    if path.is_file():
        for rows in read_rows(path):
            for row in rows.mappings():
                golds.add((str(row.get("mention_id")), _gold_cell(row) or ""))
    return golds


LIST_FORMATS: dict[str, type[OutputFormat]] = {kind.name: kind for kind in (ListLines, ReviewSheet)}


def _columns(filled: Collection[str], top: int) -> list[str]:
    """The columns of a sheet, in the order in which one reads and answers.

    Args:
        filled: columns about the mention that any row fills.
        top: number of candidates.
    """
    ranks = range(1, top + 1)
    candidates = [f"{column}_{rank}" for rank in ranks for column in ("name", "about")]
    return [
        *(column for column in TO_READ if column in filled),
        CHOICE,
        *candidates,
        ANSWER,
        "comment",
        "reviewer",
        "reviewed_on",
        *(f"id_{rank}" for rank in ranks),
        *(column for column in TO_IDENTIFY if column in filled),
    ]


def _about_mention(row: Mapping[str, Any]) -> dict[str, Any]:
    """The cells about the mention of a row: column of `TO_READ` or `TO_IDENTIFY` -> its value."""
    text, code, vocabulary = term_of(row)
    types = row.get("entity_type")
    if isinstance(types, list):
        types = "|".join(map(str, types))
    document = row.get("doc_id")
    if document == text:
        # The term is its own document.
        document = None
    return {column: row.get(column) for column in (*TO_READ, *TO_IDENTIFY)} | {
        "doc_id": document,
        "source_code": code,
        "source_vocabulary": vocabulary,
        "frequency": first_of(row, FREQUENCY),
        "entity_type": types,
        "mention": text,
    }


def _about_candidates(
    items: Iterable[Any], top: int, settings: FormatSettings
) -> dict[str, str | None]:
    """The cells of the first `top` concepts of a list, each by its first candidate."""
    first_of_concept: dict[Any, Mapping[str, Any]] = {}
    for item in items:
        candidate = {"name": item} if isinstance(item, str) else item
        key = concept_id(candidate) or candidate.get("name")
        first_of_concept.setdefault(key, candidate)
    candidates = [*islice(first_of_concept.values(), top)]
    texts = describe_candidates(candidates, settings.concepts, settings.codes)
    cells: dict[str, str | None] = {}
    for rank, (candidate, text) in enumerate(zip(candidates, texts, strict=True), start=1):
        cells[f"name_{rank}"] = display_name(candidate)
        cells[f"id_{rank}"] = concept_id(candidate)
        cells[f"about_{rank}"] = text
    return cells


def _gold_cell(row: Mapping[str, Any]) -> str | None:
    """The gold concept of a row as `lists.cells.gold_of_cell` reads it."""
    gold = next((row[key] for key in GOLD_KEYS if row.get(key) is not None), None)
    parts = gold_parts(gold) or ()
    if len(parts) > 1:
        return json.dumps(gold)
    return "|".join(parts[0]) if parts else None
