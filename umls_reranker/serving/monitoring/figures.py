"""Sums over mentions, and the shares and means derived from them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ...calibration.thresholds import TIERS

# Maximum number of types counted separately; all others share one entry, so memory stays bounded.
MOST_TYPES = 256
OTHER_TYPES = "other types"


class Top(NamedTuple):
    """The decision about the top candidate of a mention."""

    score: float
    margin: float
    tier: str
    accepted: bool


@dataclass
class Figures:
    """Sums over mentions, of constant size.

    A mention without candidates counts as a mention and an abstention, but not in the means.
    """

    mentions: int = 0
    without_candidates: int = 0
    candidates: int = 0
    accepted: int = 0
    tiers: Counter[str] = field(default_factory=Counter)
    top_score_sum: float = 0.0
    margin_sum: float = 0.0

    def add(self, candidates: int, top: Top | None) -> None:
        """Count one mention with its top candidate, or None."""
        self.mentions += 1
        if top is None:
            self.without_candidates += 1
            return
        self.candidates += candidates
        self.accepted += top.accepted
        self.tiers[top.tier] += 1
        self.top_score_sum += top.score
        self.margin_sum += top.margin

    def merge(self, other: Figures) -> None:
        """Add the sums of `other`."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def to_dict(self) -> dict[str, Any]:
        """Shares over all mentions, means over mentions with candidates; None if there are none."""
        ranked = self.mentions - self.without_candidates

        def share(count: int) -> float | None:
            return count / self.mentions if self.mentions else None

        return {
            "mentions": self.mentions,
            "without_candidates": self.without_candidates,
            "candidates": self.candidates,
            "high_confidence_share": share(self.tiers["high"]),
            "tier_shares": {tier: share(self.tiers[tier]) for tier in TIERS},
            "accepted_share": share(self.accepted),
            "abstained_share": share(self.mentions - self.accepted),
            "mean_top_score": self.top_score_sum / ranked if ranked else None,
            "mean_margin": self.margin_sum / ranked if ranked else None,
        }


class FiguresByType:
    """Figures over all mentions and for at most `MOST_TYPES` semantic types."""

    def __init__(self) -> None:
        self.total = Figures()
        self.per_type: defaultdict[str, Figures] = defaultdict(Figures)

    def add(self, types: Sequence[str], candidates: int, top: Top | None) -> None:
        """Count one mention, in each of its types."""
        self.total.add(candidates, top)
        for name in set(map(self._name, types)):
            self.per_type[name].add(candidates, top)

    def merge(self, other: FiguresByType) -> None:
        """Add the sums of `other`."""
        self.total.merge(other.total)
        for name, figures in other.per_type.items():
            self.per_type[self._name(name)].merge(figures)

    @classmethod
    def merged(cls, slices: Iterable[FiguresByType]) -> FiguresByType:
        """The sums of all slices."""
        merged = cls()
        for figures in slices:
            merged.merge(figures)
        return merged

    def to_dict(self) -> dict[str, Any]:
        """Figures over all mentions, and under ``per_type`` those of each type seen."""
        per_type = {name: figures.to_dict() for name, figures in sorted(self.per_type.items())}
        return self.total.to_dict() | {"per_type": per_type}

    def _name(self, kind: str) -> str:
        return kind if kind in self.per_type or len(self.per_type) < MOST_TYPES else OTHER_TYPES
