"""Ranked rows, and what was found in lists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise, repeat
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ..calibration.decisions import Decisions
from ..calibration.inputs import ALL_INPUTS
from ..calibration.thresholds import TIERS
from ..core.arrays import RepeatedTexts, list_sizes
from ..lists.candidate_lists import AnnotatedLists, CandidateLists
from ..lists.columns import as_arrow

# The key of a row, and the column of a table, with the ranked candidates.
RANKED = "ranked"
# In Arrow; a mention has a list of these, its top candidate first.
RANKED_TYPE = pa.struct(
    {
        "name": pa.string(),
        "cui": pa.string(),
        "rank": pa.int64(),
        "logit": pa.float64(),
        "score": pa.float64(),
        "margin": pa.float64(),
        "tier": pa.string(),
        "accepted": pa.bool_(),
        "model_name": pa.string(),
        "scored": pa.int64(),
    }
)
RANKED_FIELDS = tuple(field.name for field in RANKED_TYPE)


class RankedCandidate(NamedTuple):
    """One candidate after reranking.

    Attributes:
        candidate: the object that was passed in, unchanged.
        name: its name.
        cui: the id of its concept, or None.
        rank: 1 for the top candidate.
        logit: raw log-odds of the cross-encoder; None if the candidate was pruned, or if the model has no
            cross-encoder or gives it no weight.
        score: calibrated probability that this candidate is the mention's concept, from all features. Candidates are
            ranked by it (by its unrounded log-odds).
        margin: this score minus the highest score of any other concept in the list, by CUI or else by name. It is
            negative below the top concept, and the score itself if there is no other concept.
        tier: ``high``, ``medium``, ``low`` or ``reject``. The certificate of the model that decided sets ``high``, the
            thresholds of the mention's semantic type set the others.
        accepted: whether to map the mention to this candidate: it has rank 1, reaches the type's threshold, and is in
            a tier that the deployment accepts (`UMLSReranker.accept_tier`).
        model_name: the model that decided, the same for all candidates of a mention: "all", or a fallback model,
            "no type", "names" or "names, no type".
        scored: number of the mention's candidates that the cross-encoder scored, the same for all of them.
    """

    candidate: Any
    name: str
    cui: str | None
    rank: int
    logit: float | None
    score: float
    margin: float
    tier: str
    accepted: bool
    model_name: str = ALL_INPUTS
    scored: int = 0

    @property
    def cross_encoder_score(self) -> float:
        """The same as `score`."""
        return self.score

    def as_row(self) -> dict[str, Any]:
        """All fields except `candidate`, as in files and JSON."""
        return dict(zip(RANKED_FIELDS, self[1:], strict=True))


def ranked_candidates(
    lists: CandidateLists, decisions: Decisions, candidates: list[Any], model_names: Sequence[str]
) -> list[list[RankedCandidate]]:
    """The candidates of n mentions, the top candidate of each first.

    Args:
        lists: the n mentions and their m candidates.
        decisions: what was decided about them.
        candidates: the m objects that the lists were made from.
        model_names: names of the models that may decide (`UMLSReranker.model_names`).
    """
    objects = list(map(candidates.__getitem__, decisions.order.tolist()))
    columns = [_values(column) for column in _columns(lists, decisions, model_names).values()]
    # Like `RankedCandidate._make`, without a Python call per row.
    ranked = list(map(tuple.__new__, repeat(RankedCandidate), zip(objects, *columns, strict=True)))
    return [ranked[start:end] for start, end in pairwise(lists.offsets.tolist())]


def ranked_column(lists: CandidateLists, decisions: Decisions, model_names: Sequence[str]) -> pa.ListArray:
    """Like `ranked_candidates`, without the objects: n lists of `RANKED_TYPE`."""
    arrays = [_array(column) for column in _columns(lists, decisions, model_names).values()]
    rows = pa.StructArray.from_arrays(arrays, fields=list(RANKED_TYPE))
    return pa.ListArray.from_arrays(pa.array(lists.offsets, pa.int32()), rows)


def _columns(
    lists: CandidateLists, decisions: Decisions, model_names: Sequence[str]
) -> dict[str, RepeatedTexts | np.ndarray]:
    """The m values of each of `RANKED_FIELDS`, by mention in the order of rank; a missing logit is NaN."""
    order, owner = decisions.order, lists.owner
    return {
        "name": lists.names[order],
        "cui": lists.cuis[order],
        "rank": np.arange(1, len(order) + 1) - lists.offsets[:-1][owner],
        "logit": decisions.logits[order].astype(np.float64),
        "score": decisions.probabilities[order],
        "margin": decisions.margins[order],
        "tier": RepeatedTexts(TIERS, decisions.tiers[order]),
        "accepted": decisions.accepted[order],
        "model_name": RepeatedTexts(model_names, decisions.models[owner]),
        "scored": decisions.scored[owner],
    }


def _values(column: RepeatedTexts | np.ndarray) -> list[Any]:
    if isinstance(column, RepeatedTexts):
        return column.to_list()
    is_missing = np.isnan(column)
    if not is_missing.any():
        return column.tolist()
    values = column.astype(object)
    values[is_missing] = None
    return values.tolist()


def _array(column: RepeatedTexts | np.ndarray) -> pa.Array:
    return as_arrow(column) if isinstance(column, RepeatedTexts) else pa.array(column, from_pandas=True)


# Number of types that a line names.
NAMED_TYPES = 3
# From this many lists on, some usually lack their gold concept.
MANY_LISTS = 100
# Share of the lists along which a score that rises seems to be against their order.
MOSTLY = 0.9


def described(lists: AnnotatedLists, cross_encoder_inputs: Sequence[str]) -> str:
    """The description in lines of text.

    Args:
        lists: the lists.
        cross_encoder_inputs: inputs that the cross-encoder reads (`PairTemplate.reads`); none without one.
    """
    return "\n".join(_lines(lists, cross_encoder_inputs))


def _lines(lists: AnnotatedLists, cross_encoder_inputs: Sequence[str]) -> Iterator[str]:
    candidates = len(lists.names)
    yield (
        f"{len(lists):,} mentions of {len(set(lists.annotations.documents)):,} documents; {lists.not_in_list:,} "
        "without their gold concept among the candidates, which count as errors"
    )
    yield f"candidate scores: {', '.join(f'{name}_score' for name in lists.scores) or 'none'}"
    for name in lists.partial_scores:
        lacking = np.count_nonzero(~np.isfinite(lists.scores[name]))
        yield (
            f"{name}_score: {lacking:,} of {candidates:,} candidates lack it; they count as not found by this "
            "retriever, with the lowest score of their list"
        )
    for name, column in lists.scores.items():
        ends = np.flatnonzero(list_sizes(lists.offsets) > 1)
        rise = column[lists.offsets[1:][ends] - 1] - column[lists.offsets[ends]]
        if np.count_nonzero(rise > 0) > MOSTLY * np.count_nonzero(rise):
            yield (
                f"caution: {name}_score rises along lists: negate it if the best come first (higher is better), else "
                "reverse the lists, for a gain over their order would mean nothing"
            )
    if len(lists) >= MANY_LISTS and not lists.not_in_list:
        yield "caution: every list has its gold concept; if it was added to them, all figures are too good"
    typed, known = int(lists.types.is_known.sum()), int((lists.candidate_types.codes >= 0).sum())
    yield f"entity_type: {typed:,} of {len(lists):,} mentions; semantic_types: {known:,} of {candidates:,} candidates"
    for key, texts in (("preferred_name", lists.preferred_names), ("definition", lists.definitions)):
        if count := candidates - texts.null_count:
            reads = "read by the cross-encoder" if key in cross_encoder_inputs else "not read by the cross-encoder"
            yield f"{key}: {count:,} of {candidates:,} candidates, {reads}"
    if lists.dictionary is not None:
        found = (f"{name} of {count:,}" for name, count in lists.dictionary.known(lists.cuis.to_list()).items())
        yield f"of {candidates:,} candidates, the dictionary has {' and '.join(found)}"
    if unknown := lists.unknown_types:
        yield (
            f"{len(unknown):,} types of mentions are unknown to the model: {', '.join(unknown[:NAMED_TYPES])}; "
            "use ids or names of the UMLS Semantic Network, or of the model's thresholds.json"
        )
