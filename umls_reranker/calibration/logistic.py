"""What calibrators are fitted with: checked scores, and logistic regression of few coefficients inside a box."""

import numpy as np

from ..core.errors import UserError
from .choice import list_owner, log_sums

__all__ = ["checked_scores", "fit_logistic", "information", "sigmoid"]


def checked_scores(
    logits: np.ndarray, labels: np.ndarray, sample_weight: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, labels and weights (ones when left out) as float64 of shape (n,), fit to calibrate on.

    Raises:
        UserError: fewer than two rows, a logit that is not finite, logits that are all equal, or a class without
            weight.
        ValueError: shapes, labels or weights that the caller got wrong.
    """
    logits = np.asarray(logits, dtype=np.float64)
    labels = np.asarray(labels, dtype=np.float64)
    weight = np.ones_like(logits) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    if logits.ndim != 1 or logits.shape != labels.shape or logits.shape != weight.shape:
        raise ValueError(f"expected arrays of one shape (n,); found {logits.shape}, {labels.shape}, {weight.shape}")
    if len(logits) < 2:
        raise UserError(f"calibration needs 2 scored pairs or more, found {len(logits)}; enlarge the split")
    bad = np.count_nonzero(~np.isfinite(logits))
    if bad:
        raise UserError(f"{bad} of {len(logits)} logits are not finite; score with float32 or look at the checkpoint")
    if logits.min() == logits.max():
        raise UserError("all logits of the calibration split are equal; the checkpoint has not learned anything")
    if not np.all((labels == 0) | (labels == 1)):
        raise ValueError("labels must be 0 or 1")
    if not (np.all(np.isfinite(weight)) and np.all(weight >= 0)):
        raise ValueError("sample weights must be finite and not negative")
    for label, what in ((1.0, "right"), (0.0, "wrong")):
        if not np.any(weight[labels == label] > 0):
            raise UserError(f"the pairs to calibrate on hold no {what} candidate; enlarge the calibration split")
    return logits, labels, weight


def sigmoid(x: np.ndarray) -> np.ndarray:
    """``1 / (1 + exp(-x))`` without overflow."""
    # exp of a non-positive number only, so that nothing overflows.
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, small) / (1.0 + small)


def fit_logistic(
    features: np.ndarray,
    labels: np.ndarray,
    weight: np.ndarray,
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
        weight: (n,); with `offsets` all one.
        lower, upper: (k,) bounds, infinite where there are none.
        offsets: (lists + 1,) where each list's rows start: the likelihood is then that of the choice of one row, or
            none, of each list (see `choice`). None: every row stands alone.
        prior: mean (k,) and precision (k, k) of a normal prior; none unless given.

    Returns:
        (k,) coefficients.
    """
    from scipy.optimize import minimize

    k = features.shape[1]
    mean, precision = prior or (np.zeros(k), np.zeros((k, k)))
    total = weight.sum() if offsets is None else len(offsets) - 1

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        utility = features @ theta
        if offsets is None:
            value = weight @ (np.logaddexp(0.0, utility) - labels * utility)
            error = weight * (sigmoid(utility) - labels)
        else:
            log_sum = log_sums(utility, np.zeros(total), offsets)
            value = log_sum.sum() - labels @ utility
            error = np.exp(utility - np.repeat(log_sum, np.diff(offsets))) - labels
        away = theta - mean
        pull = precision @ away
        return (value + 0.5 * away @ pull) / total, (features.T @ error + pull) / total

    # Tolerances next to rounding: coefficients are good to 1e-6 and better.
    options = {"maxiter": 1_000, "ftol": 1e-15, "gtol": 1e-13}
    start = np.clip(mean, lower, upper)
    bounds = np.column_stack([lower, upper])
    return minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x


def information(
    features: np.ndarray, weight: np.ndarray, theta: np.ndarray, offsets: np.ndarray | None = None
) -> np.ndarray:
    """(k, k) Fisher information of all rows at `theta`, for use in a prior; arguments as of `fit_logistic`."""
    utility = features @ theta
    if offsets is None:
        p = sigmoid(utility)
        return features.T @ (features * (weight * p * (1 - p))[:, None])
    p = np.exp(utility - log_sums(utility, np.zeros(len(offsets) - 1), offsets)[list_owner(offsets)])
    weighted = features * p[:, None]
    sums = np.add.reduceat(weighted, offsets[:-1][np.diff(offsets) > 0], axis=0)
    return features.T @ weighted - sums.T @ sums
