"""Arrow tables in the layout of `datasets.Dataset.save_to_disk`, written batch by batch.

`Dataset.save_to_disk` needs the whole dataset first and `Dataset.from_generator` goes through a cache; this writer
needs memory for one batch and gives the same bytes for the same rows, however they arrive.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from datasets import Features

__all__ = ["DATA_FILE", "DatasetWriter", "open_table", "write_dataset", "write_dataset_dict_index"]

DATA_FILE = "data-00000-of-00001.arrow"
ROWS_PER_BATCH = 10_000


class DatasetWriter:
    """Write one dataset folder; a context manager. The folder loads only once the writer was closed without error.

    Args:
        features: the columns and their types.
        path: folder to write into, made when missing; what else lies in it is left alone.
        fingerprint: what `datasets` takes for the content's identity when it caches; at most 64 characters.
    """

    def __init__(self, features: Features, path: Path, fingerprint: str) -> None:
        self.path = path
        self.rows = 0
        self._features = features
        self._fingerprint = fingerprint
        self._schema = features.arrow_schema
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0
        path.mkdir(parents=True, exist_ok=True)
        # load_from_disk needs state.json: without it, former content cannot be mistaken for the new.
        (path / "state.json").unlink(missing_ok=True)
        self._partial = path / f".{DATA_FILE}.partial"
        self._writer = pa.ipc.new_stream(self._partial, self._schema)

    def write(self, columns: Mapping[str, Sequence[Any]]) -> None:
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
            # A slice would be written with bytes of the rows after it in its padding; take() copies just the rows.
            places = np.arange(start, min(start + ROWS_PER_BATCH, end))
            batch = table.take(pa.array(places)).combine_chunks()
            self._writer.write_table(batch, max_chunksize=ROWS_PER_BATCH)
            self.rows += batch.num_rows
        self._waiting = [table.slice(end)]
        self._waiting_rows = table.num_rows - end

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush(whole_batches=False)
        self._writer.close()
        if kind is not None:
            self._partial.unlink(missing_ok=True)
            return
        self._partial.replace(self.path / DATA_FILE)
        info = {"citation": "", "description": "", "features": self._features.to_dict(), "homepage": "", "license": ""}
        state = {
            "_data_files": [{"filename": DATA_FILE}],
            "_fingerprint": self._fingerprint,
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": None,
        }
        _write_json(self.path / "dataset_info.json", info)
        _write_json(self.path / "state.json", state)


def write_dataset(
    rows: Iterable[Mapping[str, Sequence[Any]]], features: Features, path: Path, fingerprint: str
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
    _write_json(path / "dataset_dict.json", {"splits": list(splits)})


def open_table(path: Path, file: str = DATA_FILE) -> pa.Table:
    """Memory-map the rows of a dataset folder written here; nothing is copied until it is read."""
    with pa.memory_map(str(path / file)) as source:
        return pa.ipc.open_stream(source).read_all()


def _to_arrow(values: Any, kind: pa.DataType) -> pa.Array | pa.ChunkedArray:
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return values.cast(kind)
    return pa.array(values, type=kind)


def _write_json(path: Path, content: Any) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(content, indent=2), encoding="utf-8")
    partial.replace(path)
