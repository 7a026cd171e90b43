"""Logits of candidates as the network sees them, scored when they are first asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ..data.candidate_lists import CandidateLists
from ..models.cross_encoder import PairScorer, score_lists
from .inputs import without

if TYPE_CHECKING:
    from .probabilities import Calibration

# Inputs that the network reads and did not see, in the order of its template; none of whole lists.
Unseen: TypeAlias = tuple[str, ...]
# Gives the logits of candidates, (m,), at least of those in (m,) bool, as the network sees them without some inputs.
Score: TypeAlias = Callable[[Unseen, np.ndarray], np.ndarray]


@dataclass(eq=False)
class NetworkLogits:
    """Logits of the candidates of lists; each candidate is scored once for each different input of the network.

    Attributes:
        scorer: scorer of the network, if there is one.
        lists: n mentions with m candidates.
        desc: title of the progress bars.
        known: logits scored so far, (m,).
        truncated: number of pairs scored here whose mention or name was truncated to the model's length.
    """

    scorer: PairScorer | None
    lists: CandidateLists
    desc: str
    known: dict[Unseen, np.ndarray] = field(default_factory=dict)
    truncated: int = 0

    def __call__(self, unseen: Unseen, wanted: np.ndarray) -> np.ndarray:
        """Logits of lists without some inputs, (m,) float32; NaN for candidates that were never `wanted`."""
        nothing = np.full(len(self.lists.owner), np.nan, np.float32)
        logits = self.known.get(unseen, nothing)
        new = wanted & np.isnan(logits)
        if new.any():
            desc = f"{self.desc} without {' and '.join(unseen)}" if unseen else self.desc
            scores = score_lists(self.scorer, without(self.lists, unseen), desc, new)
            self.truncated += scores.truncated
            self.known[unseen] = logits = np.where(new, scores.logits, logits)
        return logits


def unseen_inputs(removed: Sequence[str], network_inputs: Sequence[str]) -> Unseen:
    """Inputs that the network no longer sees if some are removed; `network_inputs` is as `PairTemplate.reads`."""
    return tuple(name for name in network_inputs if name in removed)


def logits_as_decided(
    score: Score, calibration: Calibration, lists: CandidateLists, network_inputs: Sequence[str]
) -> np.ndarray:
    """Logits of the inputs that the network sees if `calibration` decides (`ScoringPlan.lists`), (m,)."""
    models, logits = calibration.choose(lists, network_inputs).models, np.empty(len(lists.owner), np.float32)
    for number in np.unique(models).tolist():
        rows = (models == number)[lists.owner]
        logits[rows] = score(unseen_inputs(calibration.models[number].removed, network_inputs), rows)[rows]
    return logits
