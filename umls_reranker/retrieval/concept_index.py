"""What all indexes share, and the search from nearest strings to the concepts they name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa

from ..core.arrays import expand_ranges, hash_texts, list_offsets
from ..core.arrow_files import arrow_writer
from ..core.errors import UserError
from ..core.json_files import read_json, require_format, write_json
from ..lists.gold import trainable

if TYPE_CHECKING:
    from typing_extensions import Self

    from ..models.bi_encoder import BiEncoder
    from ..vocab.concept_table import ConceptTable

# Names retrieved per concept: several names of a concept tend to be near a query.
NAMES_PER_CONCEPT = 4
# The most results (queries x strings) that one thread holds, some 100 bytes each.
SEARCH_CELLS = 1 << 20


@dataclass(frozen=True)
class Candidates:
    """The k nearest concepts of n queries, the nearest first; lists with fewer than k are padded.

    Attributes:
        rows: (n, k) int64, concept rows, distinct within a query; padded with -1.
        name_ids: (n, k) int64, that concept's name nearest to the query; padded with -1.
        scores: (n, k) float32, cosine of query and name; padded with -inf.
        further: other retriever -> (n, k) float32, its cosine of the query and the concept's most
            similar name, padded with -inf.
        lists: retriever -> (n, depth) int32, the rows that each retriever found by itself, for
            measuring recall; empty if one index was searched.
    """

    rows: np.ndarray
    name_ids: np.ndarray
    scores: np.ndarray
    further: dict[str, np.ndarray] = field(default_factory=dict)
    lists: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def padding(cls, n: int, k: int) -> Candidates:
        """Empty results for n queries."""
        return cls(
            rows=np.full((n, k), -1, np.int64),
            name_ids=np.full((n, k), -1, np.int64),
            scores=np.full((n, k), -np.inf, np.float32),
        )

    @classmethod
    def concatenate(cls, groups: Sequence[Candidates]) -> Candidates:
        """The candidates of several groups of queries, one group after the other."""
        first = groups[0]
        return cls(
            rows=np.concatenate([group.rows for group in groups]),
            name_ids=np.concatenate([group.name_ids for group in groups]),
            scores=np.concatenate([group.scores for group in groups]),
            further={
                name: np.concatenate([group.further[name] for group in groups])
                for name in first.further
            },
            lists={
                name: np.concatenate([group.lists[name] for group in groups])
                for name in first.lists
            },
        )

    def take(self, queries: np.ndarray) -> Candidates:
        """The candidates of some queries, by number, without `lists`."""
        further = {name: scores[queries] for name, scores in self.further.items()}
        return Candidates(self.rows[queries], self.name_ids[queries], self.scores[queries], further)


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
        """The grouping of the names that `concept_index.write_names` wrote."""
        columns = {name: names[name] for name in names.column_names}
        documents = columns["document"].to_numpy() if "document" in columns else None
        rows = columns["row"].to_numpy()
        return cls(rows, columns["string"].to_numpy(), concepts, distinct, documents)

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


def sole_documents(entries: np.ndarray, documents: Sequence[str], size: int) -> np.ndarray:
    """Hash of the document that alone has each entry, (size,) uint64; 0 where several have it.

    Args:
        entries: (n,) entry of each mention.
        documents: n documents of the mentions.
        size: number of entries.
    """
    hashes = hash_texts(documents)
    sole = np.zeros(size, np.uint64)
    sole[entries] = hashes
    sole[entries[hashes != sole[entries]]] = 0
    return sole


def distinct_queries(
    mentions: pa.Table, reads_context: bool, by_document: bool = False
) -> tuple[np.ndarray, pa.Table]:
    """The distinct queries: strings, or strings with context if context is read.

    Args:
        mentions: n rows with the column ``mention``, and ``left`` and ``right`` if context is read.
        reads_context: whether context is read.
        by_document: whether mentions of different documents (``doc_id``) are different queries.

    Returns:
        (n,) int64, number of each row's query, and the queries, with these columns; those of a
        string are adjacent.
    """
    columns = ["mention"]
    if reads_context:
        columns += ["left", "right"]
    if by_document:
        columns.append("doc_id")
    numbered = mentions.select(columns).append_column("row", pa.array(np.arange(mentions.num_rows)))
    groups = numbered.group_by(columns, use_threads=False).aggregate([("row", "list")])
    group_of = np.empty(mentions.num_rows, np.int64)
    members = groups["row_list"].combine_chunks()
    group_of[members.flatten().to_numpy()] = np.repeat(
        np.arange(len(members)), members.value_lengths().to_numpy()
    )
    order = np.argsort(_string_numbers(groups), kind="stable")
    positions = np.empty(len(order), np.int64)
    positions[order] = np.arange(len(order))
    return positions[group_of], groups.select(columns).take(pa.array(order))


def query_blocks(queries: pa.Table, size: int) -> list[tuple[int, int]]:
    """First query and end of blocks of about `size` queries; blocks do not share a string.

    Args:
        queries: rows of `distinct_queries`, all or some, in their order.
        size: approximate number of queries in a block.
    """
    numbers = _string_numbers(queries)
    starts = np.append(np.flatnonzero(np.diff(numbers, prepend=-1)), len(numbers))
    # Each block ends where a string does.
    after = np.searchsorted(starts, np.arange(0, len(numbers), size))
    edges = np.unique(np.append(starts[after], len(numbers)))
    return list(pairwise(edges.tolist()))


def _string_numbers(queries: pa.Table) -> np.ndarray:
    """The number of each query's string, in order of first appearance."""
    return queries["mention"].combine_chunks().dictionary_encode().indices.to_numpy()


NAMES_FILE = "names.arrow"


class ConceptIndex:
    """An index in a folder, opened by `load`. Its files are memory-mapped.

    Args:
        path: the folder.
        description: the content of its JSON file: ``concepts``, the number of concepts, and
            ``encoder``, the `BiEncoder.identity`, if it holds vectors.

    Attributes:
        title: its name in messages.
        file: file of the description.
        schema_version: version of the description.
        grouping: its names (or mentions) and their concepts.
    """

    title: ClassVar[str]
    file: ClassVar[str]
    schema_version: ClassVar[int]
    grouping: NameGrouping

    def __init__(self, path: Path, description: dict[str, Any]) -> None:
        self.description = description

    def __len__(self) -> int:
        return len(self.grouping.rows)

    @classmethod
    def describe(cls, path: Path, concepts: int, **content: Any) -> None:
        """Write the description, the last file of an index."""
        write_json(
            path / cls.file, {"schema_version": cls.schema_version, "concepts": concepts} | content
        )

    @classmethod
    def load(cls, path: Path) -> Self:
        """Open an index.

        Raises:
            UserError: a file is missing or cannot be read, or the index is of another version.
        """
        description = read_json(path / cls.file)
        require_format(path / cls.file, description, cls.schema_version, "build_index")
        try:
            return cls(path, description)
        # FAISS raises a RuntimeError, Arrow a ValueError.
        except (RuntimeError, OSError, ValueError, KeyError, EOFError) as error:
            reason = str(error).splitlines()[-1]
            raise UserError(
                f"{path} contains no readable index ({reason}); run umls-reranker build_index again"
            ) from None

    def require(self, concepts: ConceptTable, encoder: BiEncoder | None = None) -> None:
        """Refuse concepts or an encoder other than those of the index.

        Args:
            concepts: the dictionary.
            encoder: the encoder; not needed for an index without vectors.

        Raises:
            UserError: they differ; names them.
        """
        for key, value in self.description.get("encoder", {}).items():
            if encoder is not None and encoder.identity[key] != value:
                raise UserError(
                    f"{self.title} was built with the encoder {key} {value!r}, "
                    f"not {encoder.identity[key]!r}; run umls-reranker build_index again"
                )
        if len(concepts) != self.description["concepts"]:
            raise UserError(
                f"{self.title} was built over {self.description['concepts']:,} concepts, but "
                f"there are {len(concepts):,} now; run umls-reranker build_index again"
            )


def write_names(
    concepts: ConceptTable,
    path: Path,
    forms: Callable[[Sequence[str]], list[str]] | None = None,
    mentions: pa.Table | None = None,
) -> pa.Array:
    """Write every name's concept row and string number, and the name unless forms are taken.

    Args:
        concepts: the dictionary.
        path: Arrow file to make.
        forms: function that maps names that count as the same to one form; by default, equal names.
        mentions: columns ``mention``, ``cui`` and ``doc_id``, if mentions are further names of
            their concepts. The file has a column ``document`` then (`sole_documents`; 0 for names
            of the dictionary).

    Returns:
        The distinct strings (or forms) by number.
    """
    rows = []
    names = []
    for batch_rows, batch in concepts.iter_names():
        rows.append(np.asarray(batch_rows, dtype=np.int32))
        texts = forms(batch) if forms else batch
        names.append(pa.array(texts, pa.string()))
    if forms and mentions is not None:
        gold = concepts.rows(trainable(mentions["cui"].to_pylist()))
        known = mentions.filter(pa.array(gold >= 0))
        rows.append(gold[gold >= 0].astype(np.int32))
        names.append(pa.array(forms(known["mention"].to_pylist()), pa.string()))
    # A chunked array is encoded against one dictionary.
    encoded = pa.chunked_array(names, pa.string()).dictionary_encode()
    columns = {} if forms else {"name": pa.chunked_array(names, pa.string())}
    columns["row"] = pa.chunked_array(rows, pa.int32())
    columns["string"] = pa.chunked_array([chunk.indices for chunk in encoded.chunks], pa.int32())
    table = pa.table(columns)
    if forms and mentions is not None:
        table = _with_documents(table, known["doc_id"].to_pylist())
    with arrow_writer(path, table.schema) as writer:
        writer.write(table)
    return encoded.chunks[-1].dictionary


def _with_documents(names: pa.Table, documents: list[str]) -> pa.Table:
    """The names of a dictionary and the mentions in its last rows, each once; by concept.

    `documents` are those of the mentions.
    """
    known = len(names) - len(documents)
    entries = np.stack([names["row"].to_numpy(), names["string"].to_numpy()])
    mentions, entry = np.unique(entries[:, known:], axis=1, return_inverse=True)
    sole = sole_documents(entry, documents, mentions.shape[1])
    entries = np.concatenate([entries[:, :known], mentions], axis=1)
    order = np.argsort(entries[0], kind="stable")
    columns = {"row": entries[0], "string": entries[1]}
    columns["document"] = np.append(np.zeros(known, np.uint64), sole)
    return pa.table({name: column[order] for name, column in columns.items()})
