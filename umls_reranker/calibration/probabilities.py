"""From logits and other features of candidates to calibrated probabilities.

A `Calibration` holds one `InputModel` per expected set of inputs: the first reads all, the others are fallbacks. Each
has its own weights, calibrator and thresholds, fitted on the calibration lists with these inputs removed. The first
model whose inputs a mention has decides, and ignores all other inputs.

The cross-encoder scores only retained candidates: those with a probability of at least
`InputModel.pruning_threshold` by the other features. The rest are pruned: their logit is NaN, and their odds against
"none of these" come from the other features.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..core.errors import UserError
from ..core.settings import CROSS_ENCODER, FEATURES, SCORES
from ..data.candidate_lists import CandidateLists
from .calibrators import IdentityCalibrator
from .certificate import NO_CERTIFICATES, CertificateHistory
from .features import FeatureTable, feature_table
from .fusion import FeatureFusion
from .inputs import ALL_INPUTS, ScoreRange, inputs_of, lacking, lists_with_any, without
from .logistic import conditional_log_odds, sigmoid, top_candidates
from .score_maps import Calibrator
from .string_counts import StringCounts
from .thresholds import ThresholdTable, load_thresholds

COUNTS_FILE = "string_counts.safetensors"


class CalibratedScores(NamedTuple):
    """Scores of m candidates.

    Attributes:
        log_odds: (m,) for ranking the candidates of a list: the cross-encoder's log-odds or, with a fusion, those of
            each candidate against "none of these".
        probabilities: (m,) float64, calibrated.
    """

    log_odds: np.ndarray
    probabilities: np.ndarray


@dataclass(frozen=True)
class InputModel:
    """A model for mentions with certain inputs.

    Attributes:
        calibrator: calibrator of the log-odds. With a fusion it works inside lists, on the candidates' log-odds
            against "none of these", so that a list's probabilities sum to less than one.
        fusion: fusion of features; None: the cross-encoder alone decides.
        thresholds: thresholds on the probabilities, with the certificate of the tier high.
        removed: inputs removed from the lists that it was fitted on; for the model of all inputs, those that no list
            had.
        name: name of its inputs: "all", "no type", "names and CUIs, no type".
        baseline: fusion of all features but the cross-encoder; None if there are no others.
        pruning_threshold: candidates with a lower probability by the baseline are pruned; 0 scores all.
    """

    calibrator: Calibrator = field(default_factory=IdentityCalibrator)
    fusion: FeatureFusion | None = None
    thresholds: ThresholdTable = field(default_factory=ThresholdTable.uncertified)
    removed: tuple[str, ...] = ()
    name: str = ALL_INPUTS
    baseline: FeatureFusion | None = None
    pruning_threshold: float = 0.0

    @property
    def uses_network(self) -> bool:
        """Whether the cross-encoder decides alone, or is one of the features that are weighed."""
        return self.fusion is None or CROSS_ENCODER in self.fusion.weights

    @property
    def without_network(self) -> InputModel:
        """The model that decides if the cross-encoder is left out: its baseline.

        Raises:
            UserError: there are no features besides the cross-encoder.
        """
        if self.baseline is None:
            raise UserError("no features are left without the cross-encoder")
        return replace(self, fusion=self.baseline, baseline=None, pruning_threshold=0.0)

    def reads(self, network_inputs: Sequence[str] = ()) -> list[str]:
        """Inputs that it was fitted with and that a mention must have.

        Args:
            network_inputs: inputs that the network reads (`PairTemplate.reads`).
        """
        names = [name for name in network_inputs if name not in self.removed] if self.uses_network else []
        names += inputs_of(self.fusion.read if self.fusion else ())
        # A fallback for mentions without a type has thresholds without types.
        by_type = self.calibrator.reads_types or (self.name != ALL_INPUTS and self.thresholds.reads_types)
        names += ["entity_type"] if by_type and "entity_type" not in self.removed else []
        return list(dict.fromkeys(names))

    def to_dict(self) -> dict[str, Any]:
        """Its entry in ``calibrator.json``."""
        return {
            "name": self.name,
            "removed": list(self.removed),
            "pruning_threshold": self.pruning_threshold,
            "fusion": self.fusion and self.fusion.to_dict(),
            "without_cross_encoder": self.baseline and self.baseline.to_dict(),
        } | self.calibrator.to_dict()

    @classmethod
    def from_dict(cls, state: Any, thresholds: ThresholdTable, scores: Iterable[str]) -> InputModel:
        """Inverse of `to_dict`.

        Args:
            state: what `to_dict` returned.
            thresholds: the model's thresholds.
            scores: scores of user-provided lists, which are features too.

        Raises:
            UserError: the fusion or the calibrator is damaged, or has an unknown feature.
            KeyError: another key is missing.
            TypeError: another value is damaged.
            ValueError: another value is damaged.
        """
        fusion, baseline, threshold = (
            state["fusion"],
            state["without_cross_encoder"],
            float(state["pruning_threshold"]),
        )
        if not 0.0 <= threshold < 1.0 or (threshold and not baseline):
            raise ValueError("a pruning threshold is not a probability, or has no features to apply to")
        return cls(
            Calibrator.from_dict(state),
            None if fusion is None else FeatureFusion.from_dict(fusion, scores),
            thresholds,
            tuple(state["removed"]),
            str(state["name"]),
            None if baseline is None else FeatureFusion.from_dict(baseline, scores),
            threshold,
        )


@dataclass(frozen=True)
class Part:
    """Mentions that one model decides about: n lists with m candidates.

    Attributes:
        model: the model.
        mentions: indices or slice of these mentions among all.
        rows: indices or slice of their candidates among all.
        table: their features; scores that do not count are NaN.
    """

    model: InputModel
    mentions: Any
    rows: Any
    table: FeatureTable

    @classmethod
    def of(cls, model: InputModel, table: FeatureTable, mentions: np.ndarray | None = None) -> Part:
        """Some of the lists, (n,) bool; None: all of them."""
        if mentions is None:
            return cls(model, slice(None), slice(None), table)
        rows = np.flatnonzero(mentions[table.owner])
        return cls(model, np.flatnonzero(mentions), rows, table.take(mentions))

    @cached_property
    def _baseline_utilities(self) -> np.ndarray:
        assert self.model.baseline is not None  # else there is no threshold, and nothing is pruned
        return self.model.baseline.utilities(self.table)

    def retained(self, threshold: float) -> np.ndarray:
        """The candidates that the cross-encoder scores, (m,) bool; none if the model does not use it.

        These are the candidates with a probability of at least `threshold` by the baseline, the top candidate of each
        list by it, and all candidates of a list that lacks one of its features.
        """
        table, baseline = self.table, self.model.baseline
        if not self.model.uses_network:
            return np.zeros(len(table.concepts), bool)
        if baseline is None or not threshold:
            return np.ones(len(table.concepts), bool)
        utility = self._baseline_utilities
        log_odds = conditional_log_odds(utility, table.offsets, table.concepts)
        whole = lists_with_any(baseline.lacks(table), table.offsets)[table.owner]
        return (sigmoid(log_odds) >= threshold) | top_candidates(utility, table.offsets) | whole

    def utilities(self, logits: np.ndarray) -> np.ndarray:
        """Log-odds of the candidates against "none of these" by the fusion, (m,).

        Args:
            logits: (m,) raw log-odds of the cross-encoder, NaN for pruned candidates.
        """
        fusion, scored, table = self.model.fusion, ~np.isnan(logits), self._with(logits)
        assert fusion is not None
        if not self.model.uses_network:
            return fusion.utilities(table)
        if scored.all():
            return fusion.utilities(table)
        inside = table.take(np.ones(len(table.offsets) - 1, bool), scored)
        known = fusion.utilities(inside)
        # A candidate that the cross-encoder has not seen is never the top one.
        top = np.full(len(inside.offsets) - 1, -np.inf)
        np.maximum.at(top, inside.owner, known)
        utility = np.minimum(self._baseline_utilities, np.nextafter(top, -np.inf)[table.owner])
        utility[scored] = known
        return utility

    def scores(self, logits: np.ndarray) -> CalibratedScores:
        """Scores of the candidates; with a fusion, those of a list's concepts sum to less than one.

        Args:
            logits: as for `utilities`.
        """
        calibrator, fusion, table = self.model.calibrator, self.model.fusion, self.table
        if fusion is None:
            return CalibratedScores(logits, calibrator(logits, table.types))
        utility = self.utilities(logits)
        # The calibrator was fitted to the utilities of lists with all features.
        lacks = lists_with_any(fusion.lacks(self._with(logits)), table.offsets)[table.owner]
        calibrated = np.where(lacks, utility, calibrator.log_odds(utility, table.types))
        log_odds = conditional_log_odds(calibrated, table.offsets, table.concepts)
        return CalibratedScores(utility, sigmoid(log_odds))

    def _with(self, logits: np.ndarray) -> FeatureTable:
        return self.table.plus({CROSS_ENCODER: np.where(np.isnan(logits), 0.0, logits)})


class DecidingModels(NamedTuple):
    """The deciding model of each of n mentions.

    Attributes:
        models: (n,) int64, index of the model in `Calibration.models`.
        complete: (n,) bool, whether the mention has all inputs of the model; if not, nothing is certified.
        missing: inputs of the first model -> (n,) bool, mentions without them.
    """

    models: np.ndarray
    complete: np.ndarray
    missing: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class ScoringPlan:
    """What is known about n lists with m candidates before the network scores any.

    Attributes:
        lists: the lists, without inputs that the deciding models do not read.
        deciding: the deciding models.
        parts: the mentions of each model, with their features; together all mentions.
    """

    lists: CandidateLists
    deciding: DecidingModels
    parts: Sequence[Part]

    @property
    def uses_network(self) -> np.ndarray:
        """Mentions decided by a model that uses the cross-encoder, (n,) bool."""
        mentions = np.empty(len(self.lists), bool)
        for part in self.parts:
            mentions[part.mentions] = part.model.uses_network
        return mentions

    @cached_property
    def retained(self) -> np.ndarray:
        """The candidates that the cross-encoder scores, (m,) bool; see `Part.retained`."""
        rows = np.empty(len(self.lists.owner), bool)
        for part in self.parts:
            rows[part.rows] = part.retained(part.model.pruning_threshold)
        return rows

    def scores(self, logits: np.ndarray) -> CalibratedScores:
        """Calibrated scores of all candidates.

        Args:
            logits: (m,) raw log-odds of the cross-encoder for these lists; NaN for pruned candidates.
        """
        scores = CalibratedScores(np.empty(len(logits)), np.empty(len(logits)))
        for part in self.parts:
            for column, values in zip(scores, part.scores(logits[part.rows]), strict=True):
                column[part.rows] = values
        return scores

    @property
    def without_cross_encoder(self) -> np.ndarray | None:
        """Log-odds of all candidates by the baselines, (m,) float64; None if a deciding model has no baseline."""
        log_odds = np.empty(len(self.lists.owner))
        for part in self.parts:
            if part.model.baseline is None:
                return None
            log_odds[part.rows] = part.model.baseline(part.table)
        return log_odds

    def tiers(self, probabilities: np.ndarray) -> np.ndarray:
        """Tiers as indices into `thresholds.TIERS`, (m,) int64."""
        edges = np.empty((len(self.lists), 3))
        for part in self.parts:
            edges[part.mentions] = part.model.thresholds.edges(self.lists.types)[part.mentions]
        # The certificate of the tier "high" was measured on mentions with all inputs of the model.
        edges[~self.deciding.complete, 2] = np.inf
        return 3 - (probabilities[:, None] >= edges[self.lists.owner]).sum(axis=1)


@dataclass(eq=False)
class Calibration:
    """Turns logits and candidate lists into decisions.

    Attributes:
        models: the model of all inputs, then its fallback models, that of most inputs first; by default the identity.
        counts: counts of the mentions of training and calibration; needed with fusions, empty without.
        training_counts: counts of the training mentions alone, which are saved for a calibration on the same
            documents; None once loaded.
        score_ranges: name -> range of the retrieval scores used; scores outside count as missing.
        index_key: index key of the lists that it was fitted on (`CandidateLists.index_keys`). Scores of our own
            retrievers count as missing in lists with another key.
        history: history of its certificates; decisions do not read it.
    """

    models: Sequence[InputModel] = (InputModel(),)
    counts: StringCounts = field(default_factory=lambda: StringCounts.fit([]))
    score_ranges: Mapping[str, ScoreRange] = field(default_factory=dict)
    index_key: str = ""
    history: CertificateHistory = NO_CERTIFICATES
    training_counts: StringCounts | None = None

    @property
    def thresholds(self) -> ThresholdTable:
        """Thresholds of the model of all inputs."""
        return self.models[0].thresholds

    @property
    def uses_network(self) -> bool:
        """Whether any of the models weighs the cross-encoder."""
        return any(model.uses_network for model in self.models)

    @cached_property
    def scores(self) -> tuple[str, ...]:
        """Names of the scores that lists may have: the usual ones, and those used here."""
        return tuple(dict.fromkeys((*SCORES, *self.score_ranges)))

    def choose(self, lists: CandidateLists, network_inputs: Sequence[str] = ()) -> DecidingModels:
        """For each mention the first model whose inputs it has, else the last.

        Args:
            lists: lists of the mentions.
            network_inputs: inputs that the network reads besides mention and name (`PairTemplate.reads`).
        """
        scores = self._counting(lists)
        missing: dict[str, np.ndarray] = {}
        models, undecided = np.zeros(len(lists), np.int64), np.ones(len(lists), bool)
        for number, model in enumerate(self.models):
            if number and not undecided.any():
                break
            models[undecided] = number
            lacks = np.zeros(len(lists), bool)
            reads = model.reads(network_inputs)
            for name in reads:
                if name not in missing:
                    missing[name] = lacking(lists, name, scores)
                lacks |= missing[name]
            undecided = undecided & lacks
        of_first = self.models[0].reads(network_inputs)
        return DecidingModels(models, ~undecided, {name: missing[name] for name in of_first})

    def plan(self, lists: CandidateLists, network_inputs: Sequence[str] = ()) -> ScoringPlan:
        """Plan which model decides about each mention, by which features, and which candidates are scored."""
        deciding = self.choose(lists, network_inputs)
        used = np.unique(deciding.models).tolist()
        for number in used:
            lists = without(lists, self.models[number].removed, deciding.models == number)
        table = self._table(lists)
        if len(used) == 1:
            return ScoringPlan(lists, deciding, [Part.of(self.models[used[0]], table)])
        parts = [Part.of(self.models[number], table, deciding.models == number) for number in used]
        return ScoringPlan(lists, deciding, parts)

    def _table(self, lists: CandidateLists) -> FeatureTable:
        """The features, with NaN for scores that do not count."""
        fusion = self.models[0].fusion
        table = FeatureTable.of(lists, {}, {}) if fusion is None else feature_table(lists, self.counts, fusion.weights)
        return table.plus(self._counting(lists))

    def _counting(self, lists: CandidateLists) -> dict[str, np.ndarray]:
        """The scores, (m,), with NaN where they are out of range, or from our retrievers with another index."""
        scores, ranges = dict(lists.scores), self.score_ranges
        is_ours = lists.are_of(self.index_key)[lists.owner]
        for name in scores:
            if name in ranges:
                scores[name] = ranges[name].inside(scores[name])
            # Other scores of the same name may be cosines too, which no range tells apart.
            if name in SCORES and not is_ours.all():
                scores[name] = np.where(is_ours, scores[name], np.nan)
        return scores

    def to_dict(self) -> dict[str, Any]:
        """The content of ``calibrator.json`` that decides scores."""
        state: dict[str, Any] = {
            "index_key": self.index_key,
            "inputs": [model.to_dict() for model in self.models],
            "certificates": self.history.to_list(),
        }
        if self.score_ranges:
            state["score_ranges"] = {name: score_range._asdict() for name, score_range in self.score_ranges.items()}
        return state

    @classmethod
    def load(cls, state: dict[str, Any], thresholds: dict[str, Any], folder: Path) -> Calibration:
        """Load from the content of ``calibrator.json`` and ``thresholds.json``, and the counts next to them.

        Raises:
            UserError: something is missing or damaged.
        """
        tables, part = load_thresholds(thresholds), "inputs"
        try:
            scores = state.get("score_ranges") or {}
            names = [str(entry["name"]) for entry in state["inputs"]]
            if names != list(tables) or not names:
                raise ValueError(f"thresholds.json is of {', '.join(tables)}")
            models = [InputModel.from_dict(entry, tables[str(entry["name"])], scores) for entry in state["inputs"]]
            part = "score_ranges, the range of each retriever's scores,"
            fusion = models[0].fusion
            weighed = [name for name in fusion.weights if name in SCORES or name not in FEATURES] if fusion else []
            ranges = {name: ScoreRange.from_dict(scores[name]) for name in weighed}
            part = "index_key, which index its scores are of,"
            key = state["index_key"]
            if not isinstance(key, str) or (not key and {*SCORES} & {*ranges}):
                raise ValueError(f"{key!r} is not a known key")
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"calibrator.json: {part} is missing or damaged ({error!r}); run umls-reranker calibrate again"
            ) from None
        counts = StringCounts.load(folder / COUNTS_FILE) if fusion else StringCounts.fit([])
        return cls(models, counts, ranges, key, CertificateHistory.from_list(state.get("certificates")))
