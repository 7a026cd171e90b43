"""Figures of scores alone, whatever system gave them: coverage at a precision, and ROC-AUC."""

from __future__ import annotations

import numpy as np

from ..calibration.reliability import document_draws
from .intervals import TAIL, Documents, Measure

# Precisions of `coverage_at_precision` that are reported.
COVERAGE_PRECISIONS = (0.85, 0.90, 0.95)


def coverage_at_precision(
    score: np.ndarray, correct: np.ndarray, precision: float, documents: Documents
) -> Measure:
    """The largest share of mentions that a system can answer at a precision, to compare systems.

    The threshold is chosen on the same mentions, so the figure is optimistic for every system. For
    a guarantee, use a certified threshold. Mentions with equal scores are answered together.

    Args:
        score: (n,) score of each mention's top candidate; -inf or NaN if there is no answer.
        correct: (n,) whether it is the gold concept.
        precision: the precision.
        documents: documents of the mentions.
    """
    score = np.where(np.isnan(score), -np.inf, score)
    # From here on mentions are in the order of their scores, the highest first. A threshold answers
    # the mentions up to a position, which is the last one of its score.
    order = np.argsort(-score, kind="stable")
    score = score[order]
    correct = np.asarray(correct, dtype=np.float64)[order]
    last_of_tie = np.append(score[1:] < score[:-1], True) & (score > -np.inf)

    def coverage(weight: np.ndarray) -> np.ndarray:
        """The coverage if each mention counts as often as its weight (n,) says."""
        answered = np.cumsum(weight, axis=-1)
        correct_answers = np.cumsum(weight * correct, axis=-1)
        # The tolerance allows for rounding in sums of weights.
        is_precise = last_of_tie & (correct_answers >= precision * answered - 1e-9)
        return np.max(np.where(is_precise, answered, 0.0), axis=-1) / answered[..., -1]

    value = float(coverage(np.ones(len(score))))
    document_of = documents.index[order]
    draws = [
        coverage(times_drawn[document_of])
        for times_drawn in document_draws(documents.count, documents.resamples, documents.seed)
    ]
    low, high = np.quantile(draws, [TAIL, 1.0 - TAIL])
    return {"value": value, "low": float(low), "high": float(high), "n": len(score)}


def roc_auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Probability that a positive outscores a negative, ties half; NaN for a single class."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, scores)) if len(np.unique(labels)) == 2 else float("nan")
