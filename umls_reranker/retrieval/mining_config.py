"""The recipe's mix of negatives, as mining takes it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MiningConfig"]


@dataclass(frozen=True)
class MiningConfig:
    """How many negatives of each kind a mention gets, what guards them, and what they weigh.

    Attributes:
        semantic: concepts that the retriever lists first, as serving will see them.
        same_type: random concepts that share a semantic type with the gold concept.
        random: random concepts.
        cosine_floor: what a semantic negative's cosine should reach; the nearest below it fill up and are counted.
        guard_relations: kinds of relation to the gold concept that no negative may have.
        positive_aware_ceiling: most a semantic negative's cosine may be, as a share of the positive's; None: no limit.
        max_mentions: mentions mined at most, drawn by the seed among those that can be; None: all.
        mine_per: ``"mention"``, or ``"string"`` for the first mention of each normalized string and gold concept.
        positive_weight, semantic_weight, other_weight: weights in the loss; "other" is same-type and random.
        feedback_weight: factor to them for mentions that come from a reviewer's corrections.
        neighbors: concepts searched per mention.
        typeless_share: share of the mentions that are shown without their types, where the template shows them.
        seed: of all draws. A draw depends on the seed, the mention's id and the draw's number, on nothing else.
    """

    semantic: int = 5
    same_type: int = 2
    random: int = 2
    cosine_floor: float = 0.85
    guard_relations: tuple[str, ...] = ("PAR", "CHD", "RB", "RN", "SY")
    positive_aware_ceiling: float | None = None
    max_mentions: int | None = None
    mine_per: str = "mention"
    positive_weight: float = 1.0
    semantic_weight: float = 1.5
    other_weight: float = 1.0
    feedback_weight: float = 1.0
    neighbors: int = 64
    typeless_share: float = 0.0
    seed: int = 13
