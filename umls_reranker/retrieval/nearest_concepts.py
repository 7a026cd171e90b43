"""The concepts nearest to training mentions: searched by the retriever, or from user-provided candidate lists."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..core.arrays import list_offsets
from ..core.files import written
from ..core.progress import progress
from ..data.candidate_lists import SCORES_SUFFIX
from ..data.normalization import normalize_name
from .candidates import gold_positions
from .concept_search import Candidates, query_blocks

if TYPE_CHECKING:
    from datasets import Dataset

    from ..data.concepts import ConceptTable
    from ..models.bi_encoder import BiEncoder
    from .retriever import Retriever

# Queries per shard: enough to use a CPU or GPU well, few enough to divide evenly.
SHARD = 4_096
# If the filters leave too few concepts, twice and then four times as many are searched.
DEEPER_SEARCHES = 2
# Number of queries whose gold names are compared together; fixed, because padding affects the last bits.
PAIRS = 4_096


class Names(Protocol):
    """Names by number, concept after concept.

    Attributes:
        offsets: (n_concepts + 1,) int64; the names of row r have the ids ``offsets[r]`` to ``offsets[r + 1] - 1``.
    """

    @property
    def offsets(self) -> np.ndarray: ...

    def name_array(self, name_ids: np.ndarray) -> pa.ChunkedArray:
        """The strings of names."""


class GoldConcepts(NamedTuple):
    """The gold concepts of n mentions, as pairs show them.

    Attributes:
        rows: (n,) int64 concept rows.
        name_ids: (n,) int64, the name nearest to the mention.
        cosines: (n,) float32, cosine of mention and name, or their score in a list; NaN if unknown.
    """

    rows: np.ndarray
    name_ids: np.ndarray
    cosines: np.ndarray

    def take(self, mentions: np.ndarray) -> GoldConcepts:
        """The gold concepts of some mentions, by number."""
        return GoldConcepts(*(column[mentions] for column in self))


class NearestConcepts(ABC):
    """Ranked lists of concepts, one for each of n mentions; mentions may share a list.

    Args:
        names: the names by number.
        list_of: (n,) list of each mention.
        sizes: (m,) length of each list.
        concepts: concept rows, name ids and scores of all lists, each flat.

    Attributes:
        encoder: encoder of the scores, which are cosines; None: scores of user-provided lists.
        gold: the gold concepts.
        missing_gold: number of gold concepts that are not in the list of their mention.
    """

    encoder: BiEncoder | None
    gold: GoldConcepts
    missing_gold: int

    def __init__(self, names: Names, list_of: np.ndarray, sizes: np.ndarray, concepts: Candidates) -> None:
        self.names, self._list_of, self._sizes, self._concepts = names, list_of, sizes, concepts
        self._starts = list_offsets(sizes)[:-1]

    def take(self, mentions: np.ndarray) -> Candidates:
        """The lists of some mentions, by number; padded to the longest."""
        lists = self._list_of[mentions]
        sizes = self._sizes[lists]
        near = Candidates.padding(len(lists), int(sizes.max(initial=1)))
        mention, rank = np.nonzero(np.arange(near.rows.shape[1]) < sizes[:, None])
        taken = self._concepts.take(self._starts[lists[mention]] + rank)
        near.rows[mention, rank], near.name_ids[mention, rank] = taken.rows, taken.name_ids
        near.scores[mention, rank] = taken.scores
        return near

    @abstractmethod
    def deepen(self, has_enough: Callable[[np.ndarray], np.ndarray]) -> dict[str, int]:
        """Search more concepts for mentions whose lists hold too few negatives.

        Args:
            has_enough: function of numbers of mentions, (m,), that returns (m,) bool.

        Returns:
            Number of searched concepts -> number of mentions; empty if lists cannot be extended.
        """


class ShardedSearch:
    """The k concepts that the retriever lists first for m distinct queries; a killed run resumes.

    The search is divided into shards among any number of processes. A shard always holds the same queries and does not
    depend on others, so the result is bitwise the same for any number of processes. Numbers are int32 and cosines
    float32: 768 bytes per query at k = 64, 115 MB for 150,000 queries.

    Args:
        queries: m rows of `concept_search.distinct_queries`.
        retriever: finds the candidates that serving will see.
        k: concepts per query.
        folder: folder of the shards; created if missing.
    """

    def __init__(self, queries: pa.Table, retriever: Retriever, k: int, folder: Path) -> None:
        self.queries, self.retriever, self.k = queries, retriever, k
        self._blocks = query_blocks(queries, SHARD)
        shards = len(self._blocks)
        self._files = [folder / f".nearest-{number:05}-of-{shards:05}.npz" for number in range(shards)]

    def search_share(self, process: int, processes: int) -> None:
        """Search and write every `processes`-th shard, except existing ones."""
        missing = [n for n in range(process, len(self._files), processes) if not self._files[n].is_file()]
        if not missing:
            return
        self._files[0].parent.mkdir(parents=True, exist_ok=True)
        sizes = [end - start for start, end in self._blocks]
        total = sum(sizes[number] for number in missing)
        with progress(total=total, desc="searching mentions", unit=" strings") as bar:
            for number in missing:
                near = self._search(np.arange(*self._blocks[number]), self.k)
                with written(self._files[number]) as partial, partial.open("wb") as stream:
                    np.savez(stream, rows=near.rows, name_ids=near.name_ids, scores=near.scores)
                bar.update(sizes[number])

    def search(self) -> Candidates:
        """Search the missing shards, and read all shards."""
        self.search_share(0, 1)
        shards = []
        for file in self._files:
            with np.load(file, allow_pickle=False) as arrays:
                shards.append(Candidates(arrays["rows"], arrays["name_ids"], arrays["scores"]))
        return Candidates.concatenate(shards or [Candidates.padding(0, self.k)])

    def search_deeper(self, queries: np.ndarray, k: int) -> Candidates:
        """Search some queries, by ascending number, for another number of concepts."""
        blocks = query_blocks(self.queries.take(pa.array(queries)), SHARD)
        return Candidates.concatenate([self._search(queries[start:end], k) for start, end in blocks])

    def _search(self, queries: np.ndarray, k: int) -> Candidates:
        near = self.retriever.search_queries(self.queries.take(pa.array(queries)), k)
        return Candidates(near.rows.astype(np.int32), near.name_ids.astype(np.int32), near.scores)


class SearchedConcepts(NearestConcepts):
    """Concepts that the retriever found.

    Args:
        search: search of the distinct queries of n mentions.
        list_of: (n,) query of each mention.
        gold: (n,) rows of their gold concepts.
    """

    def __init__(self, search: ShardedSearch, list_of: np.ndarray, gold: np.ndarray) -> None:
        near = search.search()
        sizes = np.full(len(near.rows), search.k)
        super().__init__(search.retriever.index, list_of, sizes, near.flat())
        self._search, self.encoder = search, search.retriever.encoder
        positions = gold_positions(gold, near.rows, list_of)
        self.gold = GoldConcepts(gold, near.name_ids[list_of, positions], near.scores[list_of, positions])
        missing = np.flatnonzero(positions < 0)
        self.missing_gold = len(missing)
        self._compare_with_names(missing)

    def _compare_with_names(self, mentions: np.ndarray) -> None:
        """Look for the nearest names of the gold concepts of some mentions."""
        index, n_concepts = self._search.retriever.index, len(self.names.offsets) - 1
        # Each pair of query and concept once.
        keys, pair_of = np.unique(self._list_of[mentions] * n_concepts + self.gold.rows[mentions], return_inverse=True)
        queries, rows = keys // n_concepts, keys % n_concepts
        name_ids, cosines = np.empty(len(keys), np.int64), np.empty(len(keys), np.float32)
        for start in range(0, len(keys), PAIRS):
            part = slice(start, start + PAIRS)
            texts = self._search.queries["mention"].take(pa.array(queries[part])).combine_chunks().dictionary_encode()
            vectors = self._search.retriever.encoder.encode(texts.dictionary.to_pylist())
            nearest = index.best_names(vectors, rows[part, None], texts.indices.to_numpy())
            name_ids[part], cosines[part] = (column[:, 0] for column in nearest)
        self.gold.name_ids[mentions], self.gold.cosines[mentions] = name_ids[pair_of], cosines[pair_of]

    def deepen(self, has_enough: Callable[[np.ndarray], np.ndarray]) -> dict[str, int]:
        counts: dict[str, int] = {}
        short, k = np.arange(len(self._list_of)), self._search.k
        for _ in range(DEEPER_SEARCHES):
            short = short[~has_enough(short)]
            if not len(short) or k >= len(self.names.offsets) - 1:
                break
            k *= 2
            lists = np.unique(self._list_of[short])
            deeper = self._search.search_deeper(lists, k)
            self._starts[lists] = len(self._concepts.rows) + k * np.arange(len(lists))
            self._sizes[lists] = k
            self._concepts = Candidates.concatenate([self._concepts, deeper.flat()])
            counts[str(k)] = len(short)
        return counts


class ListedConcepts(NearestConcepts):
    """The concepts in the user-provided candidate lists of n mentions. Their first score is used as the cosine.

    Args:
        candidates: lists of a split.
        concepts: a dictionary with their concepts.
        mentions: the mentions.
        gold: (n,) rows of their gold concepts.
        list_of: (n,) rows of their lists.

    Attributes:
        names: names of the dictionary, then of the candidates.
    """

    def __init__(
        self,
        candidates: Dataset,
        concepts: ConceptTable,
        mentions: pa.ChunkedArray,
        gold: np.ndarray,
        list_of: np.ndarray,
    ) -> None:
        table = candidates.with_format("arrow")[:]
        names = _DictionaryAndListed(concepts, pc.list_flatten(table["names"]))
        rows = concepts.rows(pc.list_flatten(table["cuis"]).combine_chunks())
        column = next((name for name in table.column_names if name.endswith(SCORES_SUFFIX)), None)
        scores = np.full(len(rows), np.nan) if column is None else pc.list_flatten(table[column]).to_numpy()
        listed = Candidates(rows, names.first_listed + np.arange(len(rows)), scores.astype(np.float32))
        super().__init__(names, list_of, pc.list_value_length(table["cuis"]).to_numpy(), listed)
        self.encoder = None
        name_ids, cosines = np.empty(len(gold), np.int64), np.full(len(gold), np.nan, np.float32)
        positions = table["gold"].to_numpy()[list_of]
        is_listed = positions >= 0
        in_lists = listed.take(self._starts[list_of[is_listed]] + positions[is_listed])
        name_ids[is_listed], cosines[is_listed] = in_lists.name_ids, in_lists.scores
        missing = np.flatnonzero(~is_listed)
        self.missing_gold = len(missing)
        # A concept that is not in the list is shown with its name most similar to the mention.
        texts, starts = concepts.names_of(gold[missing])
        for mention, start, end in zip(missing.tolist(), starts[:-1], starts[1:], strict=True):
            likeness = [_likeness(mentions[mention].as_py(), name) for name in texts[start:end].to_pylist()]
            name_ids[mention] = names.offsets[gold[mention]] + np.argmax(likeness)
        self.gold = GoldConcepts(gold, name_ids, cosines)

    def deepen(self, has_enough: Callable[[np.ndarray], np.ndarray]) -> dict[str, int]:
        return {}


class _DictionaryAndListed:
    """Names by number: those of a dictionary by rows, as in an index, then those of candidates from `first_listed`."""

    def __init__(self, concepts: ConceptTable, listed: pa.ChunkedArray) -> None:
        self._concepts, self._listed = concepts, listed
        self.offsets = list_offsets(concepts.name_counts)
        self.first_listed = int(self.offsets[-1])

    def name_array(self, name_ids: np.ndarray) -> pa.ChunkedArray:
        """The strings of names."""
        is_listed = name_ids >= self.first_listed
        known = name_ids[~is_listed]
        rows = np.searchsorted(self.offsets, known, side="right") - 1
        names = self._concepts.names_at(rows, known - self.offsets[rows])
        listed = self._listed.take(pa.array(name_ids[is_listed] - self.first_listed)).combine_chunks()
        # The position of each name among those of the dictionary, then the listed ones.
        order = np.argsort(np.argsort(is_listed, kind="stable"))
        return pa.chunked_array([pa.concat_arrays([names, listed]).take(pa.array(order))])


def _likeness(mention: str, name: str) -> float:
    """Jaccard index of the character trigrams of two normalized texts, 1 if they are equal."""
    first, second = (
        {text[start : start + 3] for start in range(len(text) - 2)}
        for text in (f"  {normalize_name(side)} " for side in (mention, name))
    )
    return len(first & second) / max(1, len(first | second))
