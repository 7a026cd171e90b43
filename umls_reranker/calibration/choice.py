"""Lists as choices: one of a mention's candidates, or none of these (McFadden 1974).

With utilities u of the candidates minus that of "none", ``P(c) = exp(u_c) / (1 + sum of exp(u) over the list)``: the
probabilities of a list's concepts sum to less than one, and the rest is that of "none". If a concept has several
candidates, the sum counts the best one. Each candidate has its own probability, so with duplicates the column may sum
to more.
"""

import numpy as np

from ..core.arrays import list_owner, list_sizes

__all__ = ["choice_log_odds", "top_candidates", "log_sums"]


def top_candidates(utility: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """(m,) bool, candidates with the highest `utility` (m,) of their list."""
    sizes = list_sizes(offsets)
    filled = offsets[:-1][sizes > 0]
    most = np.maximum.reduceat(utility, filled)
    return utility == most.repeat(sizes[sizes > 0])


def log_sums(utility: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """(n,) log of 1, for none, plus the sum of exp over each list's candidates (m,)."""
    filled = np.flatnonzero(list_sizes(offsets))
    most = np.zeros(len(offsets) - 1)
    if len(filled):
        most[filled] = np.maximum(0.0, np.maximum.reduceat(utility, offsets[filled]))
    total = np.exp(-most)
    if len(filled):
        total[filled] += np.add.reduceat(np.exp(utility - most[list_owner(offsets)]), offsets[filled])
    return most + np.log(total)


def choice_log_odds(utility: np.ndarray, offsets: np.ndarray, concepts: np.ndarray) -> np.ndarray:
    """Log-odds of the candidates' probabilities, (m,) float64, finite.

    Args:
        utility: (m,) of candidates, minus that of "none of these".
        offsets: (n + 1,).
        concepts: (m,) equal numbers for candidates of a list with the same concept; the sum over the list counts the
            best of them.
    """
    # The best candidate of each concept, the first if equal; the others do not add to the sum.
    counted = utility
    ascending = np.sort(concepts)
    if (ascending[1:] == ascending[:-1]).any():
        order = np.lexsort((-utility, concepts))
        counted = utility.copy()
        counted[order[1:][concepts[order[1:]] == concepts[order[:-1]]]] = -np.inf
    log_p = utility - log_sums(counted, offsets)[list_owner(offsets)]
    # 1 - P loses digits near 1 and P near 0; neither may give infinite log-odds.
    return log_p - np.log(-np.expm1(np.minimum(log_p, -1e-12)))
