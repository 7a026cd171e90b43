"""Token ids of many texts as flat arrays, and a bounded memory of texts tokenized before."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

__all__ = ["TokenCache", "Tokens", "number_distinct"]


@dataclass(frozen=True)
class Tokens:
    """Ids of n texts.

    Attributes:
        ids: (t,) int32 that the texts lie in.
        starts, lengths: (n,) int64, where each lies.
    """

    ids: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray

    @classmethod
    def distinct(cls, texts: Sequence[bytes]) -> tuple[Tokens, np.ndarray]:
        """Texts given as bytes of int32, equal ones once; and the number of each among them, (n,) int64."""
        distinct, numbers = number_distinct(texts)
        lengths = np.fromiter(map(len, distinct), np.int64, len(distinct)) // 4
        return cls(np.frombuffer(b"".join(distinct), np.int32), np.cumsum(lengths) - lengths, lengths), numbers

    @classmethod
    def constant(cls, ids: np.ndarray, rows: int) -> Tokens:
        """The same ids for every row."""
        return cls(ids, np.zeros(rows, np.int64), np.full(rows, len(ids)))

    def take(self, rows: np.ndarray) -> Tokens:
        """The texts of these numbers, (m,)."""
        return replace(self, starts=self.starts[rows], lengths=self.lengths[rows])

    def leading(self, lengths: np.ndarray) -> Tokens:
        """The first ids of each text, (n,) at most as many as it has."""
        return replace(self, lengths=lengths)

    def trailing(self, lengths: np.ndarray) -> Tokens:
        """The last ids of each text, (n,) at most as many as it has."""
        return replace(self, starts=self.starts + self.lengths - lengths, lengths=lengths)


class TokenCache:
    """Calls `tokenize` for texts it does not remember; may be used from several threads.

    Memory is bounded by two generations: when the young one is full it becomes the old one, and what of the old one
    was not used since is forgotten.

    Args:
        tokenize: gives the ids of each of some texts as bytes.
        size: most texts remembered.
    """

    def __init__(self, tokenize: Callable[[Sequence[str]], list[bytes]], size: int) -> None:
        if size < 2:
            raise ValueError(f"a cache of {size} texts is none; give 2 or more")
        self.size = size
        self._tokenize = tokenize
        self._young: dict[str, bytes] = {}
        self._old: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def __call__(self, texts: Sequence[str]) -> list[bytes]:
        """Ids of each of n distinct texts."""
        with self._lock:
            found = [self._recall(text) for text in texts]
        missing = [place for place, ids in enumerate(found) if ids is None]
        if missing:
            new = self._tokenize([texts[place] for place in missing])
            with self._lock:
                for place, ids in zip(missing, new, strict=True):
                    found[place] = ids
                    self._keep(texts[place], ids)
        return found

    def _recall(self, text: str) -> bytes | None:
        ids = self._young.get(text)
        if ids is None and (ids := self._old.pop(text, None)) is not None:
            self._keep(text, ids)
        return ids

    def _keep(self, text: str, ids: bytes) -> None:
        if len(self._young) >= self.size // 2:
            self._old, self._young = self._young, {}
        self._young[text] = ids


def number_distinct(values: Sequence) -> tuple[list, np.ndarray]:
    """The distinct values in order of their first place, and the number of each value among them, (n,) int64.

    >>> number_distinct(["b", "a", "b"])
    (['b', 'a'], array([0, 1, 0]))
    """
    numbers: dict = {}
    places = np.fromiter((numbers.setdefault(value, len(numbers)) for value in values), np.int64, len(values))
    return list(numbers), places
