"""Scores of candidates with a meaning of their own: those of our retrievers, and a teacher's."""

from typing import NamedTuple


class IndexScore(NamedTuple):
    """A score of one of our retrievers, which counts only with the key of its index.

    Attributes:
        help: one line about it.
        reads_context: whether it depends on the text around the mention.
    """

    help: str
    reads_context: bool = False


# NAME -> the score that candidates have as NAME_score.
INDEX_SCORES = {
    "retrieval": IndexScore("cosine of mention and name in the dense index"),
    "context": IndexScore(
        "cosine of mention in context and name in the dense index", reads_context=True
    ),
    "lexical": IndexScore("cosine of mention and name by character n-grams"),
    "forms": IndexScore(
        "cosine of mention and name or known mention by character n-grams of their normal forms"
    ),
}
# The score of candidates that only training reads, where they have it; no feature.
TEACHER = "teacher"
