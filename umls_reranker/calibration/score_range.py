"""The range of a retriever's scores in calibration, and numbers that are no scores at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

# Share of a score's range by which scores at serving may exceed it on either side.
MARGIN = 0.1
# Interquartile ranges between scores and those that stand for something else, such as -9999.
SENTINEL_RANGES = 50


def are_sentinels(scores: np.ndarray) -> np.ndarray:
    """Finite scores so far from all others that they stand for something else, (m,) bool.

    They lie more than `SENTINEL_RANGES` interquartile ranges below or above the quartiles, and as
    far from all other scores: a long tail of scores without a gap is none. Quartiles are those of
    the distinct scores, since a sentinel, or a score of nothing, may be that of most candidates.
    """
    finite = np.unique(scores[np.isfinite(scores)])
    if not len(finite):
        return np.zeros(len(scores), bool)
    lower, upper = np.quantile(finite, [0.25, 0.75])
    # The difference of two finite numbers may be too large.
    with np.errstate(over="ignore"):
        reach = SENTINEL_RANGES * (upper - lower)
    lowest_usual = lower - reach
    highest_usual = upper + reach
    usual = finite[(finite >= lowest_usual) & (finite <= highest_usual)]
    if reach == 0 or not len(usual):
        return np.zeros(len(scores), bool)
    is_below = np.isfinite(scores) & (scores < lowest_usual)
    is_above = np.isfinite(scores) & (scores > highest_usual)
    # Those on one side are sentinels only if a gap lies between all of them and the other scores.
    is_below &= (scores[is_below] < usual.min() - reach).all()
    is_above &= (scores[is_above] > usual.max() + reach).all()
    return is_below | is_above


class ScoreRange(NamedTuple):
    """Lowest and highest score of a retriever among the candidates of the calibration split."""

    low: float
    high: float

    @classmethod
    def of(cls, scores: np.ndarray) -> ScoreRange:
        """The range of the finite scores among (m,) scores that are no sentinels.

        Raises:
            ValueError: no score is finite.
        """
        finite = scores[np.isfinite(scores) & ~are_sentinels(scores)]
        return cls(float(finite.min()), float(finite.max()))

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> ScoreRange:
        """Inverse of `_asdict`; raises an error of any usual kind if the state is not a range."""
        scores = cls(float(state["low"]), float(state["high"]))
        if not -np.inf < scores.low <= scores.high < np.inf:
            raise ValueError(f"{scores.low} to {scores.high} is not a range of finite numbers")
        return scores

    @property
    def bounds(self) -> ScoreRange:
        """The range within which a score counts: this one with its margin."""
        margin = MARGIN * (self.high - self.low)
        return ScoreRange(self.low - margin, self.high + margin)

    def inside(self, scores: np.ndarray) -> np.ndarray:
        """The scores, with NaN where they are out of bounds or not finite, (m,) float64."""
        low, high = self.bounds
        scores = np.asarray(scores, np.float64)
        return np.where((scores >= low) & (scores <= high), scores, np.nan)
