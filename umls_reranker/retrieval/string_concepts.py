"""Pairs of a string and a concept, each of which is scored once."""

from __future__ import annotations

import numpy as np


class StringConcepts:
    """The distinct (string, concept) pairs among candidates of n mentions; each is scored once.

    A string has mostly the same candidates in all texts.

    Args:
        rows: (n, k) concept rows, padded with -1.
        string_of: (n,) string of each mention.

    Attributes:
        rows: the candidates.
        strings: (p,) string of each pair.
        concepts: (p, 1) concept row of each pair.
    """

    def __init__(self, rows: np.ndarray, string_of: np.ndarray) -> None:
        self.rows = rows
        self._is_candidate = rows >= 0
        stride = rows.max(initial=0) + 1
        keys = (string_of[:, None] * stride + rows)[self._is_candidate]
        pairs, self._pair_of_candidate = np.unique(keys, return_inverse=True)
        self.strings = pairs // stride
        self.concepts = (pairs % stride)[:, None]

    def spread(self, values: np.ndarray, padding: float) -> np.ndarray:
        """The values of pairs (p, 1) for the candidates, (n, k)."""
        spread = np.full(self._is_candidate.shape, padding, values.dtype)
        spread[self._is_candidate] = values[self._pair_of_candidate, 0]
        return spread
