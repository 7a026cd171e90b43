"""Arrow files and arrays of numbers on disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .files import written

if TYPE_CHECKING:
    import pyarrow as pa


@contextmanager
def arrow_writer(path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatchStreamWriter]:
    """Yield a writer of tables and batches; without an error, its output becomes the file `path`.

    Columns as lists or arrays are written by
    ``writer.write(pa.Table.from_pydict(columns, schema))``.

    Args:
        path: the file, whose folder is made if it is missing.
        schema: the columns; that of ``datasets.Features`` is ``features.arrow_schema``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    import pyarrow as pa

    with written(path) as partial, pa.ipc.new_stream(partial, schema) as writer:
        yield writer


def open_arrow(path: Path) -> pa.Table:
    """Memory-map a file that `arrow_writer` wrote; its values are not copied.

    All offsets are checked: damaged ones would end the process, or read the memory of others.

    Raises:
        OSError, pa.ArrowInvalid: the file is missing or damaged.
    """
    import pyarrow as pa

    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_stream(source).read_all()
    table.validate(full=True)
    return table


def one_chunk(column: pa.ChunkedArray) -> pa.Array:
    """The values of a column; those of a single chunk are not copied, so they may stay on disk."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def write_numbers(path: Path, numbers: np.ndarray) -> None:
    """Write an array of numbers in NumPy's format, atomically."""
    with written(path) as partial, partial.open("wb") as stream:
        np.save(stream, numbers, allow_pickle=False)
