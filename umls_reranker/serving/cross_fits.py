"""Calibrations of labelled lists, fitted on some documents to decide about others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..calibration.cross_validation import document_folds
from ..calibration.decisions import Decisions, rank
from ..calibration.fitting import fit_calibration
from ..calibration.network_logits import NetworkLogits, Score, Unseen, logits_as_decided
from ..calibration.probabilities import Calibration
from ..calibration.string_counts import StringCounts
from ..core.arrays import ranking
from ..core.errors import UserError
from ..core.progress import progress
from ..core.recipe import Recipe
from ..core.settings import CalibrationArguments
from ..data.candidate_lists import AnnotatedLists
from ..data.labelled_lists import best_of_each_concept
from ..evaluation.outcomes import Outcomes
from ..evaluation.systems import System
from ..models.cross_encoder import Scores
from .reranker import UMLSReranker
from .source_model import SourceModel


@dataclass(frozen=True)
class CrossFits:
    """n labelled lists with m candidates, and the settings of fits on them.

    Attributes:
        score: function that returns logits of the network, NaN without one.
        folds: (n,) folds of the documents.
    """

    source: SourceModel
    lists: AnnotatedLists
    score: Score
    settings: CalibrationArguments
    folds: np.ndarray
    seed: int

    @classmethod
    def of(
        cls, source: SourceModel, lists: AnnotatedLists, score: Score, settings: CalibrationArguments, seed: int
    ) -> CrossFits:
        """Make it with folds of the lists' documents."""
        return cls(source, lists, score, settings, document_folds(lists.annotations.documents, seed), seed)

    @cached_property
    def counts(self) -> StringCounts:
        """Counts of mentions that are not in the lists."""
        return self.source.counts(of_training=self.known_documents > 0)

    @cached_property
    def known_documents(self) -> int:
        """Number of the lists' documents that the source was calibrated on."""
        documents = np.unique(self.lists.annotations.documents.astype(str))
        return int(np.count_nonzero(~self.source.is_new(documents)))

    @property
    def every(self) -> np.ndarray:
        """All true, (n,) bool."""
        return np.ones(len(self.lists), bool)

    @property
    def measured(self) -> np.ndarray:
        """Mentions of a random sample, (n,) bool; corrections of doubtful answers would make figures look worse."""
        return self.lists.annotations.certifies

    @cached_property
    def measured_lists(self) -> AnnotatedLists:
        """The lists of these mentions."""
        return self.lists.take(self.measured)

    def fit(
        self,
        inside: np.ndarray,
        names: Sequence[str],
        *,
        may_drop_network: bool = False,
        has_fallbacks: bool = True,
        has_outlook: bool = True,
    ) -> tuple[Calibration, dict[str, Any]]:
        """A calibration of some features on the lists `inside`, (n,) bool, as `fit_calibration` returns it."""
        source, settings = self.source, replace(self.settings, features=list(names))
        return fit_calibration(
            self.lists.take(inside),
            self._score_of(inside),
            self.counts,
            settings,
            source.hierarchy,
            self.seed,
            source.template.reads,
            source.history,
            may_drop_network=may_drop_network,
            has_fallbacks=has_fallbacks,
            has_outlook=has_outlook,
        )

    def decide(self, calibration: Calibration, inside: np.ndarray) -> Decisions:
        """Decisions of a calibration about the lists `inside`, (n,) bool."""
        lists, reads = self.lists.take(inside), self.source.template.reads
        scores = Scores(logits_as_decided(self._score_of(inside), calibration, lists, reads), 0)
        return rank(lists, scores, calibration, network_inputs=reads)

    def held_out(
        self, names: Sequence[str], *, may_drop_network: bool = False, has_fallbacks: bool = True
    ) -> tuple[Decisions, list[bool]]:
        """Decide about the `measured_lists` of each fold by a fit on the others.

        Arguments are those of `fit`. Each fit also tells whether it weighs the cross-encoder.
        """
        options = {"may_drop_network": may_drop_network, "has_fallbacks": has_fallbacks, "has_outlook": False}
        in_folds, uses_network = {}, []
        for fold in progress(range(self.folds.max() + 1), desc="cross-fitting by document", unit=" folds"):
            inside = self.folds == fold
            calibration, _ = self.fit(~inside, names, **options)
            if (inside & self.measured).any():
                in_folds[fold] = self.decide(calibration, inside & self.measured)
            uses_network.append(calibration.uses_network)
        return self._joined(in_folds), uses_network

    def _score_of(self, inside: np.ndarray) -> Score:
        rows = np.flatnonzero(inside[self.lists.owner])

        def score(unseen: Unseen, wanted: np.ndarray) -> np.ndarray:
            everywhere = np.zeros(len(self.lists.owner), bool)
            everywhere[rows] = wanted
            return self.score(unseen, everywhere)[rows]

        return score

    def _joined(self, in_folds: Mapping[int, Decisions]) -> Decisions:
        """Join the decisions about each fold to those about all `measured_lists`."""
        folds, lists = self.folds[self.measured], self.measured_lists
        by_mention = np.argsort(folds, kind="stable")
        by_candidate = np.argsort(folds[lists.owner], kind="stable")

        def column(name: str) -> np.ndarray:
            concatenated = np.concatenate([getattr(decisions, name) for decisions in in_folds.values()])
            joined = np.empty_like(concatenated)
            joined[by_mention if name == "models" else by_candidate] = concatenated
            return joined

        log_odds = column("log_odds")
        columns: dict[str, Any] = {
            name: column(name) for name in ("logits", "probabilities", "margins", "tiers", "accepted", "models")
        }
        offsets = lists.offsets
        return Decisions(offsets, log_odds=log_odds, order=ranking(log_odds, offsets), **columns)


def systems_of_lists(
    lists: AnnotatedLists, reranker: UMLSReranker | None, settings: CalibrationArguments, seed: int
) -> dict[str, System]:
    """Systems of n lists without a model: their order, and their calibrated scores if there are enough documents.

    Of several candidates of a concept the first counts. The scores of each fold are calibrated on the others. Of
    corrections, only those drawn at random are measured (`CrossFits.measured`).

    Args:
        lists: the lists with all their candidates.
        reranker: model with the hierarchy of types; None: that of the UMLS.
        settings: as for `CrossFits`.
        seed: as for `CrossFits`.

    Returns:
        ``lists_order`` and ``calibrated_scores``, to which other systems are compared.
    """
    lists = lists.with_candidates(best_of_each_concept(lists))
    alone = SourceModel(None, None, None, Recipe.from_values({}), reranker)
    fits = CrossFits.of(alone, lists, NetworkLogits(None, lists, ""), settings, seed)
    systems = {"lists_order": System(fits.measured_lists.annotations.gold)}
    if lists.scores and fits.folds.any():
        with suppress(UserError):
            decisions, _ = fits.held_out([*lists.scores], has_fallbacks=False)
            systems["calibrated_scores"] = System.of(Outcomes.of(fits.measured_lists, decisions))
    return systems
