"""Replay test mentions through a reranker as a service does: one at a time, and in one batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..data.candidate_lists import CandidateLists
from ..evaluation.checklist import Check, Measured, check_targets

if TYPE_CHECKING:
    from datasets import Dataset

    from ..data.concepts import ConceptTable
    from .reranker import UMLSReranker

REPLAYED_MENTIONS = 200
REPLAYED_SINGLY = 20
# Batches differ in padding, so bfloat16 rounds differently.
LARGEST_GAP = 0.02


def replay_checks(
    reranker: UMLSReranker, mentions: Dataset, candidates: Dataset, concepts: ConceptTable, index_key: str
) -> list[Check]:
    """Every candidate is returned with a probability, in order, and with the same score alone as in a batch.

    Args:
        reranker: loaded as by a user.
        mentions, candidates: of one split, n rows each.
        concepts: of the candidates.
        index_key: `core.stage_keys.key_of_lists` of the run.
    """
    rows = range(0, len(mentions), max(1, len(mentions) // REPLAYED_MENTIONS))
    fields = reranker.scorer.template.candidate_fields
    lists = CandidateLists.from_run(candidates.select(rows), mentions.select(rows), concepts, fields, index_key)
    batch = reranker.rank(lists, "replaying test mentions")
    count = min(len(lists), REPLAYED_SINGLY)
    single = [reranker.rank(lists.take(np.array([row]))).probabilities for row in range(count)]
    gap = float(np.abs(np.concatenate(single) - batch.probabilities[: lists.offsets[count]]).max(initial=0.0))
    ranked = batch.probabilities[batch.order]
    whole = np.array_equal(np.sort(batch.order), np.arange(len(lists.names)))
    in_range = ((ranked >= 0.0) & (ranked <= 1.0)).all()
    ordered = (np.diff(ranked) <= 0)[np.diff(lists.owner) == 0].all()
    sound = Measured(float(whole and in_range and ordered), population=f"{len(lists)} replayed test mentions")
    targets = {
        "every_candidate_ranked_with_probability": ">= 1",
        "largest_score_gap_single_vs_batch": f"<= {LARGEST_GAP}",
    }
    return check_targets(
        targets, dict(zip(targets, (sound, Measured(gap, population=f"{count} of them")), strict=True))
    )
