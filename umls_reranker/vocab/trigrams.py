"""Character trigrams of texts, and the shares that two texts have in common."""

from collections.abc import Sequence

import numpy as np

# The set of a text's trigrams has 2 to this power bits.
SET_BITS_LOG2 = 11
# A trigram is hashed with arbitrary odd numbers, one for each of its characters.
FACTORS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64)
# These limit the memory for sets and pairs.
TEXTS_AT_ONCE = 4_096
PAIRS_AT_ONCE = 16_384


def trigrams(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """All character trigrams of n texts, text after text.

    Each word has a space on both sides, so "heart" has " he", "hea", "ear", "art" and "rt "
    (``char_wb`` of scikit-learn).

    Args:
        texts: normalized texts, whose words are separated by single spaces.

    Returns:
        (t,) int64, the text of each trigram; (3, t) uint32, the code points of its characters.

    >>> owner, characters = trigrams(["arm", "of"])
    >>> owner.tolist(), ["".join(map(chr, trigram)) for trigram in characters.T]
    ([0, 0, 0, 1, 1], [' ar', 'arm', 'rm ', ' of', 'of '])
    """
    characters = np.frombuffer(f" {' '.join(texts)} ".encode("utf-32-le"), np.uint32)
    owner = np.repeat(np.arange(len(texts)), [len(text) + 1 for text in texts])[:-1]
    inside = np.flatnonzero(characters[1:-1] != ord(" "))
    return owner[inside], np.stack([characters[inside + position] for position in range(3)])


def _trigram_sets(texts: Sequence[str]) -> np.ndarray:
    """The sets of n texts, (n, 32) uint64."""
    set_bits = 1 << SET_BITS_LOG2
    sets = np.empty((len(texts), set_bits // 64), np.uint64)
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        block = texts[start : start + TEXTS_AT_ONCE]
        owner, characters = trigrams(block)
        hashes = sum(row * factor for row, factor in zip(characters, FACTORS, strict=True))
        bits = np.zeros((len(block), set_bits), bool)
        bits[owner, hashes >> np.uint64(64 - SET_BITS_LOG2)] = True
        sets[start : start + len(block)] = np.packbits(bits, axis=1).view(np.uint64)
    return sets


def shared_trigrams(
    mentions: Sequence[str], names: Sequence[str], owner: np.ndarray, name_codes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Share of a mention's character trigrams in a name, and of the name's trigrams in the mention.

    The trigrams of a text are kept as a set of 2,048 bits, by hash: comparing two texts takes the
    same time whatever their length. Names of some twenty trigrams differ from exact sets by less
    than 0.01 on average.

    >>> pair = np.array([0])
    >>> [float(share[0]) for share in shared_trigrams(["heart"], ["heart attack"], pair, pair)]
    [1.0, 0.45454545454545453]

    Args:
        mentions: n normalized texts.
        names: distinct names of candidates, normalized.
        owner: (m,) mention of each candidate.
        name_codes: (m,) position of each candidate's name in `names`.

    Returns:
        Two of (m,) float64: shares of the mention's trigrams that are in the name, and of the
        name's that are in the mention; 0 for a text without any.
    """
    mention_sets = _trigram_sets(mentions)
    name_sets = _trigram_sets(names)
    shared = np.empty(len(owner))
    for start in range(0, len(owner), PAIRS_AT_ONCE):
        pairs = slice(start, start + PAIRS_AT_ONCE)
        shared[pairs] = _sizes(mention_sets[owner[pairs]] & name_sets[name_codes[pairs]])
    # A text without trigrams shares none, so that its share is 0.
    mention_sizes = np.maximum(_sizes(mention_sets), 1)
    name_sizes = np.maximum(_sizes(name_sets), 1)
    return shared / mention_sizes[owner], shared / name_sizes[name_codes]


def _sizes(sets: np.ndarray) -> np.ndarray:
    """Number of bits in each set, (n,)."""
    return np.bitwise_count(sets).sum(axis=1, dtype=np.int64)
