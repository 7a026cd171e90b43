"""Logistic regression with few bounded coefficients, for independent rows and for choices inside lists."""

import numpy as np

from .choice import list_owner, log_sums

__all__ = ["fit_logistic", "information", "sigmoid"]


def sigmoid(x: np.ndarray) -> np.ndarray:
    """``1 / (1 + exp(-x))`` without overflow."""
    # Only exp of non-positive numbers, so nothing overflows.
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, small) / (1.0 + small)


def fit_logistic(
    features: np.ndarray,
    labels: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    *,
    offsets: np.ndarray | None = None,
    prior: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Maximum-likelihood logistic regression inside a box, by L-BFGS-B.

    Args:
        features: (n, k) float64, of unit scale.
        labels: (n,) 0 or 1; with `offsets` at most one 1 in a list.
        lower, upper: (k,) bounds, infinite where there are none.
        offsets: (lists + 1,) where each list's rows start: the likelihood is then that of the choice of one row, or
            none, of each list (see `choice`). None: independent rows.
        prior: mean (k,) and precision (k, k) of a normal prior; none unless given.

    Returns:
        (k,) coefficients.
    """
    from scipy.optimize import minimize

    k = features.shape[1]
    mean, precision = prior or (np.zeros(k), np.zeros((k, k)))
    total = len(labels) if offsets is None else len(offsets) - 1

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        utility = features @ theta
        if offsets is None:
            value = np.logaddexp(0.0, utility).sum() - labels @ utility
            error = sigmoid(utility) - labels
        else:
            log_sum = log_sums(utility, np.zeros(total), offsets)
            value = log_sum.sum() - labels @ utility
            error = np.exp(utility - np.repeat(log_sum, np.diff(offsets))) - labels
        away = theta - mean
        pull = precision @ away
        return (value + 0.5 * away @ pull) / total, (features.T @ error + pull) / total

    # Tolerances near rounding: coefficients are accurate to 1e-6 or better.
    options = {"maxiter": 1_000, "ftol": 1e-15, "gtol": 1e-13}
    start = np.clip(mean, lower, upper)
    bounds = np.column_stack([lower, upper])
    return minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x


def information(features: np.ndarray, theta: np.ndarray, offsets: np.ndarray | None = None) -> np.ndarray:
    """(k, k) Fisher information of all rows at `theta`, for use in a prior; arguments as of `fit_logistic`."""
    utility = features @ theta
    if offsets is None:
        p = sigmoid(utility)
        return features.T @ (features * (p * (1 - p))[:, None])
    p = np.exp(utility - log_sums(utility, np.zeros(len(offsets) - 1), offsets)[list_owner(offsets)])
    weighted = features * p[:, None]
    sums = np.add.reduceat(weighted, offsets[:-1][np.diff(offsets) > 0], axis=0)
    return features.T @ weighted - sums.T @ sums
