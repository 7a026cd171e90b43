"""Rows to review: a random sample of ranked rows, and the most doubtful of the others."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..core.files import require_new, written
from ..lists.answers import SAMPLE_POSITION, term_of
from ..lists.gold import id_text
from ..lists.labels import with_document
from ..lists.table import table_of_mappings
from ..vocab.normalization import normalize_name
from .input_columns import RANKED
from .output_format import FormatSettings, OutputFormat
from .review_sheet import ListLines, ReviewSheet
from .rows import RankedRows
from .samples import drawn_order

RANDOM_SAMPLE = "is_random_sample"
# The ending of the mentions beside a sheet of rows without lists, such as those of `link`.
MENTIONS_FILE_ENDING = ".mentions.jsonl"


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
        The rows with the key ``is_random_sample``: whether the row belongs to the random sample;
        those that do have ``sample_position``, from 1.
    """
    drawn = _draw_whole_documents(rows, round(count * random_share), seed)
    doubtful = _most_doubtful(rows, drawn, count - len(drawn))
    sample = [
        {**rows[number], RANDOM_SAMPLE: True, SAMPLE_POSITION: position}
        for position, number in enumerate(drawn, start=1)
    ]
    return sample + [{**rows[number], RANDOM_SAMPLE: False} for number in doubtful]


def _draw_whole_documents(rows: Sequence[Mapping[str, Any]], count: int, seed: int) -> list[int]:
    """The numbers of the rows of as many documents as together have `count` rows or more."""
    rows_of_document: dict[str, list[int]] = {}
    for number, document in enumerate(documents_of(rows)):
        rows_of_document.setdefault(document, []).append(number)
    drawn: list[int] = []
    for document in drawn_order(rows_of_document, seed):
        if len(drawn) < count:
            drawn += rows_of_document[document]
    return drawn


def _most_doubtful(
    rows: Sequence[Mapping[str, Any]], drawn: Sequence[int], count: int
) -> list[int]:
    """The numbers of the `count` other rows of smallest margin, each string once."""
    strings = {normalize_name(term_of(rows[number]).text) for number in drawn}
    # Rows without candidates are not doubtful: theirs is the largest margin.
    margins = [row[RANKED][0]["margin"] if row[RANKED] else 1.0 for row in rows]
    doubtful: list[int] = []
    for number in sorted(set(range(len(rows))) - set(drawn), key=margins.__getitem__):
        string = normalize_name(term_of(rows[number]).text)
        if len(doubtful) < count and string not in strings:
            strings.add(string)
            doubtful.append(number)
    return doubtful


def documents_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The document of each row; the text of one without ``doc_id``."""
    return [id_text(row.get("doc_id")) or term_of(row).text for row in rows]


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
        top: as of `output_format.FormatSettings`.
        for_spreadsheet: as of `output_format.FormatSettings`.

    Returns:
        The file of rows beside the sheet, or None.

    Raises:
        UserError: a file exists, a row has no ``doc_id``, or a mention_id is repeated.
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
        ending = ReviewSheet.beside if has_candidates else MENTIONS_FILE_ENDING
        lists = path.with_name(path.stem + ending)
        sheet = ReviewSheet(FormatSettings(top=top, for_spreadsheet=for_spreadsheet))
        outputs = {lists: ListLines(), path: sheet}
    ranked = RankedRows(
        table_of_mappings(selected), ranked=pa.nulls(len(rows)), errors=[None] * len(rows)
    )
    for file in outputs:
        require_new(file)
    for file, kind in outputs.items():
        with written(file) as partial:
            kind.write(partial, [ranked])
    return lists
