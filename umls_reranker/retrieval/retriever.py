"""The union of a recipe's retrievers, which finds the candidates of mentions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import pyarrow as pa

from ..core.arrays import number_distinct
from ..vocab.concept_table import ConceptTable
from .candidates import Candidates
from .index_settings import IndexSettings
from .index_sources import IndexSources
from .name_grouping import DictionaryNames
from .queries import Queries
from .rank_fusion import fuse_ranks
from .retrieval_method import IndexRetriever, RetrievalMethod
from .retrievers import ORDERING, Dense, chosen_retrievers, require_ordering
from .string_concepts import StringConcepts

if TYPE_CHECKING:
    from ..models.bi_encoder import BiEncoder


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
        union = fuse_ranks(list(lists.values()), depth)
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
