"""Retrieval by vectors of mentions or mentions in context, character n-grams, training mentions; and their union."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..core.errors import UserError
from .concept_search import Candidates

if TYPE_CHECKING:
    import pyarrow as pa

    from ..data.concepts import ConceptTable
    from ..models.bi_encoder import BiEncoder
    from .lexical_index import LexicalIndex
    from .mention_index import MentionIndex
    from .name_index import NameIndex

__all__ = ["Retriever", "fuse"]

# Ranks at which recall is measured; each retriever returns at least as many concepts.
RECALL_DEPTH = 64
# Cormack, Clarke and Buettcher (2009), "Reciprocal rank fusion outperforms Condorcet and individual rank learning
# methods", section 3.
RANK_CONSTANT = 60


class Retriever:
    """Finds the concepts nearest to a mention.

    Several retrievers are combined by reciprocal rank fusion of lists twice as long as requested. It decides which
    concepts are candidates; their cosines decide the order.

    Args:
        index, encoder: dense retrieval.
        lexical: retrieval by character n-grams, if given.
        in_context: also retrieve by the mention in its text, for which the encoder was trained.
        mentions: retrieval by the most similar training mentions, if given.
        index_key: `core.stage_keys.index_key` of the folder that all were loaded from; "" if there is none.

    Attributes:
        reads_context: whether `search` needs the text around mentions.

    Raises:
        UserError: the encoder was not trained to read context.
    """

    def __init__(
        self,
        index: NameIndex,
        encoder: BiEncoder,
        lexical: LexicalIndex | None = None,
        in_context: bool = False,
        mentions: MentionIndex | None = None,
        index_key: str = "",
    ) -> None:
        self.index, self.encoder, self.lexical, self.mentions = index, encoder, lexical, mentions
        self.index_key = index_key
        self._in_context = in_context
        self.reads_context = in_context or (mentions is not None and mentions.reads_context)
        if in_context and not encoder.queries.context_tokens:
            raise UserError(
                "retrievers: context needs an encoder that reads it; set encoder_training_steps and run "
                "umls-reranker train_encoder"
            )

    def require(self, concepts: ConceptTable) -> None:
        """Refuse concepts or an encoder other than those of the indexes.

        Raises:
            UserError: they differ (named).
        """
        self.index.require(concepts, self.encoder)
        if self.lexical is not None:
            self.lexical.require(concepts)
        if self.mentions is not None:
            self.mentions.require(concepts, self.encoder)

    def search_queries(self, queries: pa.Table, k: int) -> Candidates:
        """`search` of the rows of `queries.distinct_queries`."""
        texts, *contexts = (column.to_pylist() for column in queries.columns)
        return self.search(texts, k, tuple(contexts) or None)

    def search(
        self, texts: Sequence[str], k: int, contexts: tuple[Sequence[str], Sequence[str]] | None = None
    ) -> Candidates:
        """The k concepts nearest to each mention.

        A candidate shows its nearest name by dense cosine of the mention alone, and that cosine is its score,
        whichever retriever found it. Every list is in the order of these scores.

        Args:
            texts: n mentions.
            contexts: n left and n right texts, if the retriever reads context.
        """
        number: dict[str, int] = {}
        strings = np.array([number.setdefault(text, len(number)) for text in texts], np.int64)
        distinct = list(number)
        vectors = self.encoder.encode(distinct)
        if self.lexical is None and self.mentions is None and not self._in_context:
            found = self.index.search(vectors, max(k, RECALL_DEPTH)).take(strings)
            lists = {"dense": found.rows.astype(np.int32)}
            return Candidates(found.rows[:, :k], found.name_ids[:, :k], found.scores[:, :k], lists=lists)
        depth = max(2 * k, RECALL_DEPTH)
        lists = {"dense": self.index.search(vectors, depth).rows[strings]}
        read = self.encoder.encode(texts, contexts) if self.reads_context else vectors[strings]
        if self._in_context:
            lists["context"] = self.index.search(read, depth).rows
        if self.lexical is not None:
            lists["lexical"] = self.lexical.search(distinct, depth).rows[strings]
        if self.mentions is not None:
            lists["nearest_mentions"] = self.mentions.search(read, depth).rows
        union = fuse(list(lists.values()), depth)
        rows = np.ascontiguousarray(union[:, :k])
        further = {}
        if self._in_context:
            further["context"] = self.index.best_names(read, rows)[1]
        # A string has mostly the same candidates in all texts, so each of its concepts is processed once.
        place = np.nonzero(rows >= 0)
        stride = rows.max(initial=0) + 1
        pairs, pair_of = np.unique(strings[place[0]] * stride + rows[place], return_inverse=True)
        owners, concepts = pairs // stride, (pairs % stride)[:, None]
        name_ids, scores = np.full(rows.shape, -1, np.int64), np.full(rows.shape, -np.inf, np.float32)
        best = self.index.best_names(vectors, concepts, owners)
        name_ids[place], scores[place] = (values[pair_of, 0] for values in best)
        if self.lexical is not None:
            further["lexical"] = np.full(rows.shape, -np.inf, np.float32)
            further["lexical"][place] = self.lexical.score(distinct, concepts, owners)[pair_of, 0]
        # Fused ranks choose well and order badly: a retriever of spelling is not as often right as one of meaning.
        order = np.argsort(-scores, axis=1, kind="stable")
        rows, name_ids, scores, *others = (
            np.take_along_axis(values, order, axis=1) for values in (rows, name_ids, scores, *further.values())
        )
        lists["union"] = np.concatenate([rows, union[:, k:]], axis=1)
        lists = {name: found[:, :RECALL_DEPTH].astype(np.int32) for name, found in lists.items()}
        return Candidates(rows, name_ids, scores, dict(zip(further, others, strict=True)), lists)


def fuse(lists: Sequence[np.ndarray], k: int) -> np.ndarray:
    """Reciprocal rank fusion: the k concepts with the largest sum of 1 / (60 + rank) over the lists they are in.

    Args:
        lists: (n, depth) concept rows of each retriever, best first, distinct within a list, padded with -1.

    Returns:
        (n, k) int64 concept rows, padded with -1; ties go to the concept in an earlier list.

    >>> fuse([np.array([[7, 3, 5]]), np.array([[3, 8, -1]])], 4).tolist()
    [[3, 7, 8, 5]]
    """
    rows = np.concatenate(lists, axis=1)
    n, width = rows.shape
    gains = np.concatenate([1 / (RANK_CONSTANT + 1 + np.arange(found.shape[1])) for found in lists])
    query, place = np.nonzero(rows >= 0)
    stride = rows.max(initial=0) + 1
    keys, first, entry = np.unique(query * stride + rows[query, place], return_index=True, return_inverse=True)
    sums, query, place = np.bincount(entry, gains[place]), query[first], place[first]
    order = np.lexsort((place, -sums, query))
    query, position = query[order], np.arange(len(order)) - np.searchsorted(query[order], np.arange(n))[query[order]]
    fused = np.full((n, k), -1, np.int64)
    kept = position < k
    fused[query[kept], position[kept]] = (keys % stride)[order[kept]]
    return fused
