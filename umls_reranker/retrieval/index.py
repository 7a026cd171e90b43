"""The index of names: nearest concepts of a vector, by the best-matching name of each."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ..data.arrow import open_table, write_dataset
from ..errors import UserError
from ..progress import progress
from ..stages import read_json, write_json

if TYPE_CHECKING:
    import faiss

    from ..data.concepts import ConceptTable
    from .encoder import BiEncoder

__all__ = ["Candidates", "NameIndex", "expand_ranges"]

FAISS_FILE, NAMES_FOLDER, INDEX_FILE = "names.faiss", "names", "index.json"
# Names encoded and written between two looks at the progress bar.
SHARD = 16_384
# A clustering index (IVF, PQ) is trained on at most this many vectors.
TRAINING_SAMPLE = 262_144
# Queries searched by one thread at a time, and the most results (queries x names) it holds, some 100 bytes each.
QUERIES_PER_BLOCK = 512
SEARCH_CELLS = 1 << 20


@dataclass(frozen=True)
class Candidates:
    """The k nearest concepts of n queries, best first; where there are fewer than k, the rest is padding.

    Attributes:
        rows: (n, k) int64, concept rows, distinct within a query; padded with -1.
        name_ids: (n, k) int64, the name of that concept that is nearest to the query; padded with -1.
        scores: (n, k) float32, cosine of query and name; padded with -inf.
    """

    rows: np.ndarray
    name_ids: np.ndarray
    scores: np.ndarray

    def take(self, queries: np.ndarray) -> Candidates:
        """The candidates of some queries, by number."""
        return Candidates(self.rows[queries], self.name_ids[queries], self.scores[queries])


def expand_ranges(starts: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All numbers of n ranges, one range after the other, and which range each belongs to.

    >>> owners, numbers = expand_ranges(np.array([5, 0, 8]), np.array([7, 0, 9]))
    >>> owners.tolist(), numbers.tolist()
    ([0, 0, 2], [5, 6, 8])
    """
    counts = stops - starts
    owners = np.repeat(np.arange(len(counts)), counts)
    return owners, np.arange(len(owners)) + np.repeat(starts - (np.cumsum(counts) - counts), counts)


class NameIndex:
    """A FAISS index over the distinct name strings, and which concepts each of them names.

    A string that several concepts share is encoded and stored once, so those concepts tie exactly.
    Made by `build`, opened by `load`.

    Attributes:
        identity: the encoder's `BiEncoder.identity`.
        concept_rows: (n_names,) int32, ascending; name id -> concept row.
        offsets: (n_concepts + 1,) int64; the names of row r have the ids ``offsets[r]`` to ``offsets[r + 1] - 1``.
    """

    def __init__(self, vectors: faiss.Index, names: pa.Table, description: dict) -> None:
        import faiss

        self.identity = description["encoder"]
        self.concept_rows = names["row"].to_numpy()
        self.offsets = np.searchsorted(self.concept_rows, np.arange(description["concepts"] + 1))
        self._vectors = vectors
        # FAISS compares few queries one by one, ten times slower than as a matrix, and takes 300 of them for few.
        threshold = faiss.cvar.distance_compute_blas_threshold
        faiss.cvar.distance_compute_blas_threshold = min(threshold, 4 * vectors.d)
        self._names = names["name"]
        strings = names["string"].to_numpy()
        self._postings = np.argsort(strings, kind="stable")
        self._posting_starts = np.searchsorted(strings[self._postings], np.arange(vectors.ntotal + 1))

    def __len__(self) -> int:
        return len(self.concept_rows)

    @classmethod
    def build(
        cls,
        concepts: ConceptTable,
        encoder: BiEncoder,
        path: Path,
        factory: str = "Flat",
        search_parameters: str = "",
        fingerprint: str = "",
    ) -> NameIndex:
        """Encode every distinct name and write the index.

        Vectors go to a scratch file in `path` shard by shard and from there into FAISS at once, so that memory holds
        the strings and one copy of the vectors, in the precision of `factory`.

        Args:
            concepts: the dictionary.
            encoder: the bi-encoder whose queries the index will answer.
            path: existing folder to write into.
            factory: FAISS factory string. ``"Flat"`` is exact and, at 37,000 concepts, answers thousands of queries a
                second; for millions, e.g. ``"IVF4096,SQfp16"`` or ``"HNSW32,SQfp16"``.
            search_parameters: FAISS parameters stored with the index, e.g. ``"nprobe=64"`` or ``"efSearch=128"``.
            fingerprint: of what the names were made from.

        Raises:
            UserError: FAISS does not know the factory string or a parameter.
        """
        import faiss

        try:
            vectors = faiss.index_factory(encoder.dimension, factory, faiss.METRIC_INNER_PRODUCT)
            if search_parameters:
                faiss.ParameterSpace().set_index_parameters(vectors, search_parameters)
        except RuntimeError as error:
            reason = str(error).splitlines()[-1]
            raise UserError(
                f"index_factory {factory!r} with parameters {search_parameters!r}: FAISS: {reason}"
            ) from None
        strings = _write_names(concepts, path / NAMES_FOLDER, fingerprint)
        scratch = path / ".vectors.partial"
        try:
            matrix = np.memmap(scratch, dtype=np.float32, mode="w+", shape=(len(strings), encoder.dimension))
            with progress(total=len(strings), desc="encoding names", unit=" names") as bar:
                for start in range(0, len(strings), SHARD):
                    shard = strings[start : start + SHARD].to_pylist()
                    matrix[start : start + len(shard)] = encoder.encode(shard)
                    bar.update(len(shard))
            if not vectors.is_trained:
                vectors.train(_sample(matrix))
            vectors.add(matrix)
        finally:
            scratch.unlink(missing_ok=True)
        faiss.write_index(vectors, str(path / FAISS_FILE))
        description = {"schema_version": 1, "encoder": encoder.identity, "factory": factory, "concepts": len(concepts)}
        write_json(path / INDEX_FILE, description)
        return cls.load(path)

    @classmethod
    def load(cls, path: Path) -> NameIndex:
        """Open an index; a flat one is mapped into memory, not read.

        Raises:
            UserError: a part is missing or cannot be read.
        """
        import faiss

        description = read_json(path / INDEX_FILE)
        try:
            vectors = faiss.read_index(str(path / FAISS_FILE), faiss.IO_FLAG_MMAP_IFC)
            names = open_table(path / NAMES_FOLDER)
        except (RuntimeError, OSError, pa.ArrowInvalid) as error:
            reason = str(error).splitlines()[-1]
            raise UserError(f"{path} holds no readable index ({reason}); run scripts/build_index.py again") from None
        return cls(vectors, names, description)

    def require(self, concepts: ConceptTable, encoder: BiEncoder) -> None:
        """Refuse concepts or an encoder other than those the index was built with.

        Raises:
            UserError: naming what differs.
        """
        for key, value in self.identity.items():
            if encoder.identity[key] != value:
                raise UserError(
                    f"the index was built with encoder {key} {value!r}, not {encoder.identity[key]!r}; "
                    "run scripts/build_index.py again"
                )
        if len(concepts) != len(self.offsets) - 1:
            raise UserError(
                f"the index was built over {len(self.offsets) - 1:,} concepts and there are {len(concepts):,} now; "
                "run scripts/build_index.py again"
            )

    def names(self, name_ids: np.ndarray) -> list[str]:
        """The strings of names."""
        return self.name_array(name_ids).to_pylist()

    def name_array(self, name_ids: np.ndarray) -> pa.ChunkedArray:
        """The strings of names as an Arrow column."""
        return self._names.take(pa.array(name_ids))

    def name_ids_of(self, row: int) -> np.ndarray:
        """Ids of a concept's names, the preferred one first."""
        return np.arange(self.offsets[row], self.offsets[row + 1])

    def search(self, vectors: np.ndarray, k: int) -> Candidates:
        """The k concepts nearest to each vector, by their best-matching name.

        Ties are broken by concept row, then name id. With an exact index the result is exact: FAISS is asked for more
        names until k concepts are certain or no names are left.

        Args:
            vectors: (n, dimension) float32, L2-normalized.
            k: concepts wanted.
        """
        import faiss

        n, total = len(vectors), self._vectors.ntotal
        found = Candidates(
            np.full((n, k), -1, np.int64), np.full((n, k), -1, np.int64), np.full((n, k), -np.inf, np.float32)
        )

        def search_block(queries: np.ndarray, width: int) -> np.ndarray:
            """The queries whose concepts are not certain yet."""
            scores, strings = self._vectors.search(vectors[queries], width)
            return queries[~self._group(queries, scores, strings, found)]

        # As in the encoder, a thread computes whole blocks: FAISS's own threads wait for one another.
        threads = faiss.omp_get_max_threads()
        with ThreadPoolExecutor(threads, initializer=faiss.omp_set_num_threads, initargs=(1,)) as pool:
            # A concept near a query tends to come with several of its names.
            queries, width = np.arange(n), 4 * k
            while len(queries):
                width = min(width, total)
                size = max(1, min(QUERIES_PER_BLOCK, SEARCH_CELLS // width))
                blocks = [queries[start : start + size] for start in range(0, len(queries), size)]
                queries, width = np.concatenate(list(pool.map(search_block, blocks, repeat(width)))), width * 4
        return found

    def _group(self, queries: np.ndarray, scores: np.ndarray, strings: np.ndarray, found: Candidates) -> np.ndarray:
        """Write the concepts behind (q, width) nearest strings into `found`; say for which queries that is final."""
        n_concepts, k = len(self.offsets) - 1, found.rows.shape[1]
        query, rank = np.nonzero(strings >= 0)
        string = strings[query, rank]
        # One entry per name: a string of m concepts stands m times.
        owner, posting = expand_ranges(self._posting_starts[string], self._posting_starts[string + 1])
        name_ids = self._postings[posting]
        rows = self.concept_rows[name_ids].astype(np.int64)
        query, values = query[owner], scores[query, rank][owner]
        # FAISS gives the scores of a query in descending order; put equal ones in order of name, hence of row.
        tie = np.cumsum((np.diff(values, prepend=np.inf) != 0) | (np.diff(query, prepend=-1) != 0))
        order = np.argsort(tie * len(self) + name_ids, kind="stable")
        first = order[np.sort(np.unique((query * n_concepts + rows)[order], return_index=True)[1])]
        query, rows, name_ids, values = query[first], rows[first], name_ids[first], values[first]
        starts = np.searchsorted(query, np.arange(len(queries)))
        position = np.arange(len(query)) - starts[query]
        kept = position < k
        target = queries[query[kept]], position[kept]
        found.rows[target], found.name_ids[target], found.scores[target] = rows[kept], name_ids[kept], values[kept]
        # Names that FAISS left out score at most as high as the last it gave, so what lies above that is certain.
        above = np.bincount(query[values > scores[query, -1]], minlength=len(queries))
        exhausted = (strings[:, -1] < 0) | (strings.shape[1] == self._vectors.ntotal)
        return (above >= k) | exhausted


def _write_names(concepts: ConceptTable, path: Path, fingerprint: str) -> pa.Array:
    """Write name, concept row and string number of every name; return the distinct strings in order of number."""
    from datasets import Features, Value

    rows, names = [], []
    for batch_rows, batch_names in concepts.iter_names():
        rows.append(np.asarray(batch_rows, dtype=np.int32))
        names.append(pa.array(batch_names, pa.string()))
    # A chunked array is encoded against one dictionary.
    encoded = pa.chunked_array(names, pa.string()).dictionary_encode()
    columns = zip(rows, names, encoded.chunks, strict=True)
    write_dataset(
        ({"name": name, "row": row, "string": code.indices} for row, name, code in columns),
        Features({"name": Value("string"), "row": Value("int32"), "string": Value("int32")}),
        path,
        fingerprint,
    )
    return encoded.chunks[-1].dictionary


def _sample(matrix: np.ndarray) -> np.ndarray:
    if len(matrix) <= TRAINING_SAMPLE:
        return matrix
    return matrix[np.sort(np.random.default_rng(0).choice(len(matrix), TRAINING_SAMPLE, replace=False))]
