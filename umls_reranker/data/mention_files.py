"""Files of mentions with their candidates, JSON Lines, CSV, Parquet or Arrow, read in batches by `datasets`.

JSON Lines are read as lines, not as columns: an absent key stays absent, and a line can be written unchanged. CSV and
TSV, with one row per candidate, are read as equivalent lines of JSON.
"""

from __future__ import annotations

import glob
import json
import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from ..core.errors import UserError
from ..core.lines import BYTE_ORDER_MARK, Malformed, decode, is_finite, of_characters
from ..core.progress import progress
from ..core.settings import SCORES
from .candidate_lists import CandidateLists
from .candidate_rows import check_header, read_candidate_rows
from .dictionary import Dictionary
from .list_columns import MENTION, MENTION_FIELDS, entity_of, objects, table_rows, with_entity
from .semantic_types import TypeHierarchy

if TYPE_CHECKING:
    from datasets import Features, IterableDataset

# By file extension; .arrow and .feather are Arrow's IPC format, as a file or a stream.
OUTPUT_FORMATS = {".jsonl": "jsonl", ".parquet": "parquet", ".arrow": "arrow", ".feather": "arrow"}
FORMATS = OUTPUT_FORMATS | {".csv": "csv", ".tsv": "csv"}
PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")
# The column that ranking adds.
RANKED = "ranked"
RERANKED = f"already has the column {RANKED}, so it was reranked before; give the original file or rename the column"
# Columns of the batches of JSON Lines and CSV: a line as JSON, and the number of the line where it starts.
LINE, NUMBER = "line", "number"
# Rows of which the CUIs are read at once.
CUI_BATCH = 1_024


class RowPosition(NamedTuple):
    """A row of a file, for messages; rows count from 1."""

    path: Path
    number: int

    def __str__(self) -> str:
        return f"{self.path}{':' if _has_lines(self.path) else ', row '}{self.number}"


@dataclass(frozen=True)
class MentionBatch:
    """Successive rows of a file.

    Attributes:
        path: the file.
        start: number of the file's rows before these.
        table: the rows; for JSON Lines and CSV, lines of JSON as bytes, and their numbers.
        dictionary: completes the candidates.
    """

    path: Path
    start: int
    table: pa.Table
    dictionary: Dictionary | None = None

    def __len__(self) -> int:
        return self.table.num_rows

    def position(self, row: int) -> RowPosition:
        """Position of a row of the batch."""
        number = self.table[NUMBER][row].as_py() if _has_lines(self.path) else self.start + row + 1
        return RowPosition(self.path, number)

    def lines(self) -> list[bytes]:
        """The rows as lines of JSON, unchanged if the file is JSON Lines."""
        return self.table[LINE].to_pylist()

    def rows(self, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """The rows as Python objects.

        Args:
            columns: columns of a table to read, if it has them, with ``mention`` as ``entity``; None reads all, under
                their own names.

        Raises:
            ValueError: a line is not a mention, or a column holds values that Python lacks.
        """
        if _has_lines(self.path):
            return [_mention(line) for line in self.lines()]
        table = self.table
        if columns is not None:
            table = with_entity(table)
            table = table.select([name for name in columns if name in table.column_names])
        return table_rows(table, "{name}, {kind}, cannot be read ({error}); convert it to strings or remove it")

    def mentions(self, columns: Sequence[str]) -> list[dict[str, Any]]:
        """The rows as Python objects, completed by the dictionary; arguments and errors are those of `rows`."""
        rows = self.rows(columns)
        return rows if self.dictionary is None else self.dictionary.add_to(rows)

    def lists(self, hierarchy: TypeHierarchy, scores: Iterable[str] = SCORES) -> CandidateLists:
        """The rows as candidate lists, completed by the dictionary.

        Args:
            hierarchy: as for `CandidateLists.from_objects`.
            scores: as for `CandidateLists.from_objects`.

        Raises:
            TypeError: a row cannot be ranked (`CandidateLists.from_objects`).
            ValueError: a row cannot be read or ranked.
        """
        if self.dictionary is not None or _has_lines(self.path):
            return CandidateLists.from_rows(hierarchy, self.mentions(MENTION_FIELDS), scores)
        return CandidateLists.from_table(hierarchy, self.table, scores)

    def candidate_cuis(self) -> set[str]:
        """The CUIs of all candidates, except in malformed rows."""
        lists: list[Any] = []
        if _has_lines(self.path):
            for line in self.lines():
                with suppress(ValueError):
                    lists.append(read_line(line)["candidates"])
        else:
            with suppress(ValueError):
                lists = objects("candidates", self.table["candidates"])
        candidates = (item for items in lists if isinstance(items, list) for item in items if isinstance(item, dict))
        return {item["cui"] for item in candidates if isinstance(item.get("cui"), str)}

    def faults(self, hierarchy: TypeHierarchy, scores: Iterable[str] = SCORES) -> Iterator[tuple[int, str]]:
        """Each row that cannot be ranked, with the reason."""
        for row in range(len(self)):
            try:
                replace(self, table=self.table.slice(row, 1)).lists(hierarchy, scores)
            except (TypeError, ValueError) as error:
                yield row, str(error)

    def without(self, rows: Collection[int]) -> MentionBatch:
        """The batch without some of its rows."""
        # Slices, because not every column type can be filtered.
        retained = [self.table.slice(row, 1) for row in range(len(self)) if row not in rows]
        return replace(self, table=pa.concat_tables([self.table.slice(0, 0), *retained]))


@dataclass(frozen=True)
class MentionFiles:
    """One file, or the files of a folder in the order of their names.

    Attributes:
        paths: the files, of one format.
        features: columns and types of tables; None for JSON Lines and CSV.
        dictionary: dictionary of the batches.
    """

    paths: Sequence[Path]
    features: Features | None
    dictionary: Dictionary | None = None

    def batches(self, rows: int) -> Iterator[MentionBatch]:
        """Yield all rows in order, in batches of at most `rows`; a batch does not span two files.

        Raises:
            UserError: a file is damaged.
        """
        for path in self.paths:
            start = 0
            with _naming(path):
                for table in _stream(path, rows).with_format("arrow").iter(rows):
                    yield MentionBatch(path, start, table, self.dictionary)
                    start += table.num_rows

    def with_dictionary(self, umls_dir: Path | None, further_cuis: Collection[str] = ()) -> MentionFiles:
        """The same files, with candidates completed from a UMLS folder (`Dictionary`).

        The files are read once for their CUIs, so memory holds only these concepts.

        Args:
            umls_dir: the folder; None adds nothing.
            further_cuis: further concepts to read.

        Raises:
            UserError: as for `Dictionary.from_umls_dir`, or a file is damaged.
        """
        if umls_dir is None:
            return self
        return replace(self, dictionary=Dictionary.from_umls_dir(umls_dir, self._candidate_cuis().union(further_cuis)))

    def _candidate_cuis(self) -> set[str]:
        cuis: set[str] = set()
        with progress(desc="reading CUIs of candidates", unit=" mentions") as bar:
            for batch in self.batches(CUI_BATCH):
                cuis |= batch.candidate_cuis()
                bar.update(len(batch))
        return cuis


def open_mentions(path: Path) -> MentionFiles:
    """Open a file of mentions, or a folder of files of one format.

    Args:
        path: a file whose ending is one of `FORMATS`, or a folder of such files.

    Raises:
        UserError: the file does not exist, is a pipe, has another format, or cannot be read; columns are missing, or
            files of a folder have other columns than the first; or a file of the folder is compressed.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist; give mentions as {', '.join(FORMATS)}")
    if not path.is_file() and not path.is_dir():
        raise UserError(f"{path} is a pipe or a device, but mentions are read twice; write them to a file first")
    content = sorted(path.iterdir()) if path.is_dir() else [path]
    packed = [file for file in content if file.suffix in PACKED and file.stem.endswith((*FORMATS,))]
    if packed and path.is_dir():
        raise UserError(f"{packed[0]} would be ignored; unpack it or move it out of the folder")
    files = [file for file in content if file.suffix in FORMATS]
    if len({FORMATS[file.suffix] for file in files}) != 1:
        raise UserError(
            f"{path} has an unknown format, or is a folder of several formats; give mentions as {', '.join(FORMATS)}"
        )
    for file in files:
        if FORMATS[file.suffix] == "csv":
            with _naming(file):
                has_ranked = RANKED in check_header(file)
            if has_ranked:
                raise UserError(f"{file} {RERANKED}")
    return MentionFiles(files, None if _has_lines(files[0]) else _features(files))


def _features(paths: Sequence[Path]) -> Features:
    """Columns and types of tables."""
    with _naming(paths[0]):
        features = _stream(paths[0]).features
    for path in paths[1:]:
        with _naming(path):
            is_other = _stream(path).features != features
        if is_other:
            raise UserError(
                f"{path} differs from {paths[0]} in columns or types; use one schema for all files of a folder"
            )
    require_mentions(paths[0], features)
    return features


def require_mentions(table: Path | str, columns: Collection[str]) -> None:
    """Refuse a table, called so in messages, that lacks columns of mentions, or was reranked before."""
    missing = [] if {"entity", MENTION} & set(columns) else ["entity (or mention)"]
    if "candidates" not in columns:
        missing.append("candidates")
    if missing:
        raise UserError(f"{table}: missing columns: {', '.join(missing)}")
    if RANKED in columns:
        raise UserError(f"{table} {RERANKED}")


def _stream(path: Path, batch_rows: int = 1) -> IterableDataset:
    """The rows of a file; at most `batch_rows` rows of Parquet are read at once."""
    from datasets import Features, IterableDataset, Value, load_dataset

    if _has_lines(path):
        features = Features({LINE: Value("binary"), NUMBER: Value("int64")})
        return IterableDataset.from_generator(_read_lines, features=features, gen_kwargs={"path": path})
    # `datasets` also logs what it raises.
    logging.getLogger("datasets.packaged_modules").setLevel(logging.CRITICAL)
    kind = FORMATS[path.suffix]
    options = {"batch_size": batch_rows} if kind == "parquet" else {}
    return load_dataset(kind, data_files=glob.escape(str(path)), split="train", streaming=True, **options)


def _read_lines(path: Path) -> Iterator[dict[str, Any]]:
    if FORMATS[path.suffix] == "csv":
        for number, mention in read_candidate_rows(path):
            yield {LINE: json.dumps(mention, ensure_ascii=False).encode(), NUMBER: number}
        return
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            yield {LINE: line, NUMBER: number}


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn errors about an unreadable file into one that names it."""
    try:
        yield
    except (OSError, ValueError, LookupError) as error:
        raise UserError(f"{path} cannot be read as {FORMATS[path.suffix]} ({error}); it may be truncated") from None


def _has_lines(path: Path) -> bool:
    return FORMATS.get(path.suffix) in ("jsonl", "csv")


def _mention(line: bytes) -> dict[str, Any]:
    row = read_line(line)
    if RANKED in row:
        raise ValueError(RERANKED)
    return row


def read_line(line: bytes) -> dict[str, Any]:
    """The JSON object of a line, with ``candidates`` and ``entity``, which may be called ``mention`` in the line.

    Raises:
        ValueError: the line is not such an object, or a text holds half of a surrogate pair.
    """
    try:
        text = decode(line.removeprefix(BYTE_ORDER_MARK).rstrip(b"\r\n"))
        row = json.loads(text)
    except Malformed as problem:
        raise ValueError(str(problem)) from None
    except json.JSONDecodeError as error:
        raise ValueError(
            f"not JSON ({error.msg} at character {error.pos + 1}); write one JSON object per line"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error}); write one JSON object per line") from None
    if not isinstance(row, dict):
        raise ValueError('JSON, but not an object; write {"entity": "cold", "candidates": ["Common Cold"]}')
    row["entity"] = entity_of(row)
    if "candidates" not in row:
        raise ValueError("lacks candidates, the list to rank")
    # Only an escape can encode a lone surrogate, and all of these begin with a D.
    if "\\ud" in text or "\\uD" in text:
        of_characters(json.dumps(row, ensure_ascii=False))
    return row


def id_text(value: Any) -> str | None:
    """An id as text, the same after a spreadsheet turned 7 into 7.0, or a blank cell into NaN."""
    if isinstance(value, float):
        value = (int(value) if value.is_integer() else value) if is_finite(value) else None
    return None if value is None else str(value).strip() or None
