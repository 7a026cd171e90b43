"""Fusion of features: one probability per candidate from all its features.

A conditional logit over a mention's candidates and NIL (see `logistic`):

    utility of candidate c    u_c = sum of weight x feature  (+ bonus, if no other of its list has more)
    utility of NIL           u_0 = intercept + sum of weight x features of the mention's string
    P(c) = exp(u_c) / (exp(u_0) + sum of exp(u) over the list)

All weights of candidates and the bonus are >= 0. Without a bonus, gold concepts far down in some lists flatten all
lists. With it, the mean probability of top candidates equals the share that is correct.

If the mention's string was seen in training, its use there matters more and names less. So such lists have a second
set of weights, which stays near the first unless the data say otherwise.

A higher feature of a candidate, all else equal, never lowers its probability, because NIL does not depend on the
candidates. The probabilities of a list's concepts sum to less than one; the rest is the probability of NIL. The
weights are stored as readable JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ..core.errors import UserError
from .features import FEATURES, LIST_FEATURES, FeatureTable
from .logistic import conditional_log_odds, fit_logistic, top_candidates

SEEN = "seen_string"
# Ridge of the standardized weights; keeps a constant feature at weight 0.
RIDGE = 1e-5
# Ridge of the difference between the weights for seen strings and for others.
RIDGE_BETWEEN = 1e-3
# With n lists, the ridge is at least min((`FEW_LISTS` / n)^2, `MOST_RIDGE` / n); that of the difference is ten times
# as large.
FEW_LISTS, MOST_RIDGE = 17, 10
# Of all utilities together, when the bonus is fitted; and the largest bonus.
SLOPES = (0.05, 20.0)
LARGEST_BONUS = 30.0


@dataclass(eq=False)
class FeatureFusion:
    """Fitted weights; `fit` or `from_dict` makes it.

    Attributes:
        weights: feature of a candidate -> weight >= 0, in the feature's unit, for strings not seen in training.
        seen_weights: the same for strings seen in training; by default `weights`.
        nil_weights: feature of a list -> weight.
        nil_intercept: utility of NIL if all its features are 0.
        bonus: added to the utility of the top candidate of each list, and of candidates equal to it.
    """

    weights: dict[str, float]
    nil_weights: dict[str, float]
    nil_intercept: float
    seen_weights: dict[str, float] = field(default_factory=dict)
    bonus: float = 0.0
    # Coefficients of the standardized features, where it was fitted here.
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

        First the weights, without a bonus. Then, given their top candidates, the bonus, a common factor of all
        utilities, and the utility of NIL.

        Args:
            names: names of the features of candidates.
            table: features of n mentions; a mention without types supports no candidate by its type.
            gold: (n,) position of the gold concept in its list, -1 if missing.
            start: a fit of the same features on similar lists; saves time.
            pruned: (n,) sum of the exponentials of the utilities, against NIL, of the pruned candidates of each
                list; by default 0. Their utilities are not fitted, and a gold concept among them counts as missing.

        Raises:
            UserError: no list contains its gold concept, or no feature varies.
        """
        if not np.any(np.asarray(gold) >= 0):
            raise UserError(
                "no calibration mention has its gold concept among its candidates; there is nothing to fit on"
            )
        columns = {name: table.candidates[name] for name in names}
        columns |= {name: np.nan_to_num(column) for name, column in columns.items() if reads_type(name)}
        features, center, scale = _standardized(columns)
        list_features, list_center, list_scale = _standardized(table.lists)
        owner, offsets = table.owner, table.offsets
        # Additional candidates lower the probabilities of all others, as a higher utility of NIL does.
        fixed = 0.0 if pruned is None else -np.log1p(pruned)[owner]
        seen = _seen(table)[owner, None]
        labels = np.zeros(len(owner))
        labels[(offsets[:-1] + gold)[gold >= 0]] = 1.0
        k, rest = len(center), len(list_center) + 1
        # Two sets of weights for the same features: a candidate's features fill the columns of its list's set. Adding
        # to the utility of NIL subtracts from that of all candidates.
        rows = np.hstack([features * ~seen, features * seen, -list_features[owner], np.full((len(owner), 1), -1.0)])
        of_few = min((FEW_LISTS / len(gold)) ** 2, MOST_RIDGE / len(gold))
        ridge = np.zeros((2 * k + rest,) * 2)
        ridge[: 2 * k, : 2 * k] = max(RIDGE_BETWEEN, 10 * of_few) * np.kron([[1, -1], [-1, 1]], np.eye(k))
        ridge[np.arange(2 * k + rest - 1), np.arange(2 * k + rest - 1)] += max(RIDGE, of_few)
        lower = np.repeat([0.0, -np.inf], [2 * k, rest])
        ridge *= 2 * len(gold)
        upper, former = np.full(2 * k + rest, np.inf), None if start is None else start._standardized
        coefficients = fit_logistic(
            rows, labels, lower, upper, offsets=offsets, ridge=ridge, start=former, fixed=fixed
        )
        weights, seen_weights = coefficients[:k] / scale, coefficients[k : 2 * k] / scale
        nil_weights = coefficients[2 * k : -1] / list_scale
        # Shifting all candidates of a list by the same amount equals shifting none by the opposite.
        intercept = float(coefficients[-1] + weights @ center - nil_weights @ list_center)
        of_nil = dict(zip(table.lists, nil_weights.tolist(), strict=True))
        of_nil[SEEN] += float((seen_weights - weights) @ center)
        sets = [dict(zip(names, values.tolist(), strict=True)) for values in (weights, seen_weights)]
        utility = cls(sets[0], of_nil, intercept, sets[1]).utilities(table)
        bonus = _fit_bonus(utility, offsets, labels, fixed)
        unseen, seen_set, of_nil = (
            {name: bonus.slope * weight for name, weight in column.items()} for column in (*sets, of_nil)
        )
        return cls(unseen, of_nil, bonus.slope * intercept - bonus.shift, seen_set, bonus.bonus, coefficients)

    @cached_property
    def read(self) -> tuple[str, ...]:
        """The features of candidates with a nonzero weight."""
        return tuple(name for name in self.weights if self.weights[name] or self.seen_weights[name])

    def utilities(self, table: FeatureTable) -> np.ndarray:
        """Utilities of the candidates minus that of NIL, which are log-odds against it, (m,) float64."""
        none = np.zeros(len(table.offsets) - 1)
        for name, weight in self.nil_weights.items():
            if weight:
                none += weight * table.lists[name]
        none = self.nil_intercept + none
        owner, nothing = table.owner, np.zeros(len(table.concepts))
        columns = np.array([table.candidates.get(name, nothing) for name in self.read], np.float64)
        columns = columns.reshape(len(self.read), len(owner))
        columns[np.isnan(columns)] = 0.0
        weights = np.array([(self.weights[name], self.seen_weights[name]) for name in self.read])
        seen = _seen(table).astype(int)[owner]
        # Feature by feature: equal candidates have bitwise equal utilities in any list.
        utility = sum(weights.reshape(-1, 2)[:, seen] * columns) - none[owner]
        return utility + self.bonus * top_candidates(utility, table.offsets)

    def __call__(self, table: FeatureTable) -> np.ndarray:
        """Log-odds of the candidates' probabilities, (m,) float64."""
        return conditional_log_odds(self.utilities(table), table.offsets, table.concepts)

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
            seen_weights = {name: float(state["seen_weights"][name]) for name in weights}
            nil_weights = {str(name): float(value) for name, value in state["nil_weights"].items()}
            intercept, bonus = float(state["nil_intercept"]), float(state["top_candidate_bonus"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"calibrator.json: the fusion is damaged ({error}); run the calibrate stage again"
            ) from None
        known = dict.fromkeys((*FEATURES, *scores))
        unknown = [name for name in weights if name not in known]
        unknown += [name for name in nil_weights if name not in LIST_FEATURES]
        if unknown:
            raise UserError(
                f"calibrator.json: unknown feature {', '.join(unknown)}; upgrade umls_reranker or calibrate again; "
                f"known features: {', '.join(known)}"
            )
        if not (
            all(np.isfinite(value) and value >= 0 for value in [*weights.values(), *seen_weights.values(), bonus])
            and np.isfinite([*nil_weights.values(), intercept]).all()
        ):
            raise UserError(
                "calibrator.json: a fusion weight is negative or not finite; run the calibrate stage again"
            )
        return cls(weights, nil_weights, intercept, seen_weights, bonus)


def reads_type(feature: str) -> bool:
    """Whether a feature needs the mention's semantic type."""
    return feature in FEATURES and "entity_type" in FEATURES[feature].inputs


class _Bonus(NamedTuple):
    """The factor of all utilities, the constant added to them, and the bonus of the top candidates."""

    slope: float
    shift: float
    bonus: float


def _fit_bonus(utility: np.ndarray, offsets: np.ndarray, labels: np.ndarray, fixed: np.ndarray | float) -> _Bonus:
    """Fit a bonus to utilities (m,); `fixed` is as for `fit_logistic`."""
    scale = utility.std() or 1.0
    features = np.column_stack([utility / scale, np.ones(len(utility)), top_candidates(utility, offsets)])
    lower, upper = np.array([SLOPES[0] * scale, -np.inf, 0.0]), np.array([SLOPES[1] * scale, np.inf, LARGEST_BONUS])
    start = np.array([scale, 0.0, 0.0])
    slope, shift, bonus = fit_logistic(features, labels, lower, upper, offsets=offsets, start=start, fixed=fixed)
    return _Bonus(float(slope / scale), float(shift), float(bonus))


def _standardized(columns: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows, k) with mean 0 and deviation 1, and the means and deviations; a constant feature becomes 0."""
    values = np.stack([np.asarray(column, np.float64) for column in columns.values()], axis=1)
    if not np.isfinite(values).all():
        name = next(name for name, column in columns.items() if not np.isfinite(column).all())
        raise UserError(f"feature {name!r} has non-finite values; check the candidates and the model")
    center, scale = values.mean(axis=0), values.std(axis=0)
    # The standard deviation of a constant may be a rounding error instead of 0.
    constant = values.min(axis=0) == values.max(axis=0)
    center[constant], scale[constant] = values[0, constant], 1.0
    return (values - center) / scale, center, scale


def _seen(table: FeatureTable) -> np.ndarray:
    """Whether each list's string was seen in training, (n,) bool."""
    return np.asarray(table.lists[SEEN]) > 0
