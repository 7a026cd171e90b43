"""The inputs that a model reads, and the mentions that lack some of them.

Calibration, evaluation and serving all use `probabilities.Calibration`, which follows these rules:

* ``cui``, ``preferred_name``: a text that is not blank.
* ``definition``, ``semantic_types``: present. A concept without any has "" or []; None means missing.
* ``context``: text on at least one side of the mention.
* ``entity_type``: at least one type that the model knows.
* scores of retrievers, such as ``bm25_score``: a number in the range that calibration saw, extended by a tenth on each
side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..core.arrays import RepeatedTexts, list_offsets, list_sizes
from ..core.settings import FEATURES
from ..data.candidate_lists import CandidateLists
from ..data.list_columns import FIELDS, encoded_texts

Lists = TypeVar("Lists", bound=CandidateLists)

# Name of the model that reads everything.
ALL_INPUTS = "all"
# Share of a score's range by which scores at serving may exceed it on either side.
MARGIN = 0.1


def inputs_of(features: Sequence[str]) -> list[str]:
    """Inputs that features need; a feature that is not declared is a score of user-provided lists."""
    inputs: list[str] = []
    for feature in features:
        inputs += FEATURES[feature].inputs if feature in FEATURES else (f"{feature}_score",)
    return list(dict.fromkeys(inputs))


def fallback_inputs(features: Sequence[str], network_inputs: Sequence[str] = ()) -> list[tuple[str, ...]]:
    """Sets of inputs that requests may lack, one for each fallback model, that of most inputs first.

    Candidates have everything, names and CUIs, or names; each with and without the mention's type and, if the network
    reads it, its context. Of several sets that leave the same features and the same inputs of the network, one is
    kept.

    Args:
        features: all features that are weighed; none if the cross-encoder alone decides.
        network_inputs: inputs that the network reads (`PairTemplate.reads`).
    """
    read = list(dict.fromkeys([*network_inputs, *inputs_of(features), "entity_type"]))
    all_but_cuis = [name for name in read if name.endswith("_score") or name in ("semantic_types", *FIELDS)]
    removals: dict[tuple, tuple[str, ...]] = {}
    for context in ((), ("context",)) if "context" in network_inputs else ((),):
        for of_mention in ((), ("entity_type",)):
            for of_candidates in ([], all_but_cuis, [*all_but_cuis, "cui"]):
                removed = {*of_mention, *context, *of_candidates}
                left = [feature for feature in features if removed.isdisjoint(inputs_of([feature]))]
                remaining = (tuple(left), tuple(name for name in network_inputs if name not in removed), of_mention)
                if left or not features:
                    removals.setdefault(remaining, tuple(name for name in read if name in removed))
    return list(removals.values())


def inputs_name(features: Sequence[str], removed: Sequence[str]) -> str:
    """Name of the remaining inputs, such as "names and CUIs, no type".

    Args:
        features: as for `fallback_inputs`.
        removed: one of its results.
    """
    of_mention = {"entity_type": "no type", "context": "no context"}
    words = [word for name, word in of_mention.items() if name in removed]
    if not of_mention.keys() >= {*removed}:
        left = inputs_of([feature for feature in features if {*removed}.isdisjoint(inputs_of([feature]))])
        words.insert(0, "names and CUIs" if "cui" in left else "names")
    return ", ".join(words) or ALL_INPUTS


def without(lists: Lists, removed: Sequence[str], mentions: np.ndarray | None = None) -> Lists:
    """The lists without these inputs, for some mentions, (n,) bool, or for all."""
    if mentions is None:
        mentions = np.ones(len(lists), bool)
    if not removed or not mentions.any():
        return lists
    rows, changed = mentions[lists.owner], dict[str, Any]()
    if "cui" in removed:
        changed["cuis"] = RepeatedTexts(
            [*lists.cuis.texts, None], np.where(rows, len(lists.cuis.texts), lists.cuis.codes)
        )
    for name in FIELDS:
        if name in removed:
            column = getattr(lists, f"{name}s")
            changed[f"{name}s"] = pc.if_else(pa.array(rows), pa.scalar(None, pa.string()), column)
    if "context" in removed:
        for side in ("lefts", "rights"):
            pairs = zip(getattr(lists, side), mentions.tolist(), strict=True)
            changed[side] = ["" if is_removed else text for text, is_removed in pairs]
    if "entity_type" in removed:
        changed["types"] = replace(lists.types, codes=np.where(mentions, -1, lists.types.codes))
    if "semantic_types" in removed:
        changed["candidate_types"] = replace(
            lists.candidate_types, codes=np.where(rows, -1, lists.candidate_types.codes)
        )
    changed["scores"] = {
        name: np.where(rows, np.nan, column) if f"{name}_score" in removed else column
        for name, column in lists.scores.items()
    }
    return replace(lists, **changed)


class ScoreRange(NamedTuple):
    """Lowest and highest score of a retriever among the candidates of the calibration split."""

    low: float
    high: float

    @classmethod
    def of(cls, scores: np.ndarray) -> ScoreRange:
        """The range of the finite scores among (m,) scores.

        Raises:
            ValueError: no score is finite.
        """
        finite = scores[np.isfinite(scores)]
        return cls(float(finite.min()), float(finite.max()))

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> ScoreRange:
        """Inverse of `_asdict`; raises an error of any usual kind if the state is not a range."""
        low, high = float(state["low"]), float(state["high"])
        if not -np.inf < low <= high < np.inf:
            raise ValueError(f"{low} to {high} is not a range of finite numbers")
        return cls(low, high)

    @property
    def bounds(self) -> tuple[float, float]:
        """Bounds within which a score counts, including the margin."""
        margin = MARGIN * (self.high - self.low)
        return self.low - margin, self.high + margin

    def inside(self, scores: np.ndarray) -> np.ndarray:
        """The scores, with NaN where they are outside the bounds or not finite, (m,) float64."""
        low, high = self.bounds
        scores = np.asarray(scores, np.float64)
        return np.where((scores >= low) & (scores <= high), scores, np.nan)


def lacking(lists: CandidateLists, name: str, scores: Mapping[str, np.ndarray]) -> np.ndarray:
    """Mentions that lack an input, or have a candidate that lacks it, (n,) bool.

    Args:
        lists: the candidate lists.
        name: name of the input.
        scores: scores of retrievers in place of those of the lists; NaN if out of range.
    """
    if name == "context":
        sides = zip(lists.lefts, lists.rights, strict=True)
        return np.array([not (left + right).strip() for left, right in sides], bool)
    if name == "entity_type":
        return ~lists.types.is_known
    if name == "semantic_types":
        # For a mention without types, it is unknown whether its candidates had any.
        return lists.types.is_known & lists_with_any(lists.candidate_types.codes < 0, lists.offsets)
    if name == "cui":
        lacks = _blank(lists.cuis)
    elif name == "preferred_name":
        lacks = _blank(encoded_texts(lists.preferred_names))
    elif name == "definition":
        lacks = lists.definitions.is_null().to_numpy(zero_copy_only=False)
    else:
        lacks = np.isnan(scores.get(name.removesuffix("_score"), np.full(len(lists.names), np.nan)))
    return lists_with_any(lacks, lists.offsets)


def absent_inputs(lists: CandidateLists, network_inputs: Sequence[str]) -> tuple[str, ...]:
    """Inputs that the network reads and every list lacks, in the order of `network_inputs`."""
    return tuple(name for name in network_inputs if lacking(lists, name, lists.scores).all())


def _blank(column: RepeatedTexts) -> np.ndarray:
    return np.array([not (text and text.strip()) for text in column.texts], bool)[column.codes]


def lists_with_any(candidates: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Whether any candidate of a list is true in `candidates` (m,), (n,) bool."""
    if not candidates.any():
        return np.zeros(len(offsets) - 1, bool)
    return list_sizes(list_offsets(candidates)[offsets]) > 0
