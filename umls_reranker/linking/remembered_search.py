"""A search for strings that remembers what it found in earlier calls."""

from collections.abc import Sequence

import numpy as np

from ..core.arrays import hash_texts
from ..retrieval.candidates import Candidates
from ..retrieval.retriever import Retriever

MAX_REMEMBERED_STRINGS = 32_768


class RememberedSearch:
    """Searches for strings without context, and remembers the candidates of each.

    Before it would remember more than `max_strings`, it forgets all. A string takes 1.5 kB with 32
    candidates. Only hashes of strings are kept: no text of a call outlives it.

    Args:
        retriever: finds the concepts.
        k: number of concepts.
        max_strings: number of strings that are remembered at most.
    """

    def __init__(
        self, retriever: Retriever, k: int, max_strings: int = MAX_REMEMBERED_STRINGS
    ) -> None:
        self._retriever = retriever
        self._k = k
        self._max_strings = max_strings
        # Hash of a string -> its candidates, a `Candidates` of one query.
        self._remembered: dict[int, Candidates] = {}

    def search(self, texts: Sequence[str]) -> Candidates:
        """The k concepts nearest to each of n distinct strings, without ``lists``."""
        if not texts:
            return self._retriever.search(texts, self._k)
        hashes = hash_texts(texts).tolist()
        new = [number for number, key in enumerate(hashes) if key not in self._remembered]
        if len(self._remembered) + len(new) > self._max_strings:
            self._remembered.clear()
            new = list(range(len(texts)))
        if new:
            hits = self._retriever.search([texts[number] for number in new], self._k)
            for row, number in enumerate(new):
                self._remembered[hashes[number]] = hits.take(np.array([row]))
        return Candidates.concatenate([self._remembered[key] for key in hashes])
