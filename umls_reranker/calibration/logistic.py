"""What calibrators are fitted with: checked scores, and logistic regression of few coefficients inside a box."""

import numpy as np

from ..errors import UserError

__all__ = ["checked_scores", "fit_logistic", "sigmoid"]


def checked_scores(
    logits: np.ndarray, labels: np.ndarray, sample_weight: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, labels and weights (ones when left out) as float64 of shape (n,), fit to calibrate on.

    Raises:
        UserError: fewer than two rows, a logit that is not finite, or a class without weight.
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
    features: np.ndarray, labels: np.ndarray, weight: np.ndarray, lower: np.ndarray, upper: np.ndarray
) -> np.ndarray:
    """Maximum-likelihood logistic regression inside a box by projected Newton steps (Bertsekas 1982).

    Args:
        features: (n, k) float64, of unit scale.
        labels, weight: (n,).
        lower, upper: (k,) bounds, infinite where there are none.

    Returns:
        (k,) coefficients.
    """
    weight = weight / weight.sum()

    def loss(theta: np.ndarray) -> float:
        margin = features @ theta
        return float(weight @ (np.logaddexp(0.0, margin) - labels * margin))

    def search(theta: np.ndarray, step: np.ndarray, current: float) -> tuple[np.ndarray, float]:
        """The first of ever shorter steps that does not raise the loss; the start itself when there is none."""
        for size in 0.5 ** np.arange(40):
            moved = np.clip(theta - size * step, lower, upper)
            changed = loss(moved)
            if changed <= current:
                return moved, changed
        return theta, current

    theta = np.clip(np.zeros(features.shape[1]), lower, upper)
    current = loss(theta)
    for _ in range(500):
        p = sigmoid(features @ theta)
        gradient = features.T @ (weight * (p - labels))
        held = ((theta <= lower) & (gradient > 0)) | ((theta >= upper) & (gradient < 0))
        free = ~held
        if not free.any() or np.abs(gradient[free]).max() < 1e-13:
            break
        part = features[:, free]
        curvature = part.T @ (part * (weight * p * (1 - p))[:, None])
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
