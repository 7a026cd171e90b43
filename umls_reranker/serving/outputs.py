"""The formats that ranked mentions can be written in: lines and tables of all that is known, and
those of other tools, each listed in one line.
"""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from ..core.errors import UserError
from ..lists.table import CANDIDATES, ERROR, has_lines, row_column
from ..vocab.codes import CODE_LISTS
from .fhir import Fhir
from .input_columns import INPUT, RANKED, REVIEWED_KEYS, names_in_output
from .omop import Omop
from .output_format import LinesFormat, OutputFormat, json_line
from .rows import ANSWER_TYPES, RankedRows, plain_text
from .sssom import Sssom
from .usagi import Usagi

# The key of a row with the codes of its answer; in tables, the beginning of columns.
CODES = "codes"
# Columns of text tables about the concepts after the second.
FURTHER = ("cui", "name", "score")
# Columns of text tables with scores.
SCORE_COLUMNS = [name for name, kind in ANSWER_TYPES.items() if kind == pa.float64()]
LARGEST_INTEGER = 2**63
# The Arrow types of columns whose values are of some Python types.
PLAIN_TYPES: dict[frozenset[type], pa.DataType] = {
    frozenset(): pa.null(),
    frozenset({bool}): pa.bool_(),
    frozenset({int}): pa.int64(),
    frozenset({float}): pa.float64(),
    frozenset({int, float}): pa.float64(),
    frozenset({list}): pa.list_(pa.string()),
}


class JsonLines(LinesFormat):
    """A line for each mention: its row with ``ranked``, or ``error``."""

    name = "jsonl"
    endings = (".jsonl",)
    help = "JSON Lines: the row of each mention, with its ranked candidates"

    def lines(self, rows: RankedRows) -> Iterator[bytes]:
        outcomes = zip(rows.mappings(), rows.ranked.to_pylist(), rows.errors, strict=True)
        for row, items, error in outcomes:
            outcome: dict[str, Any] = {ERROR: error} if error else {RANKED: items}
            answer = items[0]["cui"] if items else None
            if codes := self.codes(answer):
                outcome[CODES] = codes
            yield json_line(row | outcome) + b"\n"


class Csv(OutputFormat):
    """A table in text: a line for each mention, with its answer and the second candidate."""

    name = "csv"
    endings = (".csv",)
    help = "table in text: what the input brought and the answer, a line for each mention"
    delimiter = ","

    def write(self, path: Path, parts: Iterable[RankedRows]) -> None:
        """Write a line for each row, and first the names of all columns."""
        columns = brought_names(parts)
        codes = [f"{CODES}_{source}" for source in self.settings.codes.sources]
        depth = self.settings.top or 2
        further = [f"{name}_{rank}" for rank in range(3, depth + 1) for name in FURTHER]
        with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
            sheet = csv.writer(stream, delimiter=self.delimiter)
            names = output_names(columns, self.counts)
            sheet.writerow([*map(names.get, columns), *ANSWER_TYPES, *codes, *further])
            for rows in parts:
                ranks = rows.concepts(depth) if further else [[] for _ in rows.errors]
                answered = zip(rows.mappings(), rows.answers(), ranks, strict=True)
                for row, answer, ranked in answered:
                    concepts = ranked + [{}] * depth
                    for name in SCORE_COLUMNS:
                        answer[name] = _rounded(answer[name])
                    cells = [row.get(name) for name in columns]
                    cells += answer.values()
                    cells += self.codes(answer["answer"]).values()
                    for concept in concepts[2:depth]:
                        cells += map(concept.get, FURTHER)
                    if self.settings.for_spreadsheet:
                        cells = list(map(self.cell, cells))
                    sheet.writerow(_text_cells(cells))


def _rounded(score: float | None) -> float | None:
    """Six digits of a score, which are enough for a sheet."""
    return None if score is None else float(f"{score:.6g}")


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

    def write(self, path: Path, parts: Iterable[RankedRows]) -> None:
        """Write a table with all columns of any part."""
        schema = brought(parts)
        names = output_names(schema.names, self.counts)
        tables = (self._table(rows, schema, names) for rows in parts)
        first = next(tables)
        with self._writer(path, first.schema) as writer:
            for table in chain([first], tables):
                writer.write_table(table)

    def _table(self, rows: RankedRows, schema: pa.Schema, names: Mapping[str, str]) -> pa.Table:
        answers = rows.answers()
        codes = [self.codes(answer["answer"]) for answer in answers]
        content = brought_table(rows)
        columns = {names[field.name]: _column(content, field.name, field.type) for field in schema}
        columns[RANKED] = rows.ranked
        for name, kind in ANSWER_TYPES.items():
            columns[name] = pa.array([answer[name] for answer in answers], kind)
        for source in self.settings.codes.sources:
            columns[f"{CODES}_{source}"] = pa.array([each[source] for each in codes], CODE_LISTS)
        return pa.table(columns, metadata=schema.metadata)

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


OUTPUT_FORMATS: dict[str, type[OutputFormat]] = {
    kind.name: kind
    for kind in (
        JsonLines,
        Csv,
        Tsv,
        Parquet,
        Arrow,
        Sssom,
        Omop,
        Usagi,
        Fhir,
    )
}


def format_of(
    target: Path,
    name: str | None = None,
    formats: Mapping[str, type[OutputFormat]] = OUTPUT_FORMATS,
) -> type[OutputFormat]:
    """The format of this name, or else the one that files with the target's ending have.

    Raises:
        UserError: there is none.
    """
    if name is not None:
        if name not in formats:
            raise UserError(f"{name} is no format; choose from {', '.join(formats)}")
        return formats[name]
    by_ending = {ending: kind for kind in formats.values() for ending in kind.endings}
    if target.suffix not in by_ending:
        raise UserError(f"{target}: the output must end in {', '.join(by_ending)}")
    return by_ending[target.suffix]


def brought(parts: Iterable[RankedRows]) -> pa.Schema:
    """The columns that a table repeats: all of any part.

    Of the candidates of mappings it repeats none. A column of several types is text.
    """
    types: dict[str, pa.DataType] = {}
    metadata = None
    for rows in parts:
        schema = brought_table(rows).schema
        metadata = metadata or schema.metadata
        for field in schema:
            types[field.name] = _common_type(types.get(field.name, pa.null()), field.type)
    return pa.schema([*types.items()], metadata)


def brought_names(parts: Iterable[RankedRows]) -> list[str]:
    """The names of the columns that a table of text repeats, as of `brought`."""
    names: dict[str, None] = {}
    for rows in parts:
        if has_lines(rows.content):
            names |= dict.fromkeys(chain.from_iterable(rows.mappings()))
        else:
            names |= dict.fromkeys(rows.content.column_names)
    return [name for name in names if name != CANDIDATES]


def brought_table(rows: RankedRows) -> pa.Table:
    """What the input brought as a table that other programs read: a column for each key.

    Of mappings it has all but the candidates; a column of several types is text.
    """
    if not has_lines(rows.content):
        return rows.content
    mappings = rows.mappings()
    keys = dict.fromkeys(chain.from_iterable(mappings))
    keys.pop(CANDIDATES, None)
    columns = {}
    for key in keys:
        values = [row.get(key) for row in mappings]
        kind = _type_of(values)
        columns[key] = pa.array([_of_type(value, kind) for value in values], kind)
    return pa.table(columns)


def output_names(columns: Sequence[str], counts: Counter[str]) -> dict[str, str]:
    """Column of the input -> its name in a table, with a prefix if the table adds one of its name.

    `counts` says which have another name.
    """
    names = names_in_output(columns, [*ANSWER_TYPES, RANKED])
    # These already have their prefix.
    prefixed = {INPUT + key for key in (RANKED, *REVIEWED_KEYS)}
    renamed = [name for column, name in names.items() if name != column or column in prefixed]
    if renamed:
        counts[f"columns of the input under other names ({', '.join(renamed)})"] = len(renamed)
    return names


def _common_type(former: pa.DataType, kind: pa.DataType) -> pa.DataType:
    """A type for the values of both."""
    kinds = {former, kind} - {pa.null()}
    if len(kinds) < 2:
        return next(iter(kinds), pa.null())
    return pa.float64() if kinds == {pa.int64(), pa.float64()} else pa.string()


def _type_of(values: Sequence[Any]) -> pa.DataType:
    """The Arrow type of values; text for those that are no plain values of one type."""
    kind = PLAIN_TYPES.get(frozenset(map(type, values)) - {type(None)}, pa.string())
    if kind == pa.int64():
        is_plain = all(abs(value or 0) < LARGEST_INTEGER for value in values)
    else:
        lists = values if pa.types.is_list(kind) else ()
        is_plain = all(isinstance(item, str) for value in lists for item in value or ())
    return kind if is_plain else pa.string()


def _column(table: pa.Table, key: str, kind: pa.DataType) -> pa.Array:
    """The values of a column of some rows, as a column of a type that `brought` found."""
    column = row_column(table, key)
    if column.type == kind:
        return column
    return pa.array([_of_type(value, kind) for value in column.to_pylist()], kind)


def _of_type(value: Any, kind: pa.DataType) -> Any:
    """A value for a column of this type: in a column of text, other values are JSON."""
    if isinstance(value, list) and kind != pa.string():
        return [_of_type(item, pa.string()) for item in value]
    if kind != pa.string() or value is None:
        return value
    return plain_text(value) if isinstance(value, str) else json_line(value).decode()


def _text_cells(values: Iterable[Any]) -> list[str]:
    """Values in a table of text: lists of texts are joined as where they are read, others JSON."""
    texts = []
    for value in values:
        if value is None:
            text = ""
        elif isinstance(value, str):
            text = value
        elif isinstance(value, list) and all(isinstance(item, str) for item in value):
            text = "|".join(value)
        else:
            text = json_line(value).decode()
        texts.append(text)
    return texts
