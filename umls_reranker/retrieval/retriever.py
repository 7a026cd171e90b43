"""The union of a recipe's retrievers, and candidate lists as in serving, as rows of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa

from ..core.arrays import list_offsets, number_distinct
from ..core.parallel import progress
from ..lists.gold import trainable
from ..lists.run_lists import list_rows, write_list_rows
from ..vocab.concept_table import ConceptTable
from .concept_index import Candidates, DictionaryNames, distinct_queries, query_blocks
from .deployment import IndexSettings
from .retrievers import (
    ORDERING,
    Dense,
    IndexRetriever,
    IndexSources,
    Queries,
    RetrievalMethod,
    chosen_retrievers,
    require_ordering,
)

if TYPE_CHECKING:
    from datasets import Dataset

    from ..models.bi_encoder import BiEncoder

# Cormack, Clarke and Buettcher (2009), "Reciprocal rank fusion outperforms Condorcet and individual
# rank learning methods", section 3.
RANK_CONSTANT = 60


class Retriever:
    """Finds the concepts nearest to a mention.

    Several retrievers are combined by reciprocal rank fusion of lists twice as long as requested.
    The fusion decides which concepts are candidates. The score of one retriever decides their order
    and the name shown: the dense cosine, else that of normal forms, and with equal ones or without
    them that of trigrams. Of concepts with equal names, the one whose preferred name is nearer
    comes first, then the one with more names.

    Args:
        methods: the retrievers, one of them of `ORDERING`; ties of ranks go to the earlier list's
            concept.
        encoder: the bi-encoder, which encodes the mentions; None if no retriever needs it.
        index_key: key of the index that all were loaded from (`IndexSettings.index_key`); "" if
            there is none.
        concepts: the dictionary; not needed with a dense retriever.
        recall_depth: ranks at which recall can be measured; each retriever finds at least as many
            concepts.

    Attributes:
        reads_context: whether `search` needs the text around mentions.
    """

    def __init__(
        self,
        methods: Sequence[RetrievalMethod],
        encoder: BiEncoder | None = None,
        index_key: str = "",
        concepts: ConceptTable | None = None,
        recall_depth: int = 64,
    ) -> None:
        self.methods = methods
        self.encoder = encoder
        self.index_key = index_key
        self.recall_depth = recall_depth
        self._concepts = concepts
        self.reads_context = any(method.reads_context for method in methods)
        by_name = {method.name: method for method in methods}
        ordering = [by_name[name] for name in ORDERING if name in by_name]
        # Those whose scores order candidates, one after the other.
        if concepts is None:
            ordering = ordering[:1]
        self._ordering = cast(list[IndexRetriever], ordering)
        self._index = self._ordering[0].index

    def require(self, concepts: ConceptTable) -> None:
        """Refuse concepts or an encoder other than those of the indexes.

        Raises:
            UserError: they differ, which is named, or the encoder was not trained to read context.
        """
        for method in self.methods:
            method.require(concepts, self.encoder)

    def name_array(self, name_ids: np.ndarray) -> pa.StringArray:
        """The names with n ids, (n,)."""
        if self._concepts is not None:
            return self._concepts.names_by_id(name_ids)
        return self._index.name_array(name_ids).combine_chunks()

    def scores_of(self, candidates: Candidates) -> dict[str, np.ndarray]:
        """Retriever -> (n, k) float32, its scores of candidates; those that order them first."""
        return {str(self._ordering[0].score_name): candidates.scores, **candidates.further}

    def search(
        self,
        texts: Sequence[str],
        k: int,
        contexts: tuple[Sequence[str], Sequence[str]] | None = None,
        documents: Sequence[str] | None = None,
    ) -> Candidates:
        """The k concepts nearest to each mention.

        A candidate has its nearest name, and the score by which it is the nearest, whichever
        retriever found it. Every list is in the order of these scores.

        Args:
            texts: n mentions.
            k: number of concepts.
            contexts: n left and n right texts, if the retriever reads context.
            documents: n documents, whose own mentions are not to be found.
        """
        distinct, string_of = number_distinct(texts)
        vectors = None if self.encoder is None else self.encoder.encode(distinct)
        strings = Queries(distinct, vectors=vectors)
        if [method.name for method in self.methods] == [Dense.name]:
            return self._search_alone(strings, k, string_of)
        if vectors is not None:
            vectors = vectors[string_of]
        mentions = self._mention_queries(Queries(texts, contexts, vectors, documents))
        depth = max(2 * k, self.recall_depth)
        lists: dict[str, np.ndarray] = {}
        for method in self.methods:
            if method.name in mentions:
                lists[method.name] = method.search(mentions[method.name], depth)
            else:
                lists[method.name] = method.search(strings, depth)[string_of]
        union = fuse(list(lists.values()), depth)
        pairs = StringConcepts(np.ascontiguousarray(union[:, :k]), string_of)
        candidates = self._scored(pairs, strings, mentions)
        lists["union"] = np.concatenate([candidates.rows, union[:, k:]], axis=1)
        for name, ranked in lists.items():
            candidates.lists[name] = ranked[:, : self.recall_depth].astype(np.int32)
        return candidates

    def _search_alone(self, strings: Queries, k: int, string_of: np.ndarray) -> Candidates:
        """The candidates of a lone dense index, whose search gives names and scores, too."""
        nearest = self._index.search(strings.vectors, max(k, self.recall_depth)).take(string_of)
        return Candidates(
            rows=nearest.rows[:, :k],
            name_ids=nearest.name_ids[:, :k],
            scores=nearest.scores[:, :k],
            lists={Dense.name: nearest.rows.astype(np.int32)},
        )

    def _mention_queries(self, mentions: Queries) -> dict[str, Queries]:
        """The queries of methods that read more of a mention than its string, by their names."""
        queries = {}
        if self.reads_context and self.encoder is not None:
            in_context = replace(
                mentions, vectors=self.encoder.encode(mentions.texts, mentions.contexts)
            )
        for method in self.methods:
            if method.reads_context:
                queries[method.name] = in_context
            elif method.leaves_out_documents and mentions.documents is not None:
                queries[method.name] = mentions
        return queries

    def _scored(
        self, pairs: StringConcepts, strings: Queries, mentions: dict[str, Queries]
    ) -> Candidates:
        """The concepts (n, k) of n mentions, in the order of their scores, with all scores.

        Args:
            pairs: the concepts.
            strings: the queries of methods that read only the string.
            mentions: those of other methods, by name.
        """
        rows = pairs.rows
        name_ids, values = self._nearest_names(strings, pairs)
        scores = {}
        for method in self.methods:
            if method.score_name is None:
                continue
            if method.name in mentions:
                of_all = method.score(mentions[method.name], rows, np.arange(len(rows)))
            elif method is self._ordering[0] and self._index.grouping.documents is None:
                of_all = pairs.spread(values, -np.inf)
            else:
                of_all = pairs.spread(method.score(strings, pairs.concepts, pairs.strings), -np.inf)
            scores[method.score_name] = of_all
        ordering = [scores[str(method.score_name)] for method in self._ordering]
        if self._concepts is not None:
            # Of concepts with equal names.
            preferred = self._index.grouping.offsets[pairs.concepts[:, 0]]
            likeness = self._name_cosines(self._ordering[0], strings, pairs.strings, preferred)
            ordering.append(pairs.spread(likeness[:, None], -1))
            ordering.append(pairs.spread(self._concepts.name_counts[pairs.concepts], -1))
        # Fused ranks select well but order badly: lexical matches are less often correct.
        order = np.lexsort([-values for values in reversed(ordering)], axis=1)
        scores = {
            name: np.take_along_axis(values, order, axis=1) for name, values in scores.items()
        }
        return Candidates(
            rows=np.take_along_axis(rows, order, axis=1),
            name_ids=np.take_along_axis(pairs.spread(name_ids, -1), order, axis=1),
            scores=scores.pop(str(self._ordering[0].score_name)),
            further=scores,
        )

    def _nearest_names(
        self, strings: Queries, pairs: StringConcepts
    ) -> tuple[np.ndarray, np.ndarray]:
        """The dictionary's name to show of each string and concept, and its score, both (p, 1)."""
        vectors = self._ordering[0].vectors_of(strings)
        if self._concepts is None:
            return self._index.best_names(vectors, pairs.concepts, pairs.strings)

        def break_ties(numbers: np.ndarray, name_ids: np.ndarray) -> np.ndarray:
            return self._name_cosines(self._ordering[1], strings, pairs.strings[numbers], name_ids)

        score = break_ties if len(self._ordering) > 1 else None
        names = DictionaryNames(self._concepts.name_offsets, score)
        return self._index.best_names(vectors, pairs.concepts, pairs.strings, dictionary=names)

    def _name_cosines(
        self, method: IndexRetriever, strings: Queries, numbers: np.ndarray, name_ids: np.ndarray
    ) -> np.ndarray:
        """Cosines of strings, by number, each with one name of a method's index, (m,)."""
        return method.index.name_cosines(method.vectors_of(strings)[numbers], name_ids)


class StringConcepts:
    """The distinct (string, concept) pairs among candidates of n mentions; each is scored once.

    A string has mostly the same candidates in all texts.

    Args:
        rows: (n, k) concept rows, padded with -1.
        string_of: (n,) string of each mention.

    Attributes:
        rows: the candidates.
        strings: (p,) string of each pair.
        concepts: (p, 1) concept row of each pair.
    """

    def __init__(self, rows: np.ndarray, string_of: np.ndarray) -> None:
        self.rows = rows
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
    gain = np.bincount(key_of, gains[column])
    order = np.lexsort((column[first], -gain, query[first]))
    query = query[first][order]
    starts = np.searchsorted(query, np.arange(len(rows)))
    rank = np.arange(len(order)) - starts[query]
    is_retained = rank < k
    fused = np.full((len(rows), k), -1, np.int64)
    fused[query[is_retained], rank[is_retained]] = (keys % stride)[order[is_retained]]
    return fused


def load_retriever(
    folder: Path,
    device: str,
    concepts: ConceptTable | None = None,
    settings: IndexSettings | None = None,
) -> Retriever:
    """Open the indexes of a run or index folder.

    Args:
        folder: the folder.
        device: of the encoder, as for `BiEncoder.from_pretrained`.
        concepts: its dictionary, if it is loaded already.
        settings: its settings, likewise.

    Raises:
        UserError: an index is missing, or as for `IndexSettings.load`.
    """
    settings = settings or IndexSettings.load(folder)
    require_ordering(settings.retrievers)
    sources = IndexSources(folder, settings, device)
    if concepts is not None:
        sources.concepts = concepts
    chosen = cast(list[type[RetrievalMethod]], chosen_retrievers(settings.retrievers))
    methods = [method.load(sources, folder / (method.folder or "")) for method in chosen]
    encoder = sources.encoder if settings.encoder else None
    ordered_by = None if Dense.name in settings.retrievers else sources.concepts
    return Retriever(methods, encoder, settings.index_key, ordered_by)


# Ranks at which recall is reported.
RECALL_AT = (1, 8, 32, 64)
# Mentions whose lists are made at a time; it changes no result.
BATCH = 4_096


def drawn_rows(
    cuis: Sequence[str], concepts: ConceptTable, most: int | None, seed: int
) -> np.ndarray:
    """Mentions to train on, ascending: those with a gold concept in the dictionary.

    At most `most`, drawn at random.
    """
    known = np.flatnonzero(concepts.rows(cuis) >= 0)
    return np.sort(np.random.default_rng(seed).permutation(known)[:most])


def search_mentions(
    mentions: pa.Table,
    retriever: Retriever,
    k: int,
    *,
    is_known: bool = False,
    block: int = 8_192,
) -> tuple[np.ndarray, Candidates]:
    """Search each distinct query of `mentions` (`distinct_queries`) once for k concepts.

    Args:
        mentions: n mentions.
        retriever: finds the concepts.
        k: concepts per query.
        is_known: whether indexes have mentions of their documents, which must not find themselves.
        block: queries encoded and searched together; padding affects the last bits of the scores.

    Returns:
        (n,) int64, number of each row's query, and the candidates of the queries.
    """
    by_document = is_known and any(method.leaves_out_documents for method in retriever.methods)
    query_of, queries = distinct_queries(mentions, retriever.reads_context, by_document)
    blocks = []
    with progress(total=len(queries), desc="searching mentions", unit=" strings") as bar:
        for start, end in query_blocks(queries, block) or [(0, 0)]:
            columns = queries.slice(start, end - start).to_pydict()
            contexts = (columns["left"], columns["right"]) if "left" in columns else None
            blocks.append(retriever.search(columns["mention"], k, contexts, columns.get("doc_id")))
            bar.update(end - start)
    return query_of, Candidates.concatenate(blocks)


def gold_positions(
    gold_rows: np.ndarray, rows: np.ndarray, query_of: np.ndarray, batch: int = BATCH
) -> np.ndarray:
    """The position of each mention's gold concept among its candidates.

    Args:
        gold_rows: (n,) concept rows, -1 where the gold concept is not in the dictionary.
        rows: (m, k) candidates of the distinct queries.
        query_of: (n,) number of each mention's query.
        batch: mentions looked at together.

    Returns:
        (n,) int32 positions, -1 if the gold concept is not a candidate.
    """
    positions = np.full(len(query_of), -1, np.int32)
    for start in range(0, len(query_of), batch):
        part = slice(start, start + batch)
        gold = gold_rows[part, None]
        is_gold = (rows[query_of[part]] == gold) & (gold >= 0)
        positions[part] = np.where(is_gold.any(axis=1), is_gold.argmax(axis=1), -1)
    return positions


def write_lists(
    mentions: Dataset,
    retriever: Retriever,
    concepts: ConceptTable,
    k: int,
    path: Path,
    *,
    is_known: bool = False,
    batch: int = BATCH,
) -> dict[str, Any]:
    """Write the k nearest concepts of every mention, in their order, as `run_lists.list_rows`.

    A candidate has ``cui``, ``name``, and the score of each retriever, such as ``lexical_score``.

    Args:
        mentions: a split, or some of it.
        retriever: retriever of the candidates.
        concepts: dictionary of its index.
        k: candidates per mention; fewer only if the dictionary has fewer concepts.
        path: Arrow file to make.
        is_known: as for `search_mentions`.
        batch: mentions whose lists are made at a time.

    Returns:
        Counts: ``mentions``; ``in_dictionary``, whose gold concept has names; ``retrieved``, whose
        list has it; and ``recall``: retriever -> rank -> share of the mentions in the dictionary
        whose gold concept that retriever ranks so high.

    Raises:
        UserError: an index was built with another encoder or other concepts.
    """
    retriever.require(concepts)
    table = mentions.with_format("arrow")[:]
    query_of, candidates = search_mentions(table, retriever, k, is_known=is_known)
    gold_rows = concepts.rows(trainable(table["cui"].to_pylist()))
    gold = gold_positions(gold_rows, candidates.rows, query_of, batch)

    def batches() -> Iterator[pa.Table]:
        for start in range(0, max(len(query_of), 1), batch):
            part = candidates.take(query_of[start : start + batch])
            is_candidate = part.rows >= 0
            columns = {
                "cui": concepts.cuis_of(part.rows[is_candidate]),
                "name": retriever.name_array(part.name_ids[is_candidate]),
            }
            for name, scores in retriever.scores_of(part).items():
                columns[f"{name}_score"] = pa.array(scores[is_candidate])
            offsets = list_offsets(is_candidate.sum(axis=1))
            yield list_rows(table.slice(start, batch), offsets, columns, retriever.index_key)

    write_list_rows(batches(), path)
    return {
        "mentions": len(query_of),
        "in_dictionary": int((gold_rows >= 0).sum()),
        "retrieved": int((gold >= 0).sum()),
        "recall": {
            name: _recall(gold_rows, rows, query_of) for name, rows in candidates.lists.items()
        },
    }


def _recall(gold_rows: np.ndarray, rows: np.ndarray, query_of: np.ndarray) -> dict[str, float]:
    known = gold_rows >= 0
    ranks = gold_positions(gold_rows[known], rows, query_of[known])
    recall = {}
    for k in RECALL_AT:
        is_found = (ranks >= 0) & (ranks < k)
        recall[str(k)] = round(float(is_found.sum() / max(1, len(ranks))), 4)
    return recall
