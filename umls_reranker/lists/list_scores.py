"""Scores of candidates inside their list: what stands for those that are missing."""

import numpy as np


def highest_of_concept(scores: np.ndarray, concepts: np.ndarray) -> np.ndarray:
    """The highest score of each candidate's concept in its list, (m,); -inf if it has none.

    Args:
        scores: (m,) float64, NaN where a candidate has none.
        concepts: (m,) int64, equal for candidates of one list with the same concept.
    """
    has_score = np.isfinite(scores)
    distinct_concepts, concept_of_candidate = np.unique(concepts, return_inverse=True)
    highest = np.full(len(distinct_concepts), -np.inf)
    np.maximum.at(highest, concept_of_candidate[has_score], scores[has_score])
    return highest[concept_of_candidate]


def lowest_of_list(
    scores: np.ndarray, owner: np.ndarray, lists: int, otherwise: float
) -> np.ndarray:
    """The lowest score of each candidate's list, (m,); another number if the list has none.

    Args:
        scores: (m,) float64, NaN where a candidate has none.
        owner: (m,) the list that each candidate belongs to.
        lists: number of lists.
        otherwise: what it is in lists without a score.
    """
    has_score = np.isfinite(scores)
    lowest = np.full(lists, np.inf)
    np.minimum.at(lowest, owner[has_score], scores[has_score])
    return np.where(np.isinf(lowest), otherwise, lowest)[owner]
