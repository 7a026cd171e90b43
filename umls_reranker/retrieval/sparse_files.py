"""Sparse matrices in files, which are memory-mapped."""

from pathlib import Path

import numpy as np
from scipy.sparse import csr_array

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
    """
    arrays = [np.load(f"{stem}_{part}.npy", mmap_mode="r", allow_pickle=False) for part in PARTS]
    _, _, row_starts = arrays
    return csr_array(tuple(arrays), shape=(len(row_starts) - 1, columns))
