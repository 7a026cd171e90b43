"""Entity-linking metrics over lists that may lack the gold concept, with intervals by document.

Lists are flat: one array holds the candidates of all mentions, and `offsets` (n_mentions + 1,)
divides it. Candidate ``offsets[i] + j`` is the j-th retrieved candidate of mention i. A mention
counts as an error if its gold concept was not retrieved or is not in the dictionary; figures over
in-dictionary mentions are given too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..calibration.reliability import calibration_report
from ..calibration.resampling import (
    bootstrap_sums,
    document_draws,
    document_index,
    document_sums,
    ratio,
)
from ..core.arrays import list_owner, ranking

# Precisions of `coverage_at_precision` that are reported.
COVERAGE_PRECISIONS = (0.85, 0.90, 0.95)
# ``{"value", "low", "high"}``; of a measured figure also ``n`` and ``population``.
Measure = dict[str, Any]


@dataclass(frozen=True)
class Documents:
    """The documents of n rows, such as mentions, and their resampling for 95 % intervals.

    Attributes:
        index: (n,) int64 document of each row.
        count: number of documents.
        resamples: number of bootstrap resamples.
        seed: seed of the bootstrap.
    """

    index: np.ndarray
    count: int
    resamples: int = 1000
    seed: int = 0

    @classmethod
    def of(cls, ids: Sequence | np.ndarray, resamples: int = 1000, seed: int = 0) -> Documents:
        """Make it from the id of each row's document."""
        return cls(*document_index(ids), resamples=resamples, seed=seed)

    def take(self, rows: np.ndarray) -> Documents:
        """The documents of some rows: indices, which may repeat, or (n,) bool."""
        index, count = document_index(self.index[rows])
        return replace(self, index=index, count=count)

    def measure(
        self, columns: Sequence[np.ndarray], statistic: Callable[[np.ndarray], np.ndarray] = ratio
    ) -> Measure:
        """`interval` of a statistic of the sums of k columns (n,); and ``n``, the last sum."""
        sums = document_sums(self.index, self.count, columns)
        return self.interval(sums, statistic) | {"n": int(columns[-1].sum())}

    def calibration(self, p: np.ndarray, labels: np.ndarray) -> dict[str, Measure]:
        """The `calibration_report` of probabilities (n,) and labels (n,)."""
        return calibration_report(p, labels, self.index, resamples=self.resamples, seed=self.seed)

    def interval(self, sums: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]) -> Measure:
        """A statistic of sums (documents, k) as ``{"value", "low", "high"}``, 95 % by document.

        Resamples of one document, or of documents that are correct or incorrect throughout, do not
        vary. One document has no interval. A share of 1 or 0 over n documents reaches to what n
        equal documents exclude: ``0.025 ** (1 / n)``.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            value = float(statistic(sums.sum(axis=0)))
        if len(sums) < 2:
            return {"value": value, "low": np.nan, "high": np.nan}
        low, high = bootstrap_sums(sums, statistic, resamples=self.resamples, seed=self.seed)
        if statistic is ratio and low == high and value in (0.0, 1.0):
            excluded = 0.025 ** (1.0 / np.count_nonzero(sums[:, 1]))
            low = excluded if value else 0.0
            high = 1.0 if value else 1.0 - excluded
        return {"value": value, "low": low, "high": high}


def sums_to_f1(sums: np.ndarray) -> np.ndarray:
    """F1 of (..., 3) true positives, predicted and actual positives."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return 2 * sums[..., 0] / (sums[..., 1] + sums[..., 2])


def gold_ranks(scores: np.ndarray, offsets: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """Rank (0 is the top) of the first correct candidate in each list sorted by score.

    Args:
        scores: (n_candidates,) raw logits, or any score for which higher is better.
        offsets: (n_mentions + 1,).
        correct: (n_candidates,) bool, whether each candidate is a correct answer.

    Returns:
        (n_mentions,) int64, -1 without a correct candidate.
    """
    ranks = np.full(len(offsets) - 1, -1, dtype=np.int64)
    # Of a list, the best rank is assigned last.
    ranked = np.flatnonzero(correct[ranking(scores, offsets)])[::-1]
    owner = list_owner(offsets)[ranked]
    ranks[owner] = ranked - offsets[owner]
    return ranks


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
    order = np.argsort(-score, kind="stable")
    score = score[order]
    correct = np.asarray(correct, dtype=np.float64)[order]
    last_of_tie = np.append(score[1:] < score[:-1], True) & (score > -np.inf)

    def coverage(weight: np.ndarray) -> np.ndarray:
        answered = np.cumsum(weight, axis=-1)
        correct_answers = np.cumsum(weight * correct, axis=-1)
        # The tolerance allows for rounding in sums of weights.
        is_precise = last_of_tie & (correct_answers >= precision * answered - 1e-9)
        return np.max(np.where(is_precise, answered, 0.0), axis=-1) / answered[..., -1]

    value = float(coverage(np.ones(len(score))))
    draws = [
        coverage(counts[documents.index[order]])
        for counts in document_draws(documents.count, documents.resamples, documents.seed)
    ]
    low, high = np.quantile(draws, [0.025, 0.975])
    return {"value": value, "low": float(low), "high": float(high), "n": len(score)}


def roc_auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Probability that a positive outscores a negative, ties half; NaN for a single class."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, scores)) if len(np.unique(labels)) == 2 else float("nan")
