"""Logistic regression with few bounded coefficients, for independent rows and inside lists.

Inside lists it is a conditional logit over a mention's candidates and "none of these" (McFadden 1974): with utilities
u of the candidates minus that of "none", ``P(c) = exp(u_c) / (1 + sum of exp(u) over the list)``. The probabilities of
a list's concepts sum to less than one, and the rest is that of "none". If a concept has several candidates, the sum
counts the top one. Each candidate has its own probability, so with duplicates the column may sum to more.
"""

from contextlib import suppress

import numpy as np

from ..core.arrays import list_owner, list_sizes

MOST_STEPS = 200
# Largest change of a coefficient in the last step, least share of a step, what sums are off by, and what is added to
# the diagonal of curvatures as a share of the largest.
ACCURACY, LEAST_SHARE, ROUNDING, DAMPING = 1e-9, 1e-9, 1e-14, 1e-12


def sigmoid(x: np.ndarray) -> np.ndarray:
    """``1 / (1 + exp(-x))`` without overflow."""
    # Only exp of non-positive numbers, so nothing overflows.
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, small) / (1.0 + small)


def top_candidates(utility: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Candidates with the highest `utility` (m,) of their list, (m,) bool."""
    sizes = list_sizes(offsets)
    filled = offsets[:-1][sizes > 0]
    most = np.maximum.reduceat(utility, filled)
    return utility == most.repeat(sizes[sizes > 0])


def log_sums(utility: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Log of 1, for "none", plus the sum of exp over each list's candidates (m,), (n,)."""
    filled = np.flatnonzero(list_sizes(offsets))
    most = np.zeros(len(offsets) - 1)
    if len(filled):
        most[filled] = np.maximum(0.0, np.maximum.reduceat(utility, offsets[filled]))
    total = np.exp(-most)
    if len(filled):
        total[filled] += np.add.reduceat(np.exp(utility - most[list_owner(offsets)]), offsets[filled])
    return most + np.log(total)


def conditional_log_odds(utility: np.ndarray, offsets: np.ndarray, concepts: np.ndarray) -> np.ndarray:
    """Log-odds of the candidates' probabilities, (m,) float64, finite.

    Args:
        utility: (m,) utilities of the candidates, minus that of "none of these".
        offsets: (n + 1,) where each list's candidates start.
        concepts: (m,) equal numbers for candidates of a list with the same concept; the sum over the list counts the
            top one of them.
    """
    # The top candidate of each concept, the first if equal; the others do not add to the sum.
    counted = utility
    ascending = np.sort(concepts)
    if (ascending[1:] == ascending[:-1]).any():
        order = np.lexsort((-utility, concepts))
        counted = utility.copy()
        counted[order[1:][concepts[order[1:]] == concepts[order[:-1]]]] = -np.inf
    log_p = utility - log_sums(counted, offsets)[list_owner(offsets)]
    # 1 - P loses digits near 1 and P near 0; neither may give infinite log-odds.
    return log_p - np.log(-np.expm1(np.minimum(log_p, -1e-12)))


def fit_logistic(
    features: np.ndarray,
    labels: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    *,
    offsets: np.ndarray | None = None,
    prior: tuple[np.ndarray, np.ndarray] | None = None,
    start: np.ndarray | None = None,
    fixed: np.ndarray | float = 0.0,
) -> np.ndarray:
    """Maximum-likelihood logistic regression inside a box, by Newton's method.

    Each step minimizes a quadratic model inside the box exactly. Its curvature is computed again only where steps do
    not shrink fast, since it costs as much as several gradients.

    Args:
        features: (n, k) float64, of unit scale.
        labels: (n,) 0 or 1; with `offsets` at most one 1 in a list.
        lower: (k,) lower bounds, infinite where there are none.
        upper: (k,) upper bounds, infinite where there are none.
        offsets: (lists + 1,) where each list's rows start: a conditional logit of one row, or none, of each
            list. None: independent rows.
        prior: mean (k,) and precision (k, k) of a normal prior; by default none.
        start: (k,) coefficients to start from, such as those of similar rows; by default the prior's mean.
        fixed: (n,) log-odds of each row besides those of its features.

    Returns:
        (k,) coefficients, accurate to 1e-6 or better.
    """
    k = features.shape[1]
    mean, precision = prior or (np.zeros(k), np.zeros((k, k)))
    total = len(labels) if offsets is None else len(offsets) - 1

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        utility = features @ theta + fixed
        normalizers, p = _normalized(utility, offsets)
        value, away = normalizers.sum() - labels @ utility, theta - mean
        pull = precision @ away
        return (value + 0.5 * away @ pull) / total, (features.T @ (p - labels) + pull) / total, p

    theta = np.clip(mean if start is None else start, lower, upper)
    (value, gradient, p), curvature, last = loss(theta), None, np.inf
    for _ in range(MOST_STEPS):
        is_new = curvature is None
        if curvature is None:
            curvature = (_information(features, p, offsets) + precision) / total
        step, share = _least_in_box(curvature, gradient, lower - theta, upper - theta), 1.0
        expected = gradient @ step
        result = loss(theta + step)
        while result[0] > value + 1e-4 * share * expected + ROUNDING * abs(value) and share > LEAST_SHARE:
            share /= 2
            result = loss(theta + share * step)
        if share <= LEAST_SHARE:
            if is_new:
                break
            curvature = None
            continue
        theta = np.clip(theta + share * step, lower, upper)
        value, gradient, p = result
        size = share * np.abs(step).max(initial=0.0)
        if size <= ACCURACY or -expected <= ROUNDING**2:
            break
        if share < 1.0 or size > last / 4:
            curvature = None
        last = size
    # The prior alone moves a coefficient towards a bound, but never onto it.
    theta = np.where(theta - lower <= ACCURACY, lower, theta)
    return np.where(upper - theta <= ACCURACY, upper, theta)


def _least_in_box(curvature: np.ndarray, gradient: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """The x (k,) in the box around 0 that minimizes ``gradient @ x + x @ curvature @ x / 2``.

    An active-set method: coordinates stay at bounds that they reach, until the slope leads inside.
    """
    x = np.zeros(len(gradient))
    # So that coefficients which the rows cannot distinguish do not move.
    curvature = curvature + DAMPING * curvature.diagonal().max() * np.eye(len(x))
    held = ((lower >= 0) & (gradient > 0)) | ((upper <= 0) & (gradient < 0))
    for _ in range(10 * len(x)):
        free = np.flatnonzero(~held)
        move = np.zeros(len(x))
        slope = gradient + curvature @ x
        # A flat likelihood gives no direction.
        with suppress(np.linalg.LinAlgError):
            move[free] = np.linalg.solve(curvature[np.ix_(free, free)], -slope[free])
        bound = np.where(move > 0, upper, lower)
        reach = np.full(len(x), np.inf)
        np.divide(bound - x, move, out=reach, where=move != 0)
        nearest = int(np.argmin(reach))
        if reach[nearest] < 1:
            x += reach[nearest] * move
            x[nearest], held[nearest] = bound[nearest], True
            continue
        x += move
        slope = gradient + curvature @ x
        inward = np.where(held, np.where(x <= lower, -slope, slope), -np.inf)
        most = int(np.argmax(inward))
        if inward[most] <= ROUNDING * np.abs(gradient).max():
            break
        held[most] = False
    return x


def information(features: np.ndarray, theta: np.ndarray, offsets: np.ndarray | None = None) -> np.ndarray:
    """Fisher information of all rows at `theta`, for a prior, (k, k); arguments as for `fit_logistic`."""
    return _information(features, _normalized(features @ theta, offsets)[1], offsets)


def _normalized(utility: np.ndarray, offsets: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Log of the normalizer of each row or list, and probabilities (n,)."""
    if offsets is None:
        return np.logaddexp(0.0, utility), sigmoid(utility)
    sums = log_sums(utility, offsets)
    return sums, np.exp(utility - np.repeat(sums, list_sizes(offsets)))


def _information(features: np.ndarray, p: np.ndarray, offsets: np.ndarray | None) -> np.ndarray:
    if offsets is None:
        return features.T @ (features * (p * (1 - p))[:, None])
    weighted = features * p[:, None]
    sums = np.add.reduceat(weighted, offsets[:-1][np.diff(offsets) > 0], axis=0)
    return features.T @ weighted - sums.T @ sums
