"""From what probability on a candidate is accepted: the best F1, a precision to reach, or the least cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..core.errors import UserError

__all__ = ["AcceptanceRule", "f1_threshold"]

ACCEPTANCE_RULES = ("f1", "precision", "cost")


def f1_threshold(p: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """The threshold t that maximizes the F1 of ``p >= t``, and that F1.

    Only values between two distinct probabilities are considered, so tied pairs are accepted together. t lies halfway
    to the next lower probability, where rounding cannot flip a pair. Of equal maxima the highest threshold wins.

    Args:
        p: (n,) probabilities. y: (n,) labels 0/1, at least one positive.
    """
    cuts = _Cuts(*_descending(p, y))
    if not cuts.right[-1:].any():
        raise ValueError("an F1 threshold needs at least one positive pair")
    best = int(np.argmax(cuts.f1))
    return cuts.threshold(best), float(cuts.f1[best])


@dataclass(frozen=True)
class AcceptanceRule:
    """What an acceptance threshold is chosen for.

    Attributes:
        method: ``f1``: the best F1 over all candidates. ``precision``: the lowest threshold at which top candidates
            are right as often as `precision`. ``cost``: the least total of `wrong_cost` for each wrong top candidate
            accepted and `missed_cost` for each right one rejected; with calibrated probabilities the threshold is near
            wrong_cost / (wrong_cost + missed_cost).
    """

    method: str = "f1"
    precision: float = 0.9
    wrong_cost: float = 1.0
    missed_cost: float = 1.0

    def __post_init__(self) -> None:
        if self.method not in ACCEPTANCE_RULES:
            raise UserError(f"accept_by: {self.method!r} is unknown; choose from {', '.join(ACCEPTANCE_RULES)}")
        if not 0 < self.precision <= 1:
            raise UserError(f"accept_precision must lie above 0 and not above 1, not {self.precision}")
        if not (self.wrong_cost > 0 and self.missed_cost > 0):
            raise UserError("wrong_answer_cost and missed_answer_cost must be above 0")

    def threshold(self, p: np.ndarray, y: np.ndarray, top_p: np.ndarray, correct: np.ndarray) -> float | None:
        """The threshold on these candidates, ties accepted together; None where they cannot give one.

        Args:
            p, y: (n,) probabilities, descending, and labels of all candidates.
            top_p, correct: (k,) the same of the mentions' top candidates.
        """
        cuts = _Cuts(p, y) if self.method == "f1" else _Cuts(top_p, correct)
        if not len(cuts.p) or not cuts.right[-1]:
            return None
        if self.method == "f1":
            return cuts.threshold(int(np.argmax(cuts.f1)))
        if self.method == "precision":
            reached = np.flatnonzero(cuts.last_of_tie & (cuts.right >= self.precision * cuts.accepted))
            return cuts.threshold(int(reached[-1])) if len(reached) else None
        cost = self.wrong_cost * (cuts.accepted - cuts.right) + self.missed_cost * (cuts.right[-1] - cuts.right)
        best = int(np.argmin(np.where(cuts.last_of_tie, cost, np.inf)))
        nothing = self.missed_cost * cuts.right[-1]
        return cuts.threshold(best) if cost[best] <= nothing else None


class _Cuts:
    """Accepting the first of probabilities in descending order, cut after each: (n,) counts.

    Attributes:
        accepted, right: candidates accepted, and of those the right ones.
        last_of_tie: where a cut does not part equal probabilities.
    """

    def __init__(self, p: np.ndarray, y: np.ndarray) -> None:
        self.p = p
        self.accepted = np.arange(1.0, len(p) + 1)
        self.right = np.cumsum(y, dtype=np.float64)
        self.last_of_tie = np.append(p[1:] < p[:-1], True)

    @property
    def f1(self) -> np.ndarray:
        """(n,) F1 of each cut, -1 inside ties."""
        return np.where(self.last_of_tie, 2 * self.right / (self.accepted + self.right[-1]), -1.0)

    def threshold(self, cut: int) -> float:
        """Halfway to the next lower probability, or where rounding forbids, the probability itself."""
        below = self.p[cut + 1] if cut + 1 < len(self.p) else self.p[cut]
        middle = (self.p[cut] + below) / 2
        return float(middle if middle > below else self.p[cut])


def _descending(p: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    p = np.asarray(p, dtype=np.float64)
    order = np.argsort(-p, kind="stable")
    return p[order], np.asarray(y)[order]
