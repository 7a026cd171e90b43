"""Answering or abstaining: is a mention given an answer where, and only where, the dictionary holds one?

A mention whose gold concept the dictionary lacks cannot be answered rightly; the service should abstain from it. Three
readings, each with precision, recall and F1:

* ``answering``: answered mentions against those that the dictionary can answer, right or wrong;
* ``abstaining``: the same seen from the other side, abstentions against out-of-dictionary mentions (NIL detection);
* ``right_answers``: right answers among those given, and among the mentions that have one: the end-to-end figure.
"""

from __future__ import annotations

import numpy as np

from ..calibration.reliability import document_index, document_sums
from .linking import measure, ratio
from .outcomes import Outcomes

__all__ = ["answering_metrics", "right_answer_sums", "sums_to_f1"]


def answering_metrics(outcomes: Outcomes, *, resamples: int, seed: int) -> dict[str, dict]:
    """The three readings, each ``{"precision", "recall", "f1"}`` of ``{"value", "low", "high"}`` and its counts.

    A ratio without a denominator is NaN; intervals are 95 %, by document.
    """
    index, documents = document_index(outcomes.document)
    accepted, known = outcomes.accepted, outcomes.in_dictionary
    readings = {
        "answering": (accepted & known, accepted, known),
        "abstaining": (~accepted & ~known, ~accepted, ~known),
        "right_answers": right_answer_sums(outcomes),
    }
    report = {}
    for name, columns in readings.items():
        sums = document_sums(index, documents, columns)
        report[name] = {
            "precision": measure(sums[:, [0, 1]], ratio, resamples=resamples, seed=seed),
            "recall": measure(sums[:, [0, 2]], ratio, resamples=resamples, seed=seed),
            "f1": measure(sums, sums_to_f1, resamples=resamples, seed=seed),
        }
        report[name] |= dict(zip(("hits", "given", "wanted"), map(int, sums.sum(axis=0)), strict=True))
    return report


def right_answer_sums(outcomes: Outcomes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per mention (n,) bool: answered rightly, answered, answerable; F1 of their sums is that of ``right_answers``."""
    return outcomes.accepted & outcomes.correct, outcomes.accepted, outcomes.in_dictionary


def sums_to_f1(sums: np.ndarray) -> np.ndarray:
    """F1 of (..., 3) hits, given and wanted."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return 2 * sums[..., 0] / (sums[..., 1] + sums[..., 2])
