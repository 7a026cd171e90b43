"""Overlap of two texts: their character trigrams as sets of bits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..core.memory import Memory

# Sets of trigrams: log2 of their bits, and arbitrary odd numbers for hashing, one per character.
TRIGRAM_BITS = 11
FACTORS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64)
REMEMBERED_TEXTS = 65_536
TEXTS_AT_ONCE, PAIRS_AT_ONCE = 4_096, 16_384


def _trigram_sets(texts: Sequence[str]) -> list[bytes]:
    # Every ``--help`` that explains features imports this module.
    from .normalization import trigrams

    sets: list[bytes] = []
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        some = texts[start : start + TEXTS_AT_ONCE]
        owner, characters = trigrams(some)
        hashes = sum(row * factor for row, factor in zip(characters, FACTORS, strict=True))
        bits = np.zeros((len(some), 1 << TRIGRAM_BITS), bool)
        bits[owner, hashes >> np.uint64(64 - TRIGRAM_BITS)] = True
        sets += [row.tobytes() for row in np.packbits(bits, axis=1)]
    return sets


# The cached set of each text.
_remembered: Memory[str, bytes] = Memory(_trigram_sets, REMEMBERED_TEXTS)


def shared_trigrams(
    mentions: Sequence[str], names: Sequence[str], owner: np.ndarray, name_codes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Share of a mention's character trigrams in a name, and of the name's trigrams in the mention.

    The trigrams of a text are kept as a set of 2,048 bits, by hash: comparing two texts takes the same time whatever
    their length. Names of some twenty trigrams differ from exact sets by less than 0.01 on average.

    >>> pair = np.array([0])
    >>> [float(share[0]) for share in shared_trigrams(["heart"], ["heart attack"], pair, pair)]
    [1.0, 0.45454545454545453]

    Args:
        mentions: n normalized texts.
        names: distinct names of candidates, normalized.
        owner: (m,) mention of each candidate.
        name_codes: (m,) position of each candidate's name in `names`.

    Returns:
        Two of (m,) float64: shares of the mention's trigrams that are in the name, and of the name's that are in the
        mention; 0 for a text without any.
    """
    of_mentions, of_names = _words(mentions), _words(names)
    shared = np.empty(len(owner))
    for start in range(0, len(owner), PAIRS_AT_ONCE):
        pairs = slice(start, start + PAIRS_AT_ONCE)
        shared[pairs] = _sizes(of_mentions[owner[pairs]] & of_names[name_codes[pairs]])
    return shared / _sizes(of_mentions).clip(1)[owner], shared / _sizes(of_names).clip(1)[name_codes]


def _words(texts: Sequence[str]) -> np.ndarray:
    """The sets of n texts, (n, 32) uint64."""
    return np.frombuffer(b"".join(_remembered(texts)), np.uint64).reshape(-1, (1 << TRIGRAM_BITS) // 64)


def _sizes(sets: np.ndarray) -> np.ndarray:
    """Number of bits in each set, (n,)."""
    return np.bitwise_count(sets).sum(axis=1, dtype=np.int64)
