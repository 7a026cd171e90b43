"""Arrow tables in the layout of `datasets.Dataset.save_to_disk`, written batch by batch.

`Dataset.save_to_disk` needs the whole dataset first, and `Dataset.from_generator` uses a cache. This writer needs
memory for one batch and writes the same bytes for the same rows, whatever the batches.
"""

from __future__ import annotations

import json
import mmap
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from ..core.errors import UserError
from ..core.files import partial_path, written

if TYPE_CHECKING:
    from datasets import Features

DATA_FILE = "data-00000-of-00001.arrow"
ROWS_PER_BATCH = 10_000


class DatasetWriter:
    """Writes one dataset folder, as a context manager; its former content stays until the writer closes without error.

    Args:
        features: the columns and their types.
        path: folder to write into, created if missing; other files in it are kept.
        fingerprint: identity of the content for the caches of `datasets`; at most 64 characters.
    """

    def __init__(self, features: Features, path: Path, fingerprint: str) -> None:
        self.path = path
        self.rows = 0
        self._fingerprint = fingerprint
        self._schema = features.arrow_schema
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0
        path.mkdir(parents=True, exist_ok=True)
        self._partial = partial_path(path / DATA_FILE)
        self._writer = pa.ipc.new_stream(self._partial, self._schema)

    def write(self, columns: Mapping[str, Sequence[Any] | np.ndarray]) -> None:
        """Add rows, given as columns of equal length (lists, NumPy or Arrow arrays) for every feature."""
        table = pa.table([_to_arrow(columns[field.name], field.type) for field in self._schema], schema=self._schema)
        self._waiting.append(table)
        self._waiting_rows += table.num_rows
        if self._waiting_rows >= ROWS_PER_BATCH:
            self._flush(whole_batches=True)

    def _flush(self, whole_batches: bool) -> None:
        table = pa.concat_tables(self._waiting) if self._waiting else self._schema.empty_table()
        end = table.num_rows - table.num_rows % ROWS_PER_BATCH if whole_batches else table.num_rows
        for start in range(0, end, ROWS_PER_BATCH):
            # A slice would be written with bytes of later rows in its padding; take() copies only the rows.
            rows = np.arange(start, min(start + ROWS_PER_BATCH, end))
            self._writer.write_table(table.take(pa.array(rows)).combine_chunks(), max_chunksize=ROWS_PER_BATCH)
        self._waiting = [table.slice(end)]
        self._waiting_rows = table.num_rows - end
        self.rows += end

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        is_whole = False
        try:
            if kind is None:
                self._flush(whole_batches=False)
            self._writer.close()
            is_whole = kind is None
        except OSError:
            # If there are two errors, the first is raised.
            if kind is None:
                raise
        finally:
            if not is_whole:
                self._partial.unlink(missing_ok=True)
        if not is_whole:
            return
        # A fixed name, so that the next run removes what an interrupted one left.
        folder = partial_path(self.path / "dataset")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            _save_empty(self._schema, self._fingerprint, folder)
            self._partial.replace(folder / DATA_FILE)
            # state.json comes last, because nothing loads without it.
            for name in (DATA_FILE, "dataset_info.json", "state.json"):
                (folder / name).replace(self.path / name)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _save_empty(schema: pa.Schema, fingerprint: str, folder: Path) -> None:
    """Let `datasets` write a dataset without rows: all files next to the rows are the same."""
    from datasets import Dataset, are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    is_quiet = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        Dataset(schema.empty_table(), fingerprint=fingerprint).save_to_disk(folder, num_shards=1)
    finally:
        if not is_quiet:
            enable_progress_bars()


def write_dataset(
    rows: Iterable[Mapping[str, Sequence[Any] | np.ndarray]], features: Features, path: Path, fingerprint: str
) -> int:
    """Write batches of columns as a dataset folder for `datasets.load_from_disk`; returns the number of rows.

    Equal rows, features and fingerprint give equal bytes, whatever the sizes of the batches.
    """
    with DatasetWriter(features, path, fingerprint) as writer:
        for columns in rows:
            writer.write(columns)
    return writer.rows


def write_dataset_dict_index(path: Path, splits: Sequence[str]) -> None:
    """Make `datasets.load_from_disk` of `path` give a `DatasetDict` of its sub-folders `splits`."""
    with written(path / "dataset_dict.json") as partial:
        partial.write_text(json.dumps({"splits": list(splits)}), encoding="utf-8")


def open_table(path: Path, file: str = DATA_FILE) -> pa.Table:
    """Memory-map the rows of a dataset folder; nothing is copied until it is read."""
    return MappedTable.open(path, file).table


class MappedTable(NamedTuple):
    """A memory-mapped table whose pages can be released.

    Attributes:
        table: the rows.
        pages: the file.
    """

    table: pa.Table
    pages: mmap.mmap

    @classmethod
    def open(cls, path: Path, file: str = DATA_FILE) -> MappedTable:
        """Map a dataset folder's rows; OSError, ValueError or ArrowInvalid when there are none."""
        with (path / file).open("rb") as stream:
            pages = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        return cls(pa.ipc.open_stream(pa.py_buffer(pages)).read_all(), pages)

    def leave_pages(self) -> None:
        """Release the pages that were read, so that they no longer count as this process' memory."""
        leave_pages(self.pages)


def write_numbers(path: Path, numbers: np.ndarray) -> None:
    """Write an array of numbers in NumPy's format, atomically."""
    with written(path) as partial, partial.open("wb") as stream:
        np.save(stream, numbers, allow_pickle=False)


def map_numbers(path: Path, dtype: type[np.integer] = np.uint64) -> np.memmap:
    """Memory-map 64-bit numbers written by `write_numbers`, (n,); nothing is read yet.

    Raises:
        UserError: the file is missing or broken.
    """
    try:
        numbers = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} cannot be read ({error}); run umls-reranker prepare_data again") from None
    if numbers.dtype != dtype or numbers.ndim != 1:
        raise UserError(f"{path} does not contain 64-bit numbers; run umls-reranker prepare_data again")
    return numbers


def leave_pages(pages: mmap.mmap) -> None:
    """Release the pages read from a read-only mapping; they are mapped again when needed."""
    if hasattr(mmap, "MADV_DONTNEED"):
        pages.madvise(mmap.MADV_DONTNEED)


def _to_arrow(values: Any, kind: pa.DataType) -> pa.Array | pa.ChunkedArray:
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return values.cast(kind)
    return pa.array(values, type=kind)
