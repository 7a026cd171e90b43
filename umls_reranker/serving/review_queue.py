"""Rows to review: a random sample of ranked rows, and the most doubtful of the others."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..core.files import written
from ..lists.columns import concept_id, gold_parts, trainable
from ..lists.labels import with_document
from ..lists.read import ERROR
from ..vocab.text import normalize_name
from .rows import RANKED, LinesFormat, OutputFormat, RankedRows, json_line

RANDOM_SAMPLE = "is_random_sample"
MENTION_COLUMNS = ("doc_id", "mention_id", "entity", "entity_type", "left", "right", RANDOM_SAMPLE)


def select_for_review(
    rows: Sequence[Mapping[str, Any]], count: int, random_share: float = 0.2, seed: int = 13
) -> list[Mapping[str, Any]]:
    """Select ranked rows: a random sample, then those whose top candidate has the smallest margin.

    Only the random sample shows how the model performs, so only it may certify a tier. Of the
    doubtful rows each string is selected once.

    Args:
        rows: ranked rows (`statistics.read_ranked`).
        count: number of rows to select, at most.
        random_share: share of `count` to draw at random, in [0, 1].
        seed: seed of the random sample.

    Returns:
        The rows with the key ``is_random_sample``: whether the row belongs to the random sample.
    """
    drawn = (
        np.random.default_rng(seed).permutation(len(rows))[: round(count * random_share)].tolist()
    )
    strings = {normalize_name(_entity(rows[number])) for number in drawn}
    doubtful: list[int] = []
    for number in sorted(
        set(range(len(rows))) - set(drawn), key=lambda number: _margin(rows[number])
    ):
        string = normalize_name(_entity(rows[number]))
        if len(drawn) + len(doubtful) < count and string not in strings:
            strings.add(string)
            doubtful.append(number)
    return [
        {**rows[number], RANDOM_SAMPLE: is_drawn}
        for part, is_drawn in ((drawn, True), (doubtful, False))
        for number in part
    ]


class ListLines(LinesFormat):
    """Rows of candidate lists."""

    name = "jsonl"
    endings = (".jsonl",)
    help = "JSON Lines: the row of each mention, with its candidates"

    def lines(self, rows: RankedRows) -> Iterator[bytes]:
        """The rows without ``ranked``, or with ``error``."""
        for row, error in zip(rows.mappings(), rows.errors, strict=True):
            line = {name: value for name, value in row.items() if name != RANKED}
            yield json_line(line | {ERROR: error} if error else line) + b"\n"


class ReviewSheet(OutputFormat):
    """A line for each candidate, and the column ``gold_cui`` to fill in."""

    name = "csv"
    endings = (".csv",)
    help = "a sheet to label: a line for each candidate"

    def write(self, path: Path, parts: Iterable[RankedRows]) -> None:
        """Write the lines of all rows, with all columns of any."""
        columns = dict.fromkeys(
            name for rows in parts for line in _sheet(rows.mappings()) for name in line
        )
        with path.open("w", encoding="utf-8", newline="", errors="backslashreplace") as stream:
            sheet = csv.DictWriter(stream, list(columns))
            sheet.writeheader()
            for rows in parts:
                sheet.writerows(_sheet(rows.mappings()))


LIST_FORMATS: dict[str, type[OutputFormat]] = {kind.name: kind for kind in (ListLines, ReviewSheet)}


def write_queue(
    rows: Sequence[Mapping[str, Any]], path: Path, *, each_row_is_a_document: bool = False
) -> None:
    """Write selected rows, as JSON Lines without ``ranked`` or, if the file is a .csv, as a sheet.

    A reviewer sets ``cui`` of a row, or in the sheet ``gold_cui`` in the first line of a mention.
    Both are rows of labelled lists, with the candidates in their original order.

    Args:
        rows: the rows.
        path: the file.
        each_row_is_a_document: as for `lists.labels.with_document`.

    Raises:
        UserError: a row has no ``doc_id``.
    """
    kind: type[OutputFormat] = ReviewSheet if path.suffix == ".csv" else ListLines
    selected = [*map(dict, rows)]
    for row in selected:
        with_document(row, repr(_entity(row)), each_row_is_a_document)
    with written(path) as partial:
        kind().write(partial, [RankedRows(selected, pa.nulls(len(rows)), [None] * len(rows))])


def _sheet(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """A line for each candidate; rank and probability help the reviewer and are no scores."""
    for number, row in enumerate(rows, start=1):
        mention = {name: row.get(name) for name in MENTION_COLUMNS}
        if row.get("index_key"):
            mention["index_key"] = row["index_key"]
        if mention["mention_id"] is None:
            mention["mention_id"] = f"review-{number}"
        mention["entity"] = _entity(row)
        # Of several gold concepts a cell holds the list.
        gold = concept_id(row)
        (one,) = trainable([gold_parts(gold) or ()])
        mention["gold_cui"] = one or (json.dumps(gold) if isinstance(gold, list) else gold)
        answers = {(item.get("cui"), item.get("name")): item for item in row.get(RANKED, ())}
        for item in row.get("candidates") or [{}]:
            candidate = {"name": item} if isinstance(item, str) else item
            about = {}
            if answers:
                answer = answers.get((concept_id(candidate), candidate.get("name")), {})
                about = {"rank": answer.get("rank"), "probability": answer.get("score")}
            yield {
                name: "|".join(value) if isinstance(value, list) else value
                for name, value in (mention | about | candidate).items()
            }


def _entity(row: Mapping[str, Any]) -> str:
    return str(row.get("entity") or row.get("mention"))


def _margin(row: Mapping[str, Any]) -> float:
    """Margin of the top candidate; rows without candidates are not doubtful."""
    return row["ranked"][0]["margin"] if row["ranked"] else 1.0
