"""The answers of a model for annotated lists, scored once for all figures."""

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
        scorer: scorer of the model, as `UMLSReranker` loads it; None without a network.
        calibration: calibration of the model.
        lists: the lists; gold concepts are not added.
        split: their name, for the report.
        documents: documents of the mentions.
        exhaustive: decisions with all candidates scored by the cross-encoder, to measure it alone, and what pruning
            changes.
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
        """Score the candidates; the last two arguments are for the bootstrap by document."""

        def score(lists: CandidateLists, retained: np.ndarray) -> Scores:
            return score_lists(scorer, lists, f"scoring {split} candidates", retained)

        network_inputs = _template(scorer).reads
        exhaustive = rank(lists, score, calibration, network_inputs=network_inputs, exhaustive=True)
        documents = Documents.of(lists.annotations.documents, resamples, seed)
        return cls(scorer, calibration, lists, split, documents, exhaustive)

    @property
    def template(self) -> PairTemplate:
        """How the network reads a pair; without a network, the default template."""
        return _template(self.scorer)

    @property
    def logits(self) -> np.ndarray:
        """Logits of all candidates, (m,) float32; NaN without a network."""
        return self.exhaustive.logits

    @property
    def has_network(self) -> bool:
        """Whether a cross-encoder scored the candidates."""
        return not np.isnan(self.logits).any()

    @cached_property
    def plan(self) -> ScoringPlan:
        """The plan: which model decides about each mention."""
        return self.calibration.plan(self.lists, self.template.reads)

    @cached_property
    def decided(self) -> Decisions:
        """Decisions as served, with pruning."""
        return self.decide(self.lists, Scores(self.logits, self.exhaustive.truncated))

    @cached_property
    def outcomes(self) -> Outcomes:
        """The outcomes of `decided`."""
        return Outcomes.of(self.lists, self.decided)

    def with_candidates(self, retained: np.ndarray) -> Answers:
        """Answers for the same mentions with some of their candidates, as for `CandidateLists.with_candidates`."""
        lists = self.lists.with_candidates(retained)
        scores = Scores(self.logits[retained], self.exhaustive.truncated)
        reads = self.template.reads
        exhaustive = rank(lists, scores, self.calibration, network_inputs=reads, exhaustive=True)
        return replace(self, lists=lists, exhaustive=exhaustive)

    def decide(
        self, lists: CandidateLists, scores: Scores | Callable[[CandidateLists, np.ndarray], Scores]
    ) -> Decisions:
        """Decide about these or other lists; arguments are as for `rank`."""
        return rank(lists, scores, self.calibration, network_inputs=self.template.reads)


def _template(scorer: PairScorer | None) -> PairTemplate:
    return PairTemplate() if scorer is None else scorer.template
