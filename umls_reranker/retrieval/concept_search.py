"""From nearest strings to nearest concepts: which concepts each distinct name string names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from datasets import Features, Value

from ..core.arrays import expand_ranges
from ..core.errors import UserError
from ..core.files import read_json, require_format
from ..data.arrow import open_table, write_dataset

if TYPE_CHECKING:
    from ..data.concepts import ConceptTable

__all__ = ["Candidates", "NameGrouping", "opened_index", "write_names"]

# Names asked for per concept: a concept near a query tends to come with several of its names.
NAMES_PER_CONCEPT = 4
# The most results (queries x strings) that one thread holds, some 100 bytes each.
SEARCH_CELLS = 1 << 20


@dataclass(frozen=True)
class Candidates:
    """The k nearest concepts of n queries, best first; where there are fewer than k, the rest is padding.

    Attributes:
        rows: (n, k) int64, concept rows, distinct within a query; padded with -1.
        name_ids: (n, k) int64, the name of that concept that is nearest to the query; padded with -1.
        scores: (n, k) float32, cosine of query and name; padded with -inf.
        further: retriever -> (n, k) float32, its cosine of the query and the concept's most similar name, padded with
            -inf; empty where one index was searched.
        lists: retriever -> (n, depth) int32, the rows that each retriever found by itself, for measuring recall;
            empty where one index was searched.
    """

    rows: np.ndarray
    name_ids: np.ndarray
    scores: np.ndarray
    further: dict[str, np.ndarray] = field(default_factory=dict)
    lists: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def padding(cls, n: int, k: int) -> Candidates:
        """Nothing found, for n queries."""
        return cls(np.full((n, k), -1, np.int64), np.full((n, k), -1, np.int64), np.full((n, k), -np.inf, np.float32))

    @classmethod
    def concatenate(cls, parts: Sequence[Candidates]) -> Candidates:
        """The candidates of several groups of queries, one group after the other."""
        first = parts[0]
        rows, name_ids, scores = (
            np.concatenate([getattr(part, key) for part in parts]) for key in ("rows", "name_ids", "scores")
        )
        further = {name: np.concatenate([part.further[name] for part in parts]) for name in first.further}
        lists = {name: np.concatenate([part.lists[name] for part in parts]) for name in first.lists}
        return cls(rows, name_ids, scores, further, lists)

    def flat(self) -> Candidates:
        """The candidates of all queries one after the other, each array flat; only of one index."""
        return Candidates(self.rows.ravel(), self.name_ids.ravel(), self.scores.ravel())

    def take(self, queries: np.ndarray) -> Candidates:
        """The candidates of some queries, by number; without `lists`."""
        further = {name: scores[queries] for name, scores in self.further.items()}
        return Candidates(self.rows[queries], self.name_ids[queries], self.scores[queries], further)


class NameGrouping:
    """Which concept each name belongs to, and which distinct string it is.

    Held per name: 4 bytes of concept row, 4 of string number, 8 of its place among the names of its string; per
    concept and per distinct string 8 bytes of offset.

    Args:
        rows: (n_names,) int32, ascending; name id -> concept row.
        strings: (n_names,) int32; name id -> number of its string.
        concepts: number of concepts.
        distinct: number of distinct strings.

    Attributes:
        offsets: (n_concepts + 1,) int64; the names of row r have the ids ``offsets[r]`` to ``offsets[r + 1] - 1``.
    """

    def __init__(self, rows: np.ndarray, strings: np.ndarray, concepts: int, distinct: int) -> None:
        self.rows, self.strings, self.distinct = rows, strings, distinct
        self.offsets = np.searchsorted(rows, np.arange(concepts + 1))
        self._postings = np.argsort(strings, kind="stable")
        self._posting_starts = np.searchsorted(strings[self._postings], np.arange(distinct + 1))

    def collect(
        self,
        n: int,
        k: int,
        search: Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]],
        parallel_map: Callable[..., Iterable],
        block: int,
    ) -> Candidates:
        """The k nearest concepts of n queries, by the nearest name of each; ties by concept row, then name id.

        Strings are asked for, and more of them, until k concepts are certain or no strings are left.

        Args:
            search: (q,) query numbers and w -> scores (q, w) float32 in falling order and string numbers (q, w),
                -1 where there are fewer strings than w.
            parallel_map: a `map` whose threads call `search`.
            block: queries of one call, at most.
        """
        found = Candidates.padding(n, k)

        def search_block(queries: np.ndarray, width: int) -> np.ndarray:
            """The queries whose concepts are not certain yet."""
            return queries[~self._group(queries, *search(queries, width), found)]

        queries, width = np.arange(n), NAMES_PER_CONCEPT * k
        while len(queries):
            width = min(width, self.distinct)
            size = max(1, min(block, SEARCH_CELLS // width))
            blocks = [queries[start : start + size] for start in range(0, len(queries), size)]
            queries, width = np.concatenate(list(parallel_map(search_block, blocks, repeat(width)))), width * 4
        return found

    def _group(self, queries: np.ndarray, scores: np.ndarray, strings: np.ndarray, found: Candidates) -> np.ndarray:
        """Write the concepts behind (q, width) nearest strings into `found`; say for which queries that is final."""
        n_concepts, k = len(self.offsets) - 1, found.rows.shape[1]
        query, rank = np.nonzero(strings >= 0)
        string = strings[query, rank]
        # One entry per name: a string of m concepts appears m times.
        owner, posting = expand_ranges(self._posting_starts[string], self._posting_starts[string + 1])
        name_ids = self._postings[posting]
        rows = self.rows[name_ids].astype(np.int64)
        query, values = query[owner], scores[query, rank][owner]
        # The scores of a query come in descending order; put equal ones in order of name, hence of row.
        tie = np.cumsum((np.diff(values, prepend=np.inf) != 0) | (np.diff(query, prepend=-1) != 0))
        order = np.argsort(tie * len(self.rows) + name_ids, kind="stable")
        first = order[np.sort(np.unique((query * n_concepts + rows)[order], return_index=True)[1])]
        query, rows, name_ids, values = query[first], rows[first], name_ids[first], values[first]
        starts = np.searchsorted(query, np.arange(len(queries)))
        position = np.arange(len(query)) - starts[query]
        kept = position < k
        target = queries[query[kept]], position[kept]
        found.rows[target], found.name_ids[target], found.scores[target] = rows[kept], name_ids[kept], values[kept]
        # Strings that were left out score at most as high as the last one given, so what lies above that is certain.
        above = np.bincount(query[values > scores[query, -1]], minlength=len(queries))
        exhausted = (strings[:, -1] < 0) | (strings.shape[1] == self.distinct)
        return (above >= k) | exhausted

    def best(
        self, rows: np.ndarray, score: Callable[[np.ndarray, np.ndarray], np.ndarray], names_at_once: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The best-scoring name of given concepts.

        Args:
            rows: (n, k) concept rows, padded with -1.
            score: query numbers and string numbers, both (m,) -> scores (m,) float32.
            names_at_once: names scored in one call, about.

        Returns:
            (n, k) int64 name ids, the first of equally good ones, padded with -1; (n, k) float32 scores, padded with
            -inf.
        """
        name_ids, scores = np.full(rows.shape, -1, np.int64), np.full(rows.shape, -np.inf, np.float32)
        query, place = np.nonzero(rows >= 0)
        starts, stops = self.offsets[rows[query, place]], self.offsets[rows[query, place] + 1]
        before = np.cumsum(stops - starts) - (stops - starts)
        cuts = np.flatnonzero(np.diff(before // names_at_once, prepend=-1, append=len(rows) * len(self.rows)))
        for start, stop in zip(cuts[:-1], cuts[1:], strict=True):
            owners, names = expand_ranges(starts[start:stop], stops[start:stop])
            values = score(query[start:stop][owners], self.strings[names])
            best = np.lexsort((names, -values, owners))[np.searchsorted(owners, np.arange(stop - start))]
            target = query[start:stop], place[start:stop]
            name_ids[target], scores[target] = names[best], values[best]
        return name_ids, scores


def write_names(
    concepts: ConceptTable, path: Path, fingerprint: str, form: Callable[[str], str] | None = None
) -> pa.Array:
    """Write concept row and string number of every name, and the name unless a form of it is taken.

    Args:
        concepts: the dictionary.
        path: dataset folder to make.
        form: what two names count as the same by; by default they must be equal.

    Returns:
        the distinct strings (or forms) in order of number.
    """
    rows, names = [], []
    for batch_rows, batch in concepts.iter_names():
        rows.append(np.asarray(batch_rows, dtype=np.int32))
        names.append(pa.array(map(form, batch) if form else batch, pa.string()))
    # A chunked array is encoded against one dictionary.
    encoded = pa.chunked_array(names, pa.string()).dictionary_encode()
    columns: Sequence[str] = ("row", "string") if form else ("name", "row", "string")
    kinds = {"name": Value("string"), "row": Value("int32"), "string": Value("int32")}
    write_dataset(
        (
            {"name": name, "row": row, "string": code.indices}
            for row, name, code in zip(rows, names, encoded.chunks, strict=True)
        ),
        Features({column: kinds[column] for column in columns}),
        path,
        fingerprint,
    )
    return encoded.chunks[-1].dictionary


def write_strings(strings: pa.Array, path: Path, fingerprint: str) -> None:
    """Write strings as a dataset folder, to be mapped into memory by `open_strings`."""
    write_dataset([{"string": strings}], Features({"string": Value("string")}), path, fingerprint)


def open_strings(path: Path) -> pa.ChunkedArray:
    """The strings that `write_strings` wrote."""
    return open_table(path)["string"]


@contextmanager
def opened_index(file: Path, schema_version: int) -> Iterator[dict[str, Any]]:
    """Give the description of an index, by which its other files are then opened.

    Raises:
        UserError: one of them is missing or cannot be read, or the index is of another version.
    """
    description = read_json(file)
    require_format(file, description, schema_version, "build_index")
    try:
        yield description
    # FAISS raises a RuntimeError, and Arrow a ValueError.
    except (RuntimeError, OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[-1]
        raise UserError(
            f"{file.parent} holds no readable index ({reason}); run umls-reranker build_index again"
        ) from None
