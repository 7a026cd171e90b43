"""Prediction sets: the concepts, or NIL, that an abstention leaves open.

The labels of a mention are the concepts of its list and NIL, which is correct where the list lacks
the gold concept. A set holds the labels of at least a certain weight, and always the most probable
one. The weight is the probability, times `RANK_DISCOUNT` for each label that is more probable. By
true probabilities alone the sets of a coverage would be the smallest on average; those of tails are
not true enough.

The threshold is found by conformal risk control (Angelopoulos et al. 2022, "Conformal risk
control"). The risk of a document is the share of its abstentions whose correct label is not in the
set. Its expectation over further documents like those of calibration is at most 1 - `COVERAGE`,
whatever the sizes of documents and the correlation within. Nothing is said about a single document,
nor with confidence: the expectation is also over the calibration documents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..core.arrays import list_offsets, list_owner, list_sizes
from .resampling import document_index

# Share of the abstentions of a document whose set holds the correct label, in expectation.
COVERAGE = 0.95
# With fewer documents only sets of all labels would have this coverage.
FEWEST_DOCUMENTS = 19
NIL = "NIL"
# Chosen on calibration lists of NCBI Disease and HPO: 4 to 7 % fewer labels than without.
RANK_DISCOUNT = 0.9


class RankedLabels(NamedTuple):
    """The labels of n mentions with m candidates by descending probability, 0 the most probable.

    Attributes:
        ranks: (m,) rank of a concept at its best candidate; of its other candidates a number that
            is beyond every set.
        nil_ranks: (n,) rank of NIL, after concepts that are as probable.
        nil: (n,) probability of NIL.
    """

    ranks: np.ndarray
    nil_ranks: np.ndarray
    nil: np.ndarray


def rank_labels(
    probabilities: np.ndarray, concepts: np.ndarray, offsets: np.ndarray, order: np.ndarray
) -> RankedLabels:
    """Rank concepts and NIL, whose probability is what the concepts leave of 1.

    Args:
        probabilities: (m,) of the candidates.
        concepts: (m,) as in `CandidateLists.concepts`.
        offsets: (n + 1,) where each list's candidates start.
        order: (m,) candidates by mention, the most probable first (`core.arrays.ranking`).
    """
    owner = list_owner(offsets)
    leads = np.zeros(len(order), bool)
    leads[np.unique(concepts[order], return_index=True)[1]] = True
    ordered = probabilities[order]
    concepts_sum = np.bincount(owner, np.where(leads, ordered, 0.0), len(offsets) - 1)
    # Candidates that the cross-encoder judges alone may sum to more than 1.
    nil = np.maximum(0.0, 1.0 - concepts_sum)
    is_behind = ordered < nil[owner]
    before = list_offsets(leads)
    rank = before[:-1] - before[offsets[:-1]][owner] + is_behind
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.where(leads, rank, list_sizes(offsets)[owner] + 1)
    nil_ranks = np.bincount(owner, leads & ~is_behind, len(offsets) - 1).astype(np.int64)
    return RankedLabels(ranks, nil_ranks, nil)


def set_sizes(
    labels: RankedLabels, probabilities: np.ndarray, offsets: np.ndarray, thresholds: np.ndarray
) -> np.ndarray:
    """(n,) number of labels in each mention's set, by its threshold (n,) of weights; 0 for NaN.

    `probabilities` (m,) and `offsets` are as for `rank_labels`.
    """
    owner = list_owner(offsets)
    weights = _weights(probabilities, labels.ranks)
    is_inside = (labels.ranks <= list_sizes(offsets)[owner]) & (weights >= thresholds[owner])
    sizes = np.bincount(owner, is_inside, len(thresholds)).astype(np.int64)
    sizes += _weights(labels.nil, labels.nil_ranks) >= thresholds
    return np.where(np.isnan(thresholds), 0, np.maximum(sizes, 1))


def correct_ranks(labels: RankedLabels, correct: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """(n,) rank of the first correct label: of candidates `correct` (m,), or without any, NIL."""
    ranks = np.full(len(offsets) - 1, np.iinfo(np.int64).max)
    np.minimum.at(ranks, list_owner(offsets)[correct], labels.ranks[correct])
    return np.where(_any_of(correct, offsets), ranks, labels.nil_ranks)


def correct_weights(
    labels: RankedLabels, probabilities: np.ndarray, correct: np.ndarray, offsets: np.ndarray
) -> np.ndarray:
    """(n,) weight of the correct label; 1 where it is the most probable, so in every set."""
    ranks = correct_ranks(labels, correct, offsets)
    best = np.where(_any_of(correct, offsets), 0.0, labels.nil)
    np.maximum.at(best, list_owner(offsets)[correct], probabilities[correct])
    return np.where(ranks == 0, 1.0, _weights(best, ranks))


def _weights(probabilities: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    return probabilities * RANK_DISCOUNT**ranks


def _any_of(candidates: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """(n,) bool, whether any candidate of a list is true in `candidates` (m,)."""
    return list_sizes(list_offsets(candidates)[offsets]) > 0


@dataclass(frozen=True)
class SetThreshold:
    """From which weight on a label is in the set of an abstention.

    Attributes:
        threshold: the weight; None with too few documents.
        documents: number of calibration documents with an abstention.
    """

    threshold: float | None
    documents: int


def fit_set_threshold(weights: np.ndarray, documents: np.ndarray) -> SetThreshold:
    """The highest threshold whose risk is controlled, from n abstentions of held-out documents.

    One further document is assumed, of which every set misses the correct label.

    Args:
        weights: (n,) `correct_weights`.
        documents: (n,) document of each mention.
    """
    index, count = document_index(documents)
    if count < FEWEST_DOCUMENTS:
        return SetThreshold(None, count)
    order = np.argsort(weights, kind="stable")
    shares = 1.0 / np.bincount(index)[index]
    # The sum of the risks of the documents, if the labels of the least weights so far are missed.
    missed = np.cumsum(shares[order])
    allowed = round((1.0 - COVERAGE) * (count + 1) - 1.0, 9)
    first = int(np.searchsorted(missed, allowed + 1e-9, side="right"))
    return SetThreshold(float(weights[order[first]]), count)
