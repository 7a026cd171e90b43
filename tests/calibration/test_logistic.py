import numpy as np
import pytest
from scipy.optimize import minimize

from umls_reranker.calibration.logistic import fit_logistic


def test_nearly_separable_rows_are_fitted_to_the_end():
    # The logits and slopes of a beta calibrator on eight rows; clipped Newton steps end at (0, 30),
    # loss 0.194.
    logits = np.array([0.30812, 0.08319, 0.12675, -0.44606, 0.01291, 0.34350, 0.01022, 0.01614])
    labels = np.array([1.0, 1, 1, 0, 1, 1, 0, 1])
    features = np.column_stack([-np.logaddexp(0, -logits), np.logaddexp(0, logits)])
    features = np.column_stack([features / features.std(axis=0), np.ones(8)])
    theta = fit_logistic(features, labels, np.array([0, 0, -np.inf]), np.array([30, 30, np.inf]))
    margin = features @ theta
    assert np.mean(np.logaddexp(0, margin) - labels * margin) < 0.1603


def test_a_coefficient_that_the_ridge_draws_to_a_bound_lies_on_it():
    features = np.column_stack([np.zeros(6), np.ones(6), np.arange(-2.0, 4.0)])
    lower = np.array([0.0, -np.inf, -np.inf])
    upper = np.full(3, np.inf)
    ridge = 1e-5 * np.eye(3)
    labels = np.array([0.0, 0, 1, 0, 1, 1])
    found = fit_logistic(
        features, labels, lower, upper, ridge=ridge, start=np.array([1.0, 0.0, 0.0])
    )
    assert found[0] == 0.0 and found[2] > 1.0


@pytest.mark.parametrize("lower", [-3.0, 0.0])
def test_another_optimizer_does_no_better(lower):
    # Heavy tails, few rows, often separable: full Newton steps overshoot and bounds come and go.
    rng = np.random.default_rng(0)
    for _ in range(50):
        n = rng.integers(4, 40)
        x = rng.standard_cauchy((n, 2))
        features = np.column_stack([x / x.std(axis=0), np.ones(n)])
        labels = (rng.random(n) < rng.choice([0.1, 0.5, 0.9])).astype(float)
        if labels.min() == labels.max():
            continue
        low = np.array([lower, lower, -np.inf])
        high = np.array([30.0, 30.0, np.inf])

        def loss(theta, features=features, labels=labels):
            return np.mean(np.logaddexp(0, features @ theta) - labels * (features @ theta))

        theta = fit_logistic(features, labels, low, high)
        bounds = [(lower, 30.0), (lower, 30.0), (None, None)]
        reference = minimize(
            loss, np.zeros(3), bounds=bounds, method="SLSQP", options={"ftol": 1e-14}
        )
        assert np.all(theta >= low) and np.all(theta <= high)
        assert loss(theta) <= reference.fun + 1e-7
