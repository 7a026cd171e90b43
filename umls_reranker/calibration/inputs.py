"""The inputs that a model reads, and the mentions of which some are missing.

Calibration, evaluation and serving all use `probabilities.Calibration`, which follows these rules:

* ``cui``, ``preferred_name``: a text that is not blank.
* ``definition``, ``semantic_types``: present. A concept without any has "" or []; None: missing.
* ``context``: text on at least one side of the mention.
* ``entity_type``: at least one type that the model knows.
* scores of retrievers, such as ``bm25_score``: a number in the range that calibration saw, extended
  by a tenth on each side. Sentinels (`are_sentinels`) are not in it.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from ..core.arrays import RepeatedTexts
from ..lists.candidate_lists import CandidateLists
from ..lists.columns import FIELDS, FOUND, SUFFIX, encoded_texts
from .features import FEATURES

Lists = TypeVar("Lists", bound=CandidateLists)

# Names of the two kinds of model: of all that the lists had, and of names alone. Each has a twin
# without the type.
ALL_INPUTS = "all"
NAMES_ALONE = "names"
NO_TYPE = "no type"
# Share of a score's range by which scores at serving may exceed it on either side.
MARGIN = 0.1
# Interquartile ranges between scores and those that stand for something else, such as -9999.
SENTINEL_RANGES = 50


def inputs_of(features: Iterable[str]) -> list[str]:
    """Inputs that features need; one that is not declared is a score of user-provided lists."""
    inputs: list[str] = []
    for feature in features:
        if feature in FEATURES:
            inputs += FEATURES[feature].inputs
        else:
            inputs.append(feature.removesuffix(FOUND) + SUFFIX)
    return list(dict.fromkeys(inputs))


def missing_by_model(
    features: Sequence[str], cross_encoder_inputs: Sequence[str] = ()
) -> dict[str, tuple[str, ...]]:
    """The inputs that each model does not read, by its name: that of all inputs comes first.

    Args:
        features: all features that are weighed; none if the cross-encoder alone decides.
        cross_encoder_inputs: inputs that the cross-encoder reads (`PairTemplate.reads`).
    """
    read = dict.fromkeys([*cross_encoder_inputs, *inputs_of(features)])
    beyond_names = tuple(name for name in read if name != "entity_type")
    return {
        ALL_INPUTS: (),
        NO_TYPE: ("entity_type",),
        NAMES_ALONE: beyond_names,
        f"{NAMES_ALONE}, {NO_TYPE}": (*beyond_names, "entity_type"),
    }


def without_inputs(lists: Lists, missing: Sequence[str]) -> Lists:
    """The lists without these inputs."""
    if not missing:
        return lists
    count = len(lists)
    size = len(lists.owner)
    blanks: dict[str, dict[str, Any]] = {
        "cui": {"cuis": RepeatedTexts([None], np.zeros(size, np.int64))},
        "context": {"lefts": [""] * count, "rights": [""] * count},
        "entity_type": {"types": replace(lists.types, codes=np.full(count, -1))},
        "semantic_types": {
            "candidate_types": replace(lists.candidate_types, codes=np.full(size, -1))
        },
    }
    blanks |= {name: {f"{name}s": pa.nulls(size, pa.string())} for name in FIELDS}
    scores = {
        name: np.full(size, np.nan) if f"{name}{SUFFIX}" in missing else column
        for name, column in lists.scores.items()
    }
    columns = [blanks[name] for name in missing if name in blanks]
    return lists.with_columns(**ChainMap({"scores": scores}, *columns))


def are_sentinels(scores: np.ndarray) -> np.ndarray:
    """Finite scores so far from all others that they stand for something else, (m,) bool.

    They lie more than `SENTINEL_RANGES` interquartile ranges below or above the quartiles, and as
    far from all other scores: a long tail of scores without a gap is none. Quartiles are those of
    the distinct scores, since a sentinel, or a score of nothing, may be that of most candidates.
    """
    finite = np.unique(scores[np.isfinite(scores)])
    if not len(finite):
        return np.zeros(len(scores), bool)
    lower, upper = np.quantile(finite, [0.25, 0.75])
    # The difference of two finite numbers may be too large.
    with np.errstate(over="ignore"):
        reach = SENTINEL_RANGES * (upper - lower)
    inner = finite[(finite >= lower - reach) & (finite <= upper + reach)]
    if reach == 0 or not len(inner):
        return np.zeros(len(scores), bool)
    below = np.isfinite(scores) & (scores < lower - reach)
    above = np.isfinite(scores) & (scores > upper + reach)
    below &= (scores[below] < inner.min() - reach).all()
    above &= (scores[above] > inner.max() + reach).all()
    return below | above


class ScoreRange(NamedTuple):
    """Lowest and highest score of a retriever among the candidates of the calibration split."""

    low: float
    high: float

    @classmethod
    def of(cls, scores: np.ndarray) -> ScoreRange:
        """The range of the finite scores among (m,) scores that are no sentinels.

        Raises:
            ValueError: no score is finite.
        """
        finite = scores[np.isfinite(scores) & ~are_sentinels(scores)]
        return cls(float(finite.min()), float(finite.max()))

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> ScoreRange:
        """Inverse of `_asdict`; raises an error of any usual kind if the state is not a range."""
        scores = cls(float(state["low"]), float(state["high"]))
        if not -np.inf < scores.low <= scores.high < np.inf:
            raise ValueError(f"{scores.low} to {scores.high} is not a range of finite numbers")
        return scores

    @property
    def bounds(self) -> ScoreRange:
        """The range within which a score counts: this one with its margin."""
        margin = MARGIN * (self.high - self.low)
        return ScoreRange(self.low - margin, self.high + margin)

    def inside(self, scores: np.ndarray) -> np.ndarray:
        """The scores, with NaN where they are out of bounds or not finite, (m,) float64."""
        low, high = self.bounds
        scores = np.asarray(scores, np.float64)
        return np.where((scores >= low) & (scores <= high), scores, np.nan)


def is_missing(lists: CandidateLists, name: str) -> np.ndarray:
    """Mentions of which an input is missing, or that of one of their candidates, (n,) bool."""
    match name:
        case "context":
            sides = zip(lists.lefts, lists.rights, strict=True)
            return np.array([not (left + right).strip() for left, right in sides], bool)
        case "entity_type":
            return ~lists.types.is_known
        case "semantic_types":
            # For a mention without types, it is unknown whether its candidates had any.
            is_untyped = lists_with_any(lists.candidate_types.codes < 0, lists.offsets)
            return lists.types.is_known & is_untyped
        case "cui":
            missing = _is_blank(lists.cuis)
        case "preferred_name":
            missing = _is_blank(encoded_texts(lists.preferred_names))
        case "definition":
            missing = lists.definitions.is_null().to_numpy(zero_copy_only=False)
        case _:
            never_given = np.full(len(lists.owner), np.nan)
            missing = np.isnan(lists.scores.get(name.removesuffix(SUFFIX), never_given))
    return lists_with_any(missing, lists.offsets)


def always_missing(lists: CandidateLists, inputs: Sequence[str]) -> tuple[str, ...]:
    """Those of some inputs that are missing of every mention, in their order."""
    return tuple(name for name in inputs if is_missing(lists, name).all())


def _is_blank(column: RepeatedTexts) -> np.ndarray:
    return np.array([not (text and text.strip()) for text in column.texts], bool)[column.codes]


def lists_with_any(candidates: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Whether any candidate of a list is true in `candidates` (m,), (n,) bool."""
    before = np.append(0, np.cumsum(candidates))[offsets]
    return before[1:] > before[:-1]
