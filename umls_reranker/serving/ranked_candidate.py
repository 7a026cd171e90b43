"""A candidate after reranking, as a Python object and in Arrow."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple, get_args, get_type_hints

import numpy as np
import pyarrow as pa

from ..calibration.decisions import TIERS, Decisions
from ..calibration.fallback_models import ALL_INPUTS
from ..core.arrays import RepeatedTexts
from ..lists.candidate_lists import CandidateLists
from ..lists.columns import as_arrow
from ..lists.table import ARROW_TYPES


class RankedCandidate(NamedTuple):
    """One candidate after reranking.

    This is the one table of a ranked row's fields: rows of files, Arrow's and Spark's types and the
    bodies of the service follow from it, and ``_ranked_columns`` has the values.

    Attributes:
        candidate: the object that was passed in, unchanged.
        name: its name.
        cui: the id of its concept, or None.
        rank: 1 for the top candidate.
        logit: raw log-odds of the cross-encoder; None if the candidate was pruned, or if the model
            has no cross-encoder or gives it no weight.
        score: calibrated probability that this candidate is the mention's concept, from all
            features. Candidates are ranked by it (by its unrounded log-odds).
        margin: this score minus the highest score of any other concept in the list, by CUI or else
            by name. It is negative below the top concept, and the score itself for a lone concept.
        tier: ``high``, ``medium``, ``low`` or ``reject``. The certificate of the model that decided
            sets ``high``, the thresholds of the mention's semantic type set the others.
            None where the candidates are not of the source that the model was calibrated on
            (`UMLSReranker.calibrated_on`).
        accepted: whether to map the mention to this candidate: it has rank 1, reaches the type's
            threshold, and is in a tier that the deployment accepts (`UMLSReranker.accept_tier`).
            None as for `tier`.
        model_name: the model that decided, the same for all candidates of a mention: "all", or a
            fallback model, "no type", "names" or "names, no type".
        scored: number of the mention's candidates that the cross-encoder scored, the same for all
            of them.
    """

    candidate: Any
    name: str
    cui: str | None
    rank: int
    logit: float | None
    score: float
    margin: float
    tier: str | None
    accepted: bool | None
    model_name: str = ALL_INPUTS
    scored: int = 0

    @property
    def cross_encoder_score(self) -> float:
        """The same as `score`."""
        return self.score

    def as_row(self) -> dict[str, Any]:
        """All fields except `candidate`, as in files and JSON."""
        return dict(zip(RANKED_FIELDS, self[1:], strict=True))


#: Type of a ranked candidate in Arrow; a mention has a list of these, its top candidate first.
RANKED_TYPE = pa.struct(
    {
        # All but the first of a union is None.
        name: ARROW_TYPES[(get_args(kind) or (kind,))[0]]
        for name, kind in get_type_hints(RankedCandidate).items()
        if name != "candidate"
    }
)
RANKED_FIELDS = tuple(field.name for field in RANKED_TYPE)


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
    objects = [candidates[position] for position in decisions.order.tolist()]
    columns = _ranked_columns(lists, decisions, model_names)
    logits = decisions.scores.logits[decisions.order].astype(np.float64)
    columns["logit"] = np.where(np.isnan(logits), np.array(None), logits)
    values = [
        column.to_list() if isinstance(column, RepeatedTexts) else column.tolist()
        for column in columns.values()
    ]
    ranked = list(map(RankedCandidate._make, zip(objects, *values, strict=True)))
    return [ranked[start:end] for start, end in pairwise(lists.offsets.tolist())]


def ranked_column(
    lists: CandidateLists, decisions: Decisions, model_names: Sequence[str]
) -> pa.ListArray:
    """Like `ranked_candidates`, without the objects: n lists of `RANKED_TYPE`."""
    columns = _ranked_columns(lists, decisions, model_names)
    arrays = []
    for ranked_field, column in zip(RANKED_TYPE, columns.values(), strict=True):
        if isinstance(column, RepeatedTexts):
            arrays.append(as_arrow(column))
        else:
            arrays.append(pa.array(column, ranked_field.type, from_pandas=True))
    rows = pa.StructArray.from_arrays(arrays, fields=list(RANKED_TYPE))
    return pa.ListArray.from_arrays(pa.array(lists.offsets, pa.int32()), rows)


def _ranked_columns(
    lists: CandidateLists, decisions: Decisions, model_names: Sequence[str]
) -> dict[str, RepeatedTexts | np.ndarray]:
    """The m values of each of `RANKED_FIELDS`, in the order of rank; a missing logit is NaN."""
    order = decisions.order
    owner = lists.owner
    scores = decisions.scores
    accepted = decisions.accepted[order]
    if not decisions.has_tiers.all():
        accepted = np.where(decisions.has_tiers[owner], accepted, np.array(None))
    return {
        "name": lists.names[order],
        "cui": lists.cuis[order],
        "rank": np.arange(1, len(order) + 1) - lists.offsets[:-1][owner],
        "logit": scores.logits[order].astype(np.float64),
        "score": scores.probabilities[order],
        "margin": decisions.margins[order],
        # The last is that of mentions without tiers, whose code is -1.
        "tier": RepeatedTexts((*TIERS, None), decisions.tiers[order]),
        "accepted": accepted,
        "model_name": RepeatedTexts(model_names, decisions.models[owner]),
        "scored": decisions.scored[owner],
    }
