"""From logits and other features of candidates to calibrated probabilities.

A `Calibration` holds one `InputModel` per expected set of inputs: the first reads all, the others are fallbacks. Each
has its own weights, calibrator and thresholds, fitted on the calibration lists with these inputs removed. The first
model whose inputs a mention has decides, and ignores all other inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..core.arrays import list_offsets, list_sizes
from ..core.errors import UserError
from ..data.candidate_lists import SCORES, CandidateLists
from .calibrators import ListwiseCalibrator
from .choice import choice_log_odds
from .features import features
from .fusion import CANDIDATE_FEATURES, FeatureFusion
from .inputs import ALL_INPUTS, ScoreRange, inputs_of, lacking, lists_with_any, without
from .logistic import sigmoid
from .score_maps import Calibrator, Types
from .string_counts import StringCounts
from .thresholds import ThresholdTable, load_thresholds

__all__ = ["COUNTS_FILE", "CalibratedScores", "Calibration", "Choice", "InputModel"]

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
        calibrator: of log-odds. With a fusion it works inside lists, on the candidates' log-odds against "none of
            these", so that a list's probabilities stay a choice.
        fusion: of features; None: the cross-encoder alone decides.
        thresholds: on the probabilities, with the certificate of the tier high.
        removed: inputs removed from the lists it was fitted on; none for the model that reads all.
        name: of its inputs, in a few words: "all", "no scores", "names and CUIs, no type".
    """

    calibrator: Calibrator = field(default_factory=ListwiseCalibrator)
    fusion: FeatureFusion | None = None
    thresholds: ThresholdTable = field(default_factory=ThresholdTable.uncertified)
    removed: tuple[str, ...] = ()
    name: str = ALL_INPUTS

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

    def scores(
        self,
        columns: Mapping[str, np.ndarray],
        about_lists: Mapping[str, np.ndarray],
        logits: np.ndarray,
        types: Types,
        offsets: np.ndarray,
        concepts: np.ndarray,
    ) -> CalibratedScores:
        """Scores of the candidates of n lists; with a fusion, those of a list's concepts sum to less than one.

        Args:
            columns, about_lists: `features`, scores that are out of range as NaN.
            logits: (m,) raw log-odds of the cross-encoder.
            types: of the mention of each of the m candidates.
            offsets, concepts: of the lists.
        """
        if self.fusion is None:
            return CalibratedScores(logits, self.calibrator(logits, types))
        columns = {**columns, "cross_encoder": np.asarray(logits, np.float64)}
        nothing = np.full(len(logits), np.nan)
        columns = {name: columns.get(name, nothing) for name in self.fusion.weights}
        filled = {name: _filled(column) for name, column in columns.items()}
        utility = self.fusion.utilities(filled, about_lists, offsets)
        lacks = np.isnan(sum((columns[name] for name in self.fusion.read), np.zeros(len(logits))))
        calibrated = self.calibrator.log_odds(utility, types)
        if lacks.any():
            # The calibrator was fitted to the utilities of lists with all features.
            whole = ~lists_with_any(lacks, offsets)
            calibrated = np.where(np.repeat(whole, list_sizes(offsets)), calibrated, utility)
        log_odds = choice_log_odds(calibrated, np.zeros(len(offsets) - 1), offsets, concepts)
        return CalibratedScores(utility, sigmoid(log_odds))

    def to_dict(self) -> dict[str, Any]:
        """Its entry in ``calibrator.json``."""
        fusion = None if self.fusion is None else self.fusion.to_dict()
        return {"name": self.name, "removed": list(self.removed), "fusion": fusion} | self.calibrator.to_dict()


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
        baseline: the fusion of everything but the cross-encoder, for comparison in the report.
        score_ranges: of the retrieval scores used, by name; scores outside count as missing.
    """

    def __init__(
        self,
        models: Sequence[InputModel] = (),
        counts: StringCounts | None = None,
        baseline: FeatureFusion | None = None,
        score_ranges: Mapping[str, ScoreRange] | None = None,
    ) -> None:
        self.models = list(models) or [InputModel()]
        self.baseline = baseline
        self.counts = StringCounts.fit([]) if counts is None else counts
        self.score_ranges = dict(score_ranges or {})

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
        scores, found = self._in_range(lists), dict[str, np.ndarray]()

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

    def __call__(self, lists: CandidateLists, logits: np.ndarray, models: np.ndarray) -> CalibratedScores:
        """Calibrated scores of the candidates of n lists.

        Args:
            lists: as `as_read`.
            logits: (m,) raw log-odds of the cross-encoder, of just these lists.
            models: (n,) what decides, as of `choose`.
        """
        columns, about = ({}, {}) if self.models[0].fusion is None else features(lists, self.counts)
        columns |= self._in_range(lists)
        types, used = lists.types.take(lists.owner), np.unique(models).tolist()
        if len(used) < 2:
            model = self.models[used[0] if used else 0]
            return model.scores(columns, about, logits, types, lists.offsets, lists.concepts)
        found = CalibratedScores(np.empty(len(logits)), np.empty(len(logits)))
        for number in used:
            inside = models == number
            rows = inside[lists.owner]
            parts = (
                {name: column[where] for name, column in part.items()}
                for part, where in ((columns, rows), (about, inside))
            )
            offsets = list_offsets(list_sizes(lists.offsets)[inside])
            own = self.models[number].scores(*parts, logits[rows], types.take(rows), offsets, lists.concepts[rows])
            for column, part in zip(found, own, strict=True):
                column[rows] = part
        return found

    def _in_range(self, lists: CandidateLists) -> dict[str, np.ndarray]:
        ranges = self.score_ranges
        return {
            name: ranges[name].inside(column) if name in ranges else column for name, column in lists.scores.items()
        }

    def without_cross_encoder(self, lists: CandidateLists) -> np.ndarray | None:
        """Log-odds of all candidates by the baseline, (m,) float64; None without a baseline."""
        if self.baseline is None:
            return None
        candidates, about_lists = features(lists, self.counts)
        candidates |= self._in_range(lists)
        filled = {name: np.nan_to_num(column) for name, column in candidates.items()}
        return self.baseline(filled, about_lists, lists.offsets, lists.concepts)

    def to_dict(self) -> dict[str, Any]:
        """The content of ``calibrator.json`` that decides scores, and the baseline."""
        state: dict[str, Any] = {"inputs": [model.to_dict() for model in self.models]}
        if self.score_ranges:
            state["score_ranges"] = {name: found._asdict() for name, found in self.score_ranges.items()}
        if self.baseline is not None:
            state["without_cross_encoder"] = self.baseline.to_dict()
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
            entries = [(str(entry["name"]), entry["fusion"], tuple(entry["removed"])) for entry in state["inputs"]]
            if [name for name, *_ in entries] != list(tables) or not entries:
                raise ValueError(f"thresholds.json is of {', '.join(tables)}")
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"calibrator.json: inputs is missing or damaged ({error!r}); run umls-reranker calibrate again"
            ) from None
        models = [
            InputModel(
                Calibrator.from_dict(own),
                fusion and FeatureFusion.from_dict(fusion, scores),
                tables[name],
                removed,
                name,
            )
            for own, (name, fusion, removed) in zip(state["inputs"], entries, strict=True)
        ]
        fusion, baseline = models[0].fusion, state.get("without_cross_encoder")
        return cls(
            models,
            StringCounts.load(folder / COUNTS_FILE) if fusion else None,
            baseline and FeatureFusion.from_dict(baseline, scores),
            _ranges(ranges, fusion.weights) if fusion else None,
        )


def _filled(column: np.ndarray) -> np.ndarray:
    """Missing values count as 0."""
    lacks = np.isnan(column)
    return np.where(lacks, 0.0, column) if lacks.any() else column


def _ranges(state: Any, weighed: Iterable[str]) -> dict[str, ScoreRange]:
    """The ranges in ``calibrator.json`` of the retrieval scores used."""
    names = [name for name in weighed if name in SCORES or name not in CANDIDATE_FEATURES]
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
