"""The index of training mentions: it finds the nearest concepts of a vector by exact search."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from ..core.devices import batch_mapper
from ..core.errors import UserError
from ..lists.gold import trainable
from ..models.bi_encoder import BiEncoder
from ..vocab.concept_table import ConceptTable
from .candidates import Candidates
from .concept_index import ConceptIndex
from .distinct_queries import distinct_queries
from .faiss_indexes import search_exactly
from .name_grouping import NameGrouping
from .stored_names import sole_documents


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
        gold_rows = concepts.rows(trainable(mentions["cui"].to_pylist()))
        is_in_dictionary = gold_rows >= 0
        if not is_in_dictionary.any():
            raise UserError(
                "retrievers: no training mention has its concept in the dictionary; "
                "remove nearest_mentions"
            )
        reads_context = encoder.queries.context_tokens > 0
        query_numbers, queries = distinct_queries(mentions, reads_context)
        # An entry is a distinct pair of concept and query. Entries are sorted by concept, as
        # `NameGrouping` requires.
        pairs = np.stack([gold_rows, query_numbers])[:, is_in_dictionary]
        (rows, query), entry_of_mention = np.unique(pairs, axis=1, return_inverse=True)
        doc_ids = mentions["doc_id"].filter(pa.array(is_in_dictionary)).to_pylist()
        documents = sole_documents(entry_of_mention, doc_ids, len(rows))
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
            documents: (n,) id of each query's document, whose mentions are left out; None leaves
                out none.
            block: queries that a thread searches at a time.

        Returns:
            Candidates whose ``name_ids`` are numbers of mentions.
        """

        def search(queries: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
            return search_exactly(self._vectors, vectors[queries], width)

        parallel_map = batch_mapper(torch.device("cpu"))
        return self.grouping.collect(len(vectors), k, search, parallel_map, block, documents)
