"""What a model reads of a mention and of its candidates, and who came without some of it.

Calibration, evaluation and serving all ask `evidence.Calibration`, which decides by the rules of this module:

* ``cui``, ``preferred_name``: a text that is not blank.
* ``definition``, ``semantic_types``: given at all. A concept without any says so by "" or []; None is not given.
* ``context``: text on at least one side of the mention.
* ``entity_type``: at least one type that the model knows.
* scores of retrievers: a number within the range that calibration saw, or a tenth of that range beyond it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["INPUTS_OF_EVIDENCE", "ScoreRange", "given_inputs", "lists_with_any"]

INPUTS_OF_EVIDENCE = {
    "retrieval": ("retrieval_score",),
    "context": ("context", "context_score"),
    "lexical": ("lexical_score",),
    "string_share": ("cui",),
    "concept_count": ("cui",),
    "type_lift": ("entity_type", "cui"),
    "type_fit": ("entity_type", "semantic_types"),
}
# Share of a score's range that serving may go beyond it on either side.
MARGIN = 0.1


class ScoreRange(NamedTuple):
    """Lowest and highest score of a retriever among the candidates of the calibration split."""

    low: float
    high: float

    @classmethod
    def of(cls, scores: np.ndarray) -> ScoreRange:
        """That of (m,) scores, of which those that are not finite do not count.

        Raises:
            ValueError: none is finite.
        """
        finite = scores[np.isfinite(scores)]
        return cls(float(finite.min()), float(finite.max()))

    @property
    def bounds(self) -> tuple[float, float]:
        """Between which a score counts, the margin included."""
        margin = MARGIN * (self.high - self.low)
        return self.low - margin, self.high + margin

    def inside(self, scores: np.ndarray) -> np.ndarray:
        """(m,) float64, the scores; NaN where they are outside the bounds or not finite."""
        low, high = self.bounds
        scores = np.asarray(scores, np.float64)
        return np.where((scores >= low) & (scores <= high), scores, np.nan)


def given_inputs(
    preferred_name: np.ndarray,
    definition: np.ndarray,
    lefts: Sequence[str],
    rights: Sequence[str],
    offsets: np.ndarray,
) -> dict[str, np.ndarray]:
    """What only a template reads, by name: (n,) bool, whether the mention and all its candidates came with it.

    Args:
        preferred_name, definition: (m,) bool, whether each candidate came with it.
        lefts, rights: n texts around the mentions.
        offsets: (n + 1,) where each mention's candidates start.
    """
    return {
        "preferred_name": ~lists_with_any(~preferred_name, offsets),
        "definition": ~lists_with_any(~definition, offsets),
        "context": np.array([bool((left + right).strip()) for left, right in zip(lefts, rights, strict=True)], bool),
    }


def lists_with_any(candidates: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """(n,) bool, whether any candidate of a list is true in `candidates` (m,)."""
    return np.diff(np.concatenate([[0], np.cumsum(candidates)])[offsets]) > 0
