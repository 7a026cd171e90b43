"""From the strings nearest to a query to the concepts that they name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise, repeat
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from ..core.arrays import are_below, expand_ranges, hash_texts, list_offsets
from .candidates import Candidates

# Names retrieved per concept: several names of a concept tend to be near a query.
NAMES_PER_CONCEPT = 4
# The most results (queries x strings) that one thread holds, some 100 bytes each.
SEARCH_CELLS = 1 << 20


class DictionaryNames(NamedTuple):
    """The names of a dictionary, among which one is chosen to be shown.

    Attributes:
        offsets: (n_concepts + 1,) int64; the names of row r have the ids ``offsets[r]`` to
            ``offsets[r + 1] - 1``.
        score: query numbers and name ids, both (m,) -> (m,) float32, which break ties; None: ties
            go to the first name.
    """

    offsets: np.ndarray
    score: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None


class NameGrouping:
    """The concept of each name, and its number among the distinct strings.

    It takes 16 bytes per name (concept row 4, string number 4, position among the names of its
    string 8), and 8 bytes per concept and per distinct string.

    Args:
        rows: (n_names,) int32, ascending; name id -> concept row.
        strings: (n_names,) int32; name id -> number of its string.
        concepts: number of concepts.
        distinct: number of distinct strings.
        documents: (n_names,) uint64, hash of the document (`hash_texts`) that alone has the name, 0
            for others; None: no name is from a document.

    Attributes:
        offsets: (n_concepts + 1,) int64; the names of row r have the ids ``offsets[r]`` to
            ``offsets[r + 1] - 1``.
    """

    def __init__(
        self,
        rows: np.ndarray,
        strings: np.ndarray,
        concepts: int,
        distinct: int,
        documents: np.ndarray | None = None,
    ) -> None:
        self.rows = rows
        self.strings = strings
        self.distinct = distinct
        self.documents = documents
        self.offsets = list_offsets(np.bincount(rows, minlength=concepts))
        self._postings = np.argsort(strings, kind="stable")
        self._posting_starts = list_offsets(np.bincount(strings, minlength=distinct))

    @classmethod
    def of_names(cls, names: pa.Table, concepts: int, distinct: int) -> NameGrouping:
        """The grouping of the names that `stored_names.write_names` wrote.

        Raises:
            ValueError: they are not as written: some are of no concept or string.
        """
        columns = {name: names[name] for name in names.column_names}
        documents = columns["document"].to_numpy() if "document" in columns else None
        rows = columns["row"].to_numpy()
        strings = columns["string"].to_numpy()
        are_ascending = (np.diff(rows) >= 0).all()
        if not (are_ascending and are_below(concepts, rows) and are_below(distinct, strings)):
            raise ValueError("names of no concept or no string")
        return cls(rows, strings, concepts, distinct, documents)

    def collect(
        self,
        n: int,
        k: int,
        search: Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]],
        parallel_map: Callable[..., Iterable],
        block: int,
        documents: Sequence[str] | None = None,
    ) -> Candidates:
        """The k nearest concepts of n queries by their nearest names; ties by row, then name id.

        More and more strings are searched until k concepts are certain or no strings are left.

        Args:
            n: number of queries.
            k: number of concepts.
            search: (q,) query numbers and w -> scores (q, w) float32 in descending order and string
                numbers (q, w), -1 if there are fewer strings than w.
            parallel_map: a `map` whose threads call `search`.
            block: maximum queries of one call.
            documents: (n,) document of each query, whose names are left out; None leaves out none.
        """
        nearest = Candidates.padding(n, k)
        hashes = self._hashes(documents)

        def search_block(queries: np.ndarray, width: int) -> np.ndarray:
            """The queries whose concepts are not certain yet."""
            scores, strings = search(queries, width)
            return queries[~self._group(queries, scores, strings, nearest, hashes)]

        queries = np.arange(n)
        width = NAMES_PER_CONCEPT * k
        while len(queries):
            width = min(width, self.distinct)
            size = max(1, min(block, SEARCH_CELLS // width))
            blocks = [queries[start : start + size] for start in range(0, len(queries), size)]
            queries = np.concatenate(list(parallel_map(search_block, blocks, repeat(width))))
            width *= 4
        return nearest

    def _hashes(self, documents: Sequence[str] | None) -> np.ndarray | None:
        """Hashes to compare with those of names; None where no name can be left out."""
        return None if documents is None or self.documents is None else hash_texts(documents)

    def _group(
        self,
        queries: np.ndarray,
        scores: np.ndarray,
        strings: np.ndarray,
        nearest: Candidates,
        hashes: np.ndarray | None,
    ) -> np.ndarray:
        """Write (q, width) strings' concepts into `nearest`, and return which queries are final."""
        query, rank = np.nonzero(strings >= 0)
        string = strings[query, rank]
        # One entry per name: a string of m concepts appears m times.
        owner, posting = expand_ranges(
            self._posting_starts[string], self._posting_starts[string + 1]
        )
        name_ids = self._postings[posting]
        if hashes is not None and self.documents is not None:
            is_other = self.documents[name_ids] != hashes[queries[query[owner]]]
            owner = owner[is_other]
            name_ids = name_ids[is_other]
        rows = self.rows[name_ids].astype(np.int64)
        values = scores[query, rank][owner]
        query = query[owner]
        # The scores of a query are in descending order; order equal ones by name, hence by row.
        tie = np.cumsum((np.diff(values, prepend=np.inf) != 0) | (np.diff(query, prepend=-1) != 0))
        order = np.argsort(tie * len(self.rows) + name_ids, kind="stable")
        # The first name of each concept of a query.
        first = order[_first_of_each((query * len(self.offsets) + rows)[order])]
        query_of_first = query[first]
        starts = np.searchsorted(query_of_first, np.arange(len(queries)))
        rank = np.arange(len(first)) - starts[query_of_first]
        is_kept = rank < nearest.rows.shape[1]
        top = first[is_kept]
        target = queries[query[top]], rank[is_kept]
        nearest.rows[target] = rows[top]
        nearest.name_ids[target] = name_ids[top]
        nearest.scores[target] = values[top]
        # Strings that were not returned score at most as high as the last one returned, so
        # everything above it is certain.
        certain = query_of_first[values[first] > scores[query_of_first, -1]]
        is_full = np.bincount(certain, minlength=len(queries)) >= nearest.rows.shape[1]
        return is_full | (strings[:, -1] < 0) | (strings.shape[1] == self.distinct)

    def best(
        self,
        rows: np.ndarray,
        score: Callable[[np.ndarray, np.ndarray], np.ndarray],
        names_at_once: int,
        documents: Sequence[str] | None = None,
        dictionary: DictionaryNames | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The best-scoring name of given concepts.

        Args:
            rows: (n, k) concept rows, padded with -1.
            score: query numbers and string numbers, both (m,) -> scores (m,) float32.
            names_at_once: approximate number of names scored in one call.
            documents: as for `collect`, of each of the n lists.
            dictionary: leaves out known mentions, gives the ids of the dictionary's names, and
                breaks ties; None: ties go to the first.

        Returns:
            (n, k) int64 name ids, the first among ties, padded with -1; (n, k) float32 scores,
            padded with -inf.
        """
        best = Candidates.padding(*rows.shape)
        hashes = self._hashes(documents)
        query, rank = np.nonzero(rows >= 0)
        concept = rows[query, rank]
        starts = self.offsets[concept]
        stops = self.offsets[concept + 1]
        shifts = np.zeros_like(starts)
        if dictionary is not None:
            shifts = dictionary.offsets[concept] - starts
            stops = dictionary.offsets[concept + 1] - shifts
        sizes = stops - starts
        call = (np.cumsum(sizes) - sizes) // names_at_once
        edges = np.flatnonzero(np.diff(call, prepend=-1, append=len(rows) * len(self.rows)))
        for start, stop in pairwise(edges):
            owners, names = expand_ranges(starts[start:stop], stops[start:stop])
            queries = query[start:stop][owners]
            values = score(queries, self.strings[names])
            if hashes is not None and self.documents is not None:
                values = np.where(self.documents[names] == hashes[queries], -np.inf, values)
            heads = np.searchsorted(owners, np.arange(stop - start))
            name_ids = names + shifts[start:stop][owners]
            ties = np.zeros_like(values)
            if dictionary is not None and dictionary.score is not None:
                is_top = values == np.maximum.reduceat(values, heads)[owners]
                ties[is_top] = dictionary.score(queries[is_top], name_ids[is_top])
            first = np.lexsort((names, -ties, -values, owners))[heads]
            target = query[start:stop], rank[start:stop]
            best.name_ids[target] = name_ids[first]
            best.scores[target] = values[first]
        return best.name_ids, best.scores


def _first_of_each(values: np.ndarray) -> np.ndarray:
    """Where each distinct value comes first, in order, (k,) int64."""
    _, positions = np.unique(values, return_index=True)
    return np.sort(positions)
