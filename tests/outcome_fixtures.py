"""Outcomes of a model that does not exist, drawn by a seed."""

from __future__ import annotations

import numpy as np

from umls_reranker.evaluation.outcomes import Outcomes


def make_outcomes(mentions: int = 400, seed: int = 0, per_document: int = 10, **columns) -> Outcomes:
    """Perfectly calibrated answers; one mention in ten is out of the dictionary; columns may be given."""
    rng = np.random.default_rng(seed)
    score = rng.beta(2, 1, mentions)
    known = rng.random(mentions) < 0.9
    right = rng.random(mentions) < score
    drawn = {
        "document": np.array([f"d{row // per_document}" for row in range(mentions)]),
        "start": np.arange(mentions) * 10,
        "end": np.arange(mentions) * 10 + 5,
        "types": [["T047"] if row % 4 else ["T121"] for row in range(mentions)],
        "gold": np.array([f"C{row:07d}" for row in range(mentions)]),
        "in_dictionary": known | right,
        "answer": np.array([f"C{row:07d}" if hit else "C9999999" for row, hit in enumerate(right)]),
        "rank": np.where(right, 0, -1),
        "score": score,
        "margin": score / 2,
        "tier": np.where(score >= 0.9, "high", np.where(score >= 0.4, "medium", "reject")),
        "accepted": score >= 0.4,
    }
    return Outcomes(**drawn | columns)
