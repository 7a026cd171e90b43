"""Arrays: offsets of lists, rankings inside lists, repeated texts, distinct numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import count
from typing import Any

import numpy as np


def list_offsets(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """(n + 1,) int64 offsets of lists with these lengths."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def list_owner(offsets: np.ndarray) -> np.ndarray:
    """(m,) the list that each item belongs to."""
    return np.arange(len(offsets) - 1).repeat(offsets[1:] - offsets[:-1])


def counted_above(is_counted: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """How many of the items above each of m items in its list are counted, (m,) int64.

    >>> counted_above(np.array([True, False, True, True, True]), np.array([0, 3, 5]))
    array([0, 1, 1, 0, 1])

    Args:
        is_counted: (m,) bool.
        offsets: (n + 1,) where each list starts.
    """
    above_in_all_lists = list_offsets(is_counted)
    in_former_lists = above_in_all_lists[offsets[:-1]]
    return above_in_all_lists[:-1] - in_former_lists[list_owner(offsets)]


def lists_with_any(candidates: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Whether any candidate of a list is true in `candidates` (m,), (n,) bool."""
    return np.diff(list_offsets(candidates)[offsets]) > 0


def distinct_numbers(numbers: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The distinct values of numbers in [0, size), ascending, and each number's index among them.

    Like `np.unique`, without sorting if `size` is not much larger than the count of numbers.

    >>> distinct_numbers(np.array([7, 2, 7]), 8)
    (array([2, 7]), array([1, 0, 1]))
    """
    if size > 8 * len(numbers) + 1024:
        return np.unique(numbers, return_inverse=True)
    positions = np.zeros(size, np.int64)
    positions[numbers] = 1
    distinct = np.flatnonzero(positions)
    positions[distinct] = np.arange(len(distinct))
    return distinct, positions[numbers]


def number_distinct(values: Sequence) -> tuple[list, np.ndarray]:
    """The distinct values in order of first occurrence, and each value's index in them, (n,) int64.

    >>> number_distinct(["b", "a", "b"])
    (['b', 'a'], array([0, 1, 0]))
    """
    numbers: defaultdict = defaultdict(count().__next__)
    number_of_value = np.fromiter(map(numbers.__getitem__, values), np.int64, len(values))
    return list(numbers), number_of_value


@dataclass(frozen=True, eq=False)
class RepeatedTexts(Sequence[Any]):
    """A column of texts, each held once; None where a row has none.

    Attributes:
        texts: k texts.
        codes: (n,) int64, index of each row's text.
    """

    texts: Sequence[Any]
    codes: np.ndarray

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, row: Any) -> Any:
        """The text of one row, or the column of several, given as a slice or an array."""
        if isinstance(row, slice | np.ndarray):
            return RepeatedTexts(self.texts, self.codes[row])
        return self.texts[self.codes[row]]

    def to_list(self) -> list[str]:
        """The text of each row."""
        return list(map(self.texts.__getitem__, self.codes.tolist()))

    def distinct(self) -> tuple[Sequence[str], np.ndarray]:
        """Like `number_distinct`, in the order of `texts`, without merging equal texts.

        If there are at most as many texts as rows, texts that no row holds may be included.
        """
        if len(self.texts) <= len(self.codes):
            return self.texts, self.codes
        used, numbers = distinct_numbers(self.codes, len(self.texts))
        return [self.texts[code] for code in used.tolist()], numbers


def are_below(end: int, numbers: np.ndarray) -> bool:
    """Whether all numbers are from 0 to `end` - 1."""
    return not len(numbers) or bool(numbers.min() >= 0 and numbers.max() < end)


def expand_ranges(starts: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All numbers of n ranges, one range after the other, and which range each belongs to.

    >>> owners, numbers = expand_ranges(np.array([5, 0, 8]), np.array([7, 0, 9]))
    >>> owners.tolist(), numbers.tolist()
    ([0, 0, 2], [5, 6, 8])
    """
    counts = stops - starts
    owners = np.repeat(np.arange(len(counts)), counts)
    return owners, np.arange(len(owners)) + np.repeat(starts - (np.cumsum(counts) - counts), counts)


def ranking(scores: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Flat indices of the candidates by mention, the top one first; ties keep their order."""
    mention = list_owner(offsets)
    scores = np.asarray(scores, dtype=np.float64)
    if len(scores) != len(mention):
        raise ValueError(
            f"offsets are of {len(mention)} candidates, but there are {len(scores)} scores"
        )
    return np.lexsort((-scores, mention))


def best_candidates(scores: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Flat index of each list's candidate with the highest score (m,); -1 for an empty list.

    The result is (n,) int64. Equal scores keep the order of the list: retrieval rank breaks ties.
    """
    return firsts(ranking(scores, offsets), offsets)


def firsts(order: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Flat index of each list's top candidate by a `ranking`, (n,) int64; -1 for an empty list."""
    filled = offsets[1:] > offsets[:-1]
    first = np.full(len(filled), -1, np.int64)
    first[filled] = order[offsets[:-1][filled]]
    return first


def values_at(column: np.ndarray, positions: np.ndarray, otherwise: Any) -> np.ndarray:
    """Values of a column (m,) at positions (n,), `otherwise` where these are -1."""
    values = np.full(len(positions), otherwise, column.dtype)
    is_there = positions >= 0
    values[is_there] = column[positions[is_there]]
    return values


def hash_texts(texts: Sequence[str]) -> np.ndarray:
    """64-bit hashes of n texts, (n,) uint64, the same on every machine."""
    return np.frombuffer(
        b"".join([blake2b(text.encode(), digest_size=8).digest() for text in texts]), "<u8"
    )
