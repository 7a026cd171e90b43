"""Near misses: the share of wrong answers that share a name with the gold concept or are related to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..calibration.resampling import bootstrap_by_document
from ..core.arrays import best_candidates
from ..data.relations import RELATION_KINDS
from ..retrieval.false_negatives import SharedNames

if TYPE_CHECKING:
    from ..data.candidate_lists import AnnotatedLists
    from ..data.concepts import ConceptTable
    from ..data.relations import RelationTable

__all__ = ["near_misses"]

SHARED_NAME = "shared_name"


def near_misses(
    lists: AnnotatedLists,
    scores: np.ndarray,
    concepts: ConceptTable,
    relations: RelationTable,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Count wrong top candidates that are near the gold concept, over mentions whose concept is in the dictionary.

    Args:
        lists: of n mentions, m candidates in all.
        scores: (m,) by which the lists are ranked; retrieval order breaks ties.
        concepts, relations: the dictionary; without relations only shared names count.
        resamples, seed: of the bootstrap by document.

    Returns:
        ``wrong``, the number of wrong top candidates; ``kinds``, how many of them share a normalized name with the
        gold concept (``shared_name``), or else their closest relation of `RELATION_KINDS` (a top
        candidate that is its parent: ``PAR``); and ``share``, near ones among the wrong, ``{"value", "low", "high",
        "population"}``, the value NaN where none is wrong.
    """
    best = best_candidates(scores, lists.offsets)
    answered = np.full(len(best), -1, np.int64)
    answered[best >= 0] = concepts.rows(lists.cuis[best[best >= 0]].to_list())
    gold = concepts.rows(lists.annotations.cuis)
    wrong = np.flatnonzero((answered >= 0) & (gold >= 0) & (answered != gold))
    gold, answered = gold[wrong], answered[wrong]
    shared = SharedNames(concepts, gold).between(gold, answered)
    kinds = relations.kind_between(gold, answered)
    counts = {SHARED_NAME: int(shared.sum())}
    counts |= {kind: int((~shared & (kinds == place)).sum()) for place, kind in enumerate(RELATION_KINDS)}
    share: dict[str, Any] = {"value": float("nan"), "low": None, "high": None}
    if len(wrong):
        near = (shared | (kinds >= 0)).astype(np.float64)
        documents = lists.annotations.documents[wrong]
        low, high = bootstrap_by_document(near, documents, resamples=resamples, seed=seed)
        share = {"value": float(near.mean()), "low": low, "high": high}
    return {
        "wrong": len(wrong),
        "kinds": counts,
        "share": share | {"population": f"{len(wrong):,} wrong top candidates of mentions in the dictionary"},
    }
