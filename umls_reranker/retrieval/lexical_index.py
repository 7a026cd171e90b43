"""The lexical index of names: nearest concepts of a string, by shared character trigrams.

Vectors are TF-IDF, as those of scikit-learn (``char_wb``), made block by block. A trigram is known
by its code: the code points of its three characters, 21 bits each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_array, vstack

from ..core.arrays import distinct_numbers, list_offsets, list_owner, number_distinct
from ..core.arrow_files import arrow_writer, open_arrow, write_numbers
from ..core.parallel import map_in_order, openmp_threads, progress, usable_cores
from ..vocab.normal_form import normal_forms
from ..vocab.normalization import normalize_texts
from ..vocab.trigrams import trigrams
from .candidates import Candidates
from .concept_index import ConceptIndex
from .name_grouping import DictionaryNames, NameGrouping
from .stored_names import NAMES_FILE, write_names

if TYPE_CHECKING:
    from typing_extensions import Self

    from ..vocab.concept_table import ConceptTable

TRIGRAMS_FILE = "trigrams.arrow"
# Files of a sparse matrix: values, columns, and where each row starts.
FILES = ("data", "indices", "indptr")
# A trigram in more than this share of the strings carries little information and costs most of the
# time; small dictionaries keep all.
COMMON_SHARE = 0.05
COMMON_STRINGS = 5_000
# Strings per block of inverted lists: the sums of a query over one block fit the CPU's cache, and
# the time to call a sum is small beside it. FORMER_BLOCK is that of indexes that do not say it.
BLOCK = 1_048_576
FORMER_BLOCK = 131_072
# Strings whose vectors are made at a time.
PART = 131_072
# Sums are looked through in groups of so many, by the largest of each.
GROUP = 128
CODE_POINT_BITS = 21


class Trigrams:
    """The trigrams of an index, by number, and what they weigh.

    Args:
        codes: (t,) int64, distinct.
        weights: (t,) float32, their inverse document frequencies.
    """

    def __init__(self, codes: np.ndarray, weights: np.ndarray) -> None:
        self.codes = codes
        self.weights = weights
        self._order = np.argsort(codes)
        self._ascending = codes[self._order]

    def __len__(self) -> int:
        return len(self.codes)

    @classmethod
    def load(cls, file: Path) -> Trigrams:
        """Read a file that `save` wrote."""
        table = open_arrow(file)
        text = "".join(table["trigram"].to_pylist())
        characters = np.frombuffer(text.encode("utf-32-le"), np.uint32).reshape(-1, 3)
        return cls(_codes(characters.T), table["weight"].to_numpy())

    def save(self, file: Path) -> None:
        """Write the trigrams as text, with their weights."""
        shifts = [2 * CODE_POINT_BITS, CODE_POINT_BITS, 0]
        characters = self.codes[:, None] >> shifts & ((1 << CODE_POINT_BITS) - 1)
        text = characters.astype("<u4").tobytes().decode("utf-32-le")
        texts = [text[start : start + 3] for start in range(0, len(text), 3)]
        table = pa.table({"trigram": pa.array(texts, pa.string()), "weight": self.weights})
        with arrow_writer(file, table.schema) as writer:
            writer.write(table)

    def weigh(self, texts: Sequence[str]) -> csr_array:
        """Vectors of n normalized texts, (n, t) float32, L2-normalized; unknown trigrams are 0."""
        codes, counts = count_trigrams(texts)
        positions = np.searchsorted(self._ascending, codes).clip(max=max(0, len(self) - 1))
        is_known = self._ascending[positions] == codes
        retained = is_known[counts.indices]
        numbers = self._order[positions][counts.indices[retained]].astype(np.int32)
        starts = list_offsets(retained)[counts.indptr].astype(counts.indptr.dtype)
        values = counts.data[retained] * self.weights[numbers]
        vectors = csr_array((values, numbers, starts), shape=(len(texts), len(self)))
        vectors.sort_indices()
        owner = list_owner(vectors.indptr)
        norms = np.sqrt(np.bincount(owner, vectors.data * vectors.data, len(texts)))
        vectors.data = (vectors.data / norms[owner]).astype(np.float32)
        return vectors


def weighted(blocks: Iterable[tuple[np.ndarray, np.ndarray]], texts: int, most: float) -> Trigrams:
    """The trigrams of some texts, by code, without those that are in more than `most` texts.

    Args:
        blocks: codes, and the number of texts in a block that have each.
        texts: number of all texts.
        most: the limit.
    """
    codes, sizes = map(np.concatenate, zip(*blocks, strict=True))
    codes, number = np.unique(codes, return_inverse=True)
    frequencies = np.bincount(number, sizes)
    is_retained = frequencies <= most
    retained = frequencies[is_retained].astype(np.float32)
    weights = np.log(np.float32(texts + 1) / (retained + 1)) + np.float32(1)
    return Trigrams(codes[is_retained], weights)


def count_trigrams(texts: Sequence[str]) -> tuple[np.ndarray, csr_array]:
    """Codes of the distinct trigrams of n normalized texts, and their counts, (n, codes) float32.

    The codes ascend, unless texts have control characters.
    """
    owner, characters = trigrams(texts)
    # Few distinct characters make small numbers, which need no sorting.
    letters, _ = distinct_numbers(characters[1], 1 << CODE_POINT_BITS)
    letters = np.append(ord(" "), letters)
    digits = np.zeros(1 << CODE_POINT_BITS, np.int64)
    digits[letters] = np.arange(len(letters))
    first, second, third = digits[characters]
    base = len(letters)
    numbers, number = distinct_numbers((first * base + second) * base + third, base**3)
    parts = np.stack([numbers // base**2, numbers // base % base, numbers % base])
    starts = list_offsets(np.bincount(owner, minlength=len(texts))).astype(np.int32)
    ones = np.ones(len(number), np.float32)
    counts = csr_array((ones, number.astype(np.int32), starts), shape=(len(texts), len(numbers)))
    counts.sum_duplicates()
    return _codes(letters[parts]), counts


def _codes(characters: np.ndarray) -> np.ndarray:
    """The codes of t trigrams, (t,) int64, from the code points of their characters, (3, t)."""
    first, second, third = characters.astype(np.int64)
    return first << 2 * CODE_POINT_BITS | second << CODE_POINT_BITS | third


class LexicalIndex(ConceptIndex):
    """TF-IDF vectors of character trigrams of the distinct normalized names, in inverted lists.

    The vectors are also stored, so given names are scored without tokenizing them again. A string
    takes 16 bytes per trigram, about 300 bytes in total.
    """

    title = "the lexical index"
    file = "lexical.json"
    schema_version = 3
    forms = staticmethod(normalize_texts)

    def __init__(self, path: Path, description: dict[str, Any]) -> None:
        super().__init__(path, description)
        self._trigrams = Trigrams.load(path / TRIGRAMS_FILE)
        self._vectors = _open(path / "vectors", len(self._trigrams))
        strings = self._vectors.shape[0]
        block = description.get("block", FORMER_BLOCK)
        # The first string and the inverted lists, (trigrams, strings), of every block.
        self._lists = [
            (first, _open(path / f"lists_{first}", min(block, strings - first)))
            for first in range(0, strings, block)
        ]
        names = open_arrow(path / NAMES_FILE)
        self.grouping = NameGrouping.of_names(names, description["concepts"], strings)

    @classmethod
    def build(
        cls,
        concepts: ConceptTable,
        path: Path,
        mentions: pa.Table | None = None,
        common_strings: int = COMMON_STRINGS,
        block: int = BLOCK,
    ) -> Self:
        """Count the trigrams of every distinct normalized name and write the index.

        Args:
            concepts: the dictionary.
            path: existing folder to write into.
            mentions: mentions that are further names of their concepts, as for `write_names`.
            common_strings: trigrams of more strings, and of more than `COMMON_SHARE`, are left out.
            block: strings per block of inverted lists; it changes no result.
        """
        strings = write_names(concepts, path / NAMES_FILE, cls.forms, mentions)
        firsts = range(0, len(strings), PART)

        def count(first: int) -> tuple[np.ndarray, np.ndarray]:
            codes, counts = count_trigrams(strings.slice(first, PART).to_pylist())
            return codes, np.bincount(counts.indices, minlength=len(codes))

        def weigh(first: int) -> csr_array:
            return known.weigh(strings.slice(first, PART).to_pylist())

        counted = progress(map_in_order(count, firsts), total=len(firsts), desc="counting trigrams")
        common = max(COMMON_SHARE * len(strings), common_strings)
        most = min(1.0, common / len(strings)) * len(strings)
        known = weighted(counted, len(strings), most)
        known.save(path / TRIGRAMS_FILE)
        weighed = progress(map_in_order(weigh, firsts), total=len(firsts), desc="indexing trigrams")
        vectors = vstack(list(weighed), format="csr")
        _save(vectors, path / "vectors")
        for first in range(0, len(strings), block):
            _save(vectors[first : first + block].T.tocsr(), path / f"lists_{first}")
        cls.describe(path, len(concepts), block=block)
        return cls.load(path)

    def weigh(self, texts: Sequence[str]) -> csr_array:
        """Vectors of n texts, not yet normalized, for the other methods."""
        return self._trigrams.weigh(self.forms(texts))

    def search(
        self,
        vectors: csr_array,
        k: int,
        documents: Sequence[str] | None = None,
        block: int = 64,
    ) -> Candidates:
        """The k concepts nearest to each text by their best name; ties by row, then name id.

        A concept without a common trigram is not found, so the list may be shorter. The name ids
        are those of a `NameIndex` over the same concepts. Equal vectors are searched once.

        Args:
            vectors: those of n texts (`weigh`).
            k: number of concepts.
            documents: (n,) documents, whose own mentions are left out; None leaves out none.
            block: texts that a thread searches at a time.

        Returns:
            Candidates with TF-IDF cosines as scores, 1 if a name equals the normalized text.
        """
        parts = (vectors.indices, vectors.data)
        keys: list = [
            b"".join(part[start:stop].tobytes() for part in parts)
            for start, stop in pairwise(vectors.indptr)
        ]
        if documents is not None:
            keys = list(zip(keys, documents, strict=True))
            documents = [document for _, document in dict.fromkeys(keys)]
        _, number_of = number_distinct(keys)
        distinct = vectors[np.unique(number_of, return_index=True)[1]]

        def search(numbers: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
            return self._nearest(distinct[numbers], width)

        with ThreadPoolExecutor(openmp_threads() or usable_cores()) as pool:
            nearest = self.grouping.collect(
                distinct.shape[0], k, search, pool.map, block, documents
            )
        return nearest.take(number_of)

    def best_names(
        self,
        vectors: csr_array,
        rows: np.ndarray,
        owners: np.ndarray,
        documents: Sequence[str] | None = None,
        dictionary: DictionaryNames | None = None,
        block: int = 65_536,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The most similar name of given concepts for each text.

        Args:
            vectors: those of m texts (`weigh`).
            rows: (n, k) concept rows, padded with -1.
            owners: (n,) text of each list of rows.
            documents: as for `search`, of each list.
            dictionary: as for `NameGrouping.best`.
            block: approximate number of names that are scored at a time.

        Returns:
            (n, k) int64 name ids, the first among ties, padded with -1; (n, k) float32 TF-IDF
            cosines, 0 without a common trigram, padded with -inf.
        """

        def score(queries: np.ndarray, strings: np.ndarray) -> np.ndarray:
            return self._cosines(vectors[owners[queries]], strings)

        return self.grouping.best(rows, score, block, documents, dictionary)

    def name_cosines(self, vectors: csr_array, name_ids: np.ndarray) -> np.ndarray:
        """Cosines of n texts (`weigh`), each with one of the index's names, (n,) float32."""
        return self._cosines(vectors, self.grouping.strings[name_ids])

    def _cosines(self, vectors: csr_array, strings: np.ndarray) -> np.ndarray:
        distinct, number_of = np.unique(strings, return_inverse=True)
        return np.asarray(
            vectors.multiply(self._vectors[distinct][number_of]).sum(axis=1), np.float32
        )

    def _nearest(self, queries: csr_array, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores and numbers of the nearest strings, (q, width), best first, ties by number."""
        n = queries.shape[0]
        scores = np.zeros((n, width), np.float32)
        strings = np.full((n, width), -1, np.int64)
        for first_string, lists in self._lists:
            # Not a power of two: sums of a group would share a place in the CPU's cache.
            groups = -(-lists.shape[1] // GROUP) | 16
            sums = np.empty((GROUP, groups), np.float32)
            for query in range(n):
                _sum_lists(lists, queries, query, sums.reshape(-1))
                numbers, values = _largest(sums, width, scores[query, -1])
                values = np.concatenate([scores[query], values])
                numbers = np.concatenate([strings[query], first_string + numbers])
                best = np.argsort(-values, kind="stable")[:width]
                scores[query] = values[best]
                strings[query] = numbers[best]
        return scores, strings


def _sum_lists(lists: csr_array, queries: csr_array, query: int, sums: np.ndarray) -> None:
    """Write the sums of one query over the strings of inverted lists, one list after the other."""
    sums[:] = 0
    for entry in range(*queries.indptr[query : query + 2]):
        trigram = queries.indices[entry]
        strings = slice(*lists.indptr[trigram : trigram + 2])
        np.add.at(sums, lists.indices[strings], queries.data[entry] * lists.data[strings])


def _largest(sums: np.ndarray, width: int, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Numbers and values of the `width` largest sums above `least`, more if some are equal.

    They are in the order of numbers. Most sums are too small with their group, a column.
    """
    largest = sums.max(axis=0)
    limit = np.nextafter(least, np.float32(np.inf))
    if not least and width < len(largest):
        # So many sums are as large: one in each of so many groups.
        limit = max(limit, np.partition(largest, -width)[-width])
    groups = np.flatnonzero(largest >= limit)
    candidates = sums.take(groups, axis=1).reshape(-1)
    above = np.flatnonzero(candidates >= limit)
    if len(above) > width:
        values = candidates[above]
        above = above[values >= np.partition(values, -width)[-width]]
    row, group = np.divmod(above, max(1, len(groups)))
    return row * len(largest) + groups[group], candidates[above]


class FormIndex(LexicalIndex):
    """The same of normal forms, in which mentions may be further names of their concepts."""

    title = "the index of normal forms"
    file = "forms.json"
    schema_version = 1
    forms = staticmethod(normal_forms)


def _save(matrix: csr_array, stem: Path) -> None:
    for part in FILES:
        write_numbers(Path(f"{stem}_{part}.npy"), getattr(matrix, part))


def _open(stem: Path, columns: int) -> csr_array:
    """Memory-map a matrix that `_save` wrote."""
    files = [np.load(f"{stem}_{part}.npy", mmap_mode="r", allow_pickle=False) for part in FILES]
    return csr_array(tuple(files), shape=(len(files[-1]) - 1, columns))
