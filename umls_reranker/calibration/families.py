"""Calibrators: rising maps of log-odds, each fitted by maximum likelihood and kept as JSON.

A map is fitted and applied either to candidates that stand alone, ``P = sigmoid(map(score))``, or inside a list, where
the score is a candidate's log-odds against "none of these" and ``P = exp(map(score)) / (1 + sum of exp(map(scores)))``
(see `choice`): then the probabilities of a list sum to less than one whatever the map. Applying needs numpy alone.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..errors import UserError
from .logistic import checked_scores, fit_logistic, sigmoid

__all__ = [
    "BetaCalibrator",
    "Calibrator",
    "IsotonicCalibrator",
    "ListwiseCalibrator",
    "PlattCalibrator",
    "QuadraticCalibrator",
    "Sample",
    "TemperatureCalibrator",
    "wrong_order",
]

# Slopes are bounded in units of the scores' standard deviation: perfectly separable data would drive them to infinity.
MAX_STANDARD_SLOPE = 30.0
TEMPERATURE_BOUNDS = (0.05, 20.0)
# What an infinite score counts as: far beyond every logit, near enough to be multiplied.
LARGEST_SCORE = 1e9
# Shares of the rows between which a quadratic map bends.
BENT_BETWEEN = (0.0005, 0.9995)

Types = Sequence["Sequence[str] | str | None"]


@dataclass(frozen=True)
class Sample:
    """Checked rows to fit on.

    Attributes:
        scores, labels, weight: (n,) float64.
        offsets: (lists + 1,) where each list's rows start, or None where rows stand alone.
        types: n semantic types (ids or names) of each row's mention, or None.
    """

    scores: np.ndarray
    labels: np.ndarray
    weight: np.ndarray
    offsets: np.ndarray | None = None
    types: Types | None = None

    def take(self, inside: np.ndarray) -> Sample:
        """The rows where `inside` (n,) is true; of a list, all or none."""
        offsets, types = self.offsets, self.types
        if offsets is not None:
            kept = np.concatenate([[0], np.cumsum(inside)])[offsets]
            # Lists that are left out, and empty ones, whose likelihood is 1 whatever the map.
            offsets = np.unique(kept)
        if types is not None:
            types = [types[row] for row in np.flatnonzero(inside).tolist()]
        return Sample(self.scores[inside], self.labels[inside], self.weight[inside], offsets, types)

    def maximize(self, features: np.ndarray, lower: Sequence[float], upper: Sequence[float]) -> np.ndarray:
        """(k,) coefficients of ``features`` (n, k) inside the box, by maximum likelihood."""
        return fit_logistic(features, self.labels, self.weight, np.array(lower), np.array(upper), offsets=self.offsets)


class Calibrator(ABC):
    """Base of all calibrators: `fit`, call, `to_dict` and `from_dict`.

    Attributes:
        method: its name in recipes and JSON.
        kinds: every calibrator by its name.
        fits_lists: whether it can be fitted and applied inside lists.
    """

    method: ClassVar[str]
    parameter_names: ClassVar[tuple[str, ...]]
    fits_lists: ClassVar[bool] = True
    kinds: ClassVar[dict[str, type[Calibrator]]] = {}

    def __init_subclass__(cls) -> None:
        Calibrator.kinds[cls.method] = cls

    def fit(
        self,
        scores: np.ndarray,
        labels: np.ndarray,
        sample_weight: np.ndarray | None = None,
        *,
        offsets: np.ndarray | None = None,
        types: Types | None = None,
    ) -> Calibrator:
        """Fit by maximum likelihood in float64.

        Args:
            scores: (n,) raw log-odds in the precision that serves; inside lists, against "none of these".
            labels: (n,) 0 or 1; inside lists at most one 1 in each.
            sample_weight: (n,) non-negative; all one when left out. Not inside lists.
            offsets: (lists + 1,) where each list's rows start; None: rows stand alone.
            types: n semantic types (ids or names) of each row's mention, for calibrators that go by them.

        Raises:
            UserError: fewer than two rows, a single class, a value that is not finite, scores that are all equal, or
                scores that rank wrong candidates above right ones.
        """
        if offsets is not None and (sample_weight is not None or not self.fits_lists):
            raise ValueError(f"{self.method} with these arguments cannot be fitted inside lists")
        self._fit(Sample(*checked_scores(scores, labels, sample_weight), offsets, types))
        return self

    def __call__(self, scores: np.ndarray, types: Types | None = None) -> np.ndarray:
        """Calibrated probabilities of candidates that stand alone: float64 in [0, 1], of the shape of `scores`."""
        return sigmoid(self.log_odds(scores, types))

    def log_odds(self, scores: np.ndarray, types: Types | None = None) -> np.ndarray:
        """The map itself: float64, of the shape of `scores`; infinite scores count as +-1e9.

        Args:
            types: as in `fit`; without them, calibrators that go by types use what holds for all.

        Raises:
            UserError: a score that is no number.
        """
        return self._map(_bounded(scores), types)

    def to_dict(self) -> dict[str, Any]:
        """``{"method": ..., "parameters": {...}}``, JSON numbers only; `from_dict` gives equal outputs back."""
        values = {name: getattr(self, name) for name in self.parameter_names}
        return {
            "method": self.method,
            "parameters": {k: v.tolist() if isinstance(v, np.ndarray) else float(v) for k, v in values.items()},
        }

    @staticmethod
    def from_dict(state: dict[str, Any]) -> Calibrator:
        """The calibrator that `to_dict` wrote; further keys of `state` are ignored.

        Raises:
            UserError: an unknown method, a parameter that is missing or not a finite number, or parameters that do not
                make a rising map.
        """
        calibrator = Calibrator.of(str(state.get("method")))
        parameters = state.get("parameters") or {}
        calibrator._restore(parameters if isinstance(parameters, dict) else {})
        if not calibrator._rises():
            raise UserError(
                f"calibrator.json: the parameters of method '{calibrator.method}' do not make a rising map; run the "
                "calibrate stage again"
            )
        return calibrator

    @staticmethod
    def of(method: str) -> Calibrator:
        """An unfitted calibrator by name; an unknown name is a `UserError` that gives the nearest one."""
        if method not in Calibrator.kinds:
            nearest = difflib.get_close_matches(method, Calibrator.kinds, n=1, cutoff=0.0)[0]
            raise UserError(
                f"unknown calibration method '{method}', did you mean '{nearest}'? "
                f"Choose from {', '.join(Calibrator.kinds)}"
            )
        return Calibrator.kinds[method]()

    def _restore(self, parameters: dict[str, Any]) -> None:
        for name in self.parameter_names:
            value = self._finite(parameters.get(name), name)
            setattr(self, name, value if value.ndim else float(value))

    def _finite(self, value: Any, name: str) -> np.ndarray:
        try:
            numbers = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError):
            numbers = np.asarray(np.nan)
        if not np.all(np.isfinite(numbers)):
            raise UserError(
                f"calibrator.json: parameters.{name} of method '{self.method}' is missing or no finite number; run the "
                "calibrate stage again"
            )
        return numbers

    def _rises(self) -> bool:
        """Whether higher scores never get lower probabilities under the current parameters."""
        probe = self.log_odds(np.array([-1e3, -20.0, -1.0, 0.0, 1.0, 20.0, 1e3]))
        return bool(np.all(np.diff(probe) >= 0))

    @abstractmethod
    def _fit(self, sample: Sample) -> None: ...

    @abstractmethod
    def _map(self, scores: np.ndarray, types: Types | None) -> np.ndarray: ...


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
            raise wrong_order(f"Platt slope {self.slope:.3g}")

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
            raise wrong_order("both beta slopes are 0")

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
            raise wrong_order("both ends of the parabola are flat")

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
        return np.interp(_bounded(scores), self.x, self.y)

    def _fit(self, sample: Sample) -> None:
        from sklearn.isotonic import IsotonicRegression

        regression = IsotonicRegression(y_min=0.0, y_max=1.0, increasing=True, out_of_bounds="clip")
        regression.fit(sample.scores, sample.labels, sample_weight=sample.weight)
        self.x = np.asarray(regression.X_thresholds_, dtype=np.float64)
        self.y = np.asarray(regression.y_thresholds_, dtype=np.float64)
        if self.y[0] == self.y[-1]:
            raise wrong_order("isotonic regression is flat")

    def _map(self, scores: np.ndarray, types: Types | None) -> np.ndarray:
        with np.errstate(divide="ignore"):
            p = np.interp(scores, self.x, self.y)
            return np.log(p) - np.log1p(-p)

    def _rises(self) -> bool:
        knots = np.atleast_1d(self.x), np.atleast_1d(self.y)
        return len(knots[0]) == len(knots[1]) > 0 and all(np.all(np.diff(values) >= 0) for values in knots)


def wrong_order(found: str) -> UserError:
    return UserError(
        f"the scores do not rank right candidates above wrong ones ({found}); train longer, or check that the labels "
        "and the checkpoint belong together"
    )


def _bounded(scores: np.ndarray) -> np.ndarray:
    scores = np.asarray(scores, dtype=np.float64)
    if np.isnan(scores).any():
        raise UserError(f"{np.count_nonzero(np.isnan(scores))} scores are no numbers; look at the checkpoint")
    return np.clip(scores, -LARGEST_SCORE, LARGEST_SCORE)


def _unit_scale(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, k) divided by their standard deviations (k,), 1 where a column never varies."""
    scale = features.std(axis=0)
    scale[scale == 0] = 1.0
    return features / scale, scale
