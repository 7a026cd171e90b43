"""The trigrams of an index, and texts as vectors of what their trigrams weigh (TF-IDF).

A trigram is known by its code: the code points of its three characters, 21 bits each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_array

from ..core.arrays import distinct_numbers, list_offsets, list_owner
from ..core.arrow_files import arrow_writer, open_arrow
from ..vocab.trigrams import trigrams

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
        return cls(_trigram_codes(characters.T), table["weight"].to_numpy())

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
        last = max(0, len(self) - 1)
        positions = np.searchsorted(self._ascending, codes).clip(max=last)
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


def weighted_trigrams(
    blocks: Iterable[tuple[np.ndarray, np.ndarray]], texts: int, most: float
) -> Trigrams:
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
    return _trigram_codes(letters[parts]), counts


def _trigram_codes(characters: np.ndarray) -> np.ndarray:
    """The codes of t trigrams, (t,) int64, from the code points of their characters, (3, t)."""
    first, second, third = characters.astype(np.int64)
    return first << 2 * CODE_POINT_BITS | second << CODE_POINT_BITS | third
