"""What a model answers for annotated lists, scored once for all that is measured of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ..calibration.decisions import Decisions, rank
from ..data.candidate_lists import AnnotatedLists, CandidateLists
from ..models.cross_encoder import PairScorer, Scores, score_lists
from ..models.template import PairTemplate
from .linking import Documents
from .outcomes import Outcomes

if TYPE_CHECKING:
    from ..calibration.probabilities import Calibration, ScoringPlan


@dataclass(frozen=True)
class Answers:
    """The answers of a model for n mentions with m candidates.

    Attributes:
        scorer, calibration: of the model, as `UMLSReranker` loads them; without a network there is no scorer.
        lists: gold not injected. split: their name, for the report.
        documents: of the mentions.
        exhaustive: decisions where the cross-encoder scored all candidates: it is also measured alone, and what
            pruning changes.
    """

    scorer: PairScorer | None
    calibration: Calibration
    lists: AnnotatedLists
    split: str
    documents: Documents
    exhaustive: Decisions

    @classmethod
    def of(
        cls,
        scorer: PairScorer | None,
        calibration: Calibration,
        lists: AnnotatedLists,
        split: str,
        resamples: int,
        seed: int,
    ) -> Answers:
        """Score the candidates; the last two are of the bootstrap by document."""

        def score(lists: CandidateLists, retained: np.ndarray) -> Scores:
            return score_lists(scorer, lists, f"scoring {split} candidates", retained)

        network_inputs = _template(scorer).reads
        exhaustive = rank(lists, score, calibration, network_inputs=network_inputs, exhaustive=True)
        documents = Documents.of(lists.annotations.documents, resamples, seed)
        return cls(scorer, calibration, lists, split, documents, exhaustive)

    @property
    def template(self) -> PairTemplate:
        """How the network reads a pair; without one, nothing."""
        return _template(self.scorer)

    @property
    def logits(self) -> np.ndarray:
        """(m,) float32, of all candidates; NaN without a network."""
        return self.exhaustive.logits

    @property
    def has_network(self) -> bool:
        """Whether a cross-encoder scored the candidates."""
        return not np.isnan(self.logits).any()

    @cached_property
    def plan(self) -> ScoringPlan:
        """Which models decide."""
        return self.calibration.plan(self.lists, self.template.reads)

    @cached_property
    def decided(self) -> Decisions:
        """As they are served: candidates that cannot win are pruned."""
        return self.decide(self.lists, Scores(self.logits, self.exhaustive.truncated))

    @cached_property
    def outcomes(self) -> Outcomes:
        """Of `decided`."""
        return Outcomes.of(self.lists, self.decided)

    def with_candidates(self, retained: np.ndarray) -> Answers:
        """About the same mentions with some of their candidates, as for `CandidateLists.with_candidates`."""
        lists = self.lists.with_candidates(retained)
        scores = Scores(self.logits[retained], self.exhaustive.truncated)
        reads = self.template.reads
        exhaustive = rank(lists, scores, self.calibration, network_inputs=reads, exhaustive=True)
        return replace(self, lists=lists, exhaustive=exhaustive)

    def decide(
        self, lists: CandidateLists, scores: Scores | Callable[[CandidateLists, np.ndarray], Scores]
    ) -> Decisions:
        """About these or other lists; arguments as for `rank`."""
        return rank(lists, scores, self.calibration, network_inputs=self.template.reads)


def _template(scorer: PairScorer | None) -> PairTemplate:
    return PairTemplate() if scorer is None else scorer.template
