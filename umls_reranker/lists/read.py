"""Rows of mentions with candidates from a file, a folder or stdin: JSON, CSV, TSV, Parquet, Arrow.

A row, of which only ``entity`` and ``candidates`` are needed to rank:

    {"doc_id", "mention_id", "entity", "entity_type", "left", "right", "cui",
     "candidates": [{"cui", "name", "NAME_score", ...}]}

CSV and TSV have one row per candidate: successive rows with the same ``mention_id`` and ``doc_id``
are one mention. Rows of a mention that are not successive, or contradict each other, are refused.
"""

from __future__ import annotations

import itertools
import json
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from ..core.errors import UserError, warn_caller
from ..core.text_files import read_table
from .gold import CUI_LESS, GOLD_KEYS, gold_parts
from .table import ERROR, mappings_of, row_table, table_of_mappings

BATCH_ROWS = 4_096
# Levels of lists and mappings in a row of JSON.
DEEPEST = 32
# Instead of a file: stdin, which is read once.
STDIN = Path("-")
DELIMITERS = {".csv": ",", ".tsv": "\t"}
TABLES = (".parquet", ".arrow", ".feather")
ENDINGS = (".jsonl", ".json", *DELIMITERS, *TABLES)
# Columns of CSV about the mention -> keys of its row; all others but "gold" are keys of candidates.
MENTION_CELLS = {
    "mention_id": "mention_id",
    "doc_id": "doc_id",
    "entity": "entity",
    "mention": "entity",
    "entity_type": "entity_type",
    "left": "left",
    "right": "right",
    "split": "split",
    "is_random_sample": "is_random_sample",
    "gold_cui": "cui",
    "index_key": "index_key",
}
# Columns that a table of CSV has, or one of several alternatives: of mentions, and of candidates.
MENTION_COLUMNS = ("mention", "entity", "document", "text")
CANDIDATE_COLUMNS = (("mention_id",), ("mention", "entity"), ("cui", "id", "name"))
# Columns of marks, and what these may be, in lower case; a blank cell is no mark.
MARK_COLUMNS = ("gold", "is_random_sample")
MARKS = dict.fromkeys(("1", "1.0", "true", "yes", "y", "x"), True) | dict.fromkeys(
    ("0", "0.0", "false", "no", "n"), False
)


# The ids of document and mention in a row of CSV.
Key = tuple[str | None, str | None]


class RowPosition(NamedTuple):
    """A row of a file, for messages: the number of its line, or in a table of its row, from 1."""

    path: Path
    number: int

    def __str__(self) -> str:
        return f"{self.path}:{self.number}"


class Rows(NamedTuple):
    """Successive rows of a file or a program.

    Attributes:
        positions: `RowPosition` of each, or of annotated text its place as a text.
        content: the rows (`table.row_table`).
        documents: the text of each row's document, if mentions to link were read (None without
            one); the rows may lack it.
    """

    positions: Sequence[Any]
    content: pa.Table
    documents: Sequence[str | None] = ()

    @classmethod
    def of(cls, rows: Any) -> Rows:
        """Rows of a program, in any form of `table.row_table`; in messages the first is ``rows:1``.

        Raises:
            UserError: a row is no mapping (it is named).
        """
        content = row_table(rows)
        return cls([RowPosition(Path("rows"), row + 1) for row in range(len(content))], content)

    def mappings(self) -> list[dict[str, Any]]:
        """The rows as Python objects."""
        return mappings_of(self.content)


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
    """Yield rows of `mention_files` in batches; a line that is not JSON has the key ``error``.

    Args:
        path: a file, a folder, or `STDIN`.
        batch_rows: number of rows of a batch, at most.
        has_candidates: whether a row of CSV or TSV is a candidate; otherwise it is a mention, and
            its cells are texts, as they are.

    Raises:
        UserError: a file cannot be read; names it, and of CSV the line.
    """
    # Of all files of a folder: a mention's rows may have been parted between two.
    mentions: dict[Key, RowPosition] = {}
    for file in mention_files(path):
        with naming(file):
            if file.suffix in TABLES:
                start = 1
                for table in _tables(file, batch_rows):
                    yield Rows([RowPosition(file, start + row) for row in range(len(table))], table)
                    start += len(table)
                continue
            if file.suffix not in DELIMITERS:
                numbered = _json_rows(file)
            else:
                numbered = (
                    _candidate_rows(file, mentions) if has_candidates else _mention_rows(file)
                )
            while batch := list(itertools.islice(numbered, batch_rows)):
                positions = [RowPosition(file, number) for number, _ in batch]
                yield Rows(positions, table_of_mappings([row for _, row in batch]))


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the file in the errors of reading it."""
    try:
        yield
    except OSError as error:
        # Arrow's own errors have neither number nor reason.
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from None
    except (ValueError, LookupError, RecursionError) as error:
        raise UserError(
            f"{path} cannot be read ({error}); write it again as UTF-8 text or as a whole table"
        ) from None


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of the lines that are not blank, or of one array, each with its number."""
    with path.open("rb") as stream:
        if stream.peek(1)[:1] == b"[":  # type: ignore[attr-defined]
            for number, row in enumerate(json.load(stream), start=1):
                yield number, _sound(row)
            return
        for number, line in enumerate(stream, start=1):
            if line.isspace():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                text = line.decode(errors="replace").strip()
                row = {"line": text, ERROR: _why_not_json(text, error)}
            yield number, _sound(row)


def _sound(row: Any) -> dict[str, Any]:
    """A row that an output can repeat, or what it has of one and why it is none."""
    if not isinstance(row, dict):
        return _sound({"line": row, ERROR: "not a JSON object"})
    if not "".join(row).isascii():
        # Half of a surrogate pair would be no name of a column.
        row = {key.encode(errors="backslashreplace").decode(): row[key] for key in row}
    level: list[Any] = [row]
    for _ in range(DEEPEST):
        values = (item.values() if isinstance(item, dict) else item for item in level)
        level = [
            value
            for value in itertools.chain.from_iterable(values)
            if isinstance(value, dict | list)
        ]
    if level:
        texts = {key: value for key, value in row.items() if isinstance(value, str)}
        return texts | {ERROR: f"nested more than {DEEPEST} levels deep"}
    return row


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


def _tables(path: Path, batch_rows: int) -> Iterator[pa.Table]:
    """Tables of at most `batch_rows` rows; the first is empty: a file without rows has columns."""
    import pyarrow.parquet as pq

    if path.suffix == ".parquet":
        file = pq.ParquetFile(path)
        schema = file.schema_arrow
        batches = file.iter_batches(batch_rows)
    else:
        source = pa.memory_map(str(path))
        try:
            reader = pa.ipc.open_file(source)
            batches = map(reader.get_batch, range(reader.num_record_batches))
        except pa.ArrowInvalid:
            source.seek(0)
            reader = pa.ipc.open_stream(source)
            batches = reader
        schema = reader.schema
    yield _decoded(schema.empty_table())
    for batch in batches:
        # Texts that are not UTF-8 would fail later, without the name of the file.
        batch.validate(full=True)
        table = _decoded(pa.Table.from_batches([batch]))
        for start in range(0, len(table), batch_rows):
            yield table.slice(start, batch_rows)


def _decoded(table: pa.Table) -> pa.Table:
    """The table without dictionaries: each file has its own, and one output cannot hold them."""
    kinds = map(_decoded_type, table.schema.types)
    return table.cast(pa.schema(zip(table.column_names, kinds, strict=True)))


def _decoded_type(kind: pa.DataType) -> pa.DataType:
    """The type of the values of a dictionary; any other type as it is."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _candidate_rows(
    path: Path, mentions: dict[Key, RowPosition]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The mentions of a file; `mentions` has where those of all files begin, to find repeated ones.

    Raises:
        UserError: a mention has no id, or its rows do not follow or contradict each other.
    """
    without_gold = 0
    for key, group in itertools.groupby(
        _cells(path), lambda numbered: (numbered[1].get("doc_id"), numbered[1].get("mention_id"))
    ):
        lines = list(group)
        position = RowPosition(path, lines[0][0])
        if not key[1]:
            raise UserError(f"{position}: mention_id is missing; give each mention its own")
        first = mentions.setdefault(key, position)
        if first is not position:
            raise UserError(
                f"{position}: mention_id {key[1]!r} was already used in {first}; sort the rows so "
                "that those of a mention follow each other in one file, and give each mention an "
                "id of its own"
            )
        mention = _mention(path, lines)
        without_gold += mention.get("cui") == CUI_LESS and lines[0][1].get("gold_cui") == ""
        yield position.number, mention
    if without_gold:
        warn_caller(
            f"{path}: a blank gold_cui counts as {CUI_LESS}: {without_gold:,} mentions; "
            "leave out the rows of mentions that nobody labelled"
        )


def sheet_rows(
    path: Path, *required: Sequence[str]
) -> Iterator[tuple[RowPosition, dict[str, str]]]:
    """The lines of a sheet that are not blank, as a program for tables may have written them.

    It may separate the cells by semicolons.

    Raises:
        UserError: the file cannot be read; names it.
    """
    with naming(path):
        with path.open(encoding="utf-8-sig") as stream:
            header = stream.readline()
        delimiter = max(";", DELIMITERS.get(path.suffix, ","), key=header.count)
        for number, row in table_rows(path, *required, delimiter=delimiter):
            cells = {column: cell.strip() for column, cell in row.items()}
            if any(cells.values()):
                yield RowPosition(path, number), cells


def table_rows(
    path: Path, *required: Sequence[str], delimiter: str | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The first line of each row of CSV or TSV, and its cells.

    The table has one of each of several alternative columns.
    """
    delimiter = delimiter or DELIMITERS[path.suffix]
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = read_table(path, stream, delimiter)
        _, columns = next(rows, (1, []))
        for name in columns:
            # Only the last would be read. Programs for tables leave several blank names.
            if name.strip() and columns.count(name) > 1:
                raise UserError(f"{path}: the first line names the column {name} more than once")
        for names in required:
            if not {*names} & {*columns}:
                raise UserError(
                    f"{path}: the first line names no column {' or '.join(names)}"
                    f"{_columns_found(columns, delimiter)}"
                )
        for number, cells in rows:
            yield number, dict(zip(columns, cells, strict=True))


def _columns_found(columns: Sequence[str], delimiter: str) -> str:
    """The columns of a table that lacks one, as the end of a message."""
    if not columns:
        return "; it has none"
    if columns[0][:1] in ("{", "["):
        return "; a file of JSON Lines must end in .jsonl"
    return f"; it has {reprlib.repr(list(columns))}, separated by {delimiter!r}"


def _cells(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The line of each row, and the values of its cells that are not blank, or ``gold_cui``."""
    for number, row in table_rows(path, *CANDIDATE_COLUMNS):
        keys = {"score": "list_score"} if "cui" in row else {"score": "list_score", "id": "cui"}
        yield (
            number,
            {
                keys.get(column, column): _cell_value(RowPosition(path, number), column, cell)
                for column, cell in row.items()
                if cell.strip() or column == "gold_cui"
            },
        )


def _mention_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a table of mentions, whose cells are texts but for those of gold concepts."""
    for number, row in table_rows(path, MENTION_COLUMNS):
        for key in (key for key in GOLD_KEYS if key in row):
            row[key] = gold_of_cell(RowPosition(path, number), key, row[key])
        yield number, row


def gold_of_cell(position: RowPosition, column: str, cell: str) -> Any:
    """The gold concepts in a cell: an id, alternatives as ``A|B``, or any of `gold_parts` as JSON.

    Raises:
        UserError: it begins like a list, and is none of ids.
    """
    if not cell.lstrip().startswith("["):
        ids = [part.strip() for part in cell.split("|")]
        return ids if len(ids) > 1 else cell
    with suppress(ValueError, RecursionError):
        gold = json.loads(cell)
        if gold_parts(gold) is not None:
            return gold
    raise UserError(
        f"{position}: {column} is {reprlib.repr(cell)}, which is no list of ids in JSON; "
        "write an id, alternatives as A|B, or a list"
    )


def _cell_value(position: RowPosition, column: str, cell: str) -> Any:
    """What a row in JSON would have in place of a cell."""
    if column in ("entity_type", "semantic_types"):
        return [part.strip() for part in cell.split("|") if part.strip()]
    if column in MARK_COLUMNS:
        mark = MARKS.get(cell.strip().lower())
        if mark is None:
            true_words = ", ".join(word for word, value in MARKS.items() if value is True)
            false_words = ", ".join(word for word, value in MARKS.items() if value is False)
            raise UserError(
                f"{position}: {column} is {reprlib.repr(cell)}; write {true_words}, "
                f"or {false_words}, or leave the cell blank"
            )
        return mark
    if column == "gold_cui":
        return gold_of_cell(position, column, cell)
    if column == "score" or column.endswith("_score"):
        # A text is refused with its row, like one in JSON.
        with suppress(ValueError):
            return float(cell)
    return cell


def _mention(path: Path, lines: Sequence[tuple[int, Mapping[str, Any]]]) -> dict[str, Any]:
    """The mention of successive rows, which may mark its gold concepts or hold ``gold_cui``.

    Raises:
        UserError: two of them say different things about it: they are of several mentions.
    """
    rows = [cells for _, cells in lines]
    about: dict[str, Any] = {}
    for number, cells in lines:
        for column in MENTION_CELLS:
            value = cells.get(column, "")
            if about.setdefault(column, value) == "":
                about[column] = value
            elif value not in (about[column], ""):
                raise UserError(
                    f"{path}:{number}: {column} is {reprlib.repr(value)}, but "
                    f"{reprlib.repr(about[column])} from line {lines[0][0]} on, which has the same "
                    f"mention_id, {about['mention_id']!r}; give each mention an id of its own"
                )
    mention = {key: about[column] for column, key in MENTION_CELLS.items() if about[column] != ""}
    if any("gold" in cells for cells in rows):
        gold = list(dict.fromkeys(cells.get("cui", "") for cells in rows if cells.get("gold")))
        marked = gold[0] if len(gold) == 1 else gold or CUI_LESS
        written = mention.get("cui", marked)
        if gold_parts(written) != gold_parts(marked):
            raise UserError(
                f"{path}:{lines[0][0]}: gold marks {marked}, but gold_cui is {written}; let one of "
                "the two stand"
            )
        mention["cui"] = marked
    elif any("gold_cui" in cells for cells in rows):
        mention.setdefault("cui", CUI_LESS)
    of_mentions = {*MENTION_CELLS, "gold"}
    candidates = []
    for cells in rows:
        if "name" in cells or "cui" in cells:
            candidates.append({key: cells[key] for key in cells if key not in of_mentions})
    mention["candidates"] = candidates
    return mention
