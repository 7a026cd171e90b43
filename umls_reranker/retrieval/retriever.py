"""The union of a recipe's retrievers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from ..core.arrays import number_distinct
from .concept_search import Candidates
from .deployment import IndexSettings
from .retrievers import Dense, IndexSources, Queries, RetrievalMethod, chosen_retrievers

if TYPE_CHECKING:
    import pyarrow as pa

    from ..models.bi_encoder import BiEncoder
    from ..vocab.concepts import ConceptTable

# Ranks at which recall is measured; each retriever returns at least as many concepts.
RECALL_DEPTH = 64
# Cormack, Clarke and Buettcher (2009), "Reciprocal rank fusion outperforms Condorcet and individual rank learning
# methods", section 3.
RANK_CONSTANT = 60


class Retriever:
    """Finds the concepts nearest to a mention.

    Several retrievers are combined by reciprocal rank fusion of lists twice as long as requested. The fusion decides
    which concepts are candidates; their cosines decide the order.

    Args:
        methods: the retrievers, one of them dense; ties of ranks go to the concept in an earlier list.
        encoder: the bi-encoder, which encodes the mentions.
        index_key: key of the index that all were loaded from (`IndexSettings.index_key`); "" if there is none.

    Attributes:
        index: the dense index.
        reads_context: whether `search` needs the text around mentions.
    """

    def __init__(
        self, methods: Sequence[RetrievalMethod], encoder: BiEncoder, index_key: str = ""
    ) -> None:
        self.methods, self.encoder, self.index_key = methods, encoder, index_key
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

        A candidate has its nearest name by dense cosine of the mention alone, and this cosine as its score, whichever
        retriever found it. Every list is in the order of these scores.

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
            lists = {Dense.name: nearest.rows.astype(np.int32)}
            return Candidates(
                nearest.rows[:, :k], nearest.name_ids[:, :k], nearest.scores[:, :k], lists=lists
            )
        depth = max(2 * k, RECALL_DEPTH)
        in_context = strings
        if self.reads_context:
            in_context = Queries(texts, contexts, self.encoder.encode(texts, contexts), documents)
        by_document = (
            None
            if documents is None
            else Queries(texts, None, strings.vectors[string_of], documents)
        )
        of_mentions: dict[str, Queries] = {}
        lists = {}
        for method in self.methods:
            if method.reads_context:
                of_mentions[method.name] = in_context
            elif method.leaves_out_documents and by_document is not None:
                of_mentions[method.name] = by_document
            if method.name in of_mentions:
                lists[method.name] = method.search(of_mentions[method.name], depth)
            else:
                lists[method.name] = method.search(strings, depth)[string_of]
        union = fuse(list(lists.values()), depth)
        rows = np.ascontiguousarray(union[:, :k])
        # A string has mostly the same candidates in all texts, so each of its concepts is processed once.
        is_candidate = rows >= 0
        stride = rows.max(initial=0) + 1
        keys = (string_of[:, None] * stride + rows)[is_candidate]
        pairs, pair_of = np.unique(keys, return_inverse=True)
        owners, concepts = pairs // stride, (pairs % stride)[:, None]
        name_ids, scores = (
            np.full(rows.shape, -1, np.int64),
            np.full(rows.shape, -np.inf, np.float32),
        )
        nearest_names, cosines = self.index.best_names(strings.vectors, concepts, owners)
        name_ids[is_candidate], scores[is_candidate] = (
            nearest_names[pair_of, 0],
            cosines[pair_of, 0],
        )
        # Fused ranks select well but order badly: lexical matches are less often correct than dense ones.
        order = np.argsort(-scores, axis=1, kind="stable")
        further = {}
        for method in self.methods:
            if method.score_name in (None, Dense.score_name):
                continue
            if method.name in of_mentions:
                of_method = method.score(of_mentions[method.name], rows, np.arange(len(rows)))
            else:
                of_method = np.full(rows.shape, -np.inf, np.float32)
                of_method[is_candidate] = method.score(strings, concepts, owners)[pair_of, 0]
            further[method.score_name] = np.take_along_axis(of_method, order, axis=1)
        rows, name_ids, scores = (
            np.take_along_axis(values, order, axis=1) for values in (rows, name_ids, scores)
        )
        lists["union"] = np.concatenate([rows, union[:, k:]], axis=1)
        lists = {name: ranked[:, :RECALL_DEPTH].astype(np.int32) for name, ranked in lists.items()}
        return Candidates(rows, name_ids, scores, further, lists)


def fuse(lists: Sequence[np.ndarray], k: int) -> np.ndarray:
    """Reciprocal rank fusion: the k concepts with the largest sum of 1 / (60 + rank) over the lists they are in.

    Args:
        lists: (n, depth) ranked concept rows of each retriever, distinct within a list, padded with -1.
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
    sums, query = np.bincount(key_of, gains[column]), query[first]
    order = np.lexsort((column[first], -sums, query))
    query = query[order]
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
