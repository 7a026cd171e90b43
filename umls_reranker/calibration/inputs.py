"""What a model reads of a mention and of its candidates, and who came without some of it.

Calibration, evaluation and serving all ask `probabilities.Calibration`, which decides by the rules of this module:

* ``cui``, ``preferred_name``: a text that is not blank.
* ``definition``, ``semantic_types``: given at all. A concept without any says so by "" or []; None is not given.
* ``context``: text on at least one side of the mention.
* ``entity_type``: at least one type that the model knows.
* scores of retrievers, such as ``bm25_score``: a number within the range that calibration saw, or a tenth of that
  range beyond it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ..core.arrays import RepeatedTexts, list_sizes
from ..data.candidate_lists import CandidateLists, encoded_texts

__all__ = ["INPUTS_OF_FEATURES", "ScoreRange", "lacking", "lists_with_any"]

INPUTS_OF_FEATURES = {
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


def lacking(lists: CandidateLists, name: str, scores: Mapping[str, np.ndarray]) -> np.ndarray:
    """(n,) bool, mentions that came without an input, or with a candidate without it.

    Args:
        name: of the input.
        scores: of retrievers, in place of those of the lists: NaN where they are out of range.
    """
    if name == "context":
        sides = zip(lists.lefts, lists.rights, strict=True)
        return np.array([not (left + right).strip() for left, right in sides], bool)
    if name == "entity_type":
        return ~lists.types.is_known
    if name == "semantic_types":
        # Of a mention without types it is not known whether its candidates had any.
        return lists.types.is_known & lists_with_any(lists.candidate_types.codes < 0, lists.offsets)
    if name == "cui":
        lacks = _blank(lists.cuis)
    elif name == "preferred_name":
        lacks = _blank(encoded_texts(lists.preferred_names))
    elif name == "definition":
        lacks = lists.definitions.is_null().to_numpy(zero_copy_only=False)
    else:
        lacks = np.isnan(scores.get(name.removesuffix("_score"), np.full(len(lists.names), np.nan)))
    return lists_with_any(lacks, lists.offsets)


def _blank(column: RepeatedTexts) -> np.ndarray:
    return np.array([not (text and text.strip()) for text in column.texts], bool)[column.codes]


def lists_with_any(candidates: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """(n,) bool, whether any candidate of a list is true in `candidates` (m,)."""
    if not candidates.any():
        return np.zeros(len(offsets) - 1, bool)
    return list_sizes(np.append(0, np.cumsum(candidates))[offsets]) > 0
