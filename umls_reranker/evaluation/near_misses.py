"""Near misses: the share of incorrect answers that share a name with the gold concept or are related to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.arrays import best_candidates
from ..data.relations import RELATION_KINDS
from ..retrieval.false_negatives import SharedNames
from .linking import Documents

if TYPE_CHECKING:
    from ..data.candidate_lists import AnnotatedLists
    from ..data.concepts import ConceptTable
    from ..data.relations import RelationTable

SHARED_NAME = "shared_name"


def near_misses(
    lists: AnnotatedLists,
    scores: np.ndarray,
    concepts: ConceptTable,
    relations: RelationTable,
    documents: Documents,
) -> dict[str, Any]:
    """Count incorrect top candidates that are near the gold concept, over mentions whose concept is in the dictionary.

    Args:
        lists: lists of n mentions with m candidates.
        scores: (m,) scores that rank the lists; retrieval order breaks ties.
        concepts: the dictionary.
        relations: its relations; without them only shared names count.
        documents: documents of the mentions.

    Returns:
        ``incorrect``, the number of incorrect top candidates; ``kinds``, how many of them share a normalized name with
        the gold concept (``shared_name``), or else their closest relation of `RELATION_KINDS` (a top candidate that is
        its parent: ``PAR``); and ``share``, near ones among the incorrect, ``{"value", "low", "high", "population"}``,
        NaN where none is incorrect.
    """
    top = best_candidates(scores, lists.offsets)
    answers = np.full(len(top), -1, np.int64)
    answers[top >= 0] = concepts.rows(lists.cuis[top[top >= 0]].to_list())
    gold = concepts.rows(lists.annotations.cuis)
    incorrect = np.flatnonzero((answers >= 0) & (gold >= 0) & (answers != gold))
    gold, answers = gold[incorrect], answers[incorrect]
    shares_name = SharedNames(concepts, gold).between(gold, answers)
    kinds = relations.kind_between(gold, answers)
    counts = {SHARED_NAME: int(shares_name.sum())}
    counts |= {kind: int((~shares_name & (kinds == number)).sum()) for number, kind in enumerate(RELATION_KINDS)}
    is_near = shares_name | (kinds >= 0)
    return {
        "incorrect": len(incorrect),
        "kinds": counts,
        "share": {
            **documents.take(incorrect).measure([is_near, np.ones(len(incorrect))]),
            "population": f"{len(incorrect):,} incorrect top candidates of mentions in the dictionary",
        },
    }
