"""The index of names: nearest concepts of a vector, by FAISS."""

from __future__ import annotations

import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import torch

from ..core.arrow_files import open_arrow
from ..core.devices import batch_mapper
from ..core.parallel import progress
from .arguments import EXACT_INDEX
from .candidates import Candidates
from .concept_index import ConceptIndex
from .faiss_indexes import (
    faiss_errors,
    faiss_threads,
    new_index,
    read_ahead,
    search_exactly,
    set_parameters,
    training_size,
)
from .name_grouping import NameGrouping
from .name_vectors import NameVectors
from .stored_names import NAMES_FILE

FAISS_FILE = "names.faiss"


class NameIndex(ConceptIndex):
    """A FAISS index over the distinct names, and the concepts of each name.

    A name shared by several concepts is stored once, so these concepts tie exactly.
    """

    title = "the index"
    file = "index.json"
    schema_version = 2

    def __init__(self, path: Path, description: dict[str, Any]) -> None:
        super().__init__(path, description)
        self._vectors = faiss.read_index(str(path / FAISS_FILE), faiss.IO_FLAG_MMAP_IFC)
        names = open_arrow(path / NAMES_FILE)
        concepts = description["concepts"]
        self.grouping = NameGrouping.of_names(names, concepts, self._vectors.ntotal)
        self._names = names["name"]

    @classmethod
    def build(
        cls,
        vectors: NameVectors,
        path: Path,
        factory: str = EXACT_INDEX,
        search_parameters: str = "",
    ) -> NameIndex:
        """Index encoded names.

        Vectors are added to FAISS shard by shard, so memory holds one copy, in `factory`'s format.

        Args:
            vectors: vectors of all names.
            path: existing folder to write into.
            factory: FAISS factory string. ``"Flat"`` is exact and, with 37,000 concepts, answers
                thousands of queries per second; for millions, e.g.
                ``"IVF4096,PQ192x4fs,Refine(SQfp16)"`` or ``"HNSW32,SQfp16"``.
            search_parameters: as for `load`; they are not stored.

        Raises:
            UserError: FAISS does not know the factory string or a parameter, an IVF index lacks
                ``nprobe``, or there are too few names to train on.
        """
        index = new_index(vectors.dimension, factory, search_parameters)
        with faiss_threads(torch.get_num_threads()):
            fill(index, vectors)
        faiss.write_index(index, str(path / FAISS_FILE))
        # It does not fit into memory together with what is loaded below.
        del index
        shutil.copyfile(vectors.names, path / NAMES_FILE)
        cls.describe(path, vectors.concepts, encoder=vectors.identity, factory=factory)
        return cls.load(path, search_parameters)

    @classmethod
    def load(cls, path: Path, search_parameters: str = "") -> NameIndex:
        """Open an index, memory-mapped; an approximate one is first read from start to end.

        Args:
            path: the folder.
            search_parameters: FAISS parameters, e.g. ``"nprobe=128"`` or ``"efSearch=128"``; IVF
                needs ``nprobe``.

        Raises:
            UserError: a file is missing or unreadable, FAISS does not know a parameter, or an IVF
                index lacks ``nprobe``.
        """
        index = super().load(path)
        set_parameters(index._vectors, index.description["factory"], search_parameters)
        if index.description["factory"] != EXACT_INDEX:
            read_ahead(path / FAISS_FILE)
        return index

    def names(self, name_ids: np.ndarray) -> list[str]:
        """The strings of names."""
        return self.name_array(name_ids).to_pylist()

    def name_array(self, name_ids: np.ndarray) -> pa.ChunkedArray:
        """The strings of names as an Arrow column."""
        return self._names.take(pa.array(name_ids))

    def search(self, vectors: np.ndarray, k: int, block: int = 512) -> Candidates:
        """The k concepts nearest to each vector, by their best-matching name.

        Ties are broken by concept row, then name id. With an exact index the result is exact: FAISS
        returns more names until k concepts are certain or no names are left.

        Args:
            vectors: (n, dimension) float32, L2-normalized.
            k: number of concepts.
            block: queries that a thread searches at a time.
        """

        def search(queries: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
            if self._flat is not None:
                return search_exactly(self._flat, vectors[queries], width)
            # Threads search whole blocks; FAISS's own threads would wait for each other.
            with faiss_threads(1):
                return self._vectors.search(vectors[queries], width)

        block = max(1, min(block, -(-len(vectors) // torch.get_num_threads())))
        return self.grouping.collect(
            len(vectors), k, search, batch_mapper(torch.device("cpu")), block
        )

    def best_names(
        self, vectors: np.ndarray, rows: np.ndarray, owners: np.ndarray, block: int = 32_768
    ) -> tuple[np.ndarray, np.ndarray]:
        """The nearest name of given concepts for each vector.

        Cosines use the vectors in the index, in its number format.

        Args:
            vectors: (m, dimension) float32, L2-normalized.
            rows: (n, k) concept rows, padded with -1.
            owners: (n,) vector of each list of rows.
            block: approximate number of names whose vectors are read from the index at a time.

        Returns:
            (n, k) int64 name ids, the first among ties, padded with -1; (n, k) float32 cosines,
            padded with -inf.

        Raises:
            UserError: the index cannot return its vectors.
        """

        def score(queries: np.ndarray, strings: np.ndarray) -> np.ndarray:
            distinct, number_of = np.unique(strings, return_inverse=True)
            stored = self._readable.reconstruct_batch(distinct)
            return np.einsum("nd,nd->n", stored[number_of], vectors[owners[queries]])

        return self.grouping.best(rows, score, block)

    @cached_property
    def _flat(self) -> np.ndarray | None:
        """The vectors of a flat index in place, (m, dimension)."""
        if not isinstance(self._vectors, faiss.IndexFlatIP):
            return None
        content = faiss.rev_swig_ptr(self._vectors.get_xb(), self._vectors.ntotal * self._vectors.d)
        return content.reshape(-1, self._vectors.d)

    @cached_property
    def _readable(self) -> faiss.Index:
        """The index, ready to return vectors by number."""
        with faiss_errors("index_factory: this index cannot return vectors; use another factory"):
            clusters = faiss.try_extract_index_ivf(self._vectors)
            # A refining index returns the vectors it refines with.
            if clusters is not None and not hasattr(self._vectors, "refine_index"):
                clusters.make_direct_map()
            self._vectors.reconstruct(0)
        return self._vectors


def fill(index: faiss.Index, vectors: NameVectors) -> None:
    """Train an index if necessary and add all vectors; memory holds one shard at a time.

    It also holds the index, and the sample while it is trained on.

    Raises:
        UserError: training needs more vectors than exist.
    """
    size = training_size(index, len(vectors))
    if not index.is_trained:
        with faiss_errors(f"index_factory: training on {len(vectors):,} names failed"):
            index.train(vectors.take(vectors.sample(size)))
    _reserve(index, len(vectors))
    with progress(total=len(vectors), desc="filling the index", unit=" names") as bar:
        for _, shard in vectors.shards():
            index.add(shard)
            bar.update(len(shard))


def _reserve(index: faiss.Index, total: int) -> None:
    """Reserve memory for all codes; a vector that doubles needs up to twice as much for a time."""
    part = index
    if hasattr(index, "storage"):
        part = index.storage
    elif hasattr(index, "refine_index"):
        part = index.refine_index
    storage = faiss.downcast_index(part)
    if hasattr(storage, "codes") and hasattr(storage, "code_size"):
        storage.codes.resize(total * storage.code_size)
        storage.codes.resize(0)
