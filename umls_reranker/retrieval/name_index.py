"""The index of names: nearest concepts of a vector, by the best-matching name of each."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np
import pyarrow as pa
import torch

from ..core.arrays import open_arrow
from ..core.devices import batch_mapper
from ..core.errors import UserError
from ..lists.columns import trainable
from ..models.bi_encoder import BiEncoder
from ..vocab.concepts import ConceptTable
from .arguments import EXACT_INDEX
from .concept_index import NAMES_FILE, ConceptIndex
from .concept_search import Candidates, NameGrouping, distinct_queries, sole_documents
from .name_vectors import (
    NameVectors,
    faiss_threads,
    fill,
    new_index,
    read_ahead,
    search_exactly,
    set_parameters,
    training_size,
)

if TYPE_CHECKING:
    from accelerate import PartialState

    from .deployment import IndexSettings

FAISS_FILE = "names.faiss"


def encode_names(
    folder: Path, target: Path, settings: IndexSettings, device: str, state: PartialState
) -> NameVectors:
    """Encode all distinct names for a `NameIndex`; the processes of a launch share the work.

    Args:
        folder: run or index folder with the concepts, and with the encoder if it was trained.
        target: folder to write into; finished shards in it stay.
        settings: the encoder and the index.
        device: as for `BiEncoder.from_pretrained`.
        state: the processes.

    Raises:
        UserError: the encoder cannot be loaded, FAISS does not know the index or a parameter, or
            there are too few names for it.
    """
    encoder = settings.load_encoder(folder, device)
    # An unknown factory or too few names are reported before hours of encoding.
    index = new_index(encoder.dimension, settings.index_factory, settings.index_parameters or "")
    if state.is_main_process:
        NameVectors.prepare(ConceptTable.load(folder / "concepts"), encoder, target)
    state.wait_for_everyone()
    vectors = NameVectors(target)
    training_size(index, len(vectors))
    vectors.encode_share(encoder, state.process_index, state.num_processes)
    state.wait_for_everyone()
    return vectors


class NameIndex(ConceptIndex):
    """A FAISS index over the distinct names, and the concepts of each name.

    A name shared by several concepts is stored once, so these concepts tie exactly.

    Attributes:
        offsets: (n_concepts + 1,) int64; the names of row r have the ids ``offsets[r]`` to
            ``offsets[r + 1] - 1``.
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
        self.offsets = self.grouping.offsets
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
        try:
            clusters = faiss.try_extract_index_ivf(self._vectors)
            # A refining index returns the vectors it refines with.
            if clusters is not None and not hasattr(self._vectors, "refine_index"):
                clusters.make_direct_map()
            self._vectors.reconstruct(0)
        except RuntimeError as error:
            reason = str(error).splitlines()[-1]
            raise UserError(
                f"index_factory: this index cannot return vectors ({reason}); use another factory"
            ) from None
        return self._vectors


class MentionIndex(ConceptIndex):
    """Vectors of training mentions (in context if the encoder reads it) and their concepts.

    Search is exact.

    Attributes:
        reads_context: whether mentions were, and queries must be, encoded with context.
    """

    title = "the index of training mentions"
    file = "mention_index.json"
    schema_version = 2

    def __init__(self, path: Path, description: dict[str, Any]) -> None:
        super().__init__(path, description)
        self.reads_context: bool = description["reads_context"]
        self._vectors = np.load(path / "vectors.npy", mmap_mode="r", allow_pickle=False)
        rows = np.load(path / "rows.npy", allow_pickle=False)
        documents = np.load(path / "documents.npy", allow_pickle=False)
        numbers = np.arange(len(rows), dtype=np.int32)
        self.grouping = NameGrouping(rows, numbers, description["concepts"], len(rows), documents)

    @classmethod
    def build(
        cls, mentions: pa.Table, concepts: ConceptTable, encoder: BiEncoder, path: Path
    ) -> MentionIndex:
        """Encode the distinct mentions whose concept is in the dictionary.

        Args:
            mentions: the training split's columns ``mention``, ``left``, ``right``, ``cui`` and
                ``doc_id``.
            concepts: the dictionary.
            encoder: the bi-encoder that will encode the queries.
            path: existing folder to write into.

        Raises:
            UserError: no mention's concept is in the dictionary.
        """
        gold = concepts.rows(trainable(mentions["cui"].to_pylist()))
        if not (gold >= 0).any():
            raise UserError(
                "retrievers: no training mention has its concept in the dictionary; "
                "remove nearest_mentions"
            )
        reads_context = encoder.queries.context_tokens > 0
        query_of, queries = distinct_queries(mentions, reads_context)
        # Sorted by concept, as `NameGrouping` requires.
        known = gold >= 0
        (rows, query), entry = np.unique(
            np.stack([gold, query_of])[:, known], axis=1, return_inverse=True
        )
        documents = sole_documents(
            entry, mentions["doc_id"].filter(pa.array(known)).to_pylist(), len(rows)
        )
        texts = queries.take(pa.array(query)).to_pydict()
        contexts = (texts["left"], texts["right"]) if reads_context else None
        vectors = encoder.encode(texts["mention"], contexts, desc="encoding training mentions")
        np.save(path / "vectors.npy", vectors)
        np.save(path / "rows.npy", rows.astype(np.int32))
        np.save(path / "documents.npy", documents)
        cls.describe(path, len(concepts), encoder=encoder.identity, reads_context=reads_context)
        return cls.load(path)

    def search(
        self,
        vectors: np.ndarray,
        k: int,
        documents: Sequence[str] | None = None,
        block: int = 512,
    ) -> Candidates:
        """The k concepts nearest to each vector, by the most similar training mention of each.

        Args:
            vectors: (n, dimension) float32, L2-normalized.
            k: number of concepts; fewer are returned if training has fewer.
            documents: (n,) documents, whose own mentions are left out; None leaves out none.
            block: queries that a thread searches at a time.

        Returns:
            Candidates whose ``name_ids`` are numbers of mentions.
        """

        def search(queries: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
            return search_exactly(self._vectors, vectors[queries], width)

        parallel_map = batch_mapper(torch.device("cpu"))
        return self.grouping.collect(len(vectors), k, search, parallel_map, block, documents)
