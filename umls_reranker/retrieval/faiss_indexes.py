"""Indexes of FAISS: made by a factory string, trained and filled, and searched by threads."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import faiss
import numpy as np

from ..core.errors import UserError

# Default number of names to train a clustering or quantizing index on: in total, or per cluster.
TRAINING_SAMPLE = 262_144
SAMPLE_PER_CLUSTER = 64
NPROBE = re.compile(r"(^|,)nprobe=\+?0*[1-9]")
READ_AT_ONCE = 16 * 2**20


def new_index(dimension: int, factory: str, parameters: str = "") -> faiss.Index:
    """Make an empty inner-product index.

    Args:
        dimension: length of the vectors.
        factory: FAISS factory string, e.g. ``"Flat"``, ``"IVF4096,PQ192x4fs,Refine(SQfp16)"``,
            ``"HNSW32,SQ8"``.
        parameters: FAISS search parameters, e.g. ``"nprobe=64"``, only checked; the index is
            created without them.

    Raises:
        UserError: FAISS does not know the factory string or a parameter, or an IVF index lacks
            ``nprobe``.
    """
    with faiss_errors(f"index_factory {factory!r} with index_parameters {parameters!r}"):
        index = faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
    set_parameters(faiss.clone_index(index), factory, parameters)
    return index


def set_parameters(index: faiss.Index, factory: str, parameters: str) -> None:
    """Set search parameters of an index.

    Raises:
        UserError: FAISS does not know one of them, or an IVF index lacks ``nprobe``.
    """
    with faiss_errors(f"index_factory {factory!r} with index_parameters {parameters!r}"):
        if parameters:
            # Annotated with another of its overloads.
            faiss.ParameterSpace().set_index_parameters(index, parameters)  # type: ignore[arg-type]
    clusters = faiss.try_extract_index_ivf(index)
    if clusters is not None and not NPROBE.search(parameters):
        # Four times the root of their number (docs/internal/retrieval-and-mining.md).
        recommended = min(clusters.nlist, 4 * math.isqrt(clusters.nlist))
        raise UserError(
            f"index_parameters: {factory} searches only 1 of its {clusters.nlist:,} clusters "
            f"by default; set nprobe={recommended} and compare the recall that is printed"
        )


def training_size(index: faiss.Index, names: int) -> int:
    """Number of names to train an index on: 64 per cluster, at least 262,144, or all.

    Args:
        index: the index.
        names: number of distinct names.

    Raises:
        UserError: there are fewer names per cluster than FAISS's minimum of 39.
    """
    clusters = faiss.try_extract_index_ivf(index)
    if clusters is None:
        return min(names, TRAINING_SAMPLE)
    least = clusters.cp.min_points_per_centroid
    needed = (
        f"{clusters.nlist:,} clusters must be trained on {least * clusters.nlist:,} "
        f"names ({least} each)"
    )
    if names < least * clusters.nlist:
        few = names // least
        other = f"IVF{few} or fewer clusters, or Flat" if few > 1 else "Flat"
        raise UserError(f"index_factory: {needed}, but there are {names:,}; use {other}")
    return min(names, max(TRAINING_SAMPLE, SAMPLE_PER_CLUSTER * clusters.nlist))


@contextmanager
def faiss_errors(message: str) -> Iterator[None]:
    """Raise what FAISS refuses as an error with this message and its own."""
    try:
        yield
    except RuntimeError as error:
        raise UserError(f"{message}: FAISS: {str(error).splitlines()[-1]}") from None


def read_ahead(path: Path) -> None:
    """Read an index file from start to end, so that it is in memory before pages are used.

    A disk reads single pages a hundred times more slowly: with 8.4 million names (13.8 GB), the
    first queries took 50 ms each, and 5 ms after reading ahead.
    """
    part = bytearray(READ_AT_ONCE)
    with path.open("rb", buffering=0) as file:
        while file.readinto(part):
            pass


@contextmanager
def faiss_threads(number: int) -> Iterator[None]:
    """Let FAISS use this many threads, in the calling thread alone."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(number)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


_searches = threading.Lock()
_running = 0
_threshold = 0


@contextmanager
def _matrix_products(dimension: int) -> Iterator[None]:
    """Let FAISS compare queries by matrix products, in the whole process.

    It compares up to 300 queries one by one, ten times slower. Its threshold is restored when the
    last of several searches at the same time ends.
    """
    global _running, _threshold
    with _searches:
        if not _running:
            _threshold = faiss.cvar.distance_compute_blas_threshold
            faiss.cvar.distance_compute_blas_threshold = min(_threshold, 4 * dimension)
        _running += 1
    try:
        yield
    finally:
        with _searches:
            _running -= 1
            if not _running:
                faiss.cvar.distance_compute_blas_threshold = _threshold


def search_exactly(
    vectors: np.ndarray, queries: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k vectors with the largest inner products, by one thread; several threads may call it.

    Args:
        vectors: (m, d) float32, in memory or mapped into it.
        queries: (n, d) float32.
        k: from 1 to m.

    Returns:
        (n, k) float32 scores in descending order, ties by number, and (n, k) int64 numbers of
        vectors.
    """
    with faiss_threads(1), _matrix_products(vectors.shape[1]):
        _, numbers = faiss.knn(queries, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)
    # A matrix product may round equal vectors differently with other queries; this does not.
    scores = np.stack(
        [
            np.einsum("nd,d->n", vectors[nearest], query)
            for nearest, query in zip(numbers, queries, strict=True)
        ]
    )
    order = np.lexsort((numbers, -scores))
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(numbers, order, axis=1)
