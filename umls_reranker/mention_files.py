"""Files of mentions with their candidates, JSON Lines, Parquet or Arrow, read in pieces of constant size."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["FORMATS", "RANKED_FIELDS", "MentionFile", "joined", "open_mentions", "with_ranked", "write_shard"]

# By ending of the name; .arrow and .feather are Arrow's IPC format, as a file or a stream.
FORMATS = {".jsonl": "jsonl", ".parquet": "parquet", ".arrow": "arrow", ".feather": "arrow"}
RANKED_FIELDS = ("name", "cui", "score", "margin", "logit", "tier", "accepted")
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
    def mentions(self, piece: Any, first: int) -> list[dict[str, Any]]:
        """The rows of a piece as mappings with ``entity``, ``candidates`` and what else a call of rerank takes.

        Raises:
            UserError: a row has no entity or candidates.
        """

    @abstractmethod
    def place(self, row: int) -> str:
        """File and line or row, for messages; lines and rows count from 1."""


def open_mentions(path: Path, shard_rows: int) -> MentionFile:
    """Open a file of mentions, or a folder of files of one format.

    Args:
        path: by its name's ending one of `FORMATS`, or a folder of such files.
        shard_rows: pieces will start at multiples of this.

    Raises:
        UserError: no such file, another format, or a file that cannot be read.
    """
    files = sorted(file for file in path.iterdir() if file.suffix in FORMATS) if path.is_dir() else [path]
    formats = {FORMATS.get(file.suffix) for file in files}
    if not path.exists() or len(formats) != 1 or None in formats:
        reason = "does not exist" if not path.exists() else "is no file (or folder of files of one kind)"
        raise UserError(f"{path} {reason}; give mentions as {', '.join(FORMATS)}")
    kind = formats.pop()
    if kind == "jsonl":
        return _JsonLines(files, shard_rows)
    try:
        return (_ParquetFiles if kind == "parquet" else _ArrowFiles)(files)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as {kind} ({error}); is it whole?") from None


class _JsonLines(MentionFile):
    def __init__(self, paths: list[Path], shard_rows: int) -> None:
        self.paths, self._shard_rows = paths, shard_rows
        # Where each shard starts, file and byte, so that any shard is found without reading those before it.
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

    def mentions(self, piece: list[bytes], first: int) -> list[dict[str, Any]]:
        rows = []
        for number, line in enumerate(piece, first):
            try:
                row = json.loads(line)
                row["entity"], row["candidates"]
            except (ValueError, KeyError, TypeError):
                raise UserError(
                    f'{self.place(number)}: expected a JSON object with "entity" and "candidates"'
                ) from None
            rows.append(row)
        return rows

    def place(self, row: int) -> str:
        number = int(np.searchsorted(self._first_rows, row, "right")) - 1
        return f"{self.paths[number]}:{row - self._first_rows[number] + 1}"


class _Tables(MentionFile):
    """Columns ``entity`` and ``candidates`` (lists of names, or of structs with ``name``), others as they are."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        self._sizes = [self._size(path) for path in paths]
        self._first_rows = np.concatenate([[0], np.cumsum(self._sizes)]).tolist()
        self.rows = self._first_rows[-1]

    def read(self, start: int, stop: int, most: int) -> Iterator[tuple[int, pa.Table]]:
        import pyarrow as pa

        held, row = [], start
        for number, first in enumerate(self._first_rows[:-1]):
            from_row, to_row = max(start - first, 0), min(stop - first, self._sizes[number])
            if from_row >= to_row:
                continue
            for table in self._tables(number, from_row, to_row):
                while table.num_rows:
                    room = most - sum(part.num_rows for part in held)
                    held.append(table.slice(0, room))
                    table = table.slice(room)
                    if held[-1].num_rows == room:
                        yield row, pa.concat_tables(held)
                        row, held = row + most, []
        if held:
            yield row, pa.concat_tables(held)

    def mentions(self, piece: pa.Table, first: int) -> list[dict[str, Any]]:
        missing = {"entity", "candidates"} - set(piece.column_names)
        if missing:
            raise UserError(f"{self.place(first)}: the columns {', '.join(sorted(missing))} are missing")
        used = [
            name for name in ("entity", "candidates", "entity_type", "left", "right") if name in piece.column_names
        ]
        return piece.select(used).to_pylist()

    def place(self, row: int) -> str:
        number = int(np.searchsorted(self._first_rows, row, "right")) - 1
        return f"{self.paths[number]}, row {row - self._first_rows[number] + 1}"

    @abstractmethod
    def _size(self, path: Path) -> int: ...

    @abstractmethod
    def _tables(self, number: int, start: int, stop: int) -> Iterator[pa.Table]: ...


class _ParquetFiles(_Tables):
    def _size(self, path: Path) -> int:
        import pyarrow.parquet as pq

        return pq.read_metadata(path).num_rows

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


class _ArrowFiles(_Tables):
    def _size(self, path: Path) -> int:
        return self._open(path).num_rows

    def _tables(self, number: int, start: int, stop: int) -> Iterator[pa.Table]:
        yield self._open(self.paths[number]).slice(start, stop - start)

    def _open(self, path: Path) -> pa.Table:
        import pyarrow as pa

        source = pa.memory_map(str(path))
        try:
            return pa.ipc.open_file(source).read_all()
        except pa.ArrowInvalid:
            return pa.ipc.open_stream(pa.memory_map(str(path))).read_all()


def write_shard(path: Path, pieces: Iterator[tuple[Any, list[dict[str, Any]], list[list[dict[str, Any]]]]]) -> None:
    """Write ranked pieces beside `path` and rename.

    Args:
        path: by its ending one of `FORMATS`.
        pieces: what was read, its mentions, and for each its ranked candidates as mappings of `RANKED_FIELDS`.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        if FORMATS[path.suffix] == "jsonl":
            with partial.open("w", encoding="utf-8") as stream:
                for piece, mentions, ranked in pieces:
                    rows = mentions if isinstance(piece, list) else piece.to_pylist()
                    for row, candidates in zip(rows, ranked, strict=True):
                        stream.write(json.dumps(row | {"ranked": candidates}, ensure_ascii=False, default=str) + "\n")
        else:
            _write_tables(partial, FORMATS[path.suffix], (with_ranked(piece, ranked) for piece, _, ranked in pieces))
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    partial.replace(path)


def joined(shards: Sequence[Path], target: Path) -> None:
    """Join shards into one file beside `target` and rename; memory holds a piece at a time."""
    partial = target.with_name(f".{target.name}.partial")
    kind = FORMATS[target.suffix]
    if kind == "jsonl":
        with partial.open("wb") as stream:
            for shard in shards:
                with shard.open("rb") as source:
                    while chunk := source.read(CHUNK_BYTES):
                        stream.write(chunk)
    else:
        files = (_ParquetFiles if kind == "parquet" else _ArrowFiles)(list(shards))
        _write_tables(partial, kind, (table for _, table in files.read(0, files.rows, 10_000)))
    partial.replace(target)


def _write_tables(path: Path, kind: str, tables: Iterator[pa.Table]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    first = next(tables)
    opened = pq.ParquetWriter(path, first.schema) if kind == "parquet" else pa.ipc.new_file(path, first.schema)
    with opened as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(table)


def with_ranked(table: pa.Table, ranked: list[list[dict[str, Any]]]) -> pa.Table:
    """The table with the ranked candidates of each row, a list of structs of `RANKED_FIELDS`."""
    import pyarrow as pa

    kinds = (pa.string(), pa.string(), pa.float64(), pa.float64(), pa.float64(), pa.string(), pa.bool_())
    kind = pa.list_(pa.struct(list(zip(RANKED_FIELDS, kinds, strict=True))))
    return table.append_column("ranked", pa.array(ranked, kind))
