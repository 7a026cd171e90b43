"""Files of mentions with their candidates, JSON Lines, Parquet or Arrow, read in pieces of constant size."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import UserError
from ..core.lines import of_characters
from ..core.retrievers import SCORES
from .candidate_lists import CandidateLists
from .list_columns import MENTION_FIELDS, table_rows
from .semantic_types import TypeHierarchy

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "CHUNK_BYTES",
    "FORMATS",
    "RANKED",
    "RERANKED",
    "JsonLines",
    "MentionFile",
    "Tables",
    "open_mentions",
    "open_tables",
    "read_line",
]

# By ending of the name; .arrow and .feather are Arrow's IPC format, as a file or a stream.
FORMATS = {".jsonl": "jsonl", ".parquet": "parquet", ".arrow": "arrow", ".feather": "arrow"}
PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")
# The column that ranking adds.
RANKED = "ranked"
RERANKED = f"has {RANKED} already, so it was reranked before; give the original file, or rename that column"
CHUNK_BYTES = 1 << 22


class MentionFile(ABC):
    """Mentions in one file or in the files of a folder, in the order of their names.

    Attributes:
        paths: the files.
        rows: mentions in all.
    """

    paths: list[Path]
    rows: int

    @abstractmethod
    def read(self, start: int, stop: int, most: int) -> Iterator[tuple[int, Any]]:
        """Rows `start` to `stop` in pieces of at most `most`: the first row's number, and the piece."""

    @abstractmethod
    def objects(self, piece: Any) -> list[dict[str, Any]]:
        """The rows of a piece as Python objects.

        Raises:
            ValueError: a row cannot be read.
        """

    @abstractmethod
    def lists(self, piece: Any, hierarchy: TypeHierarchy, scores: Iterable[str] = SCORES) -> CandidateLists:
        """The rows of a piece as candidate lists.

        Args:
            scores: as for `CandidateLists.from_objects`.

        Raises:
            TypeError, ValueError: a row cannot be read, or not be ranked (`CandidateLists.from_objects`).
        """

    @abstractmethod
    def part(self, piece: Any, start: int, stop: int) -> Any:
        """Some rows of a piece."""

    def faults(self, piece: Any, hierarchy: TypeHierarchy, scores: Iterable[str] = SCORES) -> dict[int, str]:
        """The faults of rows that cannot be ranked, by position in a piece."""
        try:
            self.lists(piece, hierarchy, scores)
        except (TypeError, ValueError) as error:
            if len(piece) == 1:
                return {0: str(error)}
            half = len(piece) // 2
            first, second = (
                self.faults(self.part(piece, *span), hierarchy, scores) for span in ((0, half), (half, len(piece)))
            )
            return first | {half + place: reason for place, reason in second.items()}
        return {}

    @abstractmethod
    def without(self, piece: Any, places: list[int]) -> Any:
        """The piece without these rows, ascending from 0."""

    @abstractmethod
    def place(self, row: int) -> str:
        """File and line or row, for messages; lines and rows count from 1."""


def open_mentions(path: Path, shard_rows: int) -> MentionFile:
    """Open a file of mentions, or a folder of files of one format.

    Args:
        path: by its name's ending one of `FORMATS`, or a folder of such files.
        shard_rows: pieces will start at multiples of this.

    Raises:
        UserError: the file does not exist, is a pipe, has another format, or cannot be read; or a file of the folder
            is packed.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise UserError(f"{path} is a pipe or a device, and mentions are read twice; write them to a file first")
    inside = sorted(path.iterdir()) if path.is_dir() else [path]
    files = [file for file in inside if file.suffix in FORMATS or file == path]
    packed = [file for file in inside if file.suffix in PACKED and file.stem.endswith((*FORMATS,))]
    if packed and path.is_dir():
        raise UserError(f"{packed[0]} would be left out; unpack it, or take it out of the folder")
    formats = {FORMATS.get(file.suffix) for file in files}
    if not path.exists() or len(formats) != 1 or None in formats:
        reason = "does not exist" if not path.exists() else "is of no known kind, or a folder of several"
        raise UserError(f"{path} {reason}; give mentions as {', '.join(FORMATS)}")
    kind = formats.pop()
    if kind == "jsonl":
        return JsonLines(files, shard_rows)
    try:
        tables = open_tables(kind, files)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as {kind} ({error}); is it whole?") from None
    if RANKED in tables.schema.names:
        raise UserError(f"{path} {RERANKED}")
    return tables


class JsonLines(MentionFile):
    def __init__(self, paths: list[Path], shard_rows: int) -> None:
        self.paths, self._shard_rows = paths, shard_rows
        # The file and byte where each shard starts, so that a shard is found without reading earlier ones.
        self._starts: list[tuple[int, int]] = []
        self._first_rows = []
        self.rows = 0
        for number, path in enumerate(paths):
            self._first_rows.append(self.rows)
            self._count(number, path)

    def _count(self, number: int, path: Path) -> None:
        at, last = 0, b"\n"
        with path.open("rb") as stream:
            line_starts = np.zeros(1, np.int64)
            while chunk := stream.read(CHUNK_BYTES):
                if last == b"\n" and at:
                    line_starts = np.append(line_starts, at)
                newlines = np.flatnonzero(np.frombuffer(chunk, np.uint8) == ord("\n")) + at + 1
                at, last = at + len(chunk), chunk[-1:]
                starts = np.concatenate([line_starts, newlines[newlines < at]])
                numbers = self.rows + np.arange(len(starts))
                self._starts += [(number, int(start)) for start in starts[numbers % self._shard_rows == 0]]
                self.rows += len(starts)
                line_starts = np.empty(0, np.int64)

    def read(self, start: int, stop: int, most: int) -> Iterator[tuple[int, list[bytes]]]:
        number, offset = self._starts[start // self._shard_rows]
        row, lines = start, []
        for path in self.paths[number:]:
            with path.open("rb") as stream:
                stream.seek(offset)
                for line in stream:
                    lines.append(line)
                    if len(lines) == most or row + len(lines) == stop:
                        yield row, lines
                        row, lines = row + len(lines), []
                    if row == stop:
                        return
            offset = 0

    def objects(self, piece: list[bytes]) -> list[dict[str, Any]]:
        return list(map(_mention, piece))

    def lists(self, piece: list[bytes], hierarchy: TypeHierarchy, scores: Iterable[str] = SCORES) -> CandidateLists:
        return CandidateLists.from_rows(hierarchy, self.objects(piece), scores)

    def part(self, piece: list[bytes], start: int, stop: int) -> list[bytes]:
        return piece[start:stop]

    def without(self, piece: list[bytes], places: list[int]) -> list[bytes]:
        left_out = set(places)
        return [line for place, line in enumerate(piece) if place not in left_out]

    def place(self, row: int) -> str:
        number = int(np.searchsorted(self._first_rows, row, "right")) - 1
        return f"{self.paths[number]}:{row - self._first_rows[number] + 1}"


def _mention(line: bytes) -> dict[str, Any]:
    row = read_line(line)
    if RANKED in row:
        raise ValueError(RERANKED)
    return row


def read_line(line: bytes) -> dict[str, Any]:
    """The JSON object of a line, which has ``entity`` and ``candidates``.

    Raises:
        ValueError: the line is something else, or a text holds half of a surrogate pair.
    """
    try:
        text = line.decode("utf-8-sig")
        row = json.loads(text)
        row["entity"], row["candidates"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError('expected a JSON object with "entity" and "candidates", in UTF-8') from None
    # Only an escape can encode half of a surrogate pair.
    if "\\u" in text:
        of_characters(json.dumps(row, ensure_ascii=False))
    return row


class Tables(MentionFile):
    """Columns ``entity`` and ``candidates`` (lists of names, or of structs with ``name``), others as they are.

    Attributes:
        as_objects: whether a value that Python cannot hold, such as a date in the year 300,000, is a fault of its row.
    """

    as_objects = False

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        headers = [self._header(path) for path in paths]
        self.schema = headers[0][0]
        for path, (schema, _) in zip(paths, headers, strict=True):
            if not schema.equals(self.schema):
                raise UserError(
                    f"{path} has other columns or types than {paths[0]}; give the files of a folder one schema"
                )
        repeated = next((name for name, count in Counter(self.schema.names).items() if count > 1), None)
        if repeated is not None:
            raise UserError(f"{paths[0]} has several columns {repeated}; give each a name of its own")
        missing = [name for name in MENTION_FIELDS[:2] if name not in self.schema.names]
        if missing:
            raise UserError(f"{paths[0]}: the columns {', '.join(missing)} are missing")
        self._first_rows = np.cumsum([0, *(rows for _, rows in headers)]).tolist()
        self.rows = self._first_rows[-1]

    def read(self, start: int, stop: int, most: int) -> Iterator[tuple[int, pa.Table]]:
        import pyarrow as pa

        held: list[pa.Table] = []
        row = start
        for number, first in enumerate(self._first_rows[:-1]):
            from_row, to_row = max(start - first, 0), min(stop, self._first_rows[number + 1]) - first
            if from_row >= to_row:
                continue
            for table in self._whole_tables(number, from_row, to_row):
                while table.num_rows:
                    room = most - sum(part.num_rows for part in held)
                    held.append(table.slice(0, room))
                    table = table.slice(room)
                    if held[-1].num_rows == room:
                        yield row, pa.concat_tables(held)
                        row, held = row + most, []
        if held:
            yield row, pa.concat_tables(held)

    def _whole_tables(self, number: int, start: int, stop: int) -> Iterator[pa.Table]:
        try:
            yield from self._tables(number, start, stop)
        except (OSError, ValueError) as error:
            raise UserError(f"{self.paths[number]} cannot be read ({error}); is it whole?") from None

    def objects(self, piece: pa.Table) -> list[dict[str, Any]]:
        return table_rows(piece, "JSON cannot show {name}, {kind} ({error}); write .parquet or .arrow")

    def lists(self, piece: pa.Table, hierarchy: TypeHierarchy, scores: Iterable[str] = SCORES) -> CandidateLists:
        if self.as_objects:
            self.objects(piece)
        return CandidateLists.from_table(hierarchy, piece, scores)

    def part(self, piece: pa.Table, start: int, stop: int) -> pa.Table:
        return piece.slice(start, stop - start)

    def without(self, piece: pa.Table, places: list[int]) -> pa.Table:
        import pyarrow as pa

        # Slices, because not every column type can be filtered.
        spans = pairwise([-1, *places, piece.num_rows])
        return pa.concat_tables([piece.slice(before + 1, after - before - 1) for before, after in spans])

    def place(self, row: int) -> str:
        number = int(np.searchsorted(self._first_rows, row, "right")) - 1
        return f"{self.paths[number]}, row {row - self._first_rows[number] + 1}"

    @abstractmethod
    def _header(self, path: Path) -> tuple[pa.Schema, int]:
        """Columns and number of rows."""

    @abstractmethod
    def _tables(self, number: int, start: int, stop: int) -> Iterator[pa.Table]: ...


class _ParquetFiles(Tables):
    def _header(self, path: Path) -> tuple[pa.Schema, int]:
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            return file.schema_arrow, file.metadata.num_rows

    def _tables(self, number: int, start: int, stop: int) -> Iterator[pa.Table]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.paths[number]) as file:
            ends = np.cumsum([file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)])
            first, last = np.searchsorted(ends, start, "right"), np.searchsorted(ends, stop, "left")
            row = int(ends[first - 1]) if first else 0
            for batch in file.iter_batches(row_groups=range(first, last + 1), batch_size=1024):
                from_row, to_row = max(start - row, 0), min(stop - row, batch.num_rows)
                if from_row < to_row:
                    yield pa.table(batch.slice(from_row, to_row - from_row))
                row += batch.num_rows
                if row >= stop:
                    return


class _ArrowFiles(Tables):
    def _header(self, path: Path) -> tuple[pa.Schema, int]:
        table = self._open(path)
        return table.schema, table.num_rows

    def _tables(self, number: int, start: int, stop: int) -> Iterator[pa.Table]:
        yield self._open(self.paths[number]).slice(start, stop - start)

    def _open(self, path: Path) -> pa.Table:
        import pyarrow as pa

        source = pa.memory_map(str(path))
        try:
            return pa.ipc.open_file(source).read_all()
        except pa.ArrowInvalid:
            return pa.ipc.open_stream(pa.memory_map(str(path))).read_all()


def open_tables(kind: str | None, paths: list[Path]) -> Tables:
    """Files of one kind, "parquet" or "arrow", with one schema, in order."""
    return (_ParquetFiles if kind == "parquet" else _ArrowFiles)(paths)
