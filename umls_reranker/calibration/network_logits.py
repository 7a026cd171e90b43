"""Logits of candidates, scored when they are first asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np

from ..data.candidate_lists import CandidateLists
from ..models.cross_encoder import PairScorer, score_lists
from .inputs import without

__all__ = ["NetworkLogits", "Unseen", "unseen_inputs"]

# Inputs that the network reads and did not see, in the order of its template; none of whole lists.
Unseen: TypeAlias = tuple[str, ...]


class NetworkLogits:
    """What the network says about candidates of lists; each is scored once for each different input of the network.

    Args:
        scorer: of the network.
        lists: n mentions with m candidates.
        desc: title of the progress bars.
        known: logits that were scored before, (m,).

    Attributes:
        truncated: number of pairs scored here whose mention or name was cut to the model's length.
    """

    def __init__(
        self, scorer: PairScorer, lists: CandidateLists, desc: str, known: Mapping[Unseen, np.ndarray] | None = None
    ) -> None:
        self.scorer = scorer
        self.lists = lists
        self.desc = desc
        self.truncated = 0
        self._known = dict(known or {})

    def __call__(self, unseen: Unseen, wanted: np.ndarray) -> np.ndarray:
        """(m,) float32 logits of lists without some inputs; NaN where neither now nor before any were `wanted`."""
        nothing = np.full(len(self.lists.owner), np.nan, np.float32)
        logits = self._known.get(unseen, nothing)
        new = wanted & np.isnan(logits)
        if new.any():
            desc = f"{self.desc} without {' and '.join(unseen)}" if unseen else self.desc
            scores = score_lists(self.scorer, without(self.lists, unseen), desc, new)
            self.truncated += scores.truncated
            self._known[unseen] = logits = np.where(new, scores.logits, logits)
        return logits


def unseen_inputs(removed: Sequence[str], shown: Sequence[str]) -> Unseen:
    """What the network no longer sees if some inputs are removed; `shown` as `PairTemplate.reads`."""
    return tuple(name for name in shown if name in removed)
