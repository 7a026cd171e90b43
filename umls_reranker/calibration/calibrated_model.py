"""One calibrated model: from features and logits of candidates to log-odds and probabilities.

The cross-encoder scores only retained candidates: those with a probability of at least
`PRUNING_THRESHOLD` by the other features. The rest are pruned: their logit is NaN, and their odds
against NIL come from the other features.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from .calibrators import Calibrator, IdentityCalibrator
from .candidate_scores import CandidateScores
from .fallback_models import ALL_INPUTS
from .feature_table import FeatureTable
from .features import CROSS_ENCODER, inputs_of
from .fusion import FeatureFusion
from .logistic import conditional_log_odds, sigmoid, top_candidates
from .thresholds import ThresholdTable

# Candidates with a lower probability by the other features are not scored by the cross-encoder.
PRUNING_THRESHOLD = 0.003
# The lowest logit of an encoder, which it gives to opposite vectors.
LOWEST_LOGIT = -20.0


@dataclass(frozen=True)
class CalibratedModel:
    """A model for mentions with certain inputs.

    Attributes:
        calibrator: calibrator of the log-odds. With a fusion it works inside lists, on the
            candidates' log-odds against NIL, so that a list's probabilities sum to less than one.
        fusion: fusion of features; None: the cross-encoder alone decides.
        thresholds: thresholds on the probabilities, with the certificate of the tier high.
        missing: inputs missing in the lists that it was fitted on; for the model of all inputs,
            those that no list had.
        name: what it reads: "all", "no type", "names", "names, no type".
        list_fusion: fusion of all features but the cross-encoder; None if there are no others, or
            no cross-encoder.
    """

    calibrator: Calibrator = field(default_factory=IdentityCalibrator)
    fusion: FeatureFusion | None = None
    thresholds: ThresholdTable = field(default_factory=ThresholdTable.uncertified)
    missing: tuple[str, ...] = ()
    name: str = ALL_INPUTS
    list_fusion: FeatureFusion | None = None

    @cached_property
    def uses_cross_encoder(self) -> bool:
        """Whether the cross-encoder decides alone, or is one of the features that are weighed."""
        return self.fusion is None or CROSS_ENCODER in self.fusion.weights

    @property
    def features(self) -> list[str]:
        """The features that it weighs; none if the cross-encoder alone decides."""
        return list(self.fusion.weights) if self.fusion else []

    def required_inputs(self, cross_encoder_inputs: Sequence[str] = ()) -> list[str]:
        """Inputs that it was fitted with and that a mention must have.

        Args:
            cross_encoder_inputs: inputs that the cross-encoder reads (`PairTemplate.reads`).
        """
        names = list(cross_encoder_inputs) if self.uses_cross_encoder else []
        names += self._fusion_inputs
        # Fallback models have a twin for mentions without a type.
        if self.name != ALL_INPUTS and self.thresholds.reads_types:
            names.append("entity_type")
        return [name for name in dict.fromkeys(names) if name not in self.missing]

    @cached_property
    def _fusion_inputs(self) -> list[str]:
        """Inputs of the features with a weight."""
        features = self.fusion.weighted_features if self.fusion else ()
        return inputs_of(features)

    def list_utilities(self, table: FeatureTable) -> np.ndarray | None:
        """(m,) utilities of the candidates by the list fusion; None without one."""
        return self.list_fusion.utilities(table) if self.list_fusion else None

    def keep_candidates(self, table: FeatureTable, list_utilities: np.ndarray | None) -> np.ndarray:
        """The candidates that the cross-encoder scores, (m,) bool; none if it has no weight.

        These are the candidates with a probability of at least `PRUNING_THRESHOLD` by the list
        fusion, and the top candidate of each list by it. Without a list fusion these are all.

        Args:
            table: features of the m candidates.
            list_utilities: (m,) their utilities by the list fusion; None without one.
        """
        count = len(table.concepts)
        if not self.uses_cross_encoder:
            return np.zeros(count, bool)
        if list_utilities is None:
            return np.ones(count, bool)
        log_odds = conditional_log_odds(list_utilities, table.offsets, table.concepts)
        is_probable = sigmoid(log_odds) >= PRUNING_THRESHOLD
        return is_probable | top_candidates(list_utilities, table.offsets)

    def utilities(
        self, table: FeatureTable, logits: np.ndarray, list_utilities: np.ndarray | None
    ) -> np.ndarray:
        """Log-odds of the candidates against NIL, (m,); without a fusion, the logits.

        Args:
            table: as for `keep_candidates`.
            logits: (m,) raw log-odds of the cross-encoder, NaN for pruned candidates, and for those
                that it cannot read.
            list_utilities: as for `keep_candidates`.
        """
        if list_utilities is None:
            logits = with_lowest_logit(logits)
        if self.fusion is None:
            return logits.astype(np.float64)
        is_scored = ~np.isnan(logits)
        table = table.plus({CROSS_ENCODER: np.where(is_scored, logits, 0.0)})
        if list_utilities is None or is_scored.all():
            return self.fusion.utilities(table)
        every_list = np.ones(len(table.offsets) - 1, bool)
        scored_table = table.take(every_list, is_scored)
        scored_utilities = self.fusion.utilities(scored_table)
        limits = _limits_of_unscored(scored_utilities, scored_table)
        utilities = np.minimum(list_utilities, limits[table.owner])
        utilities[is_scored] = scored_utilities
        return utilities

    def scores(
        self, table: FeatureTable, logits: np.ndarray, list_utilities: np.ndarray | None
    ) -> CandidateScores:
        """Scores of the candidates; with a fusion, those of a list's concepts sum to less than one.

        Arguments are those of `utilities`.
        """
        utilities = self.utilities(table, logits, list_utilities)
        if self.fusion is None:
            probabilities = self.calibrator(utilities)
        else:
            calibrated = self.calibrator.log_odds(utilities)
            probabilities = sigmoid(conditional_log_odds(calibrated, table.offsets, table.concepts))
        if list_utilities is None:
            list_utilities = np.full(len(logits), np.nan)
        return CandidateScores(logits, utilities, probabilities, list_utilities)

    def to_dict(self) -> dict[str, Any]:
        """Its entry in ``calibrator.json``."""
        return {
            "name": self.name,
            "missing": list(self.missing),
            "fusion": self.fusion and self.fusion.to_dict(),
            "list_fusion": self.list_fusion and self.list_fusion.to_dict(),
            **self.calibrator.to_dict(),
        }

    @classmethod
    def from_dict(
        cls, state: Any, thresholds: ThresholdTable, scores: Iterable[str]
    ) -> CalibratedModel:
        """Inverse of `to_dict`.

        Args:
            state: what `to_dict` returned.
            thresholds: the model's thresholds.
            scores: scores of user-provided lists, which are features too.

        Raises:
            UserError: the fusion or the calibrator is damaged, or has an unknown feature.
            KeyError: another key is missing.
            TypeError: another value is damaged.
        """
        return cls(
            calibrator=Calibrator.from_dict(state),
            fusion=_load_fusion(state["fusion"], scores),
            thresholds=thresholds,
            missing=tuple(state["missing"]),
            name=str(state["name"]),
            list_fusion=_load_fusion(state["list_fusion"], scores),
        )


def _load_fusion(state: Any, scores: Iterable[str]) -> FeatureFusion | None:
    """A fusion as `CalibratedModel.to_dict` wrote it, which is None where the model has none."""
    return None if state is None else FeatureFusion.from_dict(state, scores)


def _limits_of_unscored(scored_utilities: np.ndarray, table: FeatureTable) -> np.ndarray:
    """The highest utility that a candidate without a logit may have, (n,) by list.

    It is just below that of the top candidate with a logit, because a candidate that the
    cross-encoder has not scored is never the top one; infinite if it has scored none of the list.

    Args:
        scored_utilities: utilities of the candidates with a logit.
        table: features of these candidates in n lists.
    """
    highest = np.full(len(table.offsets) - 1, -np.inf)
    np.maximum.at(highest, table.owner, scored_utilities)
    has_scored = ~np.isinf(highest)
    return np.where(has_scored, np.nextafter(highest, -np.inf), np.inf)


def with_lowest_logit(logits: np.ndarray) -> np.ndarray:
    """Logits (m,) in which candidates without one have `LOWEST_LOGIT`.

    It ranks them last where no feature but the cross-encoder decides.
    """
    return np.where(np.isnan(logits), np.float32(LOWEST_LOGIT), logits)
