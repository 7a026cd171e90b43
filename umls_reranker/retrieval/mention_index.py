"""The index of training mentions: the concepts that annotators chose for similar mentions.

Annotators often choose a concept that no name leads to, such as a broader one (a new abbreviation is a polymer), but
that they chose for a similar mention. The index holds vectors and concept rows, no text.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch

from ..core.devices import batch_mapper
from ..core.errors import UserError
from ..core.files import write_json
from .concept_search import Candidates, NameGrouping, opened_index
from .faiss_index import search_exactly
from .queries import distinct_queries

if TYPE_CHECKING:
    from ..data.concepts import ConceptTable
    from ..models.bi_encoder import BiEncoder

__all__ = ["MentionIndex"]

VECTORS_FILE, ROWS_FILE, INDEX_FILE = "vectors.npy", "rows.npy", "mention_index.json"
SCHEMA_VERSION = 1
QUERIES_PER_BLOCK = 512


class MentionIndex:
    """Vectors of training mentions, with context if the encoder reads it, and their concepts.

    Search is exact; files are memory-mapped. Created by `build`, opened by `load`.

    Attributes:
        reads_context: whether mentions were, and queries must be, encoded with context.
    """

    def __init__(self, vectors: np.ndarray, rows: np.ndarray, description: dict) -> None:
        self.reads_context: bool = description["reads_context"]
        self._description = description
        self._vectors = vectors
        self._grouping = NameGrouping(rows, np.arange(len(rows), dtype=np.int32), description["concepts"], len(rows))

    def __len__(self) -> int:
        """Number of distinct mentions."""
        return len(self._grouping.rows)

    @classmethod
    def build(cls, mentions: pa.Table, concepts: ConceptTable, encoder: BiEncoder, path: Path) -> MentionIndex:
        """Encode the distinct mentions whose concept is in the dictionary.

        Args:
            mentions: the training split's columns ``mention``, ``left``, ``right`` and ``cui``.
            concepts: the dictionary.
            encoder: the bi-encoder that will encode the queries.
            path: existing folder to write into.

        Raises:
            UserError: no mention's concept is in the dictionary.
        """
        gold = concepts.rows(mentions["cui"].to_pylist())
        if not (gold >= 0).any():
            raise UserError(
                "retrievers: no training mention has its concept in the dictionary; leave out nearest_mentions"
            )
        reads_context = encoder.queries.context_tokens > 0
        inverse, queries = distinct_queries(mentions, reads_context)
        # Sorted by concept, as `NameGrouping` requires.
        rows, number = np.unique(np.stack([gold, inverse])[:, gold >= 0], axis=1)
        texts, *contexts = (column.take(pa.array(number)).to_pylist() for column in queries.columns)
        vectors = encoder.encode(texts, tuple(contexts) or None, desc="encoding training mentions")
        np.save(path / VECTORS_FILE, vectors)
        np.save(path / ROWS_FILE, rows.astype(np.int32))
        description = {"encoder": encoder.identity, "concepts": len(concepts), "reads_context": reads_context}
        write_json(path / INDEX_FILE, {"schema_version": SCHEMA_VERSION} | description)
        return cls.load(path)

    @classmethod
    def load(cls, path: Path) -> MentionIndex:
        """Open an index.

        Raises:
            UserError: a part is missing or cannot be read.
        """
        with opened_index(path / INDEX_FILE, SCHEMA_VERSION) as description:
            vectors = np.load(path / VECTORS_FILE, mmap_mode="r", allow_pickle=False)
            return cls(vectors, np.load(path / ROWS_FILE, allow_pickle=False), description)

    def require(self, concepts: ConceptTable, encoder: BiEncoder) -> None:
        """Refuse concepts or an encoder other than those of the index.

        Raises:
            UserError: they differ (named).
        """
        for name, built, given in (
            ("encoder", self._description["encoder"], encoder.identity),
            ("number of concepts", self._description["concepts"], len(concepts)),
        ):
            if built != given:
                raise UserError(
                    f"the index of training mentions was built with {name} {built!r}, not {given!r}; "
                    "run umls-reranker build_index again"
                )

    def search(self, vectors: np.ndarray, k: int) -> Candidates:
        """The k concepts nearest to each vector, by the most similar training mention of each.

        Args:
            vectors: (n, dimension) float32, L2-normalized.
            k: number of concepts; fewer are returned if training has fewer. ``name_ids`` are numbers of mentions.
        """

        def search(queries: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
            return search_exactly(self._vectors, vectors[queries], width)

        parallel_map = batch_mapper(torch.device("cpu"))
        return self._grouping.collect(len(vectors), k, search, parallel_map, QUERIES_PER_BLOCK)
