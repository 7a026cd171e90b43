"""Maps from a cross-encoder's raw log-odds to calibrated probabilities.

A calibrator is fitted on logits of shape (n,) with labels 0/1, applied by calling it, and kept as JSON. Parametric
ones keep the order of the logits; isotonic regression makes ties, so rank by logit and decide by probability.
Applying and loading need numpy alone.
"""

import difflib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import UserError
from .logistic import checked_scores, fit_logistic, sigmoid
from .reliability import document_index, log_loss

__all__ = [
    "CALIBRATORS",
    "BetaCalibrator",
    "Calibrator",
    "IsotonicCalibrator",
    "PlattCalibrator",
    "TemperatureCalibrator",
    "cross_validated_log_loss",
    "fit_calibrator",
    "make_calibrator",
]

# Slopes are bounded in units of the logits' standard deviation: perfectly separable data would drive them to infinity.
MAX_STANDARD_SLOPE = 30.0
TEMPERATURE_BOUNDS = (0.05, 20.0)


class Calibrator(ABC):
    """Base of all calibrators: `fit`, call, `to_dict` and `from_dict`."""

    method: str
    parameter_names: tuple[str, ...]

    def fit(self, logits: np.ndarray, labels: np.ndarray, sample_weight: np.ndarray | None = None) -> "Calibrator":
        """Fit by maximum likelihood in float64, without regularization.

        Args:
            logits: (n,) raw log-odds in the precision that serves.
            labels: (n,) 0 or 1.
            sample_weight: (n,) non-negative; all one when left out.

        Raises:
            UserError: fewer than two rows, a single class, a value that is not finite, or logits that rank wrong
                candidates above right ones.
        """
        self._fit(*checked_scores(logits, labels, sample_weight))
        return self

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        """Calibrated probabilities: float64 in [0, 1], of the shape of `logits`."""
        return self._apply(np.asarray(logits, dtype=np.float64))

    def to_dict(self) -> dict[str, Any]:
        """``{"method": ..., "parameters": {...}}``, JSON numbers only; `from_dict` gives equal outputs back."""
        values = {name: getattr(self, name) for name in self.parameter_names}
        return {
            "method": self.method,
            "parameters": {k: v.tolist() if isinstance(v, np.ndarray) else float(v) for k, v in values.items()},
        }

    @staticmethod
    def from_dict(state: dict[str, Any]) -> "Calibrator":
        """The calibrator that `to_dict` wrote; further keys of `state` are ignored.

        Raises:
            UserError: an unknown method, or a parameter that is missing or not a finite number.
        """
        calibrator = make_calibrator(str(state.get("method")))
        parameters = state.get("parameters") or {}
        for name in calibrator.parameter_names:
            try:
                value = np.asarray(parameters[name], dtype=np.float64)
            except (KeyError, TypeError, ValueError):
                value = np.asarray(np.nan)
            if not np.all(np.isfinite(value)):
                raise UserError(
                    f"calibrator.json: parameters.{name} of method '{calibrator.method}' is missing or no finite "
                    "number; run the calibrate stage again"
                )
            setattr(calibrator, name, value if value.ndim else float(value))
        if not calibrator._rises():
            raise UserError(
                f"calibrator.json: the parameters of method '{calibrator.method}' do not make a rising map; run the "
                "calibrate stage again"
            )
        return calibrator

    def _rises(self) -> bool:
        """Whether higher logits never get lower probabilities under the current parameters."""
        probe = self(np.array([-20.0, -1.0, 0.0, 1.0, 20.0]))
        return bool(np.all(np.diff(probe) >= 0))

    @abstractmethod
    def _fit(self, logits: np.ndarray, labels: np.ndarray, weight: np.ndarray) -> None: ...

    @abstractmethod
    def _apply(self, logits: np.ndarray) -> np.ndarray: ...


class PlattCalibrator(Calibrator):
    """``sigmoid(slope * logit + intercept)`` (Platt 1999), slope > 0.

    On separable data the likelihood has no maximum; the slope then stops at `MAX_STANDARD_SLOPE` divided by the
    standard deviation of the logits.
    """

    method = "platt"
    parameter_names = ("slope", "intercept")

    def __init__(self, slope: float = 1.0, intercept: float = 0.0) -> None:
        self.slope = slope
        self.intercept = intercept

    def _fit(self, logits: np.ndarray, labels: np.ndarray, weight: np.ndarray) -> None:
        center, scale = logits.mean(), logits.std()
        if scale == 0:
            raise UserError("all logits of the calibration split are equal; the checkpoint has not learned anything")
        features = np.stack([(logits - center) / scale, np.ones_like(logits)], axis=1)
        bound = np.array([MAX_STANDARD_SLOPE, np.inf])
        slope, intercept = fit_logistic(features, labels, weight, -bound, bound)
        self.slope = float(slope / scale)
        self.intercept = float(intercept - slope * center / scale)
        if self.slope <= 0:
            raise _wrong_order(f"Platt slope {self.slope:.3g}")

    def _apply(self, logits: np.ndarray) -> np.ndarray:
        return sigmoid(self.slope * logits + self.intercept)


class TemperatureCalibrator(Calibrator):
    """``sigmoid(logit / temperature)`` (Guo et al. 2017), temperature bounded to [0.05, 20].

    The likelihood is concave in 1 / temperature, which is what is optimized; the bounds are those of log T.
    """

    method = "temperature"
    parameter_names = ("temperature",)

    def __init__(self, temperature: float = 1.0) -> None:
        self.temperature = temperature

    def _fit(self, logits: np.ndarray, labels: np.ndarray, weight: np.ndarray) -> None:
        low, high = TEMPERATURE_BOUNDS
        (slope,) = fit_logistic(logits[:, None], labels, weight, np.array([1 / high]), np.array([1 / low]))
        self.temperature = float(1.0 / slope)

    def _apply(self, logits: np.ndarray) -> np.ndarray:
        return sigmoid(logits / self.temperature)


class BetaCalibrator(Calibrator):
    """``sigmoid(a * ln s - b * ln(1 - s) + c)`` with ``s = sigmoid(logit)``, a, b >= 0 (Kull et al. 2017).

    Equals Platt scaling where a = b; two slopes catch scores that are overconfident on one side only.
    """

    method = "beta"
    parameter_names = ("a", "b", "c")

    def __init__(self, a: float = 1.0, b: float = 1.0, c: float = 0.0) -> None:
        self.a = a
        self.b = b
        self.c = c

    def _fit(self, logits: np.ndarray, labels: np.ndarray, weight: np.ndarray) -> None:
        features = self._features(logits)
        scale = features.std(axis=0)
        scale[scale == 0] = 1.0
        upper = np.array([MAX_STANDARD_SLOPE, MAX_STANDARD_SLOPE, np.inf])
        standard = np.column_stack([features / scale, np.ones_like(logits)])
        a, b, c = fit_logistic(standard, labels, weight, np.array([0.0, 0.0, -np.inf]), upper)
        self.a, self.b, self.c = float(a / scale[0]), float(b / scale[1]), float(c)
        if self.a == 0 and self.b == 0:
            raise _wrong_order("both beta slopes are 0")

    def _apply(self, logits: np.ndarray) -> np.ndarray:
        ln_s, minus_ln_rest = np.moveaxis(self._features(logits), -1, 0)
        return sigmoid(self.a * ln_s + self.b * minus_ln_rest + self.c)

    @staticmethod
    def _features(logits: np.ndarray) -> np.ndarray:
        return np.stack([-np.logaddexp(0.0, -logits), np.logaddexp(0.0, logits)], axis=-1)


class IsotonicCalibrator(Calibrator):
    """Non-decreasing, piecewise linear between knots (Zadrozny & Elkan 2002), constant beyond the first and the last.

    Fitted by scikit-learn, kept as its thresholds, applied by `numpy.interp`.
    """

    method = "isotonic"
    parameter_names = ("x", "y")

    def __init__(self, x: Sequence[float] = (0.0,), y: Sequence[float] = (0.5,)) -> None:
        self.x = np.asarray(x, dtype=np.float64)
        self.y = np.asarray(y, dtype=np.float64)

    def _fit(self, logits: np.ndarray, labels: np.ndarray, weight: np.ndarray) -> None:
        from sklearn.isotonic import IsotonicRegression

        regression = IsotonicRegression(y_min=0.0, y_max=1.0, increasing=True, out_of_bounds="clip")
        regression.fit(logits, labels, sample_weight=weight)
        self.x = np.asarray(regression.X_thresholds_, dtype=np.float64)
        self.y = np.asarray(regression.y_thresholds_, dtype=np.float64)
        if self.y[0] == self.y[-1]:
            raise _wrong_order("isotonic regression is flat")

    def _apply(self, logits: np.ndarray) -> np.ndarray:
        return np.interp(logits, self.x, self.y)

    def _rises(self) -> bool:
        knots = np.atleast_1d(self.x), np.atleast_1d(self.y)
        return len(knots[0]) == len(knots[1]) > 0 and all(np.all(np.diff(values) >= 0) for values in knots)


CALIBRATORS: dict[str, type[Calibrator]] = {
    kind.method: kind for kind in (PlattCalibrator, TemperatureCalibrator, BetaCalibrator, IsotonicCalibrator)
}


def make_calibrator(method: str) -> Calibrator:
    """An unfitted calibrator by name; an unknown name is a `UserError` that gives the nearest one."""
    if method not in CALIBRATORS:
        nearest = difflib.get_close_matches(method, CALIBRATORS, n=1, cutoff=0.0)[0]
        raise UserError(
            f"unknown calibration method '{method}', did you mean '{nearest}'? Choose from {', '.join(CALIBRATORS)}"
        )
    return CALIBRATORS[method]()


def fit_calibrator(
    method: str,
    logits: np.ndarray,
    labels: np.ndarray,
    groups: Sequence | None = None,
    *,
    seed: int = 0,
    report: dict[str, float] | None = None,
) -> Calibrator:
    """Fit one method, or with "auto" the one of lowest log-loss in cross-validation by document.

    Args:
        method: a key of `CALIBRATORS`, or "auto".
        logits: (n,) raw log-odds.
        labels: (n,) 0 or 1.
        groups: (n,) document of each row; "auto" needs them.
        report: receives the cross-validated log-loss (nats per pair) of each method when `method` is "auto".
    """
    if method == "auto":
        if groups is None:
            raise ValueError("method 'auto' needs the document of each row (groups)")
        losses = cross_validated_log_loss(list(CALIBRATORS), logits, labels, groups, seed=seed)
        if report is not None:
            report.update(losses)
        method = min(losses, key=losses.__getitem__)
    return make_calibrator(method).fit(logits, labels)


def cross_validated_log_loss(
    methods: Sequence[str], logits: np.ndarray, labels: np.ndarray, groups: Sequence, *, folds: int = 5, seed: int = 0
) -> dict[str, float]:
    """Held-out log-loss per pair of each method; no document is on both sides of a fold.

    Held-out probabilities are kept `1 / (2 n_fit)` away from 0 and 1, the most that n_fit rows can speak for: a single
    surprise where isotonic regression says 0 would otherwise cost it an infinite loss.

    Raises:
        UserError: fewer than two documents, or too few positives to have both classes in every fold's fitting part.
    """
    logits, labels, _ = checked_scores(logits, labels, None)
    index, documents = document_index(groups)
    if documents < 2:
        raise UserError("method 'auto' needs at least 2 documents in the calibration split; name a method instead")
    folds = min(folds, documents)
    fold_of_document = np.random.default_rng(seed).permutation(documents) % folds
    fold = fold_of_document[index]
    losses = dict.fromkeys(methods, 0.0)
    for number in range(folds):
        held_out = fold == number
        for method in methods:
            calibrator = make_calibrator(method).fit(logits[~held_out], labels[~held_out])
            eps = 0.5 / np.count_nonzero(~held_out)
            share = np.count_nonzero(held_out) / len(logits)
            losses[method] += share * log_loss(calibrator(logits[held_out]), labels[held_out], eps)
    return losses


def _wrong_order(found: str) -> UserError:
    return UserError(
        f"the logits do not rank right candidates above wrong ones ({found}); train longer, or check that the labels "
        "and the checkpoint belong together"
    )
