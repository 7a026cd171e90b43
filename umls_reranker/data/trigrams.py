"""The character trigrams of normalized names.

They are those around each character of a text's words, with a space on both sides of a word, so "heart" has " he",
"hea", "ear", "art" and "rt " (``char_wb`` of scikit-learn).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["trigrams"]


def trigrams(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """All trigrams of n texts, text after text.

    Args:
        texts: normalized, so words are separated by single spaces.

    Returns:
        (t,) int64, the text of each; (3, t) uint32, the code points of its characters.

    >>> owner, characters = trigrams(["arm", "of"])
    >>> owner.tolist(), ["".join(map(chr, trigram)) for trigram in characters.T]
    ([0, 0, 0, 1, 1], [' ar', 'arm', 'rm ', ' of', 'of '])
    """
    characters = np.frombuffer(f" {' '.join(texts)} ".encode("utf-32-le"), np.uint32)
    owner = np.repeat(np.arange(len(texts)), [len(text) + 1 for text in texts])[:-1]
    inside = np.flatnonzero(characters[1:-1] != ord(" "))
    return owner[inside], np.stack([characters[inside + position] for position in range(3)])
