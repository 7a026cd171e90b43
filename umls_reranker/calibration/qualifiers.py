"""Qualifiers of a text: what it says about direction, side, degree and number.

Mention and name may be nearly the same text and still speak of opposites ("high serum calcitriol"
and "low serum calcitriol", "wedging of T11" and "of T12"). Embeddings put such texts close
together, so this is checked by word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np


class Opposites(NamedTuple):
    """Two sides: a word of one says the opposite of what the words of the other say.

    Attributes:
        first: the words of one side, separated by spaces; one that ends in "-" is a prefix.
        second: those of the other.
    """

    first: str
    second: str


OPPOSITES: tuple[Opposites, ...] = (
    Opposites(
        "increased increase elevated elevation high higher raised excess excessive hyper-",
        "decreased decrease reduced reduction low lower lowered diminished deficient deficiency "
        "hypo-",
    ),
    Opposites(
        "large enlarged big long broad wide thick tall macro- mega-",
        "small short narrow thin slender micro-",
    ),
    Opposites("left", "right"),
    Opposites("bilateral both", "unilateral one"),
    Opposites("upper superior", "lower inferior"),
    Opposites("anterior front", "posterior back"),
    Opposites("dorsal", "ventral"),
    Opposites("proximal", "distal"),
    Opposites("medial internal inner", "lateral external outer"),
    Opposites("horizontal", "vertical"),
    Opposites("acute", "chronic"),
    Opposites("early premature precocious", "late delayed"),
    Opposites("congenital neonatal", "acquired adult"),
    Opposites("with", "without"),
    Opposites("present positive", "absent negative absence no non"),
    Opposites("male men boys paternal", "female women girls maternal"),
    Opposites("primary", "secondary"),
    Opposites("benign", "malignant"),
    Opposites("active", "inactive"),
    Opposites("flexion flexed", "extension extended"),
    Opposites("adduction adducted", "abduction abducted"),
    Opposites("fast rapid tachy-", "slow brady-"),
    Opposites("soft", "hard"),
    Opposites("partial incomplete", "complete total"),
    Opposites("localized focal", "generalized diffuse multifocal"),
    Opposites("mild", "severe"),
    Opposites("progressive", "nonprogressive"),
    Opposites("systolic", "diastolic"),
    Opposites("systemic", "pulmonary"),
    Opposites("gain", "loss"),
    Opposites("dominant", "recessive"),
    Opposites("pre-", "post-"),
)
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
# Pairs of opposites, and numbers, are bits of an unsigned integer.
BITS = 64
if len(OPPOSITES) > BITS:
    raise ValueError(f"{len(OPPOSITES)} pairs of OPPOSITES do not fit into {BITS} bits")


class Sides(NamedTuple):
    """The sides of `OPPOSITES` that a text names; pair number p is bit p.

    Attributes:
        first: the pairs whose first side it names.
        second: the pairs whose second side it names.
    """

    first: int = 0
    second: int = 0


class Qualifiers(NamedTuple):
    """The qualifiers of n texts as bits, (n,) uint64 each.

    Attributes:
        first: `Sides.first` of each text.
        second: `Sides.second` of each text.
        numbers: the numbers in each text, modulo `BITS`.
    """

    first: np.ndarray
    second: np.ndarray
    numbers: np.ndarray

    @classmethod
    def of(cls, texts: Iterable[str]) -> Qualifiers:
        """Find the qualifiers of n texts."""
        rows = []
        for text in texts:
            words = WORD.findall(text.lower())
            sides = _named_sides(words)
            rows.append((sides.first, sides.second, _named_numbers(words)))
        first, second, numbers = np.array(rows, np.uint64).reshape(-1, 3).T
        return cls(first, second, numbers)

    def take(self, rows: np.ndarray) -> Qualifiers:
        """The qualifiers of the texts in some rows."""
        return Qualifiers(self.first[rows], self.second[rows], self.numbers[rows])


def _sides_by_word() -> tuple[dict[str, Sides], dict[str, Sides]]:
    """The sides that each word of `OPPOSITES` names, and those that each prefix names."""
    words = dict.fromkeys(NO_PREFIX.split(), Sides())
    prefixes: dict[str, Sides] = {}

    def add(listed: str, new: Sides) -> None:
        for word in listed.split():
            named = prefixes if word.endswith("-") else words
            text = word.removesuffix("-")
            former = named.get(text, Sides())
            named[text] = Sides(former.first | new.first, former.second | new.second)

    for pair, opposites in enumerate(OPPOSITES):
        add(opposites.first, Sides(first=1 << pair))
        add(opposites.second, Sides(second=1 << pair))
    return words, prefixes


SIDES_OF_WORD, SIDES_OF_PREFIX = _sides_by_word()
PREFIX = re.compile("|".join(SIDES_OF_PREFIX))


def _named_sides(words: Iterable[str]) -> Sides:
    """The sides that the words of a text name.

    A text that names both sides of a pair counts as naming neither.
    """
    first = 0
    second = 0
    for word in words:
        sides = SIDES_OF_WORD.get(word)
        if sides is None:
            prefix = PREFIX.match(word)
            if prefix is None:
                continue
            sides = SIDES_OF_PREFIX[prefix[0]]
        first |= sides.first
        second |= sides.second
    return Sides(first & ~second, second & ~first)


def _named_numbers(words: Iterable[str]) -> int:
    """The numbers among the words of a text, modulo `BITS`, as bits."""
    numbers = 0
    for word in words:
        if word in NUMBERS:
            numbers |= 1 << NUMBERS[word]
        elif word.isdigit():
            # `BITS` divides a million, and Python refuses to read a number of thousands of digits.
            numbers |= 1 << int(word[-6:]) % BITS
    return numbers


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
    of_mentions = Qualifiers.of(mentions).take(owner)
    of_names = Qualifiers.of(names).take(name_codes)
    opposite = (of_mentions.first & of_names.second) | (of_mentions.second & of_names.first)
    only_in_mention = of_mentions.numbers & ~of_names.numbers
    only_in_name = of_names.numbers & ~of_mentions.numbers
    contradict = (opposite != 0) | ((only_in_mention != 0) & (only_in_name != 0))
    return np.where(contradict, 0.0, 1.0)
