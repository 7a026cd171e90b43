"""Write files of mentions with ranked candidates, as read by `data.mention_files`."""

from __future__ import annotations

import json
from base64 import b64encode
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import UserError
from ..core.files import strict, written
from ..data.mention_files import CHUNK_BYTES, FORMATS, RANKED, RERANKED, JsonLines, MentionFile, Tables, open_tables

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["check_columns", "joined", "with_ranked", "write_shard"]


def check_columns(mentions: MentionFile, target: Path) -> None:
    """Check in advance that a file of mentions can be written to `target`; values are checked as rows are read.

    Raises:
        UserError: the formats do not match, the target is a folder, or the format lacks the type of a column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = FORMATS.get(target.suffix)
    if kind is None:
        raise UserError(f"{target}: the output's name must end in one of {', '.join(FORMATS)}")
    if target.is_dir():
        raise UserError(f"{target} is a folder; the output is one file")
    if kind != "jsonl" and isinstance(mentions, JsonLines):
        raise UserError(f"{target}: JSON Lines have no column types, so their output is .jsonl too")
    if isinstance(mentions, Tables):
        mentions.as_objects = kind == "jsonl"
    if kind == "parquet" and isinstance(mentions, Tables):
        try:
            pq.ParquetWriter(pa.BufferOutputStream(), mentions.schema).close()
        except pa.ArrowNotImplementedError as error:
            raise UserError(f"{target}: {error}; write .arrow, or leave that column out") from None


def write_shard(path: Path, pieces: Iterator[tuple[Any, pa.ListArray]]) -> None:
    """Write ranked pieces atomically.

    Args:
        path: its ending is one of `FORMATS`.
        pieces: the input, and the `ranked_column` of its rows.
    """
    # A process that outlives its run must not write into the next run's file.
    with written(path, shared=True) as partial:
        if FORMATS[path.suffix] == "jsonl":
            with partial.open("wb") as stream:
                for piece, ranked in pieces:
                    rows = piece if isinstance(piece, list) else piece.to_pylist()
                    stream.writelines(map(_line, rows, ranked.to_pylist()))
        else:
            tables = (with_ranked(piece, ranked) for piece, ranked in pieces)
            first = next(tables)
            _write_tables(partial, FORMATS[path.suffix], first.schema, chain([first], tables))


def _line(row: bytes | dict[str, Any], ranked: list[dict[str, Any]]) -> bytes:
    """A line of JSON unchanged, or a row of a table, with the ranked candidates at the end."""
    if isinstance(row, dict):
        row = json.dumps(strict(row), ensure_ascii=False, default=_as_text).encode()
    ending = json.dumps(ranked, ensure_ascii=False).encode()
    return b'%s, "%s": %s}\n' % (row.removeprefix(BOM_UTF8).strip().removesuffix(b"}"), RANKED.encode(), ending)


def _as_text(value: Any) -> str:
    """Values without a JSON type: bytes in base64; dates, times and decimals as Python shows them."""
    return b64encode(value).decode() if isinstance(value, bytes) else str(value)


def joined(shards: Sequence[Path], target: Path) -> int:
    """Join shards into one file, one piece at a time; returns the number of rows."""
    kind = FORMATS[target.suffix]
    if kind != "jsonl":
        files = open_tables(kind, list(shards))
        _write_tables(target, kind, files.schema, (table for _, table in files.read(0, files.rows, 10_000)))
        return files.rows
    rows = 0
    with target.open("wb") as stream:
        for shard in shards:
            with shard.open("rb") as source:
                while chunk := source.read(CHUNK_BYTES):
                    rows += chunk.count(b"\n")
                    stream.write(chunk)
    return rows


def _write_tables(path: Path, kind: str, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if kind == "parquet":
        with pq.ParquetWriter(path, schema) as writer:
            for table in tables:
                writer.write_table(table)
        return
    with pa.ipc.new_file(path, schema, options=pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)) as writer:
        former = schema.empty_table()
        for table in tables:
            # In Arrow files a dictionary may grow, not change.
            try:
                table = pa.concat_tables([former, table]).unify_dictionaries().slice(former.num_rows)
                writer.write_table(table)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise UserError(f"{error}; an Arrow file cannot hold these columns, write .parquet") from None
            former = table.slice(0, 1) if table.num_rows else former


def with_ranked(table: pa.Table, ranked: pa.ListArray) -> pa.Table:
    """The table with the `ranked_column` of its rows."""
    if RANKED in table.column_names:
        raise UserError(f"the table {RERANKED}")
    return table.append_column(RANKED, ranked)
