"""The words of a text in singular, in alphabetical order: "Carcinomas, renal cell" is "renal cell carcinoma"."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.memory import Memory

KEPT_TEXTS = 65_536
# Endings of words in "-s" that are not plurals: "process", "virus", "analysis".
NO_PLURALS = ("ss", "us", "is")
# Plurals that lose "-es": "processes", "indexes", "branches", "brushes".
IN_ES = ("sses", "xes", "ches", "shes")


def singular(word: str) -> str:
    """An English word without its regular plural; wrong forms do no harm if they are the same for all texts.

    >>> [singular(word) for word in ("carcinomas", "bodies", "processes", "virus", "gas")]
    ['carcinoma', 'body', 'process', 'virus', 'gas']
    """
    if len(word) > 4:
        if word.endswith("ies"):
            return word[:-3] + "y"
        if word.endswith(IN_ES):
            return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(NO_PLURALS):
        return word[:-1]
    return word


def _sorted_singulars(texts: Sequence[str]) -> list[str]:
    return [" ".join(sorted(map(singular, text.split()))) for text in texts]


# Cached by normalized text.
singular_words: Memory[str, str] = Memory(_sorted_singulars, KEPT_TEXTS)
