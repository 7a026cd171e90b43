"""Fusion of features: one probability per candidate from all its features.

A conditional logit over a mention's candidates and NIL, none of them (see `logistic`):

    utility of candidate c  u_c = sum of weight x feature (+ bonus, if none of its list has more)
    utility of NIL          u_0 = intercept + sum of weight x features of the mention's string
    P(c) = exp(u_c) / (exp(u_0) + sum of exp(u) over the list)

All weights of candidates and the bonus are >= 0. Without a bonus, gold concepts far down in some
lists flatten all lists. With it, the mean probability of top candidates equals the share that is
correct.

If the mention's string was seen in training, its use there matters more and names less. So such
lists have a second set of weights, which stays near the first unless the data say otherwise.

A higher feature of a candidate, all else equal, never lowers its probability, because NIL does not
depend on the candidates. The probabilities of a list's concepts sum to less than one; the rest is
the probability of NIL. The weights are stored as readable JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ..core.errors import TooLittleData, UserError
from .feature_table import LIST_FEATURES, SEEN_STRING, FeatureTable
from .features import FEATURES
from .logistic import fit_logistic, top_candidates

# The standardized weights have this ridge, which keeps a constant feature at weight 0.
RIDGE = 1e-5
# The difference between the weights for seen strings and for others has this ridge.
RIDGE_BETWEEN = 1e-3
# With n lists, the ridge is at least min((`FEW_LISTS` / n)^2, `SMALL_SAMPLE_RIDGE` / n); that of
# the difference is at least ten times as large.
FEW_LISTS = 17
SMALL_SAMPLE_RIDGE = 10
# When the bonus is fitted, all utilities are multiplied by a factor between these two.
LOWEST_SLOPE = 0.05
HIGHEST_SLOPE = 20.0
LARGEST_BONUS = 30.0


@dataclass(eq=False)
class FeatureFusion:
    """Fitted weights; `fit` or `from_dict` makes it.

    Attributes:
        weights: feature of a candidate -> weight >= 0, in the feature's unit, for unseen strings.
        nil_weights: feature of a list -> weight.
        nil_intercept: utility of NIL if all its features are 0.
        seen_weights: as `weights`, for strings seen in training; by default `weights`.
        bonus: added to the utility of each list's top candidate, and of candidates equal to it.
    """

    weights: dict[str, float]
    nil_weights: dict[str, float]
    nil_intercept: float
    seen_weights: dict[str, float] = field(default_factory=dict)
    bonus: float = 0.0
    # The coefficients of the standardized features, if `fit` made it: a later fit may start there.
    _standardized: np.ndarray | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.seen_weights = self.seen_weights or self.weights

    @classmethod
    def fit(
        cls,
        names: Sequence[str],
        table: FeatureTable,
        gold: np.ndarray,
        start: FeatureFusion | None = None,
        pruned: np.ndarray | None = None,
    ) -> FeatureFusion:
        """Maximize the likelihood of the gold concepts, and of NIL for lists without it.

        First the weights, without a bonus. Then, given their top candidates, the bonus, a common
        factor of all utilities, and the utility of NIL.

        Args:
            names: names of the features of candidates.
            table: features of n mentions; one without types supports no candidate by its type.
            gold: (n,) position of the gold concept in its list, -1 if missing.
            start: a fit of the same features on similar lists; saves time.
            pruned: (n,) sum of the exponentials of the utilities, against NIL, of the pruned
                candidates of each list; by default 0. Their utilities are not fitted, and a gold
                concept among them counts as missing.

        Raises:
            TooLittleData: no list contains its gold concept.
            UserError: a feature is not finite.
        """
        if not np.any(np.asarray(gold) >= 0):
            raise TooLittleData(
                "no calibration mention has its gold concept among its candidates; "
                "there is nothing to fit on"
            )
        columns = {}
        for name in names:
            column = table.candidates[name]
            columns[name] = np.nan_to_num(column) if reads_type(name) else column
        candidates = Standardized.of(columns)
        lists = Standardized.of(table.lists)
        design = _design(candidates, lists, table)
        # Weights of candidates are not negative.
        lower = np.repeat([0.0, -np.inf], [2 * len(names), len(lists.scale) + 1])
        labels = np.zeros(len(table.owner))
        labels[(table.offsets[:-1] + gold)[gold >= 0]] = 1.0
        # Additional candidates lower the probabilities of others, as a higher utility of NIL does.
        fixed = 0.0 if pruned is None else -np.log1p(pruned)[table.owner]
        first_coefficients = None if start is None else start._standardized
        coefficients = fit_logistic(
            design,
            labels,
            lower,
            np.full(len(lower), np.inf),
            offsets=table.offsets,
            ridge=_ridge(len(names), len(lower), len(gold)),
            start=first_coefficients,
            fixed=fixed,
        )
        fusion = _in_units(coefficients, candidates, lists)
        slope, shift, bonus = _fit_bonus(fusion.utilities(table), table.offsets, labels, fixed)
        return cls(
            weights=_scaled(fusion.weights, slope),
            nil_weights=_scaled(fusion.nil_weights, slope),
            nil_intercept=slope * fusion.nil_intercept - shift,
            seen_weights=_scaled(fusion.seen_weights, slope),
            bonus=bonus,
            _standardized=coefficients,
        )

    @cached_property
    def weighted_features(self) -> tuple[str, ...]:
        """The features of candidates with a nonzero weight."""
        return tuple(name for name in self.weights if self.weights[name] or self.seen_weights[name])

    def utilities(self, table: FeatureTable) -> np.ndarray:
        """Utilities of the candidates minus that of NIL, log-odds against it, (m,) float64."""
        names = self.weighted_features
        missing = np.zeros(len(table.concepts))
        columns = np.array([table.candidates.get(name, missing) for name in names], np.float64)
        columns = columns.reshape(len(names), len(table.concepts))
        columns[np.isnan(columns)] = 0.0
        weights = np.array([(self.weights[name], self.seen_weights[name]) for name in names])
        sizes = np.diff(table.offsets)
        weight_set = _is_seen(table).astype(int).repeat(sizes)
        weights_of_candidates = weights.reshape(-1, 2)[:, weight_set]
        # Python's sum adds feature by feature, so that equal candidates have bitwise equal
        # utilities in any list.
        utilities = sum(weights_of_candidates * columns) - self._nil_utilities(table).repeat(sizes)
        return utilities + self.bonus * top_candidates(utilities, table.offsets)

    def _nil_utilities(self, table: FeatureTable) -> np.ndarray:
        """Utility of NIL in each list, (n,) float64."""
        utilities = np.zeros(len(table.offsets) - 1)
        for name, weight in self.nil_weights.items():
            if weight:
                utilities = utilities + weight * table.lists[name]
        return self.nil_intercept + utilities

    def to_dict(self) -> dict[str, Any]:
        """The form for JSON."""
        return {
            "weights": self.weights,
            "seen_weights": self.seen_weights,
            "nil_weights": self.nil_weights,
            "nil_intercept": self.nil_intercept,
            "top_candidate_bonus": self.bonus,
        }

    @classmethod
    def from_dict(cls, state: dict[str, Any], scores: Iterable[str] = ()) -> FeatureFusion:
        """Inverse of `to_dict`.

        Args:
            state: what `to_dict` returned.
            scores: scores of user-provided lists, which are features too.

        Raises:
            UserError: a feature does not exist, or a weight is negative or not a number.
        """
        try:
            weights = {str(name): float(value) for name, value in state["weights"].items()}
            nil = {str(name): float(value) for name, value in state["nil_weights"].items()}
            fusion = cls(
                weights=weights,
                nil_weights=nil,
                nil_intercept=float(state["nil_intercept"]),
                seen_weights={name: float(state["seen_weights"][name]) for name in weights},
                bonus=float(state["top_candidate_bonus"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"calibrator.json: the fusion is damaged ({error}); run the calibrate stage again"
            ) from None
        features = dict.fromkeys((*FEATURES, *scores))
        unknown = [name for name in weights if name not in features]
        unknown += [name for name in nil if name not in LIST_FEATURES]
        if unknown:
            raise UserError(
                f"calibrator.json: unknown feature {', '.join(unknown)}; "
                f"upgrade umls_reranker or calibrate again; known features: {', '.join(features)}"
            )
        not_negative = np.array([*weights.values(), *fusion.seen_weights.values(), fusion.bonus])
        is_finite = np.isfinite([*not_negative, *nil.values(), fusion.nil_intercept])
        if not (is_finite.all() and (not_negative >= 0).all()):
            raise UserError(
                "calibrator.json: a fusion weight is negative or not finite; "
                "run the calibrate stage again"
            )
        return fusion


class Standardized(NamedTuple):
    """Columns with mean 0 and deviation 1.

    Attributes:
        names: k names.
        values: (rows, k) float64.
        center: (k,) means of the original columns.
        scale: (k,) standard deviations of the original columns; 1 for a constant, which becomes 0.
    """

    names: list[str]
    values: np.ndarray
    center: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, columns: Mapping[str, np.ndarray]) -> Standardized:
        """Standardize columns of numbers.

        Raises:
            UserError: a value is not finite; names its column.
        """
        for name, column in columns.items():
            if not np.isfinite(column).all():
                raise UserError(
                    f"feature {name!r} has non-finite values; check the candidates and the model"
                )
        values = np.stack([np.asarray(column, np.float64) for column in columns.values()], axis=1)
        # Squares of numbers such as 1e200 are infinite, those of 1e-200 are 0.
        with np.errstate(over="ignore", invalid="ignore"):
            center = values.mean(axis=0)
            scale = values.std(axis=0)
        for name, column, deviation in zip(columns, values.T, scale, strict=True):
            low = column.min()
            high = column.max()
            if low != high and not 0 < deviation < np.inf:
                raise UserError(
                    f"feature {name!r} has values from {low:g} to {high:g}, too large or too close "
                    "to compute with; multiply its scores by a constant"
                )
        # The standard deviation of a constant may be a rounding error instead of 0.
        constant = values.min(axis=0) == values.max(axis=0)
        center[constant] = values[0, constant]
        scale[constant] = 1.0
        return cls([*columns], (values - center) / scale, center, scale)


def _design(candidates: Standardized, lists: Standardized, table: FeatureTable) -> np.ndarray:
    """The matrix that a fusion is fitted on: k features of m candidates and l features of lists.

    Two sets of weights belong to the same features: a candidate's features fill the columns of its
    list's set. Adding to the utility of NIL subtracts from that of all candidates.

    Returns:
        (m, 2 k + l + 1): features for strings not seen in training and for those seen, features of
        lists, and a constant.
    """
    is_seen = _is_seen(table)[table.owner, None]
    return np.hstack(
        [
            np.where(is_seen, 0.0, candidates.values),
            np.where(is_seen, candidates.values, 0.0),
            -lists.values[table.owner],
            np.full((len(table.owner), 1), -1.0),
        ]
    )


def _ridge(feature_count: int, coefficient_count: int, list_count: int) -> np.ndarray:
    """Precision of the normal prior of the coefficients for a fit on so many lists.

    The two weights of a feature of candidates are drawn to each other, all but the constant to 0.

    Args:
        feature_count: number of features of candidates.
        coefficient_count: number of coefficients.
        list_count: number of lists.

    Returns:
        (coefficient_count, coefficient_count): the matrix of the prior.
    """
    least = min((FEW_LISTS / list_count) ** 2, SMALL_SAMPLE_RIDGE / list_count)
    diagonal = np.full(coefficient_count, max(RIDGE, least))
    diagonal[-1] = 0.0
    ridge = np.diag(diagonal)
    # As a quadratic form this is the sum of the squared differences between the two weights.
    differences = np.kron([[1, -1], [-1, 1]], np.eye(feature_count))
    weight_count = 2 * feature_count
    ridge[:weight_count, :weight_count] += max(RIDGE_BETWEEN, 10 * least) * differences
    return ridge * (2 * list_count)


def _in_units(
    coefficients: np.ndarray, candidates: Standardized, lists: Standardized
) -> FeatureFusion:
    """The fusion of these coefficients, in the units of the features and without a bonus."""
    count = len(candidates.names)
    weights = coefficients[:count] / candidates.scale
    seen_weights = coefficients[count : 2 * count] / candidates.scale
    nil_weights = coefficients[2 * count : -1] / lists.scale
    # Shifting all candidates of a list by the same amount equals shifting NIL by the opposite.
    intercept = coefficients[-1] + weights @ candidates.center - nil_weights @ lists.center
    named_nil_weights = dict(zip(lists.names, nil_weights.tolist(), strict=True))
    named_nil_weights[SEEN_STRING] += float((seen_weights - weights) @ candidates.center)
    return FeatureFusion(
        weights=dict(zip(candidates.names, weights.tolist(), strict=True)),
        nil_weights=named_nil_weights,
        nil_intercept=float(intercept),
        seen_weights=dict(zip(candidates.names, seen_weights.tolist(), strict=True)),
    )


def reads_type(feature: str) -> bool:
    """Whether a feature needs the mention's semantic type."""
    return feature in FEATURES and "entity_type" in FEATURES[feature].inputs


def _fit_bonus(
    utility: np.ndarray, offsets: np.ndarray, labels: np.ndarray, fixed: np.ndarray | float
) -> tuple[float, float, float]:
    """A factor of utilities (m,), the constant added to them, and the bonus of top candidates."""
    scale = utility.std() or 1.0
    is_top = top_candidates(utility, offsets)
    slope, shift, bonus = fit_logistic(
        np.column_stack([utility / scale, np.ones(len(utility)), is_top]),
        labels,
        np.array([LOWEST_SLOPE * scale, -np.inf, 0.0]),
        np.array([HIGHEST_SLOPE * scale, np.inf, LARGEST_BONUS]),
        offsets=offsets,
        start=np.array([scale, 0.0, 0.0]),
        fixed=fixed,
    )
    return float(slope / scale), float(shift), float(bonus)


def _scaled(weights: Mapping[str, float], factor: float) -> dict[str, float]:
    """The weights, multiplied by a factor."""
    return {name: factor * weight for name, weight in weights.items()}


def _is_seen(table: FeatureTable) -> np.ndarray:
    """Whether each list's string was seen in training, (n,) bool."""
    return np.asarray(table.lists[SEEN_STRING]) > 0
