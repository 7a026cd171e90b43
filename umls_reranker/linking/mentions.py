"""Mentions to link, from a file of rows, of documents with spans, or of annotated text.

A row of JSON, CSV, Parquet or Arrow is a mention: ``mention`` (or ``entity``), and optionally
``document`` (or ``text``), ``start`` and ``end``, or ``left`` and ``right``; ``entity_type``,
``doc_id`` and any others. A row with ``spans`` (or ``entities`` or ``mentions``), a list, is a
document. CSV may be a sheet of Usagi. All other files are annotated text (`corpora.formats`).
"""

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import Malformed, UserError
from ..core.text_files import start_of
from ..corpora.annotated_text import Annotation, Document
from ..corpora.corpus import CorpusReader
from ..corpora.faults import Faults
from ..corpora.formats import corpus_files, reader_of
from ..corpora.surrounding_text import text_around
from ..lists.answers import Answer, read_sheet, term_of
from ..lists.columns import length_fault
from ..lists.gold import CUI_LESS
from ..lists.judgments import read_judgments
from ..lists.read import ENDINGS, STDIN, mention_files, read_rows
from ..lists.reading_errors import naming
from ..lists.rows import RowPosition, Rows
from ..lists.sheets import table_rows
from ..lists.table import READING_ERROR, SPAN_KEYS, TEXT_KEYS, first_values, table_of_mappings
from ..serving.omop_vocabulary import OmopVocabulary
from ..serving.usagi import APPROVED
from ..vocab.concept_codes import ConceptCodes

# The keys of a span that is a list.
SPAN = ("start", "end", "entity_type")
# All keys of a mention that are read.
MENTION_KEYS = ("mention", "entity", *TEXT_KEYS, "start", "end", "left", "right", "entity_type")
SHEET_COLUMNS = {"sourceCode", "sourceName", "mappingStatus", "conceptId"}
OUR_ANSWER = "ADD_INFO:cui"
# A row, its place, and the text of its document.
Item = tuple[Any, dict[str, Any], str | None]


@dataclass(frozen=True)
class UsagiSheets:
    """Reads sheets.

    Attributes:
        codes: codes of the dictionary's concepts.
        vocabulary: has the codes of targets; not needed if all are our own suggestions.
    """

    codes: ConceptCodes = field(default_factory=ConceptCodes)
    vocabulary: OmopVocabulary | None = None

    @staticmethod
    def recognizes(path: Path) -> bool:
        """Whether a file is a sheet."""
        if path.suffix != ".csv" or not path.is_file() or not path.stat().st_size:
            return False
        first_line = start_of(path).decode(errors="replace").splitlines()[:1]
        columns = next(csv.reader(first_line), ())
        return SHEET_COLUMNS.issubset(columns)

    def answers(self, path: Path) -> Iterator[tuple[dict[str, Any], Answer]]:
        """Yield the mention of each source code, a document of its own, and its answer.

        The gold concepts of an approved mention are the answer that we had suggested
        (`serving.usagi.Usagi`) if it is still the target, or else the concepts with the code of the
        target, or with a code that maps to it; without any, ``OMOP:`` and the target, which no
        dictionary has.

        Raises:
            UserError: the vocabulary is needed and not given, or cannot be read.
        """
        groups: dict[str, tuple[RowPosition, list[dict[str, str]]]] = {}
        with naming(path):
            for number, row in table_rows(path):
                group = groups.setdefault(row["sourceCode"], (RowPosition(path, number), []))
                group[1].append(row)
        changed: set[str] = set()
        for _, rows in groups.values():
            if not _suggested(rows):
                changed.update(_targets(rows))
        if changed and self.vocabulary is None:
            raise UserError(
                f"{path}: the approved target {min(changed)} is an integer of OMOP; give link or "
                "candidates --omop_concepts CONCEPT.csv CONCEPT_RELATIONSHIP.csv, which have its "
                "codes"
            )
        concepts_of = (
            self._concepts(changed, self.vocabulary) if changed and self.vocabulary else {}
        )
        for source_code, (position, rows) in groups.items():
            first = rows[0]
            mention = {
                "doc_id": source_code,
                "mention_id": source_code,
                "mention": first["sourceName"],
                "source_code": source_code,
            }
            if frequency := first.get("sourceFrequency"):
                mention["frequency"] = frequency
            answer = Answer(position, term_of(mention), None)
            if first["mappingStatus"] == APPROVED:
                targets = _targets(rows)
                parts = [concepts_of.get(target, [f"OMOP:{target}"]) for target in targets]
                gold: Any = parts
                if not parts:
                    gold = CUI_LESS
                elif len(parts) == 1:
                    gold = parts[0]
                answer = answer._replace(
                    gold=_suggested(rows) or gold,
                    reviewer=first.get("statusSetBy") or "",
                    reviewed_on=_day_of(first.get("statusSetOn") or "0"),
                    comment=first.get("comment") or "",
                    targets=tuple(targets),
                )
            yield mention, answer

    def _concepts(self, targets: Iterable[str], vocabulary: OmopVocabulary) -> dict[str, list[str]]:
        """Target -> the concepts with its code, or else with one that maps to it, if any has."""
        concepts_of_target = {}
        codes_of_target = vocabulary.sources(targets)
        concepts_of = self.codes.concepts_with({*chain.from_iterable(codes_of_target.values())})
        for target, (own, *others) in codes_of_target.items():
            by_others = chain.from_iterable(concepts_of.get(code, ()) for code in others)
            if concepts := concepts_of.get(own) or list(dict.fromkeys(by_others)):
                concepts_of_target[target] = concepts
        return concepts_of_target


def _day_of(milliseconds: str) -> str:
    """The date of a time in milliseconds since 1970, as a sheet has it."""
    return str(np.datetime64(int(milliseconds), "ms"))[:10]


def _targets(rows: Iterable[Mapping[str, str]]) -> list[str]:
    """The approved targets of a source code."""
    return [
        row["conceptId"]
        for row in rows
        if row["mappingStatus"] == APPROVED and row["conceptId"] not in ("", "0")
    ]


def _suggested(rows: Sequence[Mapping[str, str]]) -> str:
    """Our own answer if its targets were approved, or else ""."""
    suggested = rows[0].get("sourceAutoAssignedConceptIds") or ""
    is_ours = suggested and {*_targets(rows)} == {*suggested.split(";")}
    return (rows[0].get(OUR_ANSWER) or "") if is_ours else ""


def read_answers(
    paths: Iterable[Path], sheets: UsagiSheets = UsagiSheets()
) -> Iterator[tuple[Mapping[str, Any], Answer]]:
    """The lines of sheets, ours (`answers.read_sheet`) or of other programs, and their answers."""
    for path in paths:
        if sheets.recognizes(path):
            yield from sheets.answers(path)
        else:
            yield from read_judgments(path) or read_sheet(path)


class FaultRows(Faults):
    """Malformed pieces of annotated text, as rows with an error; none stops the reading."""

    requires_ids = False

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Item] = []

    def add(self, where: str, problem: Malformed) -> None:
        self.rows.append((where, {READING_ERROR: str(problem)}, None))


def input_files(path: Path) -> list[Path]:
    """The files of an input: rows, or else annotated text.

    Raises:
        UserError: there is none.
    """
    names = [path] if path == STDIN or not path.is_dir() else [*path.iterdir()]
    has_rows = path == STDIN or any(file.suffix in ENDINGS for file in names)
    return mention_files(path) if has_rows or not path.exists() else [*corpus_files(path)]


def read_mentions(
    path: Path, batch_rows: int, sheets: UsagiSheets = UsagiSheets()
) -> Iterator[Rows]:
    """Yield the mentions of `input_files` in batches; what cannot be read has `READING_ERROR`.

    Args:
        path: file or folder, or `STDIN`.
        batch_rows: number of mentions of a batch, at most.
        sheets: reads sheets of Usagi, by default without codes.

    Raises:
        UserError: a file cannot be read; names it.
    """
    if sheets.recognizes(path):
        yield from _batches(_of_sheet(sheets, path), batch_rows)
        return
    files = input_files(path)
    if path != STDIN and files[0].suffix not in ENDINGS:
        yield from _batches(_annotated(reader_of(files), files), batch_rows)
        return
    for rows in read_rows(path, batch_rows, has_candidates=False):
        if not _has_spans(rows):
            documents = [text or None for text in first_values(rows.content, *TEXT_KEYS)]
            yield rows._replace(documents=documents)
            continue
        placed = zip(rows.positions, rows.mappings(), strict=True)
        items = (item for position, row in placed for item in _mentions_of(position, row))
        yield from _batches(items, batch_rows)


def _of_sheet(sheets: UsagiSheets, path: Path) -> Iterator[Item]:
    """The mentions of a sheet of Usagi, with their gold concepts."""
    for row, answer in sheets.answers(path):
        if answer.gold is not None:
            row["cui"] = answer.gold
        yield answer.position, row, None


def _has_spans(rows: Rows) -> bool:
    """Whether any row may be a document with its spans."""
    return not {*SPAN_KEYS}.isdisjoint(rows.content.column_names)


def span_columns(mentions: Rows) -> dict[str, list[Any]]:
    """The columns of `read_mentions`, not checked: arguments of `ConceptLinker.read`, ends, types.

    Blank cells of CSV are missing, and "|" separates types.
    """
    content = mentions.content
    texts = first_values(content, "mention", "entity")
    starts = [_whole_number(value) for value in first_values(content, "start")]
    ends = [_whole_number(value) for value in first_values(content, "end")]
    for row, document in enumerate(mentions.documents):
        if texts[row] is None and isinstance(document, str):
            texts[row] = _text_of_span(document, starts[row], ends[row])
    return {
        "mentions": texts,
        "documents": [*mentions.documents],
        "starts": starts,
        "ends": ends,
        "lefts": [value or "" for value in first_values(content, "left")],
        "rights": [value or "" for value in first_values(content, "right")],
        "entity_types": [_types_of(value) for value in first_values(content, "entity_type")],
    }


def _types_of(value: Any) -> Any:
    """The types of a cell, which "|" separates; other values as they are."""
    if isinstance(value, str) and "|" in value:
        return value.split("|")
    return value or None


def require_ends(columns: Mapping[str, list[Any]]) -> None:
    """Refuse an end that is not where the mention ends, up to spaces.

    Raises:
        ValueError: there is one.
    """
    named = (columns[name] for name in ("mentions", "documents", "starts", "ends"))
    for mention, document, start, end in zip(*named, strict=True):
        span = _text_of_span(document, start, end) if isinstance(document, str) else None
        if isinstance(mention, str) and span is not None and span.strip() != mention.strip():
            raise ValueError(f"end {end} is not where the mention ends")


def _batches(items: Iterator[Item], batch_rows: int) -> Iterator[Rows]:
    while batch := list(islice(items, batch_rows)):
        places, rows, documents = map(list, zip(*batch, strict=True))
        yield Rows(places, table_of_mappings(rows), documents)


def _spans_of(row: Mapping[str, Any]) -> list[Any] | None:
    """The spans of a document; None of a mention."""
    if row.get("mention") or row.get("entity"):
        return None
    return next((row[key] for key in SPAN_KEYS if isinstance(row.get(key), list)), None)


def _mentions_of(position: Any, row: dict[str, Any]) -> Iterator[Item]:
    """The mentions of a row, each with what the row says about its document."""
    spans = _spans_of(row)
    document = next((row[key] for key in TEXT_KEYS if row.get(key)), None)
    if spans is None:
        yield position, row, document
        return
    about = {key: value for key, value in row.items() if key not in (*TEXT_KEYS, *SPAN_KEYS)}
    for number, span in enumerate(spans):
        if isinstance(span, list) and len(span) >= 2:
            span = dict(zip(SPAN, span, strict=False))
        fault = "is no mapping or [start, end, type], or has no text around it"
        if isinstance(span, dict) and isinstance(document, str):
            fault = ""
            text = span.get("mention") or span.get("text")
            if text is None:
                offsets = [_whole_number(span.get(key)) for key in ("start", "end")]
                text = _text_of_span(document, *offsets)
                outside = f"from {offsets[0]} to {offsets[1]} is not in its text"
                fault = outside if text is None else length_fault(len(text))
        if fault:
            yield f"{position}.{number}", about | {READING_ERROR: f"span {number} {fault}"}, None
            continue
        of_span = {key: value for key, value in span.items() if key != "text"}
        mention = about | {"mention": text} | of_span
        if "label" in span:
            mention.setdefault("entity_type", span["label"])
        yield f"{position}.{number}", mention, document


def _text_of_span(document: str, start: Any, end: Any) -> str | None:
    """The text between two offsets; None if they are not both in the document, in this order."""
    are_offsets = isinstance(start, int) and isinstance(end, int)
    return document[start:end] if are_offsets and 0 <= start < end <= len(document) else None


def _annotated(reader: CorpusReader, files: Sequence[Path]) -> Iterator[Item]:
    """The mentions of annotated text, with their types and gold concepts."""
    faults = FaultRows()
    for file in files:
        for document in reader.documents(file, faults):
            for where, annotation in document.annotations:
                # In no one place of the document is the text of several pieces.
                text = document.text if len(annotation.spans) == 1 else None
                row = _row_of(document, annotation)
                # Where only the document is named.
                place = f"{where}:{row['start']}-{row['end']}" if where.endswith("'") else where
                yield place, row, text
            yield from faults.rows
            faults.rows.clear()
    yield from faults.rows


def _row_of(document: Document, annotation: Annotation) -> dict[str, Any]:
    start = annotation.spans[0][0]
    end = annotation.spans[-1][1]
    row: dict[str, Any] = {
        "doc_id": document.doc_id,
        "mention": annotation.text,
        "start": start,
        "end": end,
        "entity_type": [*annotation.types],
    }
    if len(annotation.spans) > 1:
        row["left"], row["right"] = text_around(document.text, start, end)
    parts = [[*ids] for ids in annotation.cuis if ids]
    if parts:
        row["cui"] = parts[0] if len(parts) == 1 else parts
    return row


def _whole_number(value: Any) -> Any:
    """An offset: of a cell, or of a float as frames have it, the integer; others as they are."""
    if isinstance(value, str):
        return int(value) if value.strip().isdecimal() else value or None
    if isinstance(value, float) and math.isnan(value):
        return None
    return int(value) if isinstance(value, float) and value.is_integer() else value
