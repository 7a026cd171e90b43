"""What is decided about a candidate."""

from dataclasses import dataclass
from typing import Any

__all__ = ["RankedCandidate"]


@dataclass(frozen=True, slots=True)
class RankedCandidate:
    """One candidate after reranking.

    Attributes:
        candidate: the object that was passed in, untouched.
        name: its concept name.
        cui: its CUI, or None when the candidate had none.
        rank: 1 for the best.
        logit: raw log-odds of the cross-encoder.
        cross_encoder_score: calibrated probability that this candidate is the mention's concept, of all evidence that
            the model weighs; candidates are ranked by it (by its unrounded log-odds).
        margin: this score less the best score of any other concept in the list, by CUI or else by name; negative
            below the best concept, and the score itself when there is no other concept.
        tier: ``high``, ``medium``, ``low`` or ``reject``, by the thresholds of the mention's semantic type. Never
            ``high`` where mention or candidates came without anything that the model reads: what certifies the tier
            was measured with all of it.
        accepted: whether to map the mention to this candidate: rank 1, at or above the type's threshold, and in a tier
            that the deployment accepts (`UMLSReranker.accept_tier`).
    """

    candidate: Any
    name: str
    cui: str | None
    rank: int
    logit: float
    cross_encoder_score: float
    margin: float
    tier: str
    accepted: bool
