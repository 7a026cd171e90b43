"""The answers for a term, which is a string with its source code, counted over its mentions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..calibration.decisions import TIERS


@dataclass
class ConceptTally:
    """How often a concept was the answer for a string, or one of several candidates.

    Attributes:
        name: name of the concept.
        first_count: number of mentions whose first candidate it was: their answer.
        count: number of mentions.
        score_sum: sum of their scores.
        tier: the lowest of their tiers; None if they have none.
    """

    name: str
    first_count: int = 0
    count: int = 0
    score_sum: float = 0.0
    tier: str | None = None

    def add(self, answer: Mapping[str, Any], is_first: bool) -> None:
        """Count a candidate of a mention; that of a reviewer has neither score nor tier."""
        self.first_count += is_first
        self.count += 1
        self.score_sum += answer.get("score", 0.0)
        tiers = filter(None, (self.tier, answer.get("tier")))
        self.tier = max(tiers, key=TIERS.index, default=None)

    @property
    def score(self) -> float:
        """Mean score of the mentions."""
        return round(self.score_sum / self.count, 6)


@dataclass
class StringTally:
    """The answers for a term.

    Attributes:
        mentions: number of all its mentions.
        frequency: how often its source has it, or else the number of mentions.
        concepts: id of a concept -> its count.
        reviewed: a row with the answer of a reviewer, which alone counts then; {} for none.
    """

    mentions: int = 0
    frequency: int = 0
    concepts: dict[str, ConceptTally] = field(default_factory=dict)
    reviewed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ranked(self) -> list[str]:
        """The concepts, those that were the answer most often first, then by score."""

        def order(cui: str) -> tuple[float, float, float]:
            tally = self.concepts[cui]
            return -tally.first_count, -tally.count, -tally.score

        return sorted(self.concepts, key=order)

    @property
    def has_conflict(self) -> bool:
        """Whether mentions have different answers; further candidates are none."""
        return sum(tally.first_count > 0 for tally in self.concepts.values()) > 1

    @property
    def best(self) -> str:
        """The first of `ranked`, or "" for none."""
        return next(iter(self.ranked), "")

    def comment_on(self, concept: str) -> str:
        """The reviewer's, or for how many mentions a concept and which others were the answer.

        Args:
            concept: its id; "": there is none.
        """
        if self.reviewed:
            return self.reviewed["review_comment"]
        if not concept:
            return ""
        others = [
            f"{cui} ({tally.first_count})"
            for cui, tally in self.concepts.items()
            if cui != concept and tally.first_count
        ]
        comment = f"{self.concepts[concept].first_count} of {self.mentions} mentions"
        if others:
            comment += f"; others: {', '.join(others)}"
        return comment
