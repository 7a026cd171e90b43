"""Test mentions replayed through a reranker as a service calls it: one at a time, and in one batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..calibration.candidate_lists import as_serving_input
from ..evaluation.checklist import FAIL, PASS, Check

if TYPE_CHECKING:
    from datasets import Dataset

    from ..data.concepts import ConceptTable
    from .reranker import UMLSReranker

__all__ = ["replay_checks"]

REPLAYED_MENTIONS = 200
REPLAYED_SINGLY = 20
# Batches pad differently; bfloat16 then rounds differently.
LARGEST_GAP = 0.02


def replay_checks(
    reranker: UMLSReranker, mentions: Dataset, candidates: Dataset, concepts: ConceptTable
) -> list[Check]:
    """Every candidate comes back with a probability, in order, and the same whether asked for alone or in a batch.

    Args:
        reranker: loaded as a user does.
        mentions, candidates: of one split, n rows each.
        concepts: of the candidates.
    """
    rows = range(0, len(mentions), max(1, len(mentions) // REPLAYED_MENTIONS))
    replayed = [mentions[row] for row in rows]
    lists = [as_serving_input(candidates[row], concepts) for row in rows]
    batch = reranker.rerank_batch(
        [m["mention"] for m in replayed],
        lists,
        [m["semantic_types"] for m in replayed],
        [m["left"] for m in replayed],
        [m["right"] for m in replayed],
        desc="replaying test mentions",
    )
    single = [
        reranker.rerank(m["mention"], items, m["semantic_types"], m["left"], m["right"])
        for m, items in zip(replayed[:REPLAYED_SINGLY], lists, strict=False)
    ]
    gap = max(
        abs(a.cross_encoder_score - b.cross_encoder_score)
        for one, many in zip(single, batch, strict=False)
        for a, b in zip(
            sorted(one, key=lambda r: r.candidate["cui"]), sorted(many, key=lambda r: r.candidate["cui"]), strict=True
        )
    )
    whole = all(len(ranked) == len(items) for ranked, items in zip(batch, lists, strict=True))
    in_range = all(0.0 <= r.cross_encoder_score <= 1.0 for ranked in batch for r in ranked)
    ordered = all(
        a.cross_encoder_score >= b.cross_encoder_score
        for ranked in batch
        for a, b in zip(ranked, ranked[1:], strict=False)
    )
    sound = float(whole and in_range and ordered)
    return [
        _check(
            "every_candidate_ranked_with_probability", sound, ">= 1", f"{len(batch)} replayed test mentions", sound
        ),
        _check(
            "largest_score_gap_single_vs_batch", gap, f"<= {LARGEST_GAP}", f"{len(single)} of them", gap <= LARGEST_GAP
        ),
    ]


def _check(name: str, value: float, target: str, population: str, passed: bool | float) -> Check:
    return Check(name, value, None, None, target, population, None, PASS if passed else FAIL)
