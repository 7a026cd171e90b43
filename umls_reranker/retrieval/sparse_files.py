"""Sparse matrices in files, which are memory-mapped."""

from pathlib import Path

import numpy as np
from scipy.sparse import csr_array

from ..core.arrays import are_below
from ..core.arrow_files import write_numbers

# Parts of a matrix, a file each: values, columns, and where each row starts.
PARTS = ("data", "indices", "indptr")


def write_sparse(matrix: csr_array, stem: Path) -> None:
    """Write a matrix to the files ``STEM_PART.npy``."""
    for part in PARTS:
        write_numbers(Path(f"{stem}_{part}.npy"), getattr(matrix, part))


def open_sparse(stem: Path, columns: int) -> csr_array:
    """Memory-map a matrix that `write_sparse` wrote.

    Args:
        stem: as for `write_sparse`.
        columns: number of its columns, which the files do not say.

    Raises:
        OSError, EOFError, ValueError: a file is missing or damaged; a wrong place would let SciPy
            write over the memory of others.
    """
    parts = {
        part: np.load(f"{stem}_{part}.npy", mmap_mode="r", allow_pickle=False) for part in PARTS
    }
    values = parts["data"]
    places = parts["indices"]
    starts = parts["indptr"]
    if not (
        len(starts)
        and starts[0] == 0
        and starts[-1] == len(places) == len(values)
        and (starts[1:] >= starts[:-1]).all()
        and are_below(columns, places)
    ):
        raise ValueError(f"{stem.name} is no sparse matrix of {columns:,} columns")
    return csr_array((values, places, starts), shape=(len(starts) - 1, columns))
