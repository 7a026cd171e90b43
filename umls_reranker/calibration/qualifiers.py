"""Qualifiers of a text: what it says about direction, side, degree and number.

Mention and name may be nearly the same text and still speak of opposites ("high serum calcitriol"
and "low serum calcitriol", "wedging of T11" and "of T12"). Embeddings put such texts close
together, so this is checked by word.
"""

import re
from collections.abc import Sequence

import numpy as np

# One pair of opposites a line; words that end in "-" are prefixes.
OPPOSITES = """
increased increase elevated elevation high higher raised excess excessive hyper- |
 decreased decrease reduced reduction low lower lowered diminished deficient deficiency hypo-
large enlarged big long broad wide thick tall macro- mega- | small short narrow thin slender micro-
left | right
bilateral both | unilateral one
upper superior | lower inferior
anterior front | posterior back
dorsal | ventral
proximal | distal
medial internal inner | lateral external outer
horizontal | vertical
acute | chronic
early premature precocious | late delayed
congenital neonatal | acquired adult
with | without
present positive | absent negative absence no non
male men boys paternal | female women girls maternal
primary | secondary
benign | malignant
active | inactive
flexion flexed | extension extended
adduction adducted | abduction abducted
fast rapid tachy- | slow brady-
soft | hard
partial incomplete | complete total
localized focal | generalized diffuse multifocal
mild | severe
progressive | nonprogressive
systolic | diastolic
systemic | pulmonary
gain | loss
dominant | recessive
pre- | post-
"""
# Words that begin like a prefix but do not contain it.
NO_PREFIX = """
pressure pressures presence presentation presenting pregnancy pregnant prevention prevalence
predominance predominant predominantly preputial prepuce precipitated previous posture posturing
postural hypothalamic hypothalamus hypophysis hypophyseal hypopharynx hypopharyngeal hypoglossal
hypothenar hypochondrium macrophage macrophages microbial
"""
NUMBERS = {
    "i": 1,
    "ii": 2,
    "iii": 3,
    "iv": 4,
    "v": 5,
    "vi": 6,
    "vii": 7,
    "viii": 8,
    "ix": 9,
    "x": 10,
}
NUMBERS |= {"first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5}
WORD = re.compile(r"[a-z]+|[0-9]+")
# The two sides of pair number p are bits p and p + 32.
HALF = 32


def _sides() -> tuple[dict[str, int], dict[str, int]]:
    """Words and prefixes -> bits of what they say."""
    words = dict.fromkeys(NO_PREFIX.split(), 0)
    prefixes: dict[str, int] = {}
    for pair, line in enumerate(OPPOSITES.replace("\n ", " ").strip().splitlines()):
        for side, listed in enumerate(line.split("|")):
            for word in listed.split():
                bits = prefixes if word.endswith("-") else words
                bits[word.rstrip("-")] = bits.get(word.rstrip("-"), 0) | 1 << (pair + HALF * side)
    return words, prefixes


WORDS, PREFIXES = _sides()
BEGINNING = re.compile("|".join(PREFIXES))


def _qualifier_bits(text: str) -> tuple[int, int, int]:
    """Sides of opposites in a text, the sides opposite to them, and numbers modulo 64, as bits.

    A text that names both sides of a pair counts as naming neither.
    """
    sides = 0
    numbers = 0
    for word in WORD.findall(text.lower()):
        if word in WORDS:
            sides |= WORDS[word]
        elif word.isdigit() or word in NUMBERS:
            # 64 divides a million, and Python refuses to read a number of thousands of digits.
            numbers |= 1 << (NUMBERS.get(word) or int(word[-6:])) % 64
        elif prefix := BEGINNING.match(word):
            sides |= PREFIXES[prefix[0]]
    other_sides = sides >> HALF | (sides & (1 << HALF) - 1) << HALF
    return sides & ~other_sides, other_sides & ~sides, numbers


def qualifier_agreement(
    mentions: Sequence[str], names: Sequence[str], owner: np.ndarray, name_codes: np.ndarray
) -> np.ndarray:
    """Whether the qualifiers of names do not contradict those of their mentions.

    They contradict each other if one says the opposite of the other, or if each has a number that
    the other lacks. A qualifier that only one of them has contradicts nothing.

    >>> pair = np.array([0])
    >>> names = ["Low sodium", "Sodium"]
    >>> [float(qualifier_agreement(["high sodium"], [name], pair, pair)[0]) for name in names]
    [0.0, 1.0]

    Args:
        mentions: n texts.
        names: distinct names of candidates.
        owner: (m,) mention of each candidate.
        name_codes: (m,) position of each candidate's name in `names`.

    Returns:
        (m,) float64: 0 where they contradict each other, else 1.
    """
    bits = np.array(list(map(_qualifier_bits, [*mentions, *names])), np.uint64).reshape(-1, 3).T
    sides, _, numbers = bits[:, owner]
    _, opposites, name_numbers = bits[:, len(mentions) + name_codes]
    differ = (numbers & ~name_numbers != 0) & (name_numbers & ~numbers != 0)
    return np.where((sides & opposites != 0) | differ, 0.0, 1.0)
