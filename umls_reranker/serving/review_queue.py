"""Rows to review: a random sample of ranked rows, and the most doubtful of the others."""

import csv
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..core.errors import UserError
from ..core.files import written
from ..lists.answers import FREQUENCY, first_of, term_of
from ..lists.candidates import concept_id
from ..lists.choices import ANSWER, CHOICE
from ..lists.gold import GOLD_KEYS, gold_parts, id_text
from ..lists.labels import with_document
from ..lists.table import ERROR, table_of_mappings
from ..vocab.normalization import normalize_name
from .candidate_descriptions import describe_candidates, display_name
from .rows import RANKED, FormatSettings, LinesFormat, OutputFormat, RankedRows, json_line
from .study_files import StudySettings, expected_tier_coverage, write_study

RANDOM_SAMPLE = "is_random_sample"
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
# The ending of the mentions beside a sheet of rows without lists, such as those of `link`.
MENTIONS = ".mentions.jsonl"
# Number of candidates in a line, if nobody says.
SHEET_TOP = 5


def select_for_review(
    rows: Sequence[Mapping[str, Any]], count: int, random_share: float = 0.2, seed: int = 13
) -> list[Mapping[str, Any]]:
    """Select ranked rows: a random sample, then those whose top candidate has the smallest margin.

    The sample is of whole documents; a row without ``doc_id`` is one of its own. Only it shows how
    the model performs, so only it may certify a tier. Of the doubtful rows each string is selected
    once.

    Args:
        rows: ranked rows (`ranked_rows.read_ranked`).
        count: number of rows to select, at most.
        random_share: share of `count` to draw at random, in [0, 1]; at least so many rows.
        seed: seed of the random sample.

    Returns:
        The rows with the key ``is_random_sample``: whether the row belongs to the random sample.
    """
    rows_of_document: dict[str, list[int]] = {}
    for number, document in enumerate(documents_of(rows)):
        rows_of_document.setdefault(document, []).append(number)
    numbers = np.random.default_rng(seed).permutation(len(rows_of_document))
    names = list(rows_of_document)
    drawn: list[int] = []
    # As `Study.draw` orders the documents.
    for number in numbers.tolist():
        if len(drawn) < round(count * random_share):
            drawn += rows_of_document[names[number]]
    strings = {normalize_name(term_of(rows[number]).text) for number in drawn}
    doubtful: list[int] = []
    # Rows without candidates are not doubtful.
    margins = [row[RANKED][0]["margin"] if row[RANKED] else 1.0 for row in rows]
    for number in sorted(set(range(len(rows))) - set(drawn), key=margins.__getitem__):
        string = normalize_name(term_of(rows[number]).text)
        if len(drawn) + len(doubtful) < count and string not in strings:
            strings.add(string)
            doubtful.append(number)
    return [
        {**rows[number], RANDOM_SAMPLE: is_drawn}
        for part, is_drawn in ((drawn, True), (doubtful, False))
        for number in part
    ]


def documents_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The document of each row; the text of one without ``doc_id``."""
    return [id_text(row.get("doc_id")) or term_of(row).text for row in rows]


def write_sample_study(
    rows: Sequence[Mapping[str, Any]],
    sheet: Path,
    settings: StudySettings,
    seed: int,
    *,
    each_row_is_a_document: bool,
) -> str:
    """Write the study of the random sample of `select_for_review` beside its sheet.

    Args:
        rows: all rows, which the sample was drawn from.
        sheet: the sheet.
        settings: what the study is for.
        seed: that of the sample.
        each_row_is_a_document: whether documents of one row each may certify.

    Returns:
        A line about it; "" if nothing can be certified.

    Raises:
        UserError: as for `Study.draw`.
    """
    documents = documents_of(rows)
    are_terms = len({*documents}) == len(documents)
    if are_terms and not each_row_is_a_document:
        return ""
    coverage = 1.0
    if are_terms and settings.looks is None:
        scores = np.full(len(rows), np.nan)
        for number, row in enumerate(rows):
            if row[RANKED]:
                scores[number] = row[RANKED][0]["score"]
        coverage = expected_tier_coverage(scores, settings.target_precision)
    study, _ = settings.draw(documents, seed, coverage)
    keys = {id_text(row.get("index_key")) for row in rows}
    system = {}
    if len(keys) == 1 and keys != {None}:
        system["index"] = keys.pop()
    return write_study(study, sheet, system, coverage)


class ListLines(LinesFormat):
    """Rows of candidate lists."""

    name = "jsonl"
    endings = (".jsonl",)
    help = "JSON Lines: the row of each mention, with its candidates"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._first_rows: dict[tuple[Any, Any], int] = {}
        self._count = 0

    def lines(self, rows: RankedRows) -> Iterator[bytes]:
        """The rows without ``ranked``, or with ``error``.

        Raises:
            UserError: a mention_id of a document is repeated: labels would be of both.
        """
        for row, error in zip(rows.mappings(), rows.errors, strict=True):
            self._count += 1
            key = (id_text(row.get("doc_id")), id_text(row.get("mention_id")))
            first = self._first_rows.setdefault(key, self._count)
            if key[1] is not None and first != self._count:
                raise UserError(
                    f"mention_id {key[1]!r} of document {key[0]} is that of rows {first} and "
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
                if not (self.only_open and answers and answers[0]["accepted"]):
                    yield row, row.get("candidates") or items or row.get(RANKED) or []


LIST_FORMATS: dict[str, type[OutputFormat]] = {kind.name: kind for kind in (ListLines, ReviewSheet)}


def write_queue(
    rows: Sequence[Mapping[str, Any]],
    path: Path,
    *,
    each_row_is_a_document: bool = False,
    top: int | None = None,
    for_spreadsheet: bool = False,
) -> Path | None:
    """Write selected rows as JSON Lines without ``ranked``, or as a sheet with these beside it.

    A reviewer sets ``cui`` of a row, or ``choice`` or ``gold_cui`` in a line of the sheet.

    Args:
        rows: the rows.
        path: the file; a .csv is a sheet.
        each_row_is_a_document: as for `lists.labels.with_document`.
        top: as of `rows.FormatSettings`.
        for_spreadsheet: as of `rows.FormatSettings`.

    Returns:
        The file of rows beside the sheet, or None.

    Raises:
        UserError: a row has no ``doc_id``, or a mention_id is repeated.
    """
    selected = [*map(dict, rows)]
    for number, row in enumerate(selected, start=1):
        with_document(row, repr(term_of(row).text), each_row_is_a_document)
        if id_text(row.get("mention_id")) is None:
            row["mention_id"] = f"review-{number}"
    lists = None
    outputs: dict[Path, OutputFormat] = {path: ListLines()}
    if path.suffix == ".csv":
        has_candidates = all("candidates" in row for row in selected)
        ending = ReviewSheet.beside if has_candidates else MENTIONS
        lists = path.with_name(path.stem + ending)
        sheet = ReviewSheet(FormatSettings(top=top, for_spreadsheet=for_spreadsheet))
        outputs = {lists: ListLines(), path: sheet}
    ranked = RankedRows(
        table_of_mappings(selected), ranked=pa.nulls(len(rows)), errors=[None] * len(rows)
    )
    for file, kind in outputs.items():
        with written(file) as partial:
            kind.write(partial, [ranked])
    return lists


def _columns(filled: Collection[str], top: int) -> list[str]:
    """The columns of a sheet, in the order in which one reads and answers.

    Args:
        filled: columns about the mention that any row fills.
        top: number of candidates.
    """
    ranks = range(1, top + 1)
    shown = [f"{column}_{rank}" for rank in ranks for column in ("name", "about")]
    return [
        *(column for column in TO_READ if column in filled),
        CHOICE,
        *shown,
        ANSWER,
        "comment",
        "reviewer",
        "reviewed_on",
        *(f"id_{rank}" for rank in ranks),
        *(column for column in TO_IDENTIFY if column in filled),
    ]


def _about_mention(row: Mapping[str, Any]) -> dict[str, Any]:
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
    """The cells of the first concepts of a list."""
    concepts: dict[Any, Mapping[str, Any]] = {}
    for item in items:
        candidate = {"name": item} if isinstance(item, str) else item
        concepts.setdefault(concept_id(candidate) or candidate.get("name"), candidate)
    shown = [*islice(concepts.values(), top)]
    texts = describe_candidates(shown, settings.concepts, settings.codes)
    cells: dict[str, str | None] = {}
    for rank, (candidate, text) in enumerate(zip(shown, texts, strict=True), start=1):
        cells[f"name_{rank}"] = display_name(candidate)
        cells[f"id_{rank}"] = concept_id(candidate)
        cells[f"about_{rank}"] = text
    return cells


def _gold_cell(row: Mapping[str, Any]) -> str | None:
    """The gold concept of a row as `read.gold_of_cell` reads it."""
    gold = next((row[key] for key in GOLD_KEYS if row.get(key) is not None), None)
    parts = gold_parts(gold) or ()
    if len(parts) > 1:
        return json.dumps(gold)
    return "|".join(parts[0]) if parts else None
