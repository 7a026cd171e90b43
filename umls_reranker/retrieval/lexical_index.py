"""The lexical index of names: nearest concepts of a string, by shared character trigrams."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_array, vstack
from sklearn.preprocessing import normalize
from sklearn.utils import murmurhash3_32

from ..core.arrays import expand_ranges, list_offsets
from ..core.cores import openmp_threads, usable_cores
from ..core.progress import progress
from ..data.arrow import open_arrow
from ..data.normalization import normalize_name, trigrams
from .concept_index import ConceptIndex, write_names
from .concept_search import Candidates, NameGrouping

if TYPE_CHECKING:
    from ..data.concepts import ConceptTable

NAMES_FILE = "names.arrow"
TRIGRAMS_FILE, WEIGHTS_FILE = "trigrams.npy", "trigram_weights.npy"
STARTS_FILE, POSTINGS_FILE, POSTING_WEIGHTS_FILE = "starts.npy", "postings.npy", "posting_weights.npy"
STRING_STARTS_FILE, STRING_TRIGRAMS_FILE = "string_starts.npy", "string_trigrams.npy"
STRING_WEIGHTS_FILE = "string_weights.npy"
# Size of the trigram hash; among 50,000 trigrams, one in 20 shares its number with another.
HASHES = 1 << 20
# A trigram in more than this share of the strings carries little information and costs most of the time; small
# dictionaries keep all.
COMMON_SHARE, COMMON_STRINGS = 0.05, 5_000
# Strings per block of postings: the sums of a query over one block fit the CPU's cache.
STRINGS_PER_BLOCK = 131_072
QUERIES_PER_BLOCK = 64
STRINGS_AT_ONCE = 65_536


class LexicalIndex(ConceptIndex):
    """TF-IDF vectors of the character trigrams of the distinct normalized names, searched with inverted lists.

    The vectors are also stored, so given names are scored without tokenizing them again. A string takes 16 bytes per
    trigram, about 300 bytes in total.
    """

    title, file, schema_version = "the lexical index", "lexical.json", 2

    def __init__(self, path: Path, description: dict[str, Any]) -> None:
        super().__init__(path, description)
        self._trigrams, self._idf, self._starts, self._postings, self._weights = (
            np.load(path / file, mmap_mode="r", allow_pickle=False)
            for file in (TRIGRAMS_FILE, WEIGHTS_FILE, STARTS_FILE, POSTINGS_FILE, POSTING_WEIGHTS_FILE)
        )
        self._string_starts, self._string_trigrams, self._string_weights = (
            np.load(path / file, mmap_mode="r", allow_pickle=False)
            for file in (STRING_STARTS_FILE, STRING_TRIGRAMS_FILE, STRING_WEIGHTS_FILE)
        )
        names = open_arrow(path / NAMES_FILE)
        rows, strings = names["row"].to_numpy(), names["string"].to_numpy()
        self.grouping = NameGrouping(rows, strings, description["concepts"], len(self._string_starts) - 1)

    @classmethod
    def build(cls, concepts: ConceptTable, path: Path) -> LexicalIndex:
        """Count the trigrams of every distinct normalized name and write the index.

        Args:
            concepts: the dictionary.
            path: existing folder to write into.
        """
        strings = write_names(concepts, path / NAMES_FILE, form=normalize_name)
        counts = np.zeros(HASHES, np.int64)
        for texts in _blocks(strings, "counting trigrams"):
            counts += np.bincount(_hash_trigrams(texts).indices, minlength=HASHES)
        common = max(COMMON_SHARE * len(strings), COMMON_STRINGS)
        trigrams = np.flatnonzero((counts > 0) & (counts <= common)).astype(np.int32)
        idf = (np.log((1 + len(strings)) / (1 + counts[trigrams])) + 1).astype(np.float32)
        blocks = [_weigh(texts, trigrams, idf) for texts in _blocks(strings, "indexing trigrams")]
        lists = [block.tocsc() for block in blocks]
        vectors = vstack(blocks, "csr")
        ends = list_offsets([block.nnz for block in blocks])
        arrays = {
            TRIGRAMS_FILE: trigrams,
            WEIGHTS_FILE: idf,
            STARTS_FILE: np.stack([end + block.indptr for end, block in zip(ends, lists, strict=False)]),
            POSTINGS_FILE: np.concatenate([block.indices for block in lists]),
            POSTING_WEIGHTS_FILE: np.concatenate([block.data for block in lists]),
            STRING_STARTS_FILE: vectors.indptr.astype(np.int64),
            STRING_TRIGRAMS_FILE: vectors.indices.astype(np.int32),
            STRING_WEIGHTS_FILE: vectors.data,
        }
        for file, values in arrays.items():
            np.save(path / file, values)
        cls.describe(path, len(concepts))
        return cls.load(path)

    def search(self, texts: Sequence[str], k: int) -> Candidates:
        """The k concepts nearest to each text, by their best-matching name; ties by concept row, then name id.

        A concept without a common trigram is not found, so the list may be shorter. The name ids are those of a
        `NameIndex` over the same concepts.

        Args:
            texts: n strings, not yet normalized.
            k: number of concepts.

        Returns:
            Candidates with TF-IDF cosines as scores, 1 if a name equals the normalized text.
        """
        queries = self._weigh(texts)

        def search(numbers: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
            return self._nearest(queries[numbers], width)

        threads = openmp_threads() or usable_cores()
        with ThreadPoolExecutor(threads) as pool:
            return self.grouping.collect(len(texts), k, search, pool.map, QUERIES_PER_BLOCK)

    def score(self, texts: Sequence[str], rows: np.ndarray, owners: np.ndarray | None = None) -> np.ndarray:
        """Cosine of each text and the most similar name of given concepts.

        Args:
            texts: m strings, not yet normalized.
            rows: (n, k) concept rows, padded with -1.
            owners: (n,) text of each list of rows; None: the text with the same number.

        Returns:
            (n, k) float32 TF-IDF cosines, 0 without a common trigram, padded with -inf.
        """
        vectors = self._weigh(texts)

        def score(queries: np.ndarray, strings: np.ndarray) -> np.ndarray:
            distinct, number_of = np.unique(strings, return_inverse=True)
            query_vectors = vectors[queries if owners is None else owners[queries]]
            return np.asarray(query_vectors.multiply(self._vectors(distinct)[number_of]).sum(axis=1), np.float32)

        return self.grouping.best(rows, score, STRINGS_AT_ONCE)[1]

    def _vectors(self, strings: np.ndarray) -> csr_array:
        """TF-IDF vectors of names, by number of their string, (n, trigrams)."""
        starts, stops = self._string_starts[strings], self._string_starts[strings + 1]
        entries = expand_ranges(starts, stops)[1]
        content = self._string_weights[entries], self._string_trigrams[entries], list_offsets(stops - starts)
        return csr_array(content, shape=(len(strings), len(self._trigrams)))

    def _weigh(self, texts: Sequence[str]) -> csr_array:
        return _weigh([normalize_name(text) for text in texts], self._trigrams, self._idf)

    def _nearest(self, queries: csr_array, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores and numbers of the nearest strings of q queries, (q, width), best first, ties by number."""
        n = queries.shape[0]
        scores, strings = np.zeros((n, width), np.float32), np.full((n, width), -1, np.int64)
        for first_string, block in self._lists:
            product = queries @ block
            for query, (start, end) in enumerate(pairwise(product.indptr)):
                values, numbers = product.data[start:end], product.indices[start:end]
                above = values > scores[query, -1]
                values, numbers = values[above], numbers[above]
                if len(values) > width:
                    retained = values >= np.partition(values, -width)[-width]
                    values, numbers = values[retained], numbers[retained]
                values = np.concatenate([scores[query], values])
                numbers = np.concatenate([strings[query], first_string + numbers])
                best = np.lexsort((numbers, -values))[:width]
                scores[query], strings[query] = values[best], numbers[best]
        return scores, strings

    @cached_property
    def _lists(self) -> list[tuple[int, csr_array]]:
        """Number of the first string and the inverted lists, (trigrams, strings), of every block."""
        blocks = []
        for number, starts in enumerate(self._starts):
            first_string = number * STRINGS_PER_BLOCK
            shape = len(self._trigrams), min(STRINGS_PER_BLOCK, len(self._string_starts) - 1 - first_string)
            entries = slice(starts[0], starts[-1])
            lists = self._weights[entries], self._postings[entries], (starts - starts[0]).astype(np.int32)
            blocks.append((first_string, csr_array(lists, shape=shape)))
        return blocks


def _blocks(strings: pa.Array, desc: str) -> Iterator[list[str]]:
    """The strings of every block."""
    with progress(total=len(strings), desc=desc, unit=" names") as bar:
        for start in range(0, len(strings), STRINGS_PER_BLOCK):
            texts = strings.slice(start, STRINGS_PER_BLOCK).to_pylist()
            yield texts
            bar.update(len(texts))


def _hash_trigrams(texts: Sequence[str]) -> csr_array:
    """Count of each trigram in n normalized texts, (n, HASHES) float32."""
    owner, characters = trigrams(texts)
    # A code point has 21 bits.
    codes = characters.astype(np.int64).T @ (1 << np.array([42, 21, 0]))
    _, first, number = np.unique(codes, return_index=True, return_inverse=True)
    distinct = np.ascontiguousarray(characters.T[first]).view("U3")[:, 0].tolist()
    columns = np.array([abs(murmurhash3_32(trigram)) % HASHES for trigram in distinct], np.int32)
    counts = np.ones(len(owner), np.float32), (owner.astype(np.int32), columns[number])
    return csr_array(counts, shape=(len(texts), HASHES))


def _weigh(texts: Sequence[str], trigrams: np.ndarray, idf: np.ndarray) -> csr_array:
    """TF-IDF vectors of n normalized texts over the kept trigrams, L2-normalized, (n, trigrams) float32."""
    counts = _hash_trigrams(texts)[:, trigrams]
    counts.data *= idf[counts.indices]
    return normalize(counts, copy=False) if len(texts) else counts
