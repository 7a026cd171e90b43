"""The index of training mentions: the concepts that annotators chose for similar mentions.

Annotators often choose a concept without a similar name, such as a broader one (a new abbreviation is a polymer), that
was chosen for a similar mention before. The index holds vectors and concept rows, no text.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch

from ..core.devices import batch_mapper
from ..core.errors import UserError
from .concept_search import Candidates, NameGrouping, distinct_queries
from .faiss_index import search_exactly
from .index_folder import ConceptIndex

if TYPE_CHECKING:
    from ..data.concepts import ConceptTable
    from ..models.bi_encoder import BiEncoder

VECTORS_FILE, ROWS_FILE, DOCUMENTS_FILE = "vectors.npy", "rows.npy", "documents.npy"
QUERIES_PER_BLOCK = 512


class MentionIndex(ConceptIndex):
    """Vectors of training mentions, with context if the encoder reads it, and their concepts. Search is exact.

    Attributes:
        reads_context: whether mentions were, and queries must be, encoded with context.
    """

    title, file, schema_version = "the index of training mentions", "mention_index.json", 2

    def __init__(self, path: Path, description: dict[str, Any]) -> None:
        super().__init__(path, description)
        self.reads_context: bool = description["reads_context"]
        self._vectors = np.load(path / VECTORS_FILE, mmap_mode="r", allow_pickle=False)
        rows = np.load(path / ROWS_FILE, allow_pickle=False)
        # Hash of the document that alone has the mention; 0 if there are several.
        self._documents = np.load(path / DOCUMENTS_FILE, allow_pickle=False)
        self.grouping = NameGrouping(rows, np.arange(len(rows), dtype=np.int32), description["concepts"], len(rows))

    @classmethod
    def build(cls, mentions: pa.Table, concepts: ConceptTable, encoder: BiEncoder, path: Path) -> MentionIndex:
        """Encode the distinct mentions whose concept is in the dictionary.

        Args:
            mentions: the training split's columns ``mention``, ``left``, ``right``, ``cui`` and ``doc_id``.
            concepts: the dictionary.
            encoder: the bi-encoder that will encode the queries.
            path: existing folder to write into.

        Raises:
            UserError: no mention's concept is in the dictionary.
        """
        gold = concepts.rows(mentions["cui"].to_pylist())
        if not (gold >= 0).any():
            raise UserError(
                "retrievers: no training mention has its concept in the dictionary; remove nearest_mentions"
            )
        reads_context = encoder.queries.context_tokens > 0
        query_of, queries = distinct_queries(mentions, reads_context)
        # Sorted by concept, as `NameGrouping` requires.
        known = gold >= 0
        (rows, query), entry = np.unique(np.stack([gold, query_of])[:, known], axis=1, return_inverse=True)
        hashes, documents = _hashes(mentions["doc_id"].to_pylist())[known], np.empty(len(rows), np.uint64)
        documents[entry] = hashes
        documents[entry[hashes != documents[entry]]] = 0
        texts, *contexts = (column.take(pa.array(query)).to_pylist() for column in queries.columns)
        vectors = encoder.encode(texts, tuple(contexts) or None, desc="encoding training mentions")
        np.save(path / VECTORS_FILE, vectors)
        np.save(path / ROWS_FILE, rows.astype(np.int32))
        np.save(path / DOCUMENTS_FILE, documents)
        cls.describe(path, len(concepts), encoder=encoder.identity, reads_context=reads_context)
        return cls.load(path)

    def search(self, vectors: np.ndarray, k: int, documents: Sequence[str] | None = None) -> Candidates:
        """The k concepts nearest to each vector, by the most similar training mention of each.

        Args:
            vectors: (n, dimension) float32, L2-normalized.
            k: number of concepts; fewer are returned if training has fewer.
            documents: (n,) documents, whose own mentions are left out; None leaves out none.

        Returns:
            Candidates whose ``name_ids`` are numbers of mentions.
        """

        def search(queries: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
            scores, numbers = search_exactly(self._vectors, vectors[queries], width)
            if own is None:
                return scores, numbers
            is_own = self._documents[numbers] == own[queries, None]
            # The others stay in order, before those left out.
            order = np.argsort(is_own, axis=1, kind="stable")
            scores, numbers = np.where(is_own, -np.inf, scores).astype(np.float32), np.where(is_own, -1, numbers)
            return np.take_along_axis(scores, order, axis=1), np.take_along_axis(numbers, order, axis=1)

        own = None if documents is None else _hashes(documents)
        parallel_map = batch_mapper(torch.device("cpu"))
        return self.grouping.collect(len(vectors), k, search, parallel_map, QUERIES_PER_BLOCK)


def _hashes(documents: Sequence[str]) -> np.ndarray:
    """64-bit hashes of documents, (n,) uint64."""
    digests = [blake2b(document.encode(), digest_size=8).digest() for document in documents]
    return np.frombuffer(b"".join(digests), "<u8")
