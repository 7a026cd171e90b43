"""Arrow tables in files, written batch by batch and memory-mapped when opened.

A file is an Arrow stream, so ``datasets.Dataset.from_file`` opens it too; a folder of them is a dataset with one file
``SPLIT.arrow`` for each split.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa

from ..core.files import written


@contextmanager
def arrow_writer(path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatchStreamWriter]:
    """Yield a writer of tables and batches; what it wrote becomes the file `path` if there is no error.

    Columns as lists or arrays are written by ``writer.write(pa.Table.from_pydict(columns, schema))``.

    Args:
        path: the file, whose folder is made if it is missing.
        schema: the columns; that of ``datasets.Features`` is ``features.arrow_schema``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with written(path) as partial, pa.ipc.new_stream(partial, schema) as writer:
        yield writer


def open_arrow(path: Path) -> pa.Table:
    """Memory-map a file that `arrow_writer` wrote; nothing is read before it is used.

    Raises:
        OSError, pa.ArrowInvalid: the file is missing or damaged.
    """
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_stream(source).read_all()


def write_numbers(path: Path, numbers: np.ndarray) -> None:
    """Write an array of numbers in NumPy's format, atomically."""
    with written(path) as partial, partial.open("wb") as stream:
        np.save(stream, numbers, allow_pickle=False)
