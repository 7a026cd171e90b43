"""The index of names: nearest concepts of a vector, by the best-matching name of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ..batching import batch_mapper
from ..data.arrow import open_table
from ..errors import UserError
from ..stages import read_json, write_json
from .encoding import NameVectors
from .exact_search import ExactSearch
from .faiss_index import fill, measure_recall, new_index, set_parameters
from .grouping import Candidates, ConceptNames, expand_ranges, write_names

if TYPE_CHECKING:
    import faiss

    from ..data.concepts import ConceptTable
    from .encoder import BiEncoder

__all__ = ["Candidates", "NameIndex", "expand_ranges"]

FAISS_FILE, NAMES_FOLDER, INDEX_FILE, SCRATCH_FOLDER = "names.faiss", "names", "index.json", ".encoding"
EXACT = "Flat"
# A clustering or quantizing index is trained on at most this many vectors.
TRAINING_SAMPLE = 262_144
# Queries that a thread searches at a time, in FAISS and by exact search, which reads all vectors for them.
QUERIES_PER_BLOCK, QUERIES_PER_PASS = 512, 4_096
# Names whose vectors are taken from the index together.
NAMES_AT_ONCE = 32_768


class NameIndex:
    """A FAISS index over the distinct name strings, and which concepts each of them names.

    A string that several concepts share is encoded and stored once, so those concepts tie exactly.
    Made by `build`, opened by `load`.

    Attributes:
        identity: the encoder's `BiEncoder.identity`.
        recall: recall of an approximate index against exact search, by `measure_recall`; empty for an exact one.
        concept_rows: (n_names,) int32, ascending; name id -> concept row.
        offsets: (n_concepts + 1,) int64; the names of row r have the ids ``offsets[r]`` to ``offsets[r + 1] - 1``.
    """

    def __init__(self, vectors: faiss.Index, names: pa.Table, description: dict) -> None:
        import faiss

        self.identity = description["encoder"]
        self.recall: dict[str, float] = description["recall"]
        rows, strings = names["row"].to_numpy(), names["string"].to_numpy()
        self._grouping = ConceptNames(rows, strings, description["concepts"], vectors.ntotal)
        self.concept_rows, self.offsets = rows, self._grouping.offsets
        self._vectors = vectors
        # FAISS compares few queries one by one, ten times slower than as a matrix, and takes 300 of them for few.
        threshold = faiss.cvar.distance_compute_blas_threshold
        faiss.cvar.distance_compute_blas_threshold = min(threshold, 4 * vectors.d)
        self._names = names["name"]

    def __len__(self) -> int:
        return len(self.concept_rows)

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self._vectors.d

    @staticmethod
    def prepare(concepts: ConceptTable, path: Path, fingerprint: str = "") -> None:
        """Write the names, and those to be encoded; left as they are when a killed run has written them.

        Args:
            concepts, path, fingerprint: as for `build`.
        """
        scratch = path / SCRATCH_FOLDER
        if not NameVectors.is_prepared(scratch):
            NameVectors.prepare(scratch, write_names(concepts, path / NAMES_FOLDER, fingerprint), fingerprint)

    @staticmethod
    def encode_share(encoder: BiEncoder, path: Path, process: int, processes: int) -> None:
        """Encode one process's share of the names; what a killed run has encoded is left as it is.

        Args:
            encoder: the bi-encoder whose queries the index will answer.
            path: folder for which `prepare` has been called.
            process: number of this process, from 0.
        """
        NameVectors(path / SCRATCH_FOLDER, encoder.dimension).encode_share(encoder, process, processes)

    @classmethod
    def build(
        cls,
        concepts: ConceptTable,
        encoder: BiEncoder,
        path: Path,
        factory: str = EXACT,
        search_parameters: str = "",
        fingerprint: str = "",
        *,
        training_sample: int = TRAINING_SAMPLE,
    ) -> NameIndex:
        """Encode every distinct name that is not encoded yet and write the index.

        Vectors go to scratch files in `path` shard by shard and from there into FAISS, so that memory holds one copy
        of them, in the precision of `factory`. An index that is not exact is compared with exact search.

        Args:
            concepts: the dictionary.
            encoder: the bi-encoder whose queries the index will answer.
            path: existing folder to write into.
            factory: FAISS factory string. ``"Flat"`` is exact and, at 37,000 concepts, answers thousands of queries a
                second; for millions, e.g. ``"IVF16384,SQfp16"`` or ``"HNSW32,SQfp16"``.
            search_parameters: FAISS parameters stored with the index, e.g. ``"nprobe=64"`` or ``"efSearch=128"``.
            fingerprint: of what the names were made from.
            training_sample: vectors that a clustering or quantizing index is trained on, at most.

        Raises:
            UserError: FAISS does not know the factory string or a parameter, or cannot train on so few names.
        """
        import faiss

        vectors = new_index(encoder.dimension, factory, search_parameters)
        cls.prepare(concepts, path, fingerprint)
        cls.encode_share(encoder, path, 0, 1)
        encoded = NameVectors(path / SCRATCH_FOLDER, encoder.dimension)
        vectors = fill(vectors, encoded, training_sample)
        set_parameters(vectors, search_parameters)
        recall = {} if factory == EXACT else measure_recall(vectors, encoded)
        faiss.write_index(vectors, str(path / FAISS_FILE))
        description = {"schema_version": 1, "encoder": encoder.identity, "factory": factory, "concepts": len(concepts)}
        write_json(path / INDEX_FILE, description | {"recall": recall})
        built = cls.load(path)
        encoded.remove()
        return built

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
        return cls(vectors, names, {"recall": {}} | description)

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

        searched, mapper, block = self._vectors, _faiss_mapper(), QUERIES_PER_BLOCK
        if isinstance(self._vectors, faiss.IndexFlatIP):
            import torch

            searched, mapper = self._exact, batch_mapper(torch.device("cpu"))
            block = max(1, min(QUERIES_PER_PASS, -(-len(vectors) // torch.get_num_threads())))

        def search(queries: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
            return searched.search(vectors[queries], width)

        with mapper as parallel_map:
            return self._grouping.collect(len(vectors), k, search, parallel_map, block)

    def best_names(self, vectors: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The name of given concepts that is nearest to each vector.

        Cosines are those of the vectors in the index, in its precision.

        Args:
            vectors: (n, dimension) float32, L2-normalized.
            rows: (n, k) concept rows, padded with -1.

        Returns:
            (n, k) int64 name ids, the first of equally near ones, padded with -1; (n, k) float32 cosines, padded with
            -inf.

        Raises:
            UserError: the index cannot give its vectors back.
        """

        def score(queries: np.ndarray, strings: np.ndarray) -> np.ndarray:
            distinct, place = np.unique(strings, return_inverse=True)
            return np.einsum("nd,nd->n", self._readable.reconstruct_batch(distinct)[place], vectors[queries])

        return self._grouping.best(rows, score, NAMES_AT_ONCE)

    @cached_property
    def _exact(self) -> ExactSearch:
        """Search of a flat index, whose vectors lie in memory as they are."""
        import faiss

        content = faiss.rev_swig_ptr(self._vectors.get_xb(), self._vectors.ntotal * self._vectors.d)
        return ExactSearch(content.reshape(-1, self._vectors.d))

    @cached_property
    def _readable(self) -> faiss.Index:
        """The index, ready to give vectors back by number."""
        import faiss

        try:
            if (clusters := faiss.try_extract_index_ivf(self._vectors)) is not None:
                clusters.make_direct_map()
            self._vectors.reconstruct(0)
        except RuntimeError as error:
            reason = str(error).splitlines()[-1]
            raise UserError(f"index_factory: this index cannot give vectors back ({reason}); use another") from None
        return self._vectors


@contextmanager
def _faiss_mapper() -> Iterator[Callable]:
    """A `map` by threads that search whole blocks, as in the encoder: FAISS's own threads wait for one another."""
    import faiss

    threads = faiss.omp_get_max_threads()
    with ThreadPoolExecutor(threads, initializer=faiss.omp_set_num_threads, initargs=(1,)) as pool:
        yield pool.map
