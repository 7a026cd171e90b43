"""Figures of a reranker at work: shares of the confidence tiers, mean top score, mean margin, abstention."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["TIERS", "Figures", "UsageMonitor"]

TIERS = ("high", "medium", "low", "reject")


@dataclass
class Figures:
    """Sums over mentions; constant in size whatever the traffic.

    A mention without candidates counts as a mention and as an abstention, but in none of the means.
    """

    mentions: int = 0
    without_candidates: int = 0
    candidates: int = 0
    accepted: int = 0
    tiers: Counter[str] = field(default_factory=Counter)
    top_score_sum: float = 0.0
    margin_sum: float = 0.0

    def add(self, candidates: int, top_score: float, margin: float, tier: str, accepted: bool) -> None:
        """Count one mention with its top candidate."""
        self.mentions += 1
        self.candidates += candidates
        self.accepted += accepted
        self.tiers[tier] += 1
        self.top_score_sum += top_score
        self.margin_sum += margin

    def add_without_candidates(self) -> None:
        self.mentions += 1
        self.without_candidates += 1

    def to_dict(self) -> dict[str, Any]:
        """Shares are of all mentions, means are over mentions that had candidates; None where there are none."""
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


class UsageMonitor:
    """Thread-safe figures over all mentions and per semantic type."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        with self._lock:
            self._total = Figures()
            self._truncated_pairs = 0
            self._per_type: dict[str, Figures] = {}

    def record(self, types: Iterable[str], candidates: int, top: tuple[float, float, str, bool] | None) -> None:
        """Count one mention.

        Args:
            types: semantic type ids of the mention; the mention counts in each.
            candidates: number of candidates it came with.
            top: (score, margin, tier, accepted) of the best candidate, or None when there was none.
        """
        with self._lock:
            for figures in [self._total, *(self._per_type.setdefault(name, Figures()) for name in set(types))]:
                if top is None:
                    figures.add_without_candidates()
                else:
                    figures.add(candidates, *top)

    def add_truncated(self, pairs: int) -> None:
        """Count pairs whose mention or name was cut to fit the model's length."""
        with self._lock:
            self._truncated_pairs += pairs

    def to_dict(self) -> dict[str, Any]:
        """Figures over all mentions, and under ``per_type`` those of each type seen."""
        with self._lock:
            per_type = {name: figures.to_dict() for name, figures in sorted(self._per_type.items())}
            return self._total.to_dict() | {"truncated_pairs": self._truncated_pairs, "per_type": per_type}
