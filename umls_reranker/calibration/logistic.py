"""What calibrators are fitted with: checked scores, and logistic regression of few coefficients inside a box."""

from collections.abc import Callable

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
    """Maximum-likelihood logistic regression inside a box by projected Newton steps (Bertsekas 1982).

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
    loss, slopes = _objective(features, labels, weight, offsets, prior)

    def search(theta: np.ndarray, step: np.ndarray, current: float) -> tuple[np.ndarray, float]:
        """The first of ever shorter steps that does not raise the loss; the start itself when there is none."""
        for size in 0.5 ** np.arange(40):
            moved = np.clip(theta - size * step, lower, upper)
            changed = loss(moved)
            if changed <= current:
                return moved, changed
        return theta, current

    theta = np.clip(np.zeros(features.shape[1]) if prior is None else prior[0], lower, upper)
    current = loss(theta)
    for _ in range(500):
        gradient, curvature = slopes(theta)
        held = ((theta <= lower) & (gradient > 0)) | ((theta >= upper) & (gradient < 0))
        free = ~held
        if not free.any() or np.abs(gradient[free]).max() < 1e-13:
            break
        curvature = curvature[np.ix_(free, free)]
        # A curvature that has underflowed (separable data) must not stop the solve.
        curvature[np.diag_indices_from(curvature)] += 1e-14
        step = np.zeros_like(theta)
        step[free] = np.linalg.solve(curvature, gradient[free])
        moved, changed = search(theta, step, current)
        if np.abs(moved - theta).max() < 1e-13:
            # Clipping can bend a Newton step uphill; the gradient's own direction never does.
            moved, changed = search(theta, np.where(free, gradient, 0.0), current)
            if np.abs(moved - theta).max() < 1e-13:
                break
        theta, current = moved, changed
    return theta


def information(
    features: np.ndarray, labels: np.ndarray, weight: np.ndarray, theta: np.ndarray, offsets: np.ndarray | None = None
) -> np.ndarray:
    """(k, k) Fisher information of all rows at `theta`, for use in a prior; arguments as of `fit_logistic`."""
    _, slopes = _objective(features, labels, weight, offsets, None)
    return slopes(theta)[1] * (weight.sum() if offsets is None else len(offsets) - 1)


def _objective(
    features: np.ndarray,
    labels: np.ndarray,
    weight: np.ndarray,
    offsets: np.ndarray | None,
    prior: tuple[np.ndarray, np.ndarray] | None,
) -> tuple[Callable[[np.ndarray], float], Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]]:
    """Loss per unit of weight, or per list; and its gradient (k,) and curvature (k, k)."""
    total = weight.sum() if offsets is None else len(offsets) - 1
    mean, precision = prior or (np.zeros(features.shape[1]), np.zeros((features.shape[1],) * 2))
    precision = precision / total

    def pair_loss(theta: np.ndarray) -> float:
        margin = features @ theta
        return float(weight @ (np.logaddexp(0.0, margin) - labels * margin))

    def pair_slopes(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        p = sigmoid(features @ theta)
        curvature = features.T @ (features * (weight * p * (1 - p))[:, None])
        return features.T @ (weight * (p - labels)), curvature

    def list_loss(theta: np.ndarray) -> float:
        utility = features @ theta
        return float(log_sums(utility, np.zeros(total), offsets).sum() - labels @ utility)

    def list_slopes(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        utility = features @ theta
        p = np.exp(utility - log_sums(utility, np.zeros(total), offsets)[list_owner(offsets)])
        weighted = features * p[:, None]
        filled = offsets[:-1][np.diff(offsets) > 0]
        sums = np.add.reduceat(weighted, filled, axis=0)
        return features.T @ (p - labels), features.T @ weighted - sums.T @ sums

    likelihood, derivatives = (pair_loss, pair_slopes) if offsets is None else (list_loss, list_slopes)

    def loss(theta: np.ndarray) -> float:
        return likelihood(theta) / total + 0.5 * (theta - mean) @ precision @ (theta - mean)

    def slopes(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        gradient, curvature = derivatives(theta)
        return gradient / total + precision @ (theta - mean), curvature / total + precision

    return loss, slopes
