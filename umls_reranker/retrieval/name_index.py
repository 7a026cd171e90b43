"""The index of names and that of training mentions: nearest concepts of a vector, by FAISS."""

from __future__ import annotations

import math
import re
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np
import pyarrow as pa
import torch

from ..core.arrays import arrow_writer, open_arrow, progress, write_numbers
from ..core.devices import batch_mapper
from ..core.errors import UserError
from ..core.files import read_json, write_json
from ..lists.columns import trainable
from ..models.bi_encoder import CHUNK, BiEncoder
from ..vocab.concepts import ConceptTable
from .arguments import EXACT_INDEX
from .concept_index import (
    NAMES_FILE,
    Candidates,
    ConceptIndex,
    NameGrouping,
    distinct_queries,
    sole_documents,
    write_names,
)

if TYPE_CHECKING:
    from accelerate import PartialState

    from .deployment import IndexSettings

STRINGS_FILE = "strings.arrow"
VECTORS_FILE = "vectors.json"
# Default number of names to train a clustering or quantizing index on: in total, or per cluster.
TRAINING_SAMPLE = 262_144
SAMPLE_PER_CLUSTER = 64
NPROBE = re.compile(r"(^|,)nprobe=\+?0*[1-9]")
READ_AT_ONCE = 16 * 2**20


class NameVectors:
    """A folder with all names, the distinct strings and their vectors, encoded in shards.

    A shard is a fixed range of names, and its vectors depend on nothing else. So the result is
    bitwise the same for any number of processes and interruptions. All indexes are built from them.

    Args:
        folder: folder that `prepare` wrote; a process needs memory for one shard, and the strings
            stay on disk.

    Attributes:
        names: file of the table of names (`write_names`).
        identity: the encoder's `BiEncoder.identity`.
        dimension: length of a vector.
        concepts: number of concepts that the names belong to.

    Raises:
        UserError: the folder was not prepared.
    """

    def __init__(self, folder: Path) -> None:
        description = read_json(folder / VECTORS_FILE)
        self.names = folder / NAMES_FILE
        self.identity: dict[str, Any] = description["encoder"]
        self.dimension: int = description["dimension"]
        self.concepts: int = description["concepts"]
        self._strings = open_arrow(folder / STRINGS_FILE)["string"]
        # Older folders do not say it.
        self._shard: int = description.get("shard", CHUNK)
        shards = -(-len(self._strings) // self._shard)
        self._files = [folder / f"{number:05}-of-{shards:05}.npy" for number in range(shards)]

    @classmethod
    def prepare(
        cls, concepts: ConceptTable, encoder: BiEncoder, folder: Path, shard: int = CHUNK
    ) -> NameVectors:
        """Write the names and the strings to encode, unless a killed run wrote them.

        Args:
            concepts: the dictionary.
            encoder: the bi-encoder that will encode them.
            folder: folder to write into.
            shard: names per shard: a multiple of the encoder's chunk, so that a shard's end changes
                nothing; 25 MB at 384 dimensions.
        """
        if not (folder / VECTORS_FILE).is_file():
            folder.mkdir(exist_ok=True)
            strings = pa.table({"string": write_names(concepts, folder / NAMES_FILE)})
            with arrow_writer(folder / STRINGS_FILE, strings.schema) as writer:
                writer.write(strings)
            description = {
                "encoder": encoder.identity,
                "dimension": encoder.dimension,
                "concepts": len(concepts),
                "shard": shard,
            }
            write_json(folder / VECTORS_FILE, {"schema_version": 1} | description)
        return cls(folder)

    def __len__(self) -> int:
        return len(self._strings)

    def encode_share(self, encoder: BiEncoder, process: int, processes: int) -> None:
        """Encode every `processes`-th shard, except existing ones.

        Args:
            encoder: the bi-encoder, on this process's device.
            process: number of this process, from 0.
            processes: number of processes.
        """
        numbers = range(process, len(self._files), processes)
        total = sum(self._size(number) for number in numbers)
        with progress(total=total, desc="encoding names", unit=" names") as bar:
            for number in numbers:
                if not self._files[number].is_file():
                    texts = self._strings.slice(number * self._shard, self._shard).to_pylist()
                    write_numbers(self._files[number], encoder.encode(texts))
                bar.update(self._size(number))

    def shards(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the number of each shard's first name, and its vectors (names, dimension) float32.

        Raises:
            UserError: a shard is missing or cannot be read.
        """
        for number, file in enumerate(self._files):
            try:
                vectors = np.load(file, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise UserError(
                    f"{file} cannot be read ({error}); "
                    "run umls-reranker build_index with --overwrite"
                ) from None
            yield number * self._shard, vectors

    def take(self, names: np.ndarray) -> np.ndarray:
        """Vectors of some names, by ascending number."""
        selected = [np.empty((0, self.dimension), np.float32)]
        for start, vectors in self.shards():
            first, last = np.searchsorted(names, [start, start + len(vectors)])
            selected.append(vectors[names[first:last] - start])
        return np.concatenate(selected)

    def sample(self, size: int) -> np.ndarray:
        """Numbers of `size` names, ascending, drawn without replacement; all if there are fewer."""
        if len(self) <= size:
            return np.arange(len(self))
        return np.sort(np.random.default_rng(0).choice(len(self), size, replace=False))

    def _size(self, number: int) -> int:
        return min(self._shard, len(self) - number * self._shard)


def new_index(dimension: int, factory: str, parameters: str = "") -> faiss.Index:
    """Make an empty inner-product index.

    Args:
        dimension: length of the vectors.
        factory: FAISS factory string, e.g. ``"Flat"``, ``"IVF4096,PQ192x4fs,Refine(SQfp16)"``,
            ``"HNSW32,SQ8"``.
        parameters: FAISS search parameters, e.g. ``"nprobe=64"``, only checked; the index is
            created without them.

    Raises:
        UserError: FAISS does not know the factory string or a parameter, or an IVF index lacks
            ``nprobe``.
    """
    with faiss_errors(f"index_factory {factory!r} with index_parameters {parameters!r}"):
        index = faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
    set_parameters(faiss.clone_index(index), factory, parameters)
    return index


def set_parameters(index: faiss.Index, factory: str, parameters: str) -> None:
    """Set search parameters of an index.

    Raises:
        UserError: FAISS does not know one of them, or an IVF index lacks ``nprobe``.
    """
    with faiss_errors(f"index_factory {factory!r} with index_parameters {parameters!r}"):
        if parameters:
            # Annotated with another of its overloads.
            faiss.ParameterSpace().set_index_parameters(index, parameters)  # type: ignore[arg-type]
    clusters = faiss.try_extract_index_ivf(index)
    if clusters is not None and not NPROBE.search(parameters):
        # Four times the root of their number (docs/internal/retrieval-and-mining.md).
        recommended = min(clusters.nlist, 4 * math.isqrt(clusters.nlist))
        raise UserError(
            f"index_parameters: {factory} searches only 1 of its {clusters.nlist:,} clusters "
            f"by default; set nprobe={recommended} and compare the recall that is printed"
        )


def training_size(index: faiss.Index, names: int) -> int:
    """Number of names to train an index on: 64 per cluster, at least 262,144, or all.

    Args:
        index: the index.
        names: number of distinct names.

    Raises:
        UserError: there are fewer names per cluster than FAISS's minimum of 39.
    """
    clusters = faiss.try_extract_index_ivf(index)
    if clusters is None:
        return min(names, TRAINING_SAMPLE)
    least = clusters.cp.min_points_per_centroid
    needed = (
        f"{clusters.nlist:,} clusters must be trained on {least * clusters.nlist:,} "
        f"names ({least} each)"
    )
    if names < least * clusters.nlist:
        few = names // least
        other = f"IVF{few} or fewer clusters, or Flat" if few > 1 else "Flat"
        raise UserError(f"index_factory: {needed}, but there are {names:,}; use {other}")
    return min(names, max(TRAINING_SAMPLE, SAMPLE_PER_CLUSTER * clusters.nlist))


@contextmanager
def faiss_errors(message: str) -> Iterator[None]:
    """Raise what FAISS refuses as an error with this message and its own."""
    try:
        yield
    except RuntimeError as error:
        raise UserError(f"{message}: FAISS: {str(error).splitlines()[-1]}") from None


def fill(index: faiss.Index, vectors: NameVectors) -> None:
    """Train an index if necessary and add all vectors; memory holds one shard at a time.

    It also holds the index, and the sample while it is trained on.

    Raises:
        UserError: training needs more vectors than exist.
    """
    size = training_size(index, len(vectors))
    if not index.is_trained:
        with faiss_errors(f"index_factory: training on {len(vectors):,} names failed"):
            index.train(vectors.take(vectors.sample(size)))
    _reserve(index, len(vectors))
    with progress(total=len(vectors), desc="filling the index", unit=" names") as bar:
        for _, shard in vectors.shards():
            index.add(shard)
            bar.update(len(shard))


def read_ahead(path: Path) -> None:
    """Read an index file from start to end, so that it is in memory before pages are used.

    A disk reads single pages a hundred times more slowly: with 8.4 million names (13.8 GB), the
    first queries took 50 ms each, and 5 ms after reading ahead.
    """
    part = bytearray(READ_AT_ONCE)
    with path.open("rb", buffering=0) as file:
        while file.readinto(part):
            pass


def _reserve(index: faiss.Index, total: int) -> None:
    """Reserve memory for all codes; a vector that doubles needs up to twice as much for a time."""
    part = index
    if hasattr(index, "storage"):
        part = index.storage
    elif hasattr(index, "refine_index"):
        part = index.refine_index
    storage = faiss.downcast_index(part)
    if hasattr(storage, "codes") and hasattr(storage, "code_size"):
        storage.codes.resize(total * storage.code_size)
        storage.codes.resize(0)


@contextmanager
def faiss_threads(number: int) -> Iterator[None]:
    """Let FAISS use this many threads, in the calling thread alone."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(number)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


_searches = threading.Lock()
_running = 0
_threshold = 0


@contextmanager
def _matrix_products(dimension: int) -> Iterator[None]:
    """Let FAISS compare queries by matrix products, in the whole process.

    It compares up to 300 queries one by one, ten times slower. Its threshold is restored when the
    last of several searches at the same time ends.
    """
    global _running, _threshold
    with _searches:
        if not _running:
            _threshold = faiss.cvar.distance_compute_blas_threshold
            faiss.cvar.distance_compute_blas_threshold = min(_threshold, 4 * dimension)
        _running += 1
    try:
        yield
    finally:
        with _searches:
            _running -= 1
            if not _running:
                faiss.cvar.distance_compute_blas_threshold = _threshold


def search_exactly(
    vectors: np.ndarray, queries: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k vectors with the largest inner products, by one thread; several threads may call it.

    Args:
        vectors: (m, d) float32, in memory or mapped into it.
        queries: (n, d) float32.
        k: from 1 to m.

    Returns:
        (n, k) float32 scores in descending order, ties by number, and (n, k) int64 numbers of
        vectors.
    """
    with faiss_threads(1), _matrix_products(vectors.shape[1]):
        _, numbers = faiss.knn(queries, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)
    # A matrix product may round equal vectors differently with other queries; this does not.
    scores = np.stack(
        [
            np.einsum("nd,d->n", vectors[nearest], query)
            for nearest, query in zip(numbers, queries, strict=True)
        ]
    )
    order = np.lexsort((numbers, -scores))
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(numbers, order, axis=1)


FAISS_FILE = "names.faiss"


def encode_names(
    folder: Path, target: Path, settings: IndexSettings, device: str, state: PartialState
) -> NameVectors:
    """Encode all distinct names for a `NameIndex`; the processes of a launch share the work.

    Args:
        folder: run or index folder with the concepts, and with the encoder if it was trained.
        target: folder to write into; finished shards in it stay.
        settings: the encoder and the index.
        device: as for `BiEncoder.from_pretrained`.
        state: the processes.

    Raises:
        UserError: the encoder cannot be loaded, FAISS does not know the index or a parameter, or
            there are too few names for it.
    """
    encoder = settings.load_encoder(folder, device)
    # An unknown factory or too few names are reported before hours of encoding.
    index = new_index(encoder.dimension, settings.index_factory, settings.index_parameters or "")
    if state.is_main_process:
        if advice := encoder.advice(settings.encoder_dtype):
            print(advice, file=sys.stderr)
        NameVectors.prepare(ConceptTable.load(folder / "concepts"), encoder, target)
    state.wait_for_everyone()
    vectors = NameVectors(target)
    training_size(index, len(vectors))
    vectors.encode_share(encoder, state.process_index, state.num_processes)
    state.wait_for_everyone()
    return vectors


class NameIndex(ConceptIndex):
    """A FAISS index over the distinct names, and the concepts of each name.

    A name shared by several concepts is stored once, so these concepts tie exactly.
    """

    title = "the index"
    file = "index.json"
    schema_version = 2

    def __init__(self, path: Path, description: dict[str, Any]) -> None:
        super().__init__(path, description)
        self._vectors = faiss.read_index(str(path / FAISS_FILE), faiss.IO_FLAG_MMAP_IFC)
        names = open_arrow(path / NAMES_FILE)
        concepts = description["concepts"]
        self.grouping = NameGrouping.of_names(names, concepts, self._vectors.ntotal)
        self._names = names["name"]

    @classmethod
    def build(
        cls,
        vectors: NameVectors,
        path: Path,
        factory: str = EXACT_INDEX,
        search_parameters: str = "",
    ) -> NameIndex:
        """Index encoded names.

        Vectors are added to FAISS shard by shard, so memory holds one copy, in `factory`'s format.

        Args:
            vectors: vectors of all names.
            path: existing folder to write into.
            factory: FAISS factory string. ``"Flat"`` is exact and, with 37,000 concepts, answers
                thousands of queries per second; for millions, e.g.
                ``"IVF4096,PQ192x4fs,Refine(SQfp16)"`` or ``"HNSW32,SQfp16"``.
            search_parameters: as for `load`; they are not stored.

        Raises:
            UserError: FAISS does not know the factory string or a parameter, an IVF index lacks
                ``nprobe``, or there are too few names to train on.
        """
        index = new_index(vectors.dimension, factory, search_parameters)
        with faiss_threads(torch.get_num_threads()):
            fill(index, vectors)
        faiss.write_index(index, str(path / FAISS_FILE))
        # It does not fit into memory together with what is loaded below.
        del index
        shutil.copyfile(vectors.names, path / NAMES_FILE)
        cls.describe(path, vectors.concepts, encoder=vectors.identity, factory=factory)
        return cls.load(path, search_parameters)

    @classmethod
    def load(cls, path: Path, search_parameters: str = "") -> NameIndex:
        """Open an index, memory-mapped; an approximate one is first read from start to end.

        Args:
            path: the folder.
            search_parameters: FAISS parameters, e.g. ``"nprobe=128"`` or ``"efSearch=128"``; IVF
                needs ``nprobe``.

        Raises:
            UserError: a file is missing or unreadable, FAISS does not know a parameter, or an IVF
                index lacks ``nprobe``.
        """
        index = super().load(path)
        set_parameters(index._vectors, index.description["factory"], search_parameters)
        if index.description["factory"] != EXACT_INDEX:
            read_ahead(path / FAISS_FILE)
        return index

    def names(self, name_ids: np.ndarray) -> list[str]:
        """The strings of names."""
        return self.name_array(name_ids).to_pylist()

    def name_array(self, name_ids: np.ndarray) -> pa.ChunkedArray:
        """The strings of names as an Arrow column."""
        return self._names.take(pa.array(name_ids))

    def search(self, vectors: np.ndarray, k: int, block: int = 512) -> Candidates:
        """The k concepts nearest to each vector, by their best-matching name.

        Ties are broken by concept row, then name id. With an exact index the result is exact: FAISS
        returns more names until k concepts are certain or no names are left.

        Args:
            vectors: (n, dimension) float32, L2-normalized.
            k: number of concepts.
            block: queries that a thread searches at a time.
        """

        def search(queries: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
            if self._flat is not None:
                return search_exactly(self._flat, vectors[queries], width)
            # Threads search whole blocks; FAISS's own threads would wait for each other.
            with faiss_threads(1):
                return self._vectors.search(vectors[queries], width)

        block = max(1, min(block, -(-len(vectors) // torch.get_num_threads())))
        return self.grouping.collect(
            len(vectors), k, search, batch_mapper(torch.device("cpu")), block
        )

    def best_names(
        self, vectors: np.ndarray, rows: np.ndarray, owners: np.ndarray, block: int = 32_768
    ) -> tuple[np.ndarray, np.ndarray]:
        """The nearest name of given concepts for each vector.

        Cosines use the vectors in the index, in its number format.

        Args:
            vectors: (m, dimension) float32, L2-normalized.
            rows: (n, k) concept rows, padded with -1.
            owners: (n,) vector of each list of rows.
            block: approximate number of names whose vectors are read from the index at a time.

        Returns:
            (n, k) int64 name ids, the first among ties, padded with -1; (n, k) float32 cosines,
            padded with -inf.

        Raises:
            UserError: the index cannot return its vectors.
        """

        def score(queries: np.ndarray, strings: np.ndarray) -> np.ndarray:
            distinct, number_of = np.unique(strings, return_inverse=True)
            stored = self._readable.reconstruct_batch(distinct)
            return np.einsum("nd,nd->n", stored[number_of], vectors[owners[queries]])

        return self.grouping.best(rows, score, block)

    @cached_property
    def _flat(self) -> np.ndarray | None:
        """The vectors of a flat index in place, (m, dimension)."""
        if not isinstance(self._vectors, faiss.IndexFlatIP):
            return None
        content = faiss.rev_swig_ptr(self._vectors.get_xb(), self._vectors.ntotal * self._vectors.d)
        return content.reshape(-1, self._vectors.d)

    @cached_property
    def _readable(self) -> faiss.Index:
        """The index, ready to return vectors by number."""
        with faiss_errors("index_factory: this index cannot return vectors; use another factory"):
            clusters = faiss.try_extract_index_ivf(self._vectors)
            # A refining index returns the vectors it refines with.
            if clusters is not None and not hasattr(self._vectors, "refine_index"):
                clusters.make_direct_map()
            self._vectors.reconstruct(0)
        return self._vectors


class MentionIndex(ConceptIndex):
    """Vectors of training mentions (in context if the encoder reads it) and their concepts.

    Search is exact.

    Attributes:
        reads_context: whether mentions were, and queries must be, encoded with context.
    """

    title = "the index of training mentions"
    file = "mention_index.json"
    schema_version = 2

    def __init__(self, path: Path, description: dict[str, Any]) -> None:
        super().__init__(path, description)
        self.reads_context: bool = description["reads_context"]
        self._vectors = np.load(path / "vectors.npy", mmap_mode="r", allow_pickle=False)
        rows = np.load(path / "rows.npy", allow_pickle=False)
        documents = np.load(path / "documents.npy", allow_pickle=False)
        numbers = np.arange(len(rows), dtype=np.int32)
        self.grouping = NameGrouping(rows, numbers, description["concepts"], len(rows), documents)

    @classmethod
    def build(
        cls, mentions: pa.Table, concepts: ConceptTable, encoder: BiEncoder, path: Path
    ) -> MentionIndex:
        """Encode the distinct mentions whose concept is in the dictionary.

        Args:
            mentions: the training split's columns ``mention``, ``left``, ``right``, ``cui`` and
                ``doc_id``.
            concepts: the dictionary.
            encoder: the bi-encoder that will encode the queries.
            path: existing folder to write into.

        Raises:
            UserError: no mention's concept is in the dictionary.
        """
        gold = concepts.rows(trainable(mentions["cui"].to_pylist()))
        if not (gold >= 0).any():
            raise UserError(
                "retrievers: no training mention has its concept in the dictionary; "
                "remove nearest_mentions"
            )
        reads_context = encoder.queries.context_tokens > 0
        query_of, queries = distinct_queries(mentions, reads_context)
        # Sorted by concept, as `NameGrouping` requires.
        known = gold >= 0
        (rows, query), entry = np.unique(
            np.stack([gold, query_of])[:, known], axis=1, return_inverse=True
        )
        documents = sole_documents(
            entry, mentions["doc_id"].filter(pa.array(known)).to_pylist(), len(rows)
        )
        texts = queries.take(pa.array(query)).to_pydict()
        contexts = (texts["left"], texts["right"]) if reads_context else None
        vectors = encoder.encode(texts["mention"], contexts, desc="encoding training mentions")
        np.save(path / "vectors.npy", vectors)
        np.save(path / "rows.npy", rows.astype(np.int32))
        np.save(path / "documents.npy", documents)
        cls.describe(path, len(concepts), encoder=encoder.identity, reads_context=reads_context)
        return cls.load(path)

    def search(
        self,
        vectors: np.ndarray,
        k: int,
        documents: Sequence[str] | None = None,
        block: int = 512,
    ) -> Candidates:
        """The k concepts nearest to each vector, by the most similar training mention of each.

        Args:
            vectors: (n, dimension) float32, L2-normalized.
            k: number of concepts; fewer are returned if training has fewer.
            documents: (n,) documents, whose own mentions are left out; None leaves out none.
            block: queries that a thread searches at a time.

        Returns:
            Candidates whose ``name_ids`` are numbers of mentions.
        """

        def search(queries: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
            return search_exactly(self._vectors, vectors[queries], width)

        parallel_map = batch_mapper(torch.device("cpu"))
        return self.grouping.collect(len(vectors), k, search, parallel_map, block, documents)
