"""Inputs of mentions: which are missing, and the lists without some of them.

Calibration, evaluation and serving follow these rules. An input is there if it is:

* ``cui``, ``preferred_name``: a text that is not blank. Ids of a list are missing, too, if none is
  of a vocabulary that was counted: no count of them would say anything.
* ``definition``, ``semantic_types``: present. A concept without any has "" or []; None: missing.
* ``context``: text on at least one side of the mention.
* ``entity_type``: at least one type that the model knows.
* ``scores``: any score of a retriever, read or not, of at least one candidate.
* scores of retrievers, such as ``bm25_score``: a number in the range that calibration saw, extended
  by a tenth on each side. Sentinels (`score_range.are_sentinels`) are not in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from ..core.arrays import RepeatedTexts, lists_with_any
from ..lists.candidate_lists import CandidateLists
from ..lists.columns import FIELDS, SUFFIX, encoded_texts
from .string_counts import StringCounts

Lists = TypeVar("Lists", bound=CandidateLists)


def without_inputs(lists: Lists, missing: Sequence[str]) -> Lists:
    """The lists without these inputs."""
    if not missing:
        return lists
    mention_count = len(lists)
    candidate_count = len(lists.owner)
    # By input, the columns of `CandidateLists` that hold it, with nothing in them.
    blank_columns: dict[str, dict[str, Any]] = {
        "cui": {"cuis": RepeatedTexts([None], np.zeros(candidate_count, np.int64))},
        "context": {"lefts": [""] * mention_count, "rights": [""] * mention_count},
        "entity_type": {"types": replace(lists.types, codes=np.full(mention_count, -1))},
        "semantic_types": {
            "candidate_types": replace(lists.candidate_types, codes=np.full(candidate_count, -1))
        },
    }
    for name in FIELDS:
        blank_columns[name] = {f"{name}s": pa.nulls(candidate_count, pa.string())}
    columns: dict[str, Any] = {}
    for name in missing:
        columns |= blank_columns.get(name, {})
    scores = dict(lists.scores)
    for name in scores:
        if f"{name}{SUFFIX}" in missing:
            scores[name] = np.full(candidate_count, np.nan)
    return lists.with_columns(**columns, scores=scores)


def is_missing(lists: CandidateLists, name: str, counts: StringCounts | None = None) -> np.ndarray:
    """Mentions of which an input is missing, or that of one of their candidates, (n,) bool.

    Args:
        lists: n lists.
        name: the input.
        counts: what was counted, if ids of another vocabulary are missing, too.
    """
    match name:
        case "context":
            sides = zip(lists.lefts, lists.rights, strict=True)
            return np.array([not (left + right).strip() for left, right in sides], bool)
        case "entity_type":
            return ~lists.types.is_known
        case "semantic_types":
            # For a mention without types, it is unknown whether its candidates had any.
            missing = (lists.candidate_types.codes < 0) & lists.types.is_known[lists.owner]
        case "scores":
            return ~lists.are_scored
        case "cui":
            missing = _is_blank(lists.cuis)
            if counts is not None:
                is_counted = counts.have_counted_vocabularies(lists.ids)[lists.cuis.codes]
                missing |= ~lists_with_any(is_counted, lists.offsets)[lists.owner]
        case "preferred_name":
            missing = _is_blank(encoded_texts(lists.preferred_names))
        case "definition":
            missing = lists.definitions.is_null().to_numpy(zero_copy_only=False)
        case _:
            never_given = np.full(len(lists.owner), np.nan)
            scores = lists.scores.get(name.removesuffix(SUFFIX), never_given)
            missing = np.isnan(scores)
    return lists_with_any(missing, lists.offsets)


def always_missing(lists: CandidateLists, inputs: Sequence[str]) -> tuple[str, ...]:
    """Those of some inputs that are missing of every mention, in their order."""
    return tuple(name for name in inputs if is_missing(lists, name).all())


def _is_blank(column: RepeatedTexts) -> np.ndarray:
    """Whether each of m texts is missing or has only spaces, (m,) bool."""
    distinct_are_blank = [text is None or not text.strip() for text in column.texts]
    return np.array(distinct_are_blank, bool)[column.codes]
