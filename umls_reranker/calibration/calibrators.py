"""Calibrators: increasing maps of log-odds to probabilities, and which of them fits best."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np

from ..core.arrays import list_offsets
from ..core.errors import TooLittleData, UserError
from .logistic import fit_logistic, log_sums, sigmoid
from .reliability import document_folds, log_loss

# Slopes are bounded in units of the scores' standard deviation: perfectly separable data would
# drive them to infinity.
MAX_STANDARD_SLOPE = 30.0
TEMPERATURE_BOUNDS = (0.05, 20.0)
# Value of an infinite score: far beyond every logit, but small enough for products.
LARGEST_SCORE = 1e9


@dataclass(frozen=True)
class LabelledScores:
    """Scores with labels, to fit on.

    Attributes:
        scores: (n,) raw log-odds in the number format that serves; inside lists, against NIL.
        labels: (n,) 0 or 1; inside lists at most one 1 in each.
        offsets: (lists + 1,) where each list's rows start, or None for independent rows.
    """

    scores: np.ndarray
    labels: np.ndarray
    offsets: np.ndarray | None = None

    def checked(self) -> LabelledScores:
        """The same rows as float64.

        Raises:
            TooLittleData: fewer than two rows, scores that are all equal, or a single class.
            UserError: a score is not finite.
        """
        scores = np.asarray(self.scores, dtype=np.float64)
        labels = np.asarray(self.labels, dtype=np.float64)
        if len(scores) < 2:
            raise TooLittleData(
                f"calibration needs at least 2 scored pairs, found {len(scores)}; enlarge the split"
            )
        bad = np.count_nonzero(~np.isfinite(scores))
        if bad:
            raise UserError(
                f"{bad} of {len(scores)} logits are not finite; "
                "score in float32 or check the checkpoint"
            )
        if scores.min() == scores.max():
            raise TooLittleData(
                "all logits of the calibration split are equal; the checkpoint has learned nothing"
            )
        for label, what in ((1, "correct"), (0, "incorrect")):
            if not np.any(labels == label):
                raise TooLittleData(
                    f"the calibration pairs contain no {what} candidate; "
                    "enlarge the calibration split"
                )
        return replace(self, scores=scores, labels=labels)

    def take(self, inside: np.ndarray) -> LabelledScores:
        """The rows where `inside` (n,) is true; whole lists only."""
        offsets = self.offsets
        if offsets is not None:
            # Without lists that are left out, and empty lists, whose likelihood is 1 for any map.
            offsets = np.unique(list_offsets(inside)[offsets])
        return LabelledScores(self.scores[inside], self.labels[inside], offsets)

    def maximize(
        self,
        features: np.ndarray,
        lower: Sequence[float],
        upper: Sequence[float],
        start: np.ndarray | None = None,
    ) -> np.ndarray:
        """(k,) coefficients of ``features`` (n, k) inside the box, by maximum likelihood."""
        return fit_logistic(
            features,
            self.labels,
            np.array(lower),
            np.array(upper),
            offsets=self.offsets,
            start=start,
        )


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
        if sample.offsets is not None and not self.fits_lists:
            raise not_for_lists(self.name)
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
        values = {one.name: np.asarray(getattr(self, one.name)).tolist() for one in fields(self)}
        return {"method": self.name, "parameters": values}

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
                setattr(calibrator, parameter.name, finite(state["parameters"][parameter.name]))
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
        probe = self.log_odds(np.array([-1e3, -20.0, -1.0, 0.0, 1.0, 20.0, 1e3]))
        return bool(np.all(np.diff(probe) >= 0))

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
        knots = [np.atleast_1d(self.x), np.atleast_1d(self.y)]
        rises = all(np.all(np.diff(values) >= 0) for values in knots)
        return rises and len(knots[0]) == len(knots[1]) > 0


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


def not_for_lists(name: str) -> UserError:
    """The refusal of a calibrator of logits where features are weighed, inside lists."""
    others = [other for other, kind in CALIBRATORS.items() if kind.fits_lists]
    return UserError(
        f"calibrator: {name} works on the logits of the cross-encoder alone; "
        f"set `features: []` or choose from {', '.join(others)}"
    )


def _wrong_order(reason: str) -> TooLittleData:
    return TooLittleData(
        f"the scores do not rank gold concepts above other candidates ({reason}); "
        "check that labels, scores and model belong together, and that higher scores are better"
    )


def finite(value: Any) -> Any:
    """A number as a float, numbers as an array; `ValueError` or `TypeError` for anything else."""
    numbers = np.asarray(value, dtype=np.float64)
    if not np.isfinite(numbers).all():
        raise ValueError(f"{value} is not finite")
    return numbers if numbers.ndim else float(numbers)


def bounded(scores: np.ndarray) -> np.ndarray:
    """Scores as float64, infinite ones as +-1e9; NaN raises `UserError`."""
    scores = np.asarray(scores, dtype=np.float64)
    if np.isnan(scores).any():
        raise UserError(
            f"{np.count_nonzero(np.isnan(scores))} scores are not numbers; check the checkpoint"
        )
    return np.clip(scores, -LARGEST_SCORE, LARGEST_SCORE)


def choose_calibrator(
    method: str, sample: LabelledScores, groups: Sequence | np.ndarray, seed: int = 0
) -> tuple[str, dict[str, float]]:
    """The method, or for "auto" the one with the lowest cross-validated loss that fits all data.

    Args:
        method: a key of `CALIBRATORS`, or "auto".
        sample: the rows to fit on.
        groups: (n,) document of each row.
        seed: seed of the folds.

    Returns:
        Its name, and with "auto" the cross-validated loss of each method.

    Raises:
        TooLittleData: no method can be fitted.
    """
    if method != "auto":
        return method, {}
    from threadpoolctl import threadpool_limits

    # Threads of matrix products would only wait for each other: the problems are small.
    with threadpool_limits(1, "blas"):
        losses = cross_validated_losses(sample, groups, seed)
    ascending = sorted(losses, key=losses.__getitem__)
    # The best on every fold may not fit all data: slopes diverge if scores separate the labels.
    for name in ascending:
        if np.isfinite(losses[name]):
            with suppress(TooLittleData):
                CALIBRATORS[name]().fit(sample)
                return name, losses
    return ascending[0], losses


def cross_validated_losses(
    sample: LabelledScores, groups: Sequence | np.ndarray, seed: int = 0
) -> dict[str, float]:
    """Held-out loss of each method in nats per list, or per row without lists, by document.

    Held-out probabilities of single rows are kept `1 / (2 n_fit)` away from 0 and 1, the most that
    n_fit rows can support: a single surprise where isotonic regression says 0 would otherwise cost
    it an infinite loss. A method that cannot be fitted on a fold has an infinite loss.

    Args:
        sample: the rows.
        groups: (n,) document of each row.
        seed: seed of the folds.

    Raises:
        TooLittleData: fewer than two documents, or no method that can be fitted on every fold.
    """
    if sample.offsets is None:
        methods = [name for name, kind in CALIBRATORS.items() if kind.fits_logits]
    else:
        methods = [name for name, kind in CALIBRATORS.items() if kind.fits_lists]
    losses = dict.fromkeys(methods, 0.0)
    fold = document_folds(groups, seed)
    if not fold.any():
        raise TooLittleData(
            "method 'auto' needs at least 2 documents in the calibration split; "
            "choose a method instead"
        )
    failure = None
    for number in range(fold.max() + 1):
        rest = sample.take(fold != number)
        held_out = sample.take(fold == number)
        for method in losses:
            try:
                fitted = CALIBRATORS[method]().fit(rest)
            except TooLittleData as error:
                losses[method] = np.inf
                failure = error
            else:
                losses[method] += _loss(fitted, held_out, 0.5 / len(rest.scores))
    if failure is not None and np.isinf(list(losses.values())).all():
        raise failure
    number = len(sample.scores) if sample.offsets is None else len(sample.offsets) - 1
    return {method: loss / number for method, loss in losses.items()}


def _loss(calibrator: Calibrator, sample: LabelledScores, eps: float) -> float:
    """Loss summed over a sample without empty lists."""
    if sample.offsets is None:
        return log_loss(calibrator(sample.scores), sample.labels, eps) * len(sample.scores)
    utility = calibrator.log_odds(sample.scores)
    return float(log_sums(utility, sample.offsets).sum() - sample.labels @ utility)
