"""Logistic regression with few bounded coefficients, for independent rows and inside lists.

Inside lists it is a conditional logit over a mention's candidates and NIL (McFadden 1974): with
utilities u of the candidates minus that of NIL,
``P(c) = exp(u_c) / (1 + sum of exp(u) over the list)``. The probabilities of a list's concepts sum
to less than one, and the rest is that of NIL. If a concept has several candidates, the sum counts
the top one. Each candidate has its own probability, so with duplicates the column may sum to more.
"""

import numpy as np

# A fit ends after so many iterations, or at this relative change of the loss or largest slope.
MOST_STEPS = 2000
LEAST_CHANGE = 1e-14
FLAT = 1e-8
# Coefficients this near to a bound lie on it.
ON_BOUND = 1e-7


def sigmoid(x: np.ndarray) -> np.ndarray:
    """``1 / (1 + exp(-x))`` without overflow."""
    # Only exp of non-positive numbers, so nothing overflows.
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, small) / (1.0 + small)


def top_candidates(utility: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Candidates with the highest `utility` (m,) of their list, (m,) bool."""
    sizes = np.diff(offsets)
    filled = offsets[:-1][sizes > 0]
    return utility == np.maximum.reduceat(utility, filled).repeat(sizes[sizes > 0])


def log_sums(utility: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Log of 1, for NIL, plus the sum of exp over each list's candidates (m,), (n,)."""
    sizes = np.diff(offsets)
    filled = np.flatnonzero(sizes)
    most = np.zeros(len(sizes))
    most[filled] = np.maximum(0.0, np.maximum.reduceat(utility, offsets[filled]))
    total = np.exp(-most)
    total[filled] += np.add.reduceat(np.exp(utility - most.repeat(sizes)), offsets[filled])
    return most + np.log(total)


def conditional_log_odds(
    utility: np.ndarray, offsets: np.ndarray, concepts: np.ndarray
) -> np.ndarray:
    """Log-odds of the candidates' probabilities, (m,) float64, finite.

    Args:
        utility: (m,) utilities of the candidates, minus that of NIL.
        offsets: (n + 1,) where each list's candidates start.
        concepts: (m,) equal numbers for candidates of a list with the same concept; the sum over
            the list counts the top one of them.
    """
    # The top candidate of each concept, the first if equal; the others do not add to the sum.
    counted = utility
    ascending = np.sort(concepts)
    if (ascending[1:] == ascending[:-1]).any():
        order = np.lexsort((-utility, concepts))
        counted = utility.copy()
        concept_in_order = concepts[order]
        repeats = order[1:][concept_in_order[1:] == concept_in_order[:-1]]
        counted[repeats] = -np.inf
    log_p = utility - log_sums(counted, offsets).repeat(np.diff(offsets))
    # 1 - P loses digits near 1 and P near 0; neither may give infinite log-odds.
    return log_p - np.log(-np.expm1(np.minimum(log_p, -1e-12)))


def fit_logistic(  # noqa: PLR0913 (the problem, its bounds and its start)
    features: np.ndarray,
    labels: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    *,
    offsets: np.ndarray | None = None,
    ridge: np.ndarray | None = None,
    start: np.ndarray | None = None,
    fixed: np.ndarray | float = 0.0,
) -> np.ndarray:
    """Maximum-likelihood logistic regression inside a box.

    Args:
        features: (n, k) float64, of unit scale.
        labels: (n,) 0 or 1; with `offsets` at most one 1 in a list.
        lower: (k,) lower bounds, infinite where there are none.
        upper: (k,) upper bounds, infinite where there are none.
        offsets: (lists + 1,) where each list's rows start: a conditional logit of one row, or none,
            of each list. None: independent rows.
        ridge: (k, k) precision of a normal prior around 0; by default none.
        start: (k,) coefficients to start from, such as those of similar rows; by default 0.
        fixed: (n,) log-odds of each row besides those of its features.

    Returns:
        (k,) coefficients.
    """
    # Calibrators and weights are applied without scipy, which takes long to import.
    from scipy.optimize import Bounds, minimize

    k = features.shape[1]
    total = len(labels) if offsets is None else len(offsets) - 1
    precision = np.zeros((k, k)) if ridge is None else ridge

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        utility = features @ theta + fixed
        normalizers, p = _normalized(utility, offsets)
        pull = precision @ theta
        value = normalizers.sum() - labels @ utility + 0.5 * theta @ pull
        return value / total, (features.T @ (p - labels) + pull) / total

    theta = np.zeros(k) if start is None else start
    theta = minimize(
        loss,
        np.clip(theta, lower, upper),
        jac=True,
        method="L-BFGS-B",
        bounds=Bounds(lower, upper),
        options={"maxiter": MOST_STEPS, "ftol": LEAST_CHANGE, "gtol": FLAT, "maxcor": 20},
    ).x
    theta = np.where(theta - lower <= ON_BOUND, lower, theta)
    return np.where(upper - theta <= ON_BOUND, upper, theta)


def _normalized(utility: np.ndarray, offsets: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Log of the normalizer of each row or list, and probabilities (n,)."""
    if offsets is None:
        return np.logaddexp(0.0, utility), sigmoid(utility)
    sums = log_sums(utility, offsets)
    return sums, np.exp(utility - sums.repeat(np.diff(offsets)))
