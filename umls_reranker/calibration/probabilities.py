"""From logits and other features of candidates to calibrated probabilities.

A `Calibration` holds one `InputModel` per expected set of inputs: the first reads all, the others are fallbacks. Each
has its own weights, calibrator and thresholds, fitted on the calibration lists with these inputs removed. The first
model whose inputs a mention has decides, and ignores all other inputs.

The cross-encoder scores only candidates that can win: those with a probability of at least `InputModel.cut` by the
other features. The others have the logit NaN, and their odds against "none of these" are those by the other features.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..core.arrays import list_offsets, list_owner, list_sizes
from ..core.errors import UserError
from ..core.retrievers import SCORES
from ..core.sockets import FEATURES
from ..data.candidate_lists import CandidateLists, TypeSets
from .calibrators import IdentityCalibrator
from .choice import choice_log_odds, top_candidates
from .features import features
from .fusion import FeatureFusion
from .history import NO_CERTIFICATES, CertificateHistory
from .inputs import ALL_INPUTS, ScoreRange, inputs_of, lacking, lists_with_any, without
from .logistic import sigmoid
from .score_maps import Calibrator
from .string_counts import StringCounts
from .thresholds import ThresholdTable, load_thresholds

__all__ = [
    "COUNTS_FILE",
    "CalibratedScores",
    "Calibration",
    "Choice",
    "InputModel",
    "Part",
    "calibrated_scores",
    "kept",
]

COUNTS_FILE = "string_counts.safetensors"
Columns = Mapping[str, np.ndarray]


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
        calibrator: of log-odds. With a fusion it works inside lists, on the candidates' log-odds against "none of
            these", so that a list's probabilities stay a choice.
        fusion: of features; None: the cross-encoder alone decides.
        thresholds: on the probabilities, with the certificate of the tier high.
        removed: inputs removed from the lists it was fitted on; none for the model that reads all.
        name: of its inputs, in a few words: "all", "no type", "names and CUIs, no type".
        baseline: the fusion of everything but the cross-encoder; None if there is nothing else.
        cut: candidates of a lower probability by the baseline are left unscored; 0 scores all.
    """

    calibrator: Calibrator = field(default_factory=IdentityCalibrator)
    fusion: FeatureFusion | None = None
    thresholds: ThresholdTable = field(default_factory=ThresholdTable.uncertified)
    removed: tuple[str, ...] = ()
    name: str = ALL_INPUTS
    baseline: FeatureFusion | None = None
    cut: float = 0.0

    def reads(self, shown: Sequence[str] = ()) -> list[str]:
        """Inputs that it was fitted with and that a mention must have.

        Args:
            shown: what the network reads (`PairTemplate.reads`).
        """
        names = [name for name in shown if name not in self.removed]
        names += inputs_of(self.fusion.read if self.fusion else ())
        # A fallback for mentions without a type has thresholds without types.
        by_type = self.calibrator.reads_types or (self.removed and self.thresholds.reads_types)
        names += ["entity_type"] if by_type and "entity_type" not in self.removed else []
        return list(dict.fromkeys(names))

    def to_dict(self) -> dict[str, Any]:
        """Its entry in ``calibrator.json``."""
        parts = {"fusion": self.fusion, "without_cross_encoder": self.baseline}
        fusions = {name: fusion and fusion.to_dict() for name, fusion in parts.items()}
        own = {"name": self.name, "removed": list(self.removed), "cut": self.cut}
        return own | fusions | self.calibrator.to_dict()


@dataclass(frozen=True)
class Part:
    """Mentions that one model decides about: n lists with m candidates.

    Attributes:
        model: what decides.
        rows: places of the candidates among those of all mentions, or a slice of them.
        columns, about_lists: `features`, scores that do not count as NaN.
        types: of the mention of each of the m candidates.
        offsets, concepts: of the lists.
    """

    model: InputModel
    rows: Any
    columns: Columns
    about_lists: Columns
    types: TypeSets
    offsets: np.ndarray
    concepts: np.ndarray

    @classmethod
    def of(
        cls, model: InputModel, lists: CandidateLists, columns: Columns, about_lists: Columns, inside: Any = None
    ) -> Part:
        """The mentions `inside`, (n,) bool, of lists with `features`; None: all of them."""
        mentions: Any = slice(None) if inside is None else inside
        rows: Any = mentions if inside is None else np.flatnonzero(inside[lists.owner])
        return cls(
            model,
            rows,
            {name: column[rows] for name, column in columns.items()},
            {name: column[mentions] for name, column in about_lists.items()},
            lists.types.take(lists.owner[rows]),
            list_offsets(list_sizes(lists.offsets)[mentions]),
            lists.concepts[rows],
        )

    @cached_property
    def _by_baseline(self) -> tuple[np.ndarray, np.ndarray]:
        """(m,) utilities by the baseline, and (m,) bool, where it lacks a feature."""
        assert self.model.baseline is not None  # else there is no cut, and nothing is left unscored
        own, lacks = _weighed(self.model.baseline, self.columns, len(self.concepts))
        return self.model.baseline.utilities(own, self.about_lists, self.offsets), lacks

    def kept(self, cut: float) -> np.ndarray:
        """(m,) bool, which candidates the cross-encoder scores.

        Those with a probability of at least `cut` by the baseline, each list's best by it, and all of a list that
        lacks a feature of it.
        """
        if self.model.baseline is None or not cut:
            return np.ones(len(self.concepts), bool)
        utility, lacks = self._by_baseline
        log_odds = choice_log_odds(utility, self.offsets, self.concepts)
        whole = lists_with_any(lacks, self.offsets).repeat(list_sizes(self.offsets))
        return (sigmoid(log_odds) >= cut) | top_candidates(utility, self.offsets) | whole

    def utilities(self, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log-odds of the candidates against "none of these" by the fusion, and (m,) bool, where it lacks a feature.

        Args:
            logits: (m,) raw log-odds of the cross-encoder, NaN where `kept` is not.
        """
        fusion, scored = self.model.fusion, ~np.isnan(logits)
        assert fusion is not None
        columns = {**self.columns, "cross_encoder": np.where(scored, logits, 0.0)}
        own, lacks = _weighed(fusion, columns, len(logits))
        if scored.all():
            return fusion.utilities(own, self.about_lists, self.offsets), lacks
        inside = list_offsets(scored)[self.offsets]
        known = fusion.utilities({name: column[scored] for name, column in own.items()}, self.about_lists, inside)
        # A candidate that the cross-encoder has not seen never comes first.
        best = np.full(len(inside) - 1, -np.inf)
        np.maximum.at(best, list_owner(inside), known)
        utility = np.minimum(self._by_baseline[0], np.nextafter(best, -np.inf)[list_owner(self.offsets)])
        utility[scored] = known
        return utility, lacks

    def scores(self, logits: np.ndarray) -> CalibratedScores:
        """Scores of the candidates; with a fusion, those of a list's concepts sum to less than one.

        Args:
            logits: as of `utilities`.
        """
        calibrator = self.model.calibrator
        if self.model.fusion is None:
            return CalibratedScores(logits, calibrator(logits, self.types))
        utility, lacks = self.utilities(logits)
        calibrated = calibrator.log_odds(utility, self.types)
        if lacks.any():
            # The calibrator was fitted to the utilities of lists with all features.
            whole = ~lists_with_any(lacks, self.offsets)
            calibrated = np.where(np.repeat(whole, list_sizes(self.offsets)), calibrated, utility)
        log_odds = choice_log_odds(calibrated, self.offsets, self.concepts)
        return CalibratedScores(utility, sigmoid(log_odds))


def kept(parts: Sequence[Part]) -> np.ndarray:
    """(m,) bool, which of all candidates the cross-encoder scores (`Part.kept`).

    Args:
        parts: of all mentions, m candidates together.
    """
    found = np.empty(sum(len(part.concepts) for part in parts), bool)
    for part in parts:
        found[part.rows] = part.kept(part.model.cut)
    return found


def calibrated_scores(parts: Sequence[Part], logits: np.ndarray) -> CalibratedScores:
    """Calibrated scores of all candidates.

    Args:
        parts: of all mentions, m candidates together.
        logits: (m,) raw log-odds of the cross-encoder, of just these lists; NaN of candidates left unscored.
    """
    found = CalibratedScores(np.empty(len(logits)), np.empty(len(logits)))
    for part in parts:
        for column, own in zip(found, part.scores(logits[part.rows]), strict=True):
            column[part.rows] = own
    return found


class Choice(NamedTuple):
    """The deciding model of each of n mentions.

    Attributes:
        models: (n,) int64, index of the model in `Calibration.models`.
        complete: (n,) bool, whether the mention has all inputs of the model; if not, nothing is certified.
        missing: inputs of the first model -> (n,) bool, mentions without them.
    """

    models: np.ndarray
    complete: np.ndarray
    missing: Mapping[str, np.ndarray]


class Calibration:
    """Turns logits and candidate lists into decisions.

    Args:
        models: the model of all inputs, then its fallbacks, those with most inputs first; by default the identity.
        counts: of the training split; needed with fusions, empty without.
        score_ranges: of the retrieval scores used, by name; scores outside count as missing.
        index_key: of the lists that it was fitted on (`CandidateLists.index_keys`); scores of our own retrievers count
            as missing where lists have another.
        history: of its certificates; what decides does not read it.
    """

    def __init__(
        self,
        models: Sequence[InputModel] = (),
        counts: StringCounts | None = None,
        score_ranges: Mapping[str, ScoreRange] | None = None,
        index_key: str = "",
        history: CertificateHistory = NO_CERTIFICATES,
    ) -> None:
        self.models = list(models) or [InputModel()]
        self.counts = StringCounts.fit([]) if counts is None else counts
        self.score_ranges = dict(score_ranges or {})
        self.index_key = index_key
        self.history = history

    @property
    def thresholds(self) -> ThresholdTable:
        """Thresholds of the model of all inputs."""
        return self.models[0].thresholds

    @cached_property
    def scores(self) -> tuple[str, ...]:
        """Retrievers whose scores lists may have: the usual ones, and those used here."""
        return tuple(dict.fromkeys((*SCORES, *self.score_ranges)))

    def choose(self, lists: CandidateLists, shown: Sequence[str] = ()) -> Choice:
        """For each mention the first model whose inputs it has, else the last.

        Args:
            shown: inputs that the network reads in addition to mention and name (`PairTemplate.reads`).
        """
        scores, found = self._counting(lists), dict[str, np.ndarray]()

        def missing(model: InputModel) -> dict[str, np.ndarray]:
            names = model.reads(shown)
            found.update({name: lacking(lists, name, scores) for name in names if name not in found})
            return {name: found[name] for name in names}

        nobody = np.zeros(len(lists), bool)
        first = missing(self.models[0])
        open_, models = np.logical_or.reduce([nobody, *first.values()]), np.zeros(len(lists), np.int64)
        for number, model in enumerate(self.models[1:], start=1):
            if not open_.any():
                break
            models[open_] = number
            open_ = open_ & np.logical_or.reduce([nobody, *missing(model).values()])
        return Choice(models, ~open_, first)

    def as_read(self, lists: CandidateLists, models: np.ndarray) -> CandidateLists:
        """The lists without the inputs that the deciding models, (n,), were fitted without."""
        for number in np.unique(models).tolist():
            lists = without(lists, self.models[number].removed, models == number)
        return lists

    def read(self, lists: CandidateLists) -> tuple[Columns, Columns]:
        """Features of candidates, (m,), with scores that do not count as NaN, and of lists, (n,)."""
        fusion = self.models[0].fusion
        columns, about = ({}, {}) if fusion is None else features(lists, self.counts, fusion.weights)
        return columns | self._counting(lists), about

    def parts(self, lists: CandidateLists, models: np.ndarray) -> list[Part]:
        """The mentions of each model that decides about any.

        Args:
            lists: as `as_read`.
            models: (n,) what decides, as of `choose`.
        """
        columns, about = self.read(lists)
        used = np.unique(models).tolist()
        if len(used) == 1:
            return [Part.of(self.models[used[0]], lists, columns, about)]
        return [Part.of(self.models[number], lists, columns, about, models == number) for number in used]

    def _counting(self, lists: CandidateLists) -> dict[str, np.ndarray]:
        """Scores, (m,), NaN where they are out of range or, of our own retrievers, of another index."""
        scores, ranges = dict(lists.scores), self.score_ranges
        is_ours = lists.are_of(self.index_key)[lists.owner]
        for name in scores:
            if name in ranges:
                scores[name] = ranges[name].inside(scores[name])
            # Other scores of the same name may be cosines too, which no range tells apart.
            if name in SCORES and not is_ours.all():
                scores[name] = np.where(is_ours, scores[name], np.nan)
        return scores

    def without_cross_encoder(self, lists: CandidateLists) -> np.ndarray | None:
        """Log-odds of all candidates by the first model's baseline, (m,) float64; None without one."""
        baseline = self.models[0].baseline
        if baseline is None:
            return None
        columns, about = self.read(lists)
        return baseline(_weighed(baseline, columns, len(lists.owner))[0], about, lists.offsets, lists.concepts)

    def to_dict(self) -> dict[str, Any]:
        """The content of ``calibrator.json`` that decides scores."""
        state: dict[str, Any] = {
            "index_key": self.index_key,
            "inputs": [model.to_dict() for model in self.models],
            "certificates": self.history.to_list(),
        }
        if self.score_ranges:
            state["score_ranges"] = {name: found._asdict() for name, found in self.score_ranges.items()}
        return state

    @classmethod
    def load(cls, state: dict[str, Any], thresholds: dict[str, Any], folder: Path) -> Calibration:
        """From the content of ``calibrator.json`` and ``thresholds.json``, and the counts next to them.

        Raises:
            UserError: a part is missing or damaged.
        """
        ranges, tables = state.get("score_ranges"), load_thresholds(thresholds)
        scores = tuple(ranges) if isinstance(ranges, Mapping) else ()
        try:
            names = [str(entry["name"]) for entry in state["inputs"]]
            if names != list(tables) or not names:
                raise ValueError(f"thresholds.json is of {', '.join(tables)}")
            parts = [
                (entry["fusion"], entry["without_cross_encoder"], tuple(entry["removed"]), float(entry["cut"]))
                for entry in state["inputs"]
            ]
            if not all(0.0 <= cut < 1.0 and (baseline or not cut) for _, baseline, _, cut in parts):
                raise ValueError("a cut is no probability, or has nothing to go by")
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"calibrator.json: inputs is missing or damaged ({error!r}); run umls-reranker calibrate again"
            ) from None
        models = [
            InputModel(
                Calibrator.from_dict(own),
                None if fusion is None else FeatureFusion.from_dict(fusion, scores),
                tables[name],
                removed,
                name,
                None if baseline is None else FeatureFusion.from_dict(baseline, scores),
                cut,
            )
            for own, name, (fusion, baseline, removed, cut) in zip(state["inputs"], names, parts, strict=True)
        ]
        fusion, key = models[0].fusion, state.get("index_key")
        score_ranges = _ranges(ranges, fusion.weights) if fusion else {}
        if not isinstance(key, str) or (not key and {*SCORES} & {*score_ranges}):
            raise UserError(
                "calibrator.json: index_key, which index its scores are of, is missing; run umls-reranker calibrate "
                "again"
            )
        history = CertificateHistory.from_list(state.get("certificates"))
        return cls(models, StringCounts.load(folder / COUNTS_FILE) if fusion else None, score_ranges, key, history)


def _weighed(fusion: FeatureFusion, columns: Columns, rows: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The features of a fusion, 0 where missing, and (m,) bool, where one that has a weight is missing."""
    own = {name: columns[name] if name in columns else np.full(rows, np.nan) for name in fusion.weights}
    lacks = np.isnan(sum((own[name] for name in fusion.read), np.zeros(rows)))
    return {name: _filled(column) for name, column in own.items()}, lacks


def _filled(column: np.ndarray) -> np.ndarray:
    """Missing values count as 0."""
    lacks = np.isnan(column)
    return np.where(lacks, 0.0, column) if lacks.any() else column


def _ranges(state: Any, weighed: Iterable[str]) -> dict[str, ScoreRange]:
    """The ranges in ``calibrator.json`` of the retrieval scores used."""
    names = [name for name in weighed if name in SCORES or name not in FEATURES]
    try:
        ranges = {name: ScoreRange(float(state[name]["low"]), float(state[name]["high"])) for name in names}
        if not all(np.isfinite(found).all() and found.low <= found.high for found in ranges.values()):
            raise ValueError("no range of finite numbers")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"calibrator.json: score_ranges, the range of each retriever's scores, is missing or damaged ({error!r}); "
            "run umls-reranker calibrate again"
        ) from None
    return ranges
