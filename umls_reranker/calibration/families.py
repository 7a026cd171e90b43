"""The calibrators that go by the score alone: Platt, temperature, beta, quadratic, isotonic, and none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..core.errors import UserError
from .calibrator import Calibrator, Sample, Types, bounded

__all__ = [
    "BetaCalibrator",
    "IsotonicCalibrator",
    "ListwiseCalibrator",
    "PlattCalibrator",
    "QuadraticCalibrator",
    "TemperatureCalibrator",
]

# Slopes are bounded in units of the scores' standard deviation: perfectly separable data would drive them to infinity.
MAX_STANDARD_SLOPE = 30.0
TEMPERATURE_BOUNDS = (0.05, 20.0)
# Shares of the rows between which a quadratic map bends.
BENT_BETWEEN = (0.0005, 0.9995)


class PlattCalibrator(Calibrator):
    """``slope * score + intercept`` (Platt 1999), slope > 0.

    On separable data the likelihood has no maximum; the slope then stops at `MAX_STANDARD_SLOPE` divided by the
    standard deviation of the scores.
    """

    method = "platt"
    parameter_names = ("slope", "intercept")

    def __init__(self, slope: float = 1.0, intercept: float = 0.0) -> None:
        self.slope = slope
        self.intercept = intercept

    def _fit(self, sample: Sample) -> None:
        center, scale = sample.scores.mean(), sample.scores.std()
        features = np.stack([(sample.scores - center) / scale, np.ones_like(sample.scores)], axis=1)
        slope, intercept = sample.maximize(features, [-MAX_STANDARD_SLOPE, -np.inf], [MAX_STANDARD_SLOPE, np.inf])
        self.slope = float(slope / scale)
        self.intercept = float(intercept - slope * center / scale)
        if self.slope <= 0:
            raise _wrong_order(f"Platt slope {self.slope:.3g}")

    def _map(self, scores: np.ndarray, types: Types | None) -> np.ndarray:
        return self.slope * scores + self.intercept


class TemperatureCalibrator(Calibrator):
    """``score / temperature`` (Guo et al. 2017), temperature bounded to [0.05, 20].

    The likelihood is concave in 1 / temperature, which is what is optimized; the bounds are those of log T.
    """

    method = "temperature"
    parameter_names = ("temperature",)

    def __init__(self, temperature: float = 1.0) -> None:
        self.temperature = temperature

    def _fit(self, sample: Sample) -> None:
        low, high = TEMPERATURE_BOUNDS
        (slope,) = sample.maximize(sample.scores[:, None], [1 / high], [1 / low])
        self.temperature = float(1.0 / slope)

    def _map(self, scores: np.ndarray, types: Types | None) -> np.ndarray:
        return scores / self.temperature


class BetaCalibrator(Calibrator):
    """``a * ln s - b * ln(1 - s) + c`` with ``s = sigmoid(score)``, a, b >= 0 (Kull et al. 2017).

    Equals Platt scaling where a = b; two slopes catch scores that are overconfident on one side only.
    """

    method = "beta"
    parameter_names = ("a", "b", "c")

    def __init__(self, a: float = 1.0, b: float = 1.0, c: float = 0.0) -> None:
        self.a = a
        self.b = b
        self.c = c

    def _fit(self, sample: Sample) -> None:
        features, scale = _unit_scale(self._features(sample.scores))
        a, b, c = sample.maximize(
            np.column_stack([features, np.ones_like(sample.scores)]),
            [0.0, 0.0, -np.inf],
            [MAX_STANDARD_SLOPE, MAX_STANDARD_SLOPE, np.inf],
        )
        self.a, self.b, self.c = float(a / scale[0]), float(b / scale[1]), float(c)
        if self.a == 0 and self.b == 0:
            raise _wrong_order("both beta slopes are 0")

    def _map(self, scores: np.ndarray, types: Types | None) -> np.ndarray:
        ln_s, minus_ln_rest = np.moveaxis(self._features(scores), -1, 0)
        return self.a * ln_s + self.b * minus_ln_rest + self.c

    @staticmethod
    def _features(scores: np.ndarray) -> np.ndarray:
        return np.stack([-np.logaddexp(0.0, -scores), np.logaddexp(0.0, scores)], axis=-1)


class QuadraticCalibrator(Calibrator):
    """A parabola between `low` and `high`, straight beyond, nowhere falling.

    Its slope goes evenly from `slope_low` to `slope_high`, both >= 0: the two linear constraints under which
    ``a x^2 + b x + c`` rises on an interval. The interval holds all but 0.1 % of the fitted scores, so that no outlier
    decides how the parabola may bend.
    """

    method = "quadratic"
    parameter_names = ("low", "high", "slope_low", "slope_high", "intercept")

    def __init__(
        self,
        low: float = -1.0,
        high: float = 1.0,
        slope_low: float = 1.0,
        slope_high: float = 1.0,
        intercept: float = -1.0,
    ) -> None:
        self.low = low
        self.high = high
        self.slope_low = slope_low
        self.slope_high = slope_high
        self.intercept = intercept

    def _fit(self, sample: Sample) -> None:
        order = np.argsort(sample.scores, kind="stable")
        share = np.cumsum(sample.weight[order]) / sample.weight.sum()
        places = np.searchsorted(share, BENT_BETWEEN).clip(max=len(order) - 1)
        self.low, self.high = (float(score) for score in sample.scores[order[places]])
        if self.low == self.high:
            self.low, self.high = float(sample.scores.min()), float(sample.scores.max())
        features, scale = _unit_scale(self._features(sample.scores))
        slope_low, slope_high, intercept = sample.maximize(
            np.column_stack([features, np.ones_like(sample.scores)]),
            [0.0, 0.0, -np.inf],
            [MAX_STANDARD_SLOPE, MAX_STANDARD_SLOPE, np.inf],
        )
        self.slope_low, self.slope_high = float(slope_low / scale[0]), float(slope_high / scale[1])
        self.intercept = float(intercept)
        if self.slope_low == 0 and self.slope_high == 0:
            raise _wrong_order("both ends of the parabola are flat")

    def _map(self, scores: np.ndarray, types: Types | None) -> np.ndarray:
        falling, rising = np.moveaxis(self._features(scores), -1, 0)
        return self.slope_low * falling + self.slope_high * rising + self.intercept

    def _features(self, scores: np.ndarray) -> np.ndarray:
        """The integrals, from `low` on, of a slope that falls from 1 to 0 over the interval, and of one that rises."""
        width = self.high - self.low
        inside = np.clip(scores, self.low, self.high) - self.low
        rising = inside**2 / (2 * width)
        below, above = np.minimum(scores - self.low, 0.0), np.maximum(scores - self.high, 0.0)
        return np.stack([inside - rising + below, rising + above], axis=-1)

    def _rises(self) -> bool:
        return self.low < self.high and min(self.slope_low, self.slope_high) >= 0


class ListwiseCalibrator(Calibrator):
    """The scores as they are: the fusion of evidence is itself a fitted choice among a list's candidates and none."""

    method = "listwise"
    parameter_names = ()

    def _fit(self, sample: Sample) -> None:
        pass

    def _map(self, scores: np.ndarray, types: Types | None) -> np.ndarray:
        return scores


class IsotonicCalibrator(Calibrator):
    """Non-decreasing, piecewise linear between knots (Zadrozny & Elkan 2002), constant beyond the first and the last.

    Fitted by scikit-learn, kept as its thresholds, applied by `numpy.interp`. For candidates that stand alone.
    """

    method = "isotonic"
    parameter_names = ("x", "y")
    fits_lists = False

    def __init__(self, x: Sequence[float] = (0.0,), y: Sequence[float] = (0.5,)) -> None:
        self.x = np.asarray(x, dtype=np.float64)
        self.y = np.asarray(y, dtype=np.float64)

    def __call__(self, scores: np.ndarray, types: Types | None = None) -> np.ndarray:
        """Calibrated probabilities; 0 and 1 stay what they are."""
        return np.interp(bounded(scores), self.x, self.y)

    def _fit(self, sample: Sample) -> None:
        from sklearn.isotonic import IsotonicRegression

        regression = IsotonicRegression(y_min=0.0, y_max=1.0, increasing=True, out_of_bounds="clip")
        regression.fit(sample.scores, sample.labels, sample_weight=sample.weight)
        self.x = np.asarray(regression.X_thresholds_, dtype=np.float64)
        self.y = np.asarray(regression.y_thresholds_, dtype=np.float64)
        if self.y[0] == self.y[-1]:
            raise _wrong_order("isotonic regression is flat")

    def _map(self, scores: np.ndarray, types: Types | None) -> np.ndarray:
        with np.errstate(divide="ignore"):
            p = np.interp(scores, self.x, self.y)
            return np.log(p) - np.log1p(-p)

    def _rises(self) -> bool:
        knots = np.atleast_1d(self.x), np.atleast_1d(self.y)
        return len(knots[0]) == len(knots[1]) > 0 and all(np.all(np.diff(values) >= 0) for values in knots)


def _unit_scale(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, k) divided by their standard deviations (k,), 1 where a column never varies."""
    scale = features.std(axis=0)
    scale[scale == 0] = 1.0
    return features / scale, scale


def _wrong_order(found: str) -> UserError:
    return UserError(
        f"the scores do not rank right candidates above wrong ones ({found}); train longer, or check that the labels "
        "and the checkpoint belong together"
    )
