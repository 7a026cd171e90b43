"""From logits and all else that is known about candidates to calibrated probabilities."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import UserError
from ..data.candidate_lists import SCORES, CandidateLists
from .calibrators import ListwiseCalibrator
from .choice import choice_log_odds
from .features import features
from .fusion import CANDIDATE_FEATURES, FeatureFusion
from .inputs import INPUTS_OF_FEATURES, ScoreRange, lacking, lists_with_any
from .logistic import sigmoid
from .score_maps import Calibrator
from .string_counts import StringCounts

__all__ = [
    "COUNTS_FILE",
    "CalibratedScores",
    "Calibration",
    "fit_fusions",
]

COUNTS_FILE = "string_counts.safetensors"
# Features that need the mention's semantic type, and those that need the candidate's as well.
TYPE_FEATURES, FIT_FEATURES = ("type_lift", "type_fit"), ("type_fit",)


@dataclass(frozen=True)
class CalibratedScores:
    """Scores of m candidates of n mentions.

    Attributes:
        log_odds: (m,) what the candidates of a list are ranked by: the cross-encoder's own log-odds or, where features
            are fused, those of each candidate against "none of these".
        probabilities: (m,) float64, calibrated.
        complete: (n,) bool, whether a mention and all its candidates came with all that the model reads.
        missing: inputs that the model reads -> (n,) bool, which mentions came without.
    """

    log_odds: np.ndarray
    probabilities: np.ndarray
    complete: np.ndarray
    missing: Mapping[str, np.ndarray] = field(default_factory=dict)


class Calibration:
    """The calibrator and, where features are fused, what comes before it.

    Args:
        fusions: the full one first; the others are without the candidates' types, without the mention's, without what
            retrieval gives, or without all of that, for mentions that come without it. None: the cross-encoder alone
            decides.
        counts: of the training split; needed with fusions, empty without.
        calibrator: of log-odds; the identity unless given. With fusions it works inside lists, on the candidates'
            log-odds against "none of these", so that a list's probabilities stay a choice.
        baseline: the fusion of everything but the cross-encoder, which the report compares with the whole.
        score_ranges: of the scores of retrievers that the fusions weigh, by their names; scores beyond count as
            missing.
    """

    def __init__(
        self,
        fusions: Sequence[FeatureFusion] = (),
        counts: StringCounts | None = None,
        calibrator: Calibrator | None = None,
        baseline: FeatureFusion | None = None,
        score_ranges: Mapping[str, ScoreRange] | None = None,
    ) -> None:
        self.calibrator = calibrator or ListwiseCalibrator()
        self.baseline = baseline
        self.fusions = list(fusions)
        self.counts = StringCounts.fit([]) if counts is None else counts
        self.score_ranges = dict(score_ranges or {})

    def __call__(self, lists: CandidateLists, logits: np.ndarray, reads: Sequence[str] = ()) -> CalibratedScores:
        """Calibrated scores of all candidates; with fusions those of a list's concepts sum to less than one.

        Args:
            lists: of n mentions.
            logits: (m,) raw log-odds of the cross-encoder.
            reads: inputs that its template reads besides mention and name (`PairTemplate.reads`).
        """
        scores = self._in_range(lists)
        missing = self._missing(lists, reads, scores)
        complete = np.ones(len(lists), bool)
        for lacks in missing.values():
            complete &= ~lacks
        types = lists.types.take(lists.owner)
        if not self.fusions:
            return CalibratedScores(logits, self.calibrator(logits, types), complete, missing)
        utility, full = self._utilities(lists, logits, scores)
        calibrated = self.calibrator.log_odds(utility, types)
        # A fallback is itself a fitted probability; the calibrator belongs to the full fusion.
        calibrated = np.where(full[lists.owner], calibrated, utility)
        log_odds = choice_log_odds(calibrated, np.zeros(len(lists)), lists.offsets, lists.concepts)
        return CalibratedScores(utility, sigmoid(log_odds), complete, missing)

    @property
    def scores(self) -> tuple[str, ...]:
        """Retrievers whose scores lists may bring: the usual ones, and those that are weighed here."""
        return tuple(dict.fromkeys((*SCORES, *self.score_ranges)))

    def missing_inputs(self, lists: CandidateLists, reads: Sequence[str] = ()) -> dict[str, np.ndarray]:
        """Inputs that template, fusion or calibrator read -> (n,) bool, mentions that came without.

        What certifies the high tier was measured on mentions that came with all of them.
        """
        return self._missing(lists, reads, self._in_range(lists))

    def _missing(
        self, lists: CandidateLists, reads: Sequence[str], scores: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        names = list(reads)
        for feature in self.fusions[0].read if self.fusions else ():
            own = (f"{feature}_score",) if feature in self.score_ranges else ()
            names += INPUTS_OF_FEATURES.get(feature, own)
        names += ["entity_type"] if self.calibrator.reads_types else []
        return {name: lacking(lists, name, scores) for name in dict.fromkeys(names)}

    def _in_range(self, lists: CandidateLists) -> dict[str, np.ndarray]:
        ranges = self.score_ranges
        return {
            name: ranges[name].inside(column) if name in ranges else column for name, column in lists.scores.items()
        }

    def utilities(self, lists: CandidateLists, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log-odds of candidates against none, (m,), by the first fusion that a list's features allow,
        else by the last; and whether that is the first, (n,) bool."""
        return self._utilities(lists, logits, self._in_range(lists))

    def _utilities(
        self, lists: CandidateLists, logits: np.ndarray, scores: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        candidates, about_lists = features(lists, self.counts)
        candidates |= {**scores, "cross_encoder": np.asarray(logits, np.float64)}
        nothing = np.full(len(logits), np.nan)
        columns = {name: candidates.get(name, nothing) for fusion in self.fusions for name in fusion.weights}
        filled = {name: _filled(column) for name, column in columns.items()}
        full = _is_whole(self.fusions[0].read, columns, lists.offsets)
        if full.all():
            return self.fusions[0].utilities(filled, about_lists, lists.offsets), full
        allowed = np.array([_is_whole(fusion.read, columns, lists.offsets) for fusion in self.fusions])
        allowed[-1] = True
        chosen = allowed.argmax(axis=0)
        owner, utility = lists.owner, np.zeros(len(logits))
        for number in np.unique(chosen):
            here = chosen[owner] == number
            utility[here] = self.fusions[number].utilities(filled, about_lists, lists.offsets)[here]
        return utility, full

    def without_cross_encoder(self, lists: CandidateLists) -> np.ndarray | None:
        """Log-odds of all candidates by the baseline, (m,) float64; None where there is none."""
        if self.baseline is None:
            return None
        candidates, about_lists = features(lists, self.counts)
        candidates |= self._in_range(lists)
        filled = {name: np.nan_to_num(column) for name, column in candidates.items()}
        return self.baseline(filled, about_lists, lists.offsets, lists.concepts)

    def to_dict(self) -> dict[str, Any]:
        """The content of ``calibrator.json`` that decides scores, and the baseline."""
        state = self.calibrator.to_dict()
        if self.fusions:
            state["fusions"] = [fusion.to_dict() for fusion in self.fusions]
            state["score_ranges"] = {name: found._asdict() for name, found in self.score_ranges.items()}
        if self.baseline is not None:
            state["without_cross_encoder"] = self.baseline.to_dict()
        return state

    @classmethod
    def load(cls, state: dict[str, Any], folder: Path) -> Calibration:
        """From the content of ``calibrator.json`` and the counts next to it.

        Raises:
            UserError: a part of it is missing or damaged.
        """
        ranges = state.get("score_ranges")
        scores = tuple(ranges) if isinstance(ranges, Mapping) else ()
        fusions = [FeatureFusion.from_dict(fusion, scores) for fusion in state.get("fusions", [])]
        counts = StringCounts.load(folder / COUNTS_FILE) if fusions else None
        baseline = state.get("without_cross_encoder")
        return cls(
            fusions,
            counts,
            Calibrator.from_dict(state),
            baseline and FeatureFusion.from_dict(baseline, scores),
            _ranges(ranges, fusions[0].weights) if fusions else None,
        )


def _ranges(state: Any, weighed: Iterable[str]) -> dict[str, ScoreRange]:
    """The ranges in ``calibrator.json`` of the scores among what is weighed."""
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


def _filled(column: np.ndarray) -> np.ndarray:
    """What is missing counts nothing."""
    lacking = np.isnan(column)
    return np.where(lacking, 0.0, column) if lacking.any() else column


def _is_whole(names: Iterable[str], columns: Mapping[str, np.ndarray], offsets: np.ndarray) -> np.ndarray:
    """(n,) bool, whether all candidates of a list have all of the named features."""
    lacking = np.isnan(sum((columns[name] for name in names), np.zeros(offsets[-1])))
    return ~lists_with_any(lacking, offsets)


def fit_fusions(
    names: Sequence[str],
    lists: CandidateLists,
    logits: np.ndarray,
    gold: np.ndarray,
    counts: StringCounts,
    *,
    full_only: bool = False,
) -> Calibration:
    """Fit the fusion of the named features, and the fallbacks without those that serving may lack.

    Args:
        names: features, of `fusion.CANDIDATE_FEATURES`, or of further retrievers whose scores the lists carry.
        lists: to fit on.
        logits: (m,) of their candidates.
        gold: (n,) place of the right concept in its list, -1 where it is not there.
        counts: of the training split.
        full_only: leave out the others and the baseline, where lists as whole as these are all there is to score.

    Returns:
        The fusions with the baseline and an identity for calibrator.

    Raises:
        UserError: a feature that does not exist, or that the candidate lists do not carry.
    """
    candidates, about_lists = features(lists, counts)
    candidates["cross_encoder"] = logits
    for name in names:
        if name not in {*CANDIDATE_FEATURES, *lists.scores}:
            raise UserError(f"features: {name!r} is unknown; choose from {', '.join(CANDIDATE_FEATURES)}")
        if name not in candidates:
            raise UserError(
                f"features: the candidate lists hold no {name} scores; name that retriever in `retrievers`"
            )

    def fit(names: Sequence[str]) -> FeatureFusion:
        columns = {name: candidates[name] for name in names}
        # A calibration mention without types supports no candidate.
        columns |= {name: np.nan_to_num(columns[name]) for name in TYPE_FEATURES if name in columns}
        return FeatureFusion.fit(columns, about_lists, lists.offsets, gold)

    ranges = {name: ScoreRange.of(candidates[name]) for name in lists.scores if name in names}
    if full_only:
        return Calibration([fit(names)], counts, score_ranges=ranges)
    lacks = [(*types, *scores) for scores in ((), lists.scores) for types in ((), FIT_FEATURES, TYPE_FEATURES)]
    fallbacks = dict.fromkeys(tuple(name for name in names if name not in lacking) for lacking in lacks)
    fallbacks.pop((), None)
    others = [name for name in names if name != "cross_encoder"]
    baseline = fit(others) if others and len(others) < len(names) else None
    return Calibration([fit(fallback) for fallback in fallbacks], counts, baseline=baseline, score_ranges=ranges)
