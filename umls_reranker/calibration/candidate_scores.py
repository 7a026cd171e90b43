"""The scores of candidates, from which all else about them follows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class CandidateScores(NamedTuple):
    """Scores of m candidates; all else about candidates follows from them.

    Attributes:
        logits: (m,) float32, raw log-odds of the cross-encoder; NaN where it did not score.
        log_odds: (m,) float64, by which the candidates of a list are ranked: the cross-encoder's
            log-odds or, with a fusion, those of each candidate against NIL.
        probabilities: (m,) float64, calibrated.
        list_utilities: (m,) float64, log-odds by the list fusion, all features but the
            cross-encoder; NaN where the model that decided has none.
    """

    logits: np.ndarray
    log_odds: np.ndarray
    probabilities: np.ndarray
    list_utilities: np.ndarray

    @classmethod
    def joined(
        cls, parts: Sequence[tuple[np.ndarray, CandidateScores]], size: int
    ) -> CandidateScores:
        """The scores of `size` candidates, from those of disjoint parts, each (size,) bool."""
        if len(parts) == 1 and parts[0][0].all():
            return parts[0][1]
        joined = cls(
            logits=np.full(size, np.nan, np.float32),
            log_odds=np.full(size, np.nan),
            probabilities=np.full(size, np.nan),
            list_utilities=np.full(size, np.nan),
        )
        for rows, scores in parts:
            for column, values in zip(joined, scores, strict=True):
                column[rows] = values
        return joined

    def take(self, rows: np.ndarray) -> CandidateScores:
        """The scores of some candidates, (m,) bool."""
        return CandidateScores(*(column[rows] for column in self))
