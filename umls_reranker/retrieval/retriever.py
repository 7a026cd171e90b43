"""The union of a recipe's retrievers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa

from ..core.arrays import number_distinct
from ..models.bi_encoder import BiEncoder
from ..vocab.concepts import ConceptTable
from .concept_search import Candidates
from .deployment import IndexSettings
from .retrievers import Dense, IndexSources, Queries, RetrievalMethod, chosen_retrievers

# Ranks at which recall is measured; each retriever returns at least as many concepts.
RECALL_DEPTH = 64
# Cormack, Clarke and Buettcher (2009), "Reciprocal rank fusion outperforms Condorcet and individual
# rank learning methods", section 3.
RANK_CONSTANT = 60


class Retriever:
    """Finds the concepts nearest to a mention.

    Several retrievers are combined by reciprocal rank fusion of lists twice as long as requested.
    The fusion decides which concepts are candidates; their cosines decide the order.

    Args:
        methods: the retrievers, one of them dense; ties of ranks go to the earlier list's concept.
        encoder: the bi-encoder, which encodes the mentions.
        index_key: key of the index that all were loaded from (`IndexSettings.index_key`); "" if
            there is none.

    Attributes:
        index: the dense index.
        reads_context: whether `search` needs the text around mentions.
    """

    def __init__(
        self, methods: Sequence[RetrievalMethod], encoder: BiEncoder, index_key: str = ""
    ) -> None:
        self.methods = methods
        self.encoder = encoder
        self.index_key = index_key
        self.index = next(method.index for method in methods if isinstance(method, Dense))
        self.reads_context = any(method.reads_context for method in methods)

    def require(self, concepts: ConceptTable) -> None:
        """Refuse concepts or an encoder other than those of the indexes.

        Raises:
            UserError: they differ, which is named, or the encoder was not trained to read context.
        """
        for method in self.methods:
            method.require(concepts, self.encoder)

    def search_queries(self, queries: pa.Table, k: int) -> Candidates:
        """`search` of the rows of `concept_search.distinct_queries`."""
        columns = {name: queries[name].to_pylist() for name in queries.column_names}
        contexts = (columns["left"], columns["right"]) if "left" in columns else None
        return self.search(columns["mention"], k, contexts, columns.get("doc_id"))

    def search(
        self,
        texts: Sequence[str],
        k: int,
        contexts: tuple[Sequence[str], Sequence[str]] | None = None,
        documents: Sequence[str] | None = None,
    ) -> Candidates:
        """The k concepts nearest to each mention.

        A candidate has its nearest name by dense cosine of the mention alone, and this cosine as
        its score, whichever retriever found it. Every list is in the order of these scores.

        Args:
            texts: n mentions.
            k: number of concepts.
            contexts: n left and n right texts, if the retriever reads context.
            documents: n documents, whose own mentions are not to be found.
        """
        distinct, string_of = number_distinct(texts)
        strings = Queries(distinct, None, self.encoder.encode(distinct))
        if len(self.methods) == 1:
            nearest = self.index.search(strings.vectors, max(k, RECALL_DEPTH)).take(string_of)
            return Candidates(
                rows=nearest.rows[:, :k],
                name_ids=nearest.name_ids[:, :k],
                scores=nearest.scores[:, :k],
                lists={Dense.name: nearest.rows.astype(np.int32)},
            )
        mentions = self._mention_queries(texts, contexts, documents, strings.vectors[string_of])
        depth = max(2 * k, RECALL_DEPTH)
        lists = {}
        for method in self.methods:
            if method.name in mentions:
                lists[method.name] = method.search(mentions[method.name], depth)
            else:
                lists[method.name] = method.search(strings, depth)[string_of]
        union = fuse(list(lists.values()), depth)
        candidates = self._scored(np.ascontiguousarray(union[:, :k]), mentions, strings, string_of)
        lists["union"] = np.concatenate([candidates.rows, union[:, k:]], axis=1)
        for name, ranked in lists.items():
            candidates.lists[name] = ranked[:, :RECALL_DEPTH].astype(np.int32)
        return candidates

    def _mention_queries(
        self,
        texts: Sequence[str],
        contexts: tuple[Sequence[str], Sequence[str]] | None,
        documents: Sequence[str] | None,
        vectors: np.ndarray,
    ) -> dict[str, Queries]:
        """The queries of methods that read more of a mention than its string, by their names."""
        queries = {}
        if self.reads_context:
            in_context = Queries(texts, contexts, self.encoder.encode(texts, contexts), documents)
        for method in self.methods:
            if method.reads_context:
                queries[method.name] = in_context
            elif method.leaves_out_documents and documents is not None:
                queries[method.name] = Queries(texts, None, vectors, documents)
        return queries

    def _scored(
        self,
        rows: np.ndarray,
        mentions: dict[str, Queries],
        strings: Queries,
        string_of: np.ndarray,
    ) -> Candidates:
        """Concepts (n, k) of n mentions, by the cosines of their nearest names, with all scores."""
        pairs = StringConcepts(rows, string_of)
        name_ids, cosines = self.index.best_names(strings.vectors, pairs.concepts, pairs.strings)
        scores = pairs.spread(cosines, -np.inf)
        # Fused ranks select well but order badly: lexical matches are less often correct.
        order = np.argsort(-scores, axis=1, kind="stable")
        further = {}
        for method in self.methods:
            if method.score_name in (None, Dense.score_name):
                continue
            if method.name in mentions:
                values = method.score(mentions[method.name], rows, np.arange(len(rows)))
            else:
                values = method.score(strings, pairs.concepts, pairs.strings)
                values = pairs.spread(values, -np.inf)
            further[method.score_name] = np.take_along_axis(values, order, axis=1)
        return Candidates(
            rows=np.take_along_axis(rows, order, axis=1),
            name_ids=np.take_along_axis(pairs.spread(name_ids, -1), order, axis=1),
            scores=np.take_along_axis(scores, order, axis=1),
            further=further,
        )


class StringConcepts:
    """The distinct (string, concept) pairs among candidates of n mentions; each is scored once.

    A string has mostly the same candidates in all texts.

    Args:
        rows: (n, k) concept rows, padded with -1.
        string_of: (n,) string of each mention.

    Attributes:
        strings: (p,) string of each pair.
        concepts: (p, 1) concept row of each pair.
    """

    def __init__(self, rows: np.ndarray, string_of: np.ndarray) -> None:
        self._is_candidate = rows >= 0
        stride = rows.max(initial=0) + 1
        keys = (string_of[:, None] * stride + rows)[self._is_candidate]
        pairs, self._pair_of_candidate = np.unique(keys, return_inverse=True)
        self.strings = pairs // stride
        self.concepts = (pairs % stride)[:, None]

    def spread(self, values: np.ndarray, padding: float) -> np.ndarray:
        """The values of pairs (p, 1) for the candidates, (n, k)."""
        spread = np.full(self._is_candidate.shape, padding, values.dtype)
        spread[self._is_candidate] = values[self._pair_of_candidate, 0]
        return spread


def fuse(lists: Sequence[np.ndarray], k: int) -> np.ndarray:
    """Reciprocal rank fusion: the k concepts with the largest sums of 1 / (60 + rank).

    The sum is over the lists that a concept is in.

    Args:
        lists: (n, depth) ranked concept rows of each retriever, distinct in a list, padded with -1.
        k: number of concepts.

    Returns:
        (n, k) int64 concept rows, padded with -1; ties go to the concept in an earlier list.

    >>> fuse([np.array([[7, 3, 5]]), np.array([[3, 8, -1]])], 4).tolist()
    [[3, 7, 8, 5]]
    """
    rows = np.concatenate(lists, axis=1)
    gains = np.concatenate(
        [1 / (RANK_CONSTANT + 1 + np.arange(ranked.shape[1])) for ranked in lists]
    )
    query, column = np.nonzero(rows >= 0)
    stride = rows.max(initial=0) + 1
    keys, first, key_of = np.unique(
        query * stride + rows[query, column], return_index=True, return_inverse=True
    )
    sums = np.bincount(key_of, gains[column])
    order = np.lexsort((column[first], -sums, query[first]))
    query = query[first][order]
    rank = np.arange(len(order)) - np.searchsorted(query, np.arange(len(rows)))[query]
    is_retained = rank < k
    fused = np.full((len(rows), k), -1, np.int64)
    fused[query[is_retained], rank[is_retained]] = (keys % stride)[order[is_retained]]
    return fused


def load_retriever(folder: Path, device: str) -> Retriever:
    """Open the indexes of a run or index folder.

    Args:
        folder: the folder.
        device: of the encoder, as for `BiEncoder.from_pretrained`.

    Raises:
        UserError: an index is missing, or as for `IndexSettings.load`.
    """
    settings = IndexSettings.load(folder)
    sources = IndexSources(folder, settings, device)
    chosen = cast(list[type[RetrievalMethod]], chosen_retrievers(settings.retrievers))
    methods = [method.load(sources, folder / (method.folder or "")) for method in chosen]
    return Retriever(methods, sources.encoder, settings.index_key)
