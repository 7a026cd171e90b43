"""Formats of files with ranked mentions: what one is, and lines and tables of all that is known.

To add one, write a subclass of `OutputFormat` in its own module, and a line in `output_formats`.
"""

from __future__ import annotations

import csv
import io
import json
from abc import ABC, abstractmethod
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pyarrow as pa

from ..core.errors import UserError
from ..core.files import strict
from ..lists.read import ERROR
from ..vocab.codes import CODE_LISTS, ConceptCodes
from .rows import RANKED

# Columns about the answer in tables; those of the second candidate begin with SECOND.
ANSWER_TYPES = {
    "answer": pa.string(),
    "answer_name": pa.string(),
    "answer_score": pa.float64(),
    "tier": pa.string(),
    "accepted": pa.bool_(),
    "second": pa.string(),
    "second_name": pa.string(),
    "second_score": pa.float64(),
    ERROR: pa.string(),
}
CANDIDATES = "candidates"
# The key of a row with the codes of its answer; in tables, the beginning of columns.
CODES = "codes"
LARGEST_INTEGER = 2**63


class RankedRows(NamedTuple):
    """n rows of the input and what was made of them.

    Attributes:
        content: the rows as they were read: mappings, or in Parquet and Arrow a table.
        ranked: n lists of `rows.RANKED_TYPE`, null for rows with an error.
        errors: n reasons why a row was not ranked, None if it was.
    """

    content: list[dict[str, Any]] | pa.Table
    ranked: pa.ListArray
    errors: list[str | None]

    def mappings(self) -> list[dict[str, Any]]:
        """The rows without what an earlier output of this package had added."""
        rows = self.content.to_pylist() if isinstance(self.content, pa.Table) else self.content
        added = {RANKED, ERROR}
        return [{key: value for key, value in row.items() if key not in added} for row in rows]

    def answers(self) -> dict[str, list[Any]]:
        """The columns of `ANSWER_TYPES`; of a named concept its preferred name is shown."""
        columns: dict[str, list[Any]] = {name: [] for name in ANSWER_TYPES}
        for items, error in zip(self.ranked.to_pylist(), self.errors, strict=True):
            top = items[0] if items else {}
            further = [item for item in items or () if _concept(item) != _concept(top)]
            second = further[0] if further else {}
            answer = {
                "answer": top.get("cui"),
                "answer_name": top.get("preferred_name") or top.get("name"),
                "answer_score": top.get("score"),
                "tier": top.get("tier"),
                "accepted": top.get("accepted"),
                "second": second.get("cui"),
                "second_name": second.get("preferred_name") or second.get("name"),
                "second_score": second.get("score"),
                ERROR: error,
            }
            for name, column in columns.items():
                column.append(answer[name])
        return columns


@dataclass(frozen=True)
class FormatSettings:
    """What formats may need besides the rows.

    Attributes:
        codes: the codes of concepts, in the vocabularies that are asked for.
        model: the model that ranked the rows, publishable (`files.portable_locator`).
        omop_concepts: CONCEPT.csv and CONCEPT_RELATIONSHIP.csv of an OMOP vocabulary.
    """

    codes: ConceptCodes = field(default_factory=ConceptCodes)
    model: str = ""
    omop_concepts: Sequence[Path] = ()


class OutputFormat(ABC):
    """A format of files with ranked mentions, for one output.

    Each process of a launch turns its rows into content, and the main process writes all content in
    the order of the rows.

    Attributes:
        name: its name, for ``--format``.
        endings: endings of files that are in this format, if it is not named.
        help: one line about it.
        reads_columns: whether it must know all columns before the first row.
        counts: what to say of the written rows.

    Args:
        columns: key -> type of the values of the input's rows (`columns_of`), if it reads them; {}
            for rows of tables.
        settings: what it may need besides the rows.
    """

    name: ClassVar[str]
    endings: ClassVar[tuple[str, ...]] = ()
    help: ClassVar[str]
    reads_columns: ClassVar[bool] = False

    def __init__(
        self,
        columns: Mapping[str, pa.DataType],
        settings: FormatSettings = FormatSettings(),
    ) -> None:
        self.columns = columns
        self.settings = settings
        self.counts = Counter[str]()

    @abstractmethod
    def content(self, rows: RankedRows) -> Any:
        """What to write of some rows: lines, a table, or plain values."""

    @abstractmethod
    def writing(self, path: Path) -> AbstractContextManager[Callable[[Any], Any]]:
        """A context manager that gives a function, which writes content to a new file."""

    def codes(self, answers: Sequence[str | None]) -> dict[str, list[list[str]]]:
        """Vocabulary -> the codes of n answers, best first; {} if none are asked for."""
        of_answers = [self.settings.codes.of(cui or "") for cui in answers]
        return {
            source: [[code.code for code in codes if code.source == source] for codes in of_answers]
            for source in self.settings.codes.sources
        }

    def known(self, rows: RankedRows) -> list[dict[str, Any]]:
        """The rows as mappings.

        Raises:
            UserError: one has a key that is not among `columns`, which only happens on stdin.
        """
        mappings = rows.mappings()
        unknown = {key for row in mappings for key in row} - {*self.columns}
        if unknown:
            raise UserError(
                f"rows have keys that the first ones lack: {', '.join(sorted(unknown))}; a table "
                "needs all columns from the start: write .jsonl, or read a file in place of stdin"
            )
        return mappings


class LinesFormat(OutputFormat):
    """A format of lines of text, after a head."""

    @abstractmethod
    def content(self, rows: RankedRows) -> list[bytes]:
        """The lines of some rows."""

    def head(self) -> bytes:
        """What the file begins with."""
        return b""

    @contextmanager
    def writing(self, path: Path) -> Iterator[Callable[[list[bytes]], Any]]:
        with path.open("wb") as stream:
            stream.write(self.head())
            yield stream.writelines


class JsonLines(LinesFormat):
    """A line for each mention: its row with ``ranked``, or ``error``."""

    name = "jsonl"
    endings = (".jsonl",)
    help = "JSON Lines: the row of each mention, with its ranked candidates"

    def content(self, rows: RankedRows) -> list[bytes]:
        ranked = rows.ranked.to_pylist()
        added: list[dict[str, Any]] = [
            {ERROR: error} if error else {RANKED: items}
            for items, error in zip(ranked, rows.errors, strict=True)
        ]
        answers = [items[0]["cui"] if items else None for items in ranked]
        for source, lists in self.codes(answers).items():
            for outcome, codes in zip(added, lists, strict=True):
                outcome.setdefault(CODES, {})[source] = codes
        return [
            json_line(row | outcome) + b"\n"
            for row, outcome in zip(rows.mappings(), added, strict=True)
        ]


class Csv(LinesFormat):
    """A table in text: a line for each mention, with its answer and the second candidate."""

    name = "csv"
    endings = (".csv",)
    help = "table in text: what the input brought and the answer, a line for each mention"
    reads_columns = True
    delimiter = ","

    def head(self) -> bytes:
        names = [f"{CODES}_{source}" for source in self.settings.codes.sources]
        return self._lines([[*brought(self.columns), *ANSWER_TYPES, *names]])[0]

    def content(self, rows: RankedRows) -> list[bytes]:
        columns = brought(self.columns)
        cells = [[row.get(key) for key in columns] for row in self.known(rows)]
        answers = rows.answers()
        codes = self.codes(answers["answer"])
        of_answers = zip(*answers.values(), *codes.values(), strict=True)
        return self._lines(
            [*of_input, *of_answer] for of_input, of_answer in zip(cells, of_answers, strict=True)
        )

    def _lines(self, rows: Iterable[list[Any]]) -> list[bytes]:
        lines = []
        for row in rows:
            text = io.StringIO()
            csv.writer(text, delimiter=self.delimiter).writerow(map(_cell, row))
            lines.append(text.getvalue().encode(errors="backslashreplace"))
        return lines


class Tsv(Csv):
    """The same with tabs."""

    name = "tsv"
    endings = (".tsv",)
    help = "the same with tabs"
    delimiter = "\t"


class Parquet(OutputFormat):
    """A table: what the input brought, the answer, and the ranked candidates."""

    name = "parquet"
    endings: ClassVar[tuple[str, ...]] = (".parquet",)
    help = "table of what the input brought, the answer and the ranked candidates"
    reads_columns = True

    def content(self, rows: RankedRows) -> pa.Table:
        if isinstance(rows.content, pa.Table):
            former = {*ANSWER_TYPES, RANKED} & {*rows.content.column_names}
            table = rows.content.drop_columns([*former])
        else:
            mappings = self.known(rows)
            table = pa.table(
                {
                    key: pa.array([_of_type(row.get(key), kind) for row in mappings], kind)
                    for key, kind in brought(self.columns).items()
                }
            )
        table = table.append_column(RANKED, rows.ranked)
        answers = rows.answers()
        for name, values in answers.items():
            table = table.append_column(name, pa.array(values, ANSWER_TYPES[name]))
        for source, lists in self.codes(answers["answer"]).items():
            table = table.append_column(f"{CODES}_{source}", pa.array(lists, CODE_LISTS))
        return table

    @contextmanager
    def writing(self, path: Path) -> Iterator[Callable[[pa.Table], Any]]:
        writers: list[Any] = []
        schemas: list[pa.Schema] = []

        def write(table: pa.Table) -> None:
            if not writers:
                writers.append(self._writer(path, table.schema))
                schemas.append(table.schema)
            if table.schema != schemas[0]:
                raise UserError("the input's tables have different columns; write .jsonl")
            writers[0].write_table(table)

        yield write
        for writer in writers:
            writer.close()

    def _writer(self, path: Path, schema: pa.Schema) -> Any:
        import pyarrow.parquet as pq

        return pq.ParquetWriter(path, schema)


class Arrow(Parquet):
    """The same as an Arrow file."""

    name = "arrow"
    endings = (".arrow", ".feather")
    help = "the same as an Arrow file"

    def _writer(self, path: Path, schema: pa.Schema) -> Any:
        return pa.ipc.new_file(path, schema)


def columns_of(batches: Iterable[Sequence[Mapping[str, Any]]]) -> dict[str, pa.DataType]:
    """The keys of rows, with the Arrow type of their values; text where they are of several."""
    types: dict[str, pa.DataType] = {}
    for rows in batches:
        for key in dict.fromkeys(key for row in rows for key in row):
            kind = _type_of([row.get(key) for row in rows])
            former = types.get(key, pa.null())
            if pa.types.is_null(former):
                types[key] = kind
            elif kind != former and not pa.types.is_null(kind):
                numbers = {pa.int64(), pa.float64()}
                types[key] = pa.float64() if {kind, former} == numbers else pa.string()
    return types


def brought(columns: Mapping[str, pa.DataType]) -> dict[str, pa.DataType]:
    """The columns of mappings that a table repeats: all but candidates, and what it adds itself."""
    added = {*ANSWER_TYPES, RANKED, CANDIDATES}
    return {key: kind for key, kind in columns.items() if key not in added}


def _concept(item: Mapping[str, Any]) -> str | None:
    return item["cui"] or item["name"]


def _type_of(values: Sequence[Any]) -> pa.DataType:
    """The Arrow type of values; text for those that are no plain values of one type."""
    kinds = {type(value) for value in values} - {type(None)}
    if not kinds:
        return pa.null()
    if kinds == {bool}:
        return pa.bool_()
    if kinds == {int} and all(abs(value or 0) < LARGEST_INTEGER for value in values):
        return pa.int64()
    if float in kinds and kinds <= {int, float}:
        return pa.float64()
    if kinds == {list} and all(isinstance(item, str) for value in values for item in value or ()):
        return pa.list_(pa.string())
    return pa.string()


def _of_type(value: Any, kind: pa.DataType) -> Any:
    """A value for a column of this type: in a column of text, other values are JSON."""
    if isinstance(value, list) and kind != pa.string():
        return [_of_type(item, pa.string()) for item in value]
    if kind != pa.string() or value is None:
        return value
    # Half of a surrogate pair is no text.
    text = value.encode(errors="backslashreplace") if isinstance(value, str) else json_line(value)
    return text.decode()


def _cell(value: Any) -> str:
    """A value in a table of text: lists of texts are joined as where they are read, others JSON."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return "|".join(value)
    return json_line(value).decode()


def json_line(value: Any) -> bytes:
    """A value as JSON, without a line break."""
    text = json.dumps(strict(value), ensure_ascii=False, default=_as_text)
    return text.encode(errors="backslashreplace")


def _as_text(value: Any) -> str:
    """Text for values without a JSON type: bytes in base64, others as Python formats them."""
    return b64encode(value).decode() if isinstance(value, bytes) else str(value)
