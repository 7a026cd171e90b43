"""From logits and other features of candidates to calibrated probabilities and `Decisions`.

A `Calibration` holds at most four models: of all inputs that the calibration lists had, and of
names alone, each with and without the mention's type. The built-in model has four more, which read
the order of candidates and decide about lists with scores of any retriever. Each model has its
own weights, calibrator, thresholds and certificate, fitted on the calibration lists without the
inputs that it does not read. The first model whose inputs a mention has decides, and ignores all
other inputs.

The cross-encoder scores only retained candidates: those with a probability of at least
`PRUNING_THRESHOLD` by the other features. The rest are pruned: their logit is NaN, and their odds
against NIL come from the other features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..core.arrays import lists_with_any
from ..core.errors import UserError
from ..lists.candidate_lists import CandidateLists
from ..lists.columns import FOUND, SUFFIX
from ..lists.index_scores import INDEX_SCORES, TEACHER
from .calibrators import Calibrator, IdentityCalibrator
from .decisions import TIERS, CandidateScores, Decisions, ThresholdTable, load_thresholds
from .features import (
    ALL_INPUTS,
    CROSS_ENCODER,
    FEATURES,
    SCORED_POSITION,
    FeatureTable,
    Lists,
    ScoreRange,
    feature_table,
    inputs_of,
    is_missing,
    without_inputs,
)
from .fusion import FeatureFusion
from .logistic import conditional_log_odds, sigmoid, top_candidates
from .string_counts import StringCounts
from .study import NO_HISTORY, StudyHistory

if TYPE_CHECKING:
    from ..models.cross_encoder import Scores

COUNTS_FILE = "string_counts.safetensors"
# Candidates with a lower probability by the other features are not scored by the cross-encoder.
PRUNING_THRESHOLD = 0.003
# That of an encoder for opposite vectors.
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

    @property
    def uses_cross_encoder(self) -> bool:
        """Whether the cross-encoder decides alone, or is one of the features that are weighed."""
        return self.fusion is None or CROSS_ENCODER in self.fusion.weights

    @property
    def features(self) -> list[str]:
        """The features that it weighs; none if the cross-encoder alone decides."""
        return list(self.fusion.weights) if self.fusion else []

    def reads(self, cross_encoder_inputs: Sequence[str] = ()) -> list[str]:
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
        features_read = self.fusion.read if self.fusion else ()
        return inputs_of(features_read)

    def list_utilities(self, table: FeatureTable) -> np.ndarray | None:
        """(m,) utilities of the candidates by the list fusion; None without one."""
        return self.list_fusion.utilities(table) if self.list_fusion else None

    def keep_candidates(self, table: FeatureTable, list_utilities: np.ndarray | None) -> np.ndarray:
        """The candidates that the cross-encoder scores, (m,) bool; none if it has no weight.

        These are the candidates with a probability of at least `PRUNING_THRESHOLD` by the list
        fusion, and the top candidate of each list by it.

        Args:
            table: features of the m candidates.
            list_utilities: (m,) their utilities by the list fusion; None without one.
        """
        is_read = self.uses_cross_encoder
        if not is_read or list_utilities is None:
            return np.full(len(table.concepts), is_read)
        log_odds = conditional_log_odds(list_utilities, table.offsets, table.concepts)
        is_top = top_candidates(list_utilities, table.offsets)
        return (sigmoid(log_odds) >= PRUNING_THRESHOLD) | is_top

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
        scored = ~np.isnan(logits)
        table = table.plus({CROSS_ENCODER: np.where(scored, logits, 0.0)})
        if list_utilities is None or scored.all():
            return self.fusion.utilities(table)
        inside = table.take(np.ones(len(table.offsets) - 1, bool), scored)
        known = self.fusion.utilities(inside)
        # A candidate that the cross-encoder has not seen is never the top one, unless it has seen
        # none of the list.
        top = np.full(len(inside.offsets) - 1, -np.inf)
        np.maximum.at(top, inside.owner, known)
        highest = np.where(np.isinf(top), np.inf, np.nextafter(top, -np.inf))
        utility = np.minimum(list_utilities, highest[table.owner])
        utility[scored] = known
        return utility

    def scores(
        self, table: FeatureTable, logits: np.ndarray, list_utilities: np.ndarray | None
    ) -> CandidateScores:
        """Scores of the candidates; with a fusion, those of a list's concepts sum to less than one.

        Arguments are those of `utilities`.
        """
        utility = self.utilities(table, logits, list_utilities)
        if self.fusion is None:
            probabilities = self.calibrator(utility)
        else:
            calibrated = self.calibrator.log_odds(utility)
            probabilities = sigmoid(conditional_log_odds(calibrated, table.offsets, table.concepts))
        if list_utilities is None:
            list_utilities = np.full(len(logits), np.nan)
        return CandidateScores(logits, utility, probabilities, list_utilities)

    def to_dict(self) -> dict[str, Any]:
        """Its entry in ``calibrator.json``."""
        return {
            "name": self.name,
            "missing": list(self.missing),
            "fusion": self.fusion and self.fusion.to_dict(),
            "list_fusion": self.list_fusion and self.list_fusion.to_dict(),
        } | self.calibrator.to_dict()

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
        fusions = {}
        for key in ("fusion", "list_fusion"):
            if state[key] is not None:
                fusions[key] = FeatureFusion.from_dict(state[key], scores)
        return cls(
            calibrator=Calibrator.from_dict(state),
            thresholds=thresholds,
            missing=tuple(state["missing"]),
            name=str(state["name"]),
            **fusions,
        )


def with_lowest_logit(logits: np.ndarray) -> np.ndarray:
    """Logits (m,) with a very low one of candidates without any, where no other feature decides."""
    return np.where(np.isnan(logits), np.float32(LOWEST_LOGIT), logits)


class ModelChoice(NamedTuple):
    """The models that decide about n mentions.

    Attributes:
        models: (n,) int64, index into `Calibration.models`.
        complete: (n,) bool, whether the mention has all inputs of its model.
        missing: input that the model of all inputs reads -> (n,) bool, mentions without it.
    """

    models: np.ndarray
    complete: np.ndarray
    missing: dict[str, np.ndarray]


@dataclass(eq=False)
class Calibration:
    """Turns logits and candidate lists into decisions.

    Attributes:
        models: the model of all inputs, then the fallback models, that of most inputs first, then
            those that read the order of lists with scores; by default the identity.
        counts: counts of mentions of training and calibration; needed with fusions, else empty.
        training_counts: counts of the training mentions alone, which are saved for a calibration on
            the same documents; None once loaded.
        score_ranges: name -> range of the retrieval scores used; scores outside count as missing.
        index_key: index key of the lists that it was fitted on (`CandidateLists.index_keys`).
            Scores of our own retrievers count as missing in lists with another key.
        list_scores: name of each score of the lists that it was fitted on -> whether all had it;
            None: it is for nobody's lists in particular, as ``built-in``.
        fitted_on: further facts about those lists; decisions do not read them.
        history: the documents that it was calibrated on, and the studies of its certificates;
            decisions do not read it.
    """

    models: Sequence[CalibratedModel] = (CalibratedModel(),)
    counts: StringCounts = field(default_factory=lambda: StringCounts.fit([]))
    score_ranges: Mapping[str, ScoreRange] = field(default_factory=dict)
    index_key: str = ""
    history: StudyHistory = NO_HISTORY
    training_counts: StringCounts | None = None
    list_scores: Mapping[str, bool] | None = None
    fitted_on: Mapping[str, Any] = field(default_factory=dict)
    _choices: dict[tuple[str, ...], dict[int, list[str]]] = field(
        init=False, default_factory=dict, repr=False
    )

    @property
    def thresholds(self) -> ThresholdTable:
        """Thresholds of the model of all inputs."""
        return self.models[0].thresholds

    @property
    def uses_cross_encoder(self) -> bool:
        """Whether any of the models weighs the cross-encoder."""
        return any(model.uses_cross_encoder for model in self.models)

    @cached_property
    def _features(self) -> list[str]:
        """The features that any of its models weighs."""
        return list(dict.fromkeys(name for model in self.models for name in model.features))

    @cached_property
    def scores(self) -> tuple[str, ...]:
        """Scores that its models read: all candidates of a list must have them, or none."""
        read = inputs_of(self._features)
        return tuple(name.removesuffix(SUFFIX) for name in read if name.endswith(SUFFIX))

    @cached_property
    def lowest(self) -> dict[str, float]:
        """For `with_whole_scores`: retrievers that did not find all candidates of calibration."""
        return {
            name: score_range.low
            for name, score_range in self.score_ranges.items()
            if name + FOUND in self.models[0].features
        }

    def choices(self, cross_encoder_inputs: Sequence[str]) -> dict[int, list[str]]:
        """The inputs that each model reads, in the order of choice, by its index in `models`.

        Models that read the order of lists with scores come before all others. It is made once;
        arguments are those of `model_for`.
        """
        key = tuple(cross_encoder_inputs)
        if key not in self._choices:
            numbers = sorted(
                range(len(self.models)),
                key=lambda n: SCORED_POSITION not in self.models[n].features,
            )
            self._choices[key] = {n: self.models[n].reads(key) for n in numbers}
        return self._choices[key]

    def model_for(
        self, lists: CandidateLists, cross_encoder_inputs: Sequence[str] = ()
    ) -> ModelChoice:
        """For each mention the first model whose inputs it has, else the last.

        Args:
            lists: lists of the mentions, with usable scores (`with_usable_scores`).
            cross_encoder_inputs: inputs that the cross-encoder reads besides mention and name.
        """
        choices = self.choices(cross_encoder_inputs)
        missing = {name: is_missing(lists, name, self.counts) for name in choices[0]}
        count = len(lists)
        models = np.zeros(count, np.int64)
        undecided = np.ones(count, bool)
        for number, read in choices.items():
            if not undecided.any():
                break
            models[undecided] = number
            lacks_any = np.zeros(count, bool)
            for name in read:
                if name not in missing:
                    missing[name] = is_missing(lists, name, self.counts)
                lacks_any |= missing[name]
            undecided = undecided & lacks_any
        return ModelChoice(models, ~undecided, {name: missing[name] for name in choices[0]})

    @property
    def source(self) -> str:
        """The lists that it gives tiers to (`gives_tiers_to`), in words."""
        ranges = {name: known._asdict() for name, known in self.score_ranges.items()}
        return source_in_words({**vars(self), "score_ranges": ranges})

    def gives_tiers_to(self, lists: CandidateLists) -> np.ndarray:
        """Whether each mention's list is of the source that it was calibrated on, (n,) bool.

        Tiers and decisions hold for such lists only: those of its index, by the key; or else lists
        of no index, with the same scores. In both, some score is in the range of calibration: where
        none is, they are of another scale.
        """
        of_source = lists.are_of(self.index_key) & self._has_usable_score(lists)
        if self.index_key or self.list_scores is None:
            return of_source
        keys = (*self.list_scores, *lists.scores, *lists.unread_scores)
        for name in {key.removesuffix(SUFFIX) for key in keys} - {TEACHER}:
            # One that only some lists of calibration had may be there or not.
            if self.list_scores.get(name, not name.endswith(FOUND)):
                of_source &= lists.have_score(name) == (name in self.list_scores)
        return of_source

    def _has_usable_score(self, lists: CandidateLists) -> np.ndarray:
        """Whether any score of each list is in its range, (n,) bool.

        User-provided lists without any of the scores have none to judge by, and count. The
        retrievers of an index give scores to all candidates.
        """
        has_score = np.zeros(len(lists), bool)
        has_usable_score = np.zeros(len(lists), bool)
        for name in lists.scores.keys() & self.score_ranges.keys():
            usable = self.score_ranges[name].inside(lists.scores[name])
            has_score |= lists.have_score(name)
            has_usable_score |= lists_with_any(np.isfinite(usable), lists.offsets)
        if self.index_key and self.score_ranges:
            has_candidates = np.diff(lists.offsets) > 0
            return has_usable_score | ~has_candidates
        return has_usable_score | ~has_score

    def feature_table(self, lists: CandidateLists, model: CalibratedModel) -> FeatureTable:
        """The features that a model weighs, besides the cross-encoder."""
        if model.fusion is None:
            return FeatureTable.of(lists, {}, {})
        return feature_table(lists, self.counts, model.fusion.weights)

    def with_usable_scores(self, lists: Lists) -> Lists:
        """The lists with NaN for scores that are out of range, or our own with another index.

        Scores that are read for their ranks alone count with any index.
        """
        usable = {}
        for name in lists.scores.keys() & self.score_ranges.keys():
            usable[name] = self.score_ranges[name].inside(lists.scores[name])
            # Other scores of the same name may be cosines too, which no range tells apart.
            if name in INDEX_SCORES:
                is_ours = lists.are_of(self.index_key)[lists.owner]
                usable[name] = np.where(is_ours, usable[name], np.nan)
        return lists.with_columns(scores={**lists.scores, **usable}) if usable else lists

    def to_dict(self) -> dict[str, Any]:
        """The content of ``calibrator.json`` that decides scores."""
        state: dict[str, Any] = {
            "index_key": self.index_key,
            "models": [model.to_dict() for model in self.models],
            **self.history.to_dict(),
        }
        if self.list_scores is not None:
            state["list_scores"] = dict(self.list_scores)
        if self.score_ranges:
            state["score_ranges"] = {
                name: score_range._asdict() for name, score_range in self.score_ranges.items()
            }
        return state

    @classmethod
    def load(cls, state: dict[str, Any], thresholds: dict[str, Any], folder: Path) -> Calibration:
        """Load from the content of ``calibrator.json`` and ``thresholds.json``, and the counts.

        Raises:
            UserError: something is missing or damaged.
        """
        tables = load_thresholds(thresholds)
        try:
            calibration = cls(
                _load_models(state, tables),
                index_key=state["index_key"],
                list_scores=state.get("list_scores"),
                fitted_on=state.get("fitted_on") or {},
            )
            calibration.score_ranges = _load_ranges(state, calibration._features)
            is_needed = bool({*INDEX_SCORES} & {*calibration.score_ranges})
            if not isinstance(state["index_key"], str) or (is_needed and not state["index_key"]):
                raise ValueError(f"{state['index_key']!r} is not a known key")
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                "calibrator.json: models, score_ranges (the range of each retriever's scores) or "
                f"index_key (which index its scores are of) is missing or damaged ({error!r}); "
                "run umls-reranker calibrate again"
            ) from None
        calibration.history = StudyHistory.from_dict(state, Path("calibrator.json"))
        if calibration.models[0].fusion:
            calibration.counts = StringCounts.load(folder / COUNTS_FILE)
        return calibration


def source_in_words(state: Mapping[str, Any]) -> str:
    """The lists that a model gives tiers to, by the content of ``calibrator.json``."""
    scores = state.get("list_scores")
    what = f"lists of the index {state['index_key'][:12]}"
    if not state["index_key"]:
        if scores is None:
            return "lists of no index, and certifies nothing"
        ranges = state.get("score_ranges") or {}
        named = [_score_in_words(name, has, ranges.get(name)) for name, has in scores.items()]
        what = f"lists of no index, with {', '.join(named) or 'no scores'}"
    facts = state.get("fitted_on") or {}
    dictionary = f" completed by {facts['dictionary']}," if facts.get("dictionary") else ""
    documents = f"{facts['documents']:,}" if "documents" in facts else "some"
    return f"{what},{dictionary} as in {documents} documents"


def _score_in_words(name: str, is_in_all: bool, known: Mapping[str, Any] | None) -> str:
    """A score of the lists of calibration: whether all had it, and its range."""
    facts = []
    if not is_in_all:
        facts.append("not in all")
    if known is not None:
        low, high = ScoreRange.from_dict(known).bounds
        facts.append(f"from {low:.3g} to {high:.3g}")
    return f"{name}{SUFFIX} ({', '.join(facts)})" if facts else f"{name}{SUFFIX}"


def rank(
    lists: CandidateLists,
    score: Callable[[CandidateLists, np.ndarray], Scores] | Scores,
    calibration: Calibration,
    *,
    cross_encoder_inputs: Sequence[str] = (),
    accept_tier: str = "medium",
    exhaustive: bool = False,
) -> Decisions:
    """Decide about all candidates.

    Args:
        lists: the lists of n mentions.
        score: returns the logits of the retained candidates, (m,) bool, of lists without the inputs
            that the deciding model does not read (`score_lists`); others may be NaN. It is called
            once for each deciding model. Or the logits of all candidates, if they are known.
        calibration: the model's calibration.
        cross_encoder_inputs: inputs that it reads besides mention and name (`PairTemplate.reads`).
        accept_tier: lowest tier accepted at rank 1.
        exhaustive: whether to score pruned candidates too (`CalibratedModel.keep_candidates`).
    """
    has_tiers = calibration.gives_tiers_to(lists)
    lists = calibration.with_usable_scores(lists.with_whole_scores(calibration.lowest))
    choice = calibration.model_for(lists, cross_encoder_inputs)
    complete = choice.complete.copy()
    edges = np.empty((len(lists), len(TIERS) - 1))
    truncated = 0 if callable(score) else score.truncated
    computed = 0
    parts = []
    for number in np.unique(choice.models).tolist():
        model = calibration.models[number]
        mentions = choice.models == number
        rows = mentions[lists.owner]
        own_lists = lists if mentions.all() else lists.take(mentions)
        read = without_inputs(own_lists, model.missing)
        table = calibration.feature_table(read, model)
        list_utilities = model.list_utilities(table)
        retained = model.keep_candidates(table, list_utilities)
        if exhaustive and model.uses_cross_encoder:
            retained[:] = True
        logits = np.full(len(retained), np.nan, np.float32)
        if not callable(score):
            logits = score.logits[rows]
        elif retained.any():
            scores = score(read, retained)
            logits = scores.logits
            truncated += scores.truncated
            computed += scores.computed
        complete[mentions] &= ~lists_with_any(retained & np.isnan(logits), table.offsets)
        logits = np.where(retained, logits, np.float32(np.nan))
        parts.append((rows, model.scores(table, logits, list_utilities)))
        edges[mentions] = model.thresholds.edges(read.types)
    return Decisions(
        offsets=lists.offsets,
        concepts=lists.concepts,
        scores=CandidateScores.joined(parts, len(lists.owner)),
        **choice._replace(complete=complete)._asdict(),
        edges=edges,
        has_tiers=has_tiers,
        accept_tier=accept_tier,
        truncated=truncated,
        computed=computed,
    )


def _load_models(
    state: Mapping[str, Any], tables: Mapping[str, ThresholdTable]
) -> list[CalibratedModel]:
    """The models of ``calibrator.json``, with their thresholds by name."""
    names = [str(entry["name"]) for entry in state["models"]]
    if names != list(tables) or not names:
        raise ValueError(f"thresholds.json is of {', '.join(tables)}")
    ranges = state.get("score_ranges") or {}
    scores = [f"{name}{ending}" for ending in ("", FOUND) for name in ranges]
    return [
        CalibratedModel.from_dict(entry, tables[name], scores)
        for name, entry in zip(names, state["models"], strict=True)
    ]


def _load_ranges(state: Mapping[str, Any], features: Iterable[str]) -> dict[str, ScoreRange]:
    """The ranges of the retrieval scores among the features that are weighed."""
    known = state.get("score_ranges") or {}
    ranges = {}
    for name in features:
        is_score = name in INDEX_SCORES or name not in FEATURES
        if is_score and not name.endswith(FOUND):
            ranges[name] = ScoreRange.from_dict(known[name])
    return ranges
