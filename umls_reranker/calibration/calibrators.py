"""The calibrators. A further one is a class in a module of its own and a line in `OWN_CALIBRATORS`.

From outside of the package, call `core.settings.register_calibrator`.

Parametric calibrators keep the order of the scores. Isotonic regression makes ties, so rank by score and decide by
probability. Loading and applying need only numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from ..core.errors import UserError
from ..core.settings import register_calibrator
from ..data.semantic_types import TypeHierarchy
from .lineage import DEFAULT, lineage, memberships, nearest_row, nearest_rows
from .logistic import fit_logistic, information
from .score_maps import Calibrator, Sample, Types, bounded, finite

# Slopes are bounded in units of the scores' standard deviation: perfectly separable data would drive them to infinity.
MAX_STANDARD_SLOPE = 30.0
TEMPERATURE_BOUNDS = (0.05, 20.0)
# Minimum share of the root's slope for each type, so that no type's map is flat.
LEAST_SLOPE = 0.05


@dataclass(eq=False)
class PlattCalibrator(Calibrator):
    """``slope * score + intercept`` (Platt 1999), slope > 0.

    On separable data the likelihood has no maximum; the slope then stops at `MAX_STANDARD_SLOPE` divided by the
    standard deviation of the scores.
    """

    name = "platt"
    help = "a slope and an intercept"

    slope: float = 1.0
    intercept: float = 0.0

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


@dataclass(eq=False)
class TemperatureCalibrator(Calibrator):
    """``score / temperature`` (Guo et al. 2017), temperature bounded to [0.05, 20].

    The likelihood is concave in 1 / temperature, which is optimized; the bounds are those of log T.
    """

    name = "temperature"
    help = "one slope"

    temperature: float = 1.0

    def _fit(self, sample: Sample) -> None:
        low, high = TEMPERATURE_BOUNDS
        (slope,) = sample.maximize(sample.scores[:, None], [1 / high], [1 / low])
        self.temperature = float(1.0 / slope)

    def _map(self, scores: np.ndarray, types: Types | None) -> np.ndarray:
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

    def _fit(self, sample: Sample) -> None:
        features, scale = _unit_scale(np.column_stack(self._features(sample.scores)))
        a, b, c = sample.maximize(
            np.column_stack([features, np.ones_like(sample.scores)]),
            [0.0, 0.0, -np.inf],
            [MAX_STANDARD_SLOPE, MAX_STANDARD_SLOPE, np.inf],
            # The identity.
            start=np.append(scale, 0.0),
        )
        self.a, self.b, self.c = float(a / scale[0]), float(b / scale[1]), float(c)
        if self.a == 0 and self.b == 0:
            raise _wrong_order("both beta slopes are 0")

    def _map(self, scores: np.ndarray, types: Types | None) -> np.ndarray:
        ln_s, minus_ln_rest = self._features(scores)
        return self.a * ln_s + self.b * minus_ln_rest + self.c

    @staticmethod
    def _features(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return -np.logaddexp(0.0, -scores), np.logaddexp(0.0, scores)


@dataclass(eq=False)
class IdentityCalibrator(Calibrator):
    """Leaves the scores unchanged: the fusion already is a conditional logit over a list's candidates and "none"."""

    name = "identity"
    help = "log-odds of the fusion unchanged; without features it fuses the cross-encoder alone"
    fits_logits = False

    def _fit(self, sample: Sample) -> None:
        pass

    def _map(self, scores: np.ndarray, types: Types | None) -> np.ndarray:
        return scores


@dataclass(eq=False)
class IsotonicCalibrator(Calibrator):
    """Non-decreasing, piecewise linear between knots (Zadrozny & Elkan 2002), constant beyond the first and the last.

    Fitted by scikit-learn, stored as its thresholds, applied by `numpy.interp`. For candidates judged alone.
    """

    name = "isotonic"
    help = "step function; without features only"
    fits_lists = False

    x: np.ndarray | Sequence[float] = (0.0,)
    y: np.ndarray | Sequence[float] = (0.5,)

    def __call__(self, scores: np.ndarray, types: Types | None = None) -> np.ndarray:
        """Calibrated probabilities; 0 and 1 do not change."""
        return np.interp(bounded(scores), self.x, self.y)

    def _fit(self, sample: Sample) -> None:
        from sklearn.isotonic import IsotonicRegression

        regression = IsotonicRegression(y_min=0.0, y_max=1.0, increasing=True, out_of_bounds="clip")
        regression.fit(sample.scores, sample.labels)
        self.x, self.y = regression.X_thresholds_, regression.y_thresholds_
        if self.y[0] == self.y[-1]:
            raise _wrong_order("isotonic regression is flat")

    def _map(self, scores: np.ndarray, types: Types | None) -> np.ndarray:
        with np.errstate(divide="ignore"):
            p = np.interp(scores, self.x, self.y)
            return np.log(p) - np.log1p(-p)

    def _rises(self) -> bool:
        knots = np.atleast_1d(self.x), np.atleast_1d(self.y)
        return len(knots[0]) == len(knots[1]) > 0 and all(np.all(np.diff(values) >= 0) for values in knots)


@dataclass(frozen=True)
class TypeLine:
    """``slope * x + intercept`` of one type, ancestor or group, where x is the root's map of the score.

    Attributes:
        support: number of gold candidates it was fitted on.
    """

    slope: float
    intercept: float
    support: int


@dataclass(eq=False)
class HierarchicalBetaCalibrator(Calibrator):
    """Beta calibration (the root), followed by a line with slope and intercept per semantic type.

    Fitted from the root down. Each type, ancestor or group has a normal prior around its parent's line, with the
    information of `shrinkage` gold candidates of the parent. So a type with n gold candidates has a weight of about n
    / (n + shrinkage). A type without correct or without incorrect candidates, or with equal scores, stays near its
    parent. Only the root can fail to fit.

    Attributes:
        shrinkage: number of gold candidates at which a type's data and its parent's line have equal weight.
    """

    name = "hierarchical_beta"
    help = "beta, then a linear map per semantic type"

    shrinkage: float = 1000.0
    hierarchy: TypeHierarchy = field(default_factory=lambda: TypeHierarchy([]))
    root: BetaCalibrator = field(default_factory=BetaCalibrator)
    lines: dict[str, TypeLine] = field(default_factory=lambda: {DEFAULT: TypeLine(1.0, 0.0, 0)})

    def line(self, types: str | list[str] | tuple[str, ...] | None) -> TypeLine:
        """The line of a type (id or name) or of its nearest ancestor; for several types, the first known."""
        return nearest_row(self.lines, types, self.hierarchy)

    @property
    def reads_types(self) -> bool:
        """Whether any type, ancestor or group has its own line."""
        return len(self.lines) > 1

    def _parameters(self) -> dict[str, Any]:
        return {
            "root": self.root._parameters(),
            "lines": {node: asdict(line) for node, line in self.lines.items()},
            "shrinkage": self.shrinkage,
            "hierarchy": self.hierarchy.to_dict(),
        }

    def _restore(self, parameters: Any) -> None:
        self.hierarchy = TypeHierarchy.from_dict(parameters["hierarchy"])
        self.root._restore(parameters["root"])
        self.lines = {
            node: TypeLine(finite(line["slope"]), finite(line["intercept"]), int(line["support"]))
            for node, line in {**parameters["lines"], DEFAULT: parameters["lines"][DEFAULT]}.items()
        }
        self.shrinkage = finite(parameters["shrinkage"])

    def _rises(self) -> bool:
        return self.root._rises() and all(line.slope > 0 for line in self.lines.values())

    def _fit(self, sample: Sample) -> None:
        self.root._fit(sample)
        self.lines = {DEFAULT: TypeLine(1.0, 0.0, int(sample.labels.sum()))}
        if sample.types is None or sample.hierarchy is None:
            return
        self.hierarchy = sample.hierarchy
        code, members = memberships(sample.types, self.hierarchy)
        sample = replace(sample, scores=self.root.log_odds(sample.scores), types=None)
        for node in members:
            if node != DEFAULT:
                above = lineage(node, self.hierarchy)[1]
                self.lines[node] = self._line(
                    sample.take(members[node][code]), sample.take(members[above][code]), above
                )

    def _line(self, sample: Sample, parent: Sample, parent_node: str) -> TypeLine:
        line = self.lines[parent_node]
        mean = np.array([line.slope, line.intercept])
        most = max(line.slope, MAX_STANDARD_SLOPE / (sample.scores.std() or 1.0))
        share = self.shrinkage / max(parent.labels.sum(), 1.0)
        precision = share * information(_features(parent), mean, parent.offsets)
        slope, intercept = fit_logistic(
            _features(sample),
            sample.labels,
            np.array([LEAST_SLOPE, -np.inf]),
            np.array([most, np.inf]),
            offsets=sample.offsets,
            prior=(mean, precision),
        )
        return TypeLine(float(slope), float(intercept), int(sample.labels.sum()))

    def _map(self, scores: np.ndarray, types: Types | None) -> np.ndarray:
        scores = self.root.log_odds(scores)
        if types is None:
            return scores
        lines, codes = nearest_rows(self.lines, types, self.hierarchy)
        slopes, intercepts = np.array([(line.slope, line.intercept) for line in lines]).T
        return slopes[codes] * scores + intercepts[codes]


OWN_CALIBRATORS: tuple[type[Calibrator], ...] = (
    PlattCalibrator,
    TemperatureCalibrator,
    BetaCalibrator,
    IdentityCalibrator,
    IsotonicCalibrator,
    HierarchicalBetaCalibrator,
)
for _calibrator in OWN_CALIBRATORS:
    register_calibrator(_calibrator)


def _features(sample: Sample) -> np.ndarray:
    return np.stack([sample.scores, np.ones_like(sample.scores)], axis=1)


def _unit_scale(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, k) divided by their standard deviations (k,), which are 1 for constant columns."""
    scale = features.std(axis=0)
    scale[scale == 0] = 1.0
    return features / scale, scale


def _wrong_order(reason: str) -> UserError:
    return UserError(
        f"the scores do not rank gold concepts above other candidates ({reason}); check that labels, scores and model "
        "belong together, and that higher scores are better"
    )
