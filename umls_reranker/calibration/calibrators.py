"""Calibrators: increasing maps of log-odds to probabilities, and the table of those that exist."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

from ..core.errors import TooLittleData, UserError
from .labelled_scores import LabelledScores
from .logistic import sigmoid

# Slopes are bounded in units of the scores' standard deviation: perfectly separable data would
# drive them to infinity.
MAX_STANDARD_SLOPE = 30.0
TEMPERATURE_BOUNDS = (0.05, 20.0)
# Value of an infinite score: far beyond every logit, but small enough for products.
LARGEST_SCORE = 1e9
# Scores at which a map that was read from a file must not decrease.
PROBES = np.array([-1e3, -20.0, -1.0, 0.0, 1.0, 20.0, 1e3])


@dataclass(eq=False)
class Calibrator(ABC):
    """Base of all calibrators: `fit`, call, `to_dict` and `from_dict`.

    Fields of the dataclasses are their parameters, numbers or arrays, which are stored in JSON.

    Attributes:
        name: its name in recipes and JSON.
        help: one line about it.
        fits_lists: whether it can be fitted and applied inside lists, on the log-odds of a fusion.
        fits_logits: whether it can be fitted and applied to logits of candidates judged alone.
    """

    name: ClassVar[str]
    help: ClassVar[str]
    fits_lists: ClassVar[bool] = True
    fits_logits: ClassVar[bool] = True

    def fit(self, sample: LabelledScores) -> Calibrator:
        """Fit by maximum likelihood in float64.

        Raises:
            UserError: as for `LabelledScores.checked`, or scores rank incorrect candidates above
                correct ones.
        """
        if sample.offsets is not None:
            require_fits_lists(self.name)
        self._fit(sample.checked())
        return self

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Probabilities of candidates judged alone: float64 in [0, 1], of the shape of `scores`."""
        return sigmoid(self.log_odds(scores))

    def log_odds(self, scores: np.ndarray) -> np.ndarray:
        """The map itself: float64, with the shape of `scores`; infinite scores count as +-1e9.

        Raises:
            UserError: a score is not a number.
        """
        return self._map(bounded(scores))

    def to_dict(self) -> dict[str, Any]:
        """The form for JSON: ``{"method": ..., "parameters": {...}}``."""
        parameters = {
            parameter.name: np.asarray(getattr(self, parameter.name)).tolist()
            for parameter in fields(self)
        }
        return {"method": self.name, "parameters": parameters}

    @staticmethod
    def from_dict(state: dict[str, Any]) -> Calibrator:
        """Inverse of `to_dict`; other keys of `state` are ignored.

        Raises:
            UserError: the method is unknown, a parameter is missing or not finite, or the map does
                not increase.
        """
        method = str(state.get("method"))
        if method not in CALIBRATORS:
            raise UserError(
                f"calibrator.json: this version has no method {method!r}; run the calibrate stage "
                "again, or install the version of umls_reranker that wrote it"
            )
        calibrator: Calibrator = CALIBRATORS[method]()
        try:
            for parameter in fields(calibrator):
                value = state["parameters"][parameter.name]
                setattr(calibrator, parameter.name, finite(value))
            if not calibrator._rises():
                raise ValueError("they do not define an increasing map")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"calibrator.json: parameters of method '{method}' are damaged ({error}); "
                "run the calibrate stage again"
            ) from None
        return calibrator

    def _rises(self) -> bool:
        """Whether the map never decreases with the current parameters."""
        mapped = self.log_odds(PROBES)
        return bool(np.all(np.diff(mapped) >= 0))

    @abstractmethod
    def _fit(self, sample: LabelledScores) -> None:
        """Fit to rows that were checked."""

    @abstractmethod
    def _map(self, scores: np.ndarray) -> np.ndarray:
        """`log_odds` of finite scores."""


@dataclass(eq=False)
class PlattCalibrator(Calibrator):
    """``slope * score + intercept`` (Platt 1999), slope > 0.

    On separable data the likelihood has no maximum; the slope is at most `MAX_STANDARD_SLOPE`
    divided by the standard deviation of the scores.
    """

    name = "platt"
    help = "a slope and an intercept"

    slope: float = 1.0
    intercept: float = 0.0

    def _fit(self, sample: LabelledScores) -> None:
        center = sample.scores.mean()
        scale = sample.scores.std()
        features = np.stack([(sample.scores - center) / scale, np.ones_like(sample.scores)], axis=1)
        slope, intercept = sample.maximize(
            features, [-MAX_STANDARD_SLOPE, -np.inf], [MAX_STANDARD_SLOPE, np.inf]
        )
        self.slope = float(slope / scale)
        self.intercept = float(intercept - slope * center / scale)
        if self.slope <= 0:
            raise _wrong_order(f"Platt slope {self.slope:.3g}")

    def _map(self, scores: np.ndarray) -> np.ndarray:
        return self.slope * scores + self.intercept


@dataclass(eq=False)
class TemperatureCalibrator(Calibrator):
    """``score / temperature`` (Guo et al. 2017), temperature bounded to [0.05, 20].

    The likelihood is concave in 1 / temperature, which is optimized; the bounds are those of log T.
    """

    name = "temperature"
    help = "one slope"

    temperature: float = 1.0

    def _fit(self, sample: LabelledScores) -> None:
        low, high = TEMPERATURE_BOUNDS
        (slope,) = sample.maximize(sample.scores[:, None], [1 / high], [1 / low])
        self.temperature = float(1.0 / slope)

    def _map(self, scores: np.ndarray) -> np.ndarray:
        return scores / self.temperature


@dataclass(eq=False)
class BetaCalibrator(Calibrator):
    """``a * ln s - b * ln(1 - s) + c`` with ``s = sigmoid(score)``, a, b >= 0 (Kull et al. 2017).

    Equals Platt scaling if a = b; two slopes handle scores that are overconfident on one side only.
    """

    name = "beta"
    help = "two slopes, for scores above and below even odds, and an intercept"

    a: float = 1.0
    b: float = 1.0
    c: float = 0.0

    def _fit(self, sample: LabelledScores) -> None:
        features = self._features(sample.scores)
        # Those of constant columns are 1.
        scale = features.std(axis=0)
        scale[scale == 0] = 1.0
        a, b, c = sample.maximize(
            np.column_stack([features / scale, np.ones_like(sample.scores)]),
            [0.0, 0.0, -np.inf],
            [MAX_STANDARD_SLOPE, MAX_STANDARD_SLOPE, np.inf],
            # The identity.
            start=np.append(scale, 0.0),
        )
        self.a = float(a / scale[0])
        self.b = float(b / scale[1])
        self.c = float(c)
        if self.a == 0 and self.b == 0:
            raise _wrong_order("both beta slopes are 0")

    def _map(self, scores: np.ndarray) -> np.ndarray:
        features = self._features(scores)
        return self.a * features[..., 0] + self.b * features[..., 1] + self.c

    @staticmethod
    def _features(scores: np.ndarray) -> np.ndarray:
        """``ln s`` and ``-ln(1 - s)``, (..., 2)."""
        return np.stack([-np.logaddexp(0.0, -scores), np.logaddexp(0.0, scores)], axis=-1)


@dataclass(eq=False)
class IdentityCalibrator(Calibrator):
    """Scores unchanged: the fusion already is a conditional logit over candidates and NIL."""

    name = "identity"
    help = "log-odds of the fusion unchanged; without features it fuses the cross-encoder alone"
    fits_logits = False

    def _fit(self, sample: LabelledScores) -> None:
        """Without parameters, nothing is fitted."""

    def _map(self, scores: np.ndarray) -> np.ndarray:
        return scores


@dataclass(eq=False)
class IsotonicCalibrator(Calibrator):
    """Non-decreasing, piecewise linear between knots (Zadrozny & Elkan 2002).

    Constant beyond the first and the last knot. Fitted by scikit-learn, stored as its thresholds,
    applied by `numpy.interp`. For candidates judged alone.
    """

    name = "isotonic"
    help = "step function; without features only"
    fits_lists = False

    # Scores of the knots, ascending, and their probabilities, (knots,) each.
    x: np.ndarray | Sequence[float] = (0.0,)
    y: np.ndarray | Sequence[float] = (0.5,)

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Calibrated probabilities; 0 and 1 do not change."""
        return np.interp(bounded(scores), self.x, self.y)

    def _fit(self, sample: LabelledScores) -> None:
        from sklearn.isotonic import IsotonicRegression

        regression = IsotonicRegression(y_min=0.0, y_max=1.0, increasing=True, out_of_bounds="clip")
        regression.fit(sample.scores, sample.labels)
        self.x = regression.X_thresholds_
        self.y = regression.y_thresholds_
        if self.y[0] == self.y[-1]:
            raise _wrong_order("isotonic regression is flat")

    def _map(self, scores: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore"):
            p = np.interp(scores, self.x, self.y)
            return np.log(p) - np.log1p(-p)

    def _rises(self) -> bool:
        x = np.atleast_1d(self.x)
        y = np.atleast_1d(self.y)
        neither_falls = bool(np.all(np.diff(x) >= 0) and np.all(np.diff(y) >= 0))
        return neither_falls and len(x) == len(y) > 0


class AUTO:
    """The choice of the calibrator with the lowest held-out loss."""

    help = "the one with the lowest cross-validated log loss, folds by document"


CALIBRATORS: dict[str, type[Calibrator]] = {
    PlattCalibrator.name: PlattCalibrator,
    TemperatureCalibrator.name: TemperatureCalibrator,
    BetaCalibrator.name: BetaCalibrator,
    IdentityCalibrator.name: IdentityCalibrator,
    IsotonicCalibrator.name: IsotonicCalibrator,
}


def register_calibrator(calibrator: type[Calibrator]) -> None:
    """Add a calibrator to those that recipes can name.

    Raises:
        ValueError: its name is taken.
    """
    if calibrator.name in CALIBRATORS:
        raise ValueError(f"calibrator {calibrator.name!r} is already registered")
    CALIBRATORS[calibrator.name] = calibrator


def require_fits_lists(name: str) -> None:
    """Refuse a calibrator of logits where features are weighed, inside lists; UserError."""
    fit_lists = ["auto", *(other for other, kind in CALIBRATORS.items() if kind.fits_lists)]
    if name in CALIBRATORS and name not in fit_lists:
        raise UserError(
            f"calibrator: {name} works on the logits of the cross-encoder alone, without scores of "
            f"lists; choose from {', '.join(fit_lists)}, or in a recipe set `features: []`"
        )


def _wrong_order(reason: str) -> TooLittleData:
    """The refusal of scores for which no increasing map fits."""
    return TooLittleData(
        f"the scores do not rank gold concepts above other candidates ({reason}); "
        "check that labels, scores and model belong together, and that higher scores are better"
    )


def finite(value: Any) -> float | np.ndarray:
    """A number as a float, numbers as an array.

    Raises:
        ValueError, TypeError: the value is anything else, or not finite.
    """
    numbers = np.asarray(value, dtype=np.float64)
    if not np.isfinite(numbers).all():
        raise ValueError(f"{value} is not finite")
    return numbers if numbers.ndim else float(numbers)


def bounded(scores: np.ndarray) -> np.ndarray:
    """Scores as float64, of the same shape; infinite ones as +-`LARGEST_SCORE`.

    Raises:
        UserError: a score is not a number.
    """
    scores = np.asarray(scores, dtype=np.float64)
    not_numbers = np.count_nonzero(np.isnan(scores))
    if not_numbers:
        raise UserError(f"{not_numbers} scores are not numbers; check the checkpoint")
    return np.clip(scores, -LARGEST_SCORE, LARGEST_SCORE)
