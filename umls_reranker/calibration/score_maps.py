"""Base of the calibrators: increasing maps of log-odds, fitted by maximum likelihood and stored as JSON.

A map is fitted and applied either to candidates judged alone, ``P = sigmoid(map(score))``, or inside a list, where the
score is a candidate's log-odds against "none of these" and ``P = exp(map(score)) / (1 + sum of exp(map(scores)))``
(see `logistic`): then the probabilities of the list's concepts sum to less than one for any map. Applying needs only
numpy.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np

from ..core.arrays import list_offsets
from ..core.errors import UserError
from ..core.settings import CALIBRATORS
from ..data.semantic_types import TypeHierarchy
from .logistic import fit_logistic, sigmoid

if TYPE_CHECKING:
    from ..data.type_sets import TypeSets

# Value of an infinite score: far beyond every logit, but small enough for products.
LARGEST_SCORE = 1e9

Types: TypeAlias = "Sequence[Sequence[str] | str | None] | TypeSets"


@dataclass(frozen=True)
class Sample:
    """Rows to fit on.

    Attributes:
        scores: (n,) raw log-odds in the number format that serves; inside lists, against "none of these".
        labels: (n,) 0 or 1; inside lists at most one 1 in each.
        offsets: (lists + 1,) where each list's rows start, or None for independent rows.
        types: semantic types (ids or names) of each row's mention, for calibrators that use them.
        hierarchy: their hierarchy.
    """

    scores: np.ndarray
    labels: np.ndarray
    offsets: np.ndarray | None = None
    types: Types | None = None
    hierarchy: TypeHierarchy | None = None

    def checked(self) -> Sample:
        """The same rows as float64.

        Raises:
            UserError: fewer than two rows, a score that is not finite, scores that are all equal, or a single class.
        """
        scores, labels = np.asarray(self.scores, dtype=np.float64), np.asarray(self.labels, dtype=np.float64)
        if len(scores) < 2:
            raise UserError(f"calibration needs at least 2 scored pairs, found {len(scores)}; enlarge the split")
        bad = np.count_nonzero(~np.isfinite(scores))
        if bad:
            raise UserError(f"{bad} of {len(scores)} logits are not finite; score in float32 or check the checkpoint")
        if scores.min() == scores.max():
            raise UserError("all logits of the calibration split are equal; the checkpoint has learned nothing")
        for label, what in ((1, "right"), (0, "wrong")):
            if not np.any(labels == label):
                raise UserError(f"the calibration pairs contain no {what} candidate; enlarge the calibration split")
        return replace(self, scores=scores, labels=labels)

    def take(self, inside: np.ndarray) -> Sample:
        """The rows where `inside` (n,) is true; whole lists only."""
        offsets, types = self.offsets, self.types
        if offsets is not None:
            # Without lists that are left out, and empty lists, whose likelihood is 1 for any map.
            offsets = np.unique(list_offsets(inside)[offsets])
        if types is not None:
            types = [types[row] for row in np.flatnonzero(inside).tolist()]
        return Sample(self.scores[inside], self.labels[inside], offsets, types, self.hierarchy)

    def maximize(
        self, features: np.ndarray, lower: Sequence[float], upper: Sequence[float], start: np.ndarray | None = None
    ) -> np.ndarray:
        """(k,) coefficients of ``features`` (n, k) inside the box, by maximum likelihood."""
        return fit_logistic(features, self.labels, np.array(lower), np.array(upper), offsets=self.offsets, start=start)


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

    @property
    def reads_types(self) -> bool:
        """Whether the map depends on the mention's semantic types."""
        return False

    def fit(self, sample: Sample) -> Calibrator:
        """Fit by maximum likelihood in float64.

        Raises:
            UserError: as for `Sample.checked`, or scores rank incorrect candidates above correct ones.
        """
        if sample.offsets is not None and not self.fits_lists:
            raise UserError(
                f"calibrator: {self.name} works on the logits of the cross-encoder alone; set `features: []` or "
                f"choose from {', '.join(name for name, kind in CALIBRATORS.items() if kind.fits_lists)}"
            )
        self._fit(sample.checked())
        return self

    def __call__(self, scores: np.ndarray, types: Types | None = None) -> np.ndarray:
        """Calibrated probabilities of candidates judged alone: float64 in [0, 1], with the shape of `scores`."""
        return sigmoid(self.log_odds(scores, types))

    def log_odds(self, scores: np.ndarray, types: Types | None = None) -> np.ndarray:
        """The map itself: float64, with the shape of `scores`; infinite scores count as +-1e9.

        Args:
            scores: raw log-odds.
            types: as in `Sample`; without them, calibrators that use types apply the root's map.

        Raises:
            UserError: a score is not a number.
        """
        return self._map(bounded(scores), types)

    def to_dict(self) -> dict[str, Any]:
        """The form for JSON, ``{"method": ..., "parameters": {...}}``; `from_dict` restores equal outputs."""
        return {"method": self.name, "parameters": self._parameters()}

    @staticmethod
    def from_dict(state: dict[str, Any]) -> Calibrator:
        """Inverse of `to_dict`; other keys of `state` are ignored.

        Raises:
            UserError: the method is unknown, a parameter is missing or not finite, or the map does not increase.
        """
        method = str(state.get("method"))
        if method not in CALIBRATORS:
            raise UserError(
                f"calibrator.json: this version has no method {method!r}; run the calibrate stage again, or install "
                "the version of umls_reranker that wrote it"
            )
        calibrator: Calibrator = CALIBRATORS[method]()
        try:
            calibrator._restore(state["parameters"])
            if not calibrator._rises():
                raise ValueError("they do not define an increasing map")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"calibrator.json: parameters of method '{method}' are damaged ({error}); run the calibrate stage "
                "again"
            ) from None
        return calibrator

    def _parameters(self) -> dict[str, Any]:
        """The parameters for JSON."""
        return {parameter.name: np.asarray(getattr(self, parameter.name)).tolist() for parameter in fields(self)}

    def _restore(self, parameters: Any) -> None:
        """Inverse of `_parameters`; raises an error of any usual kind if they are damaged."""
        for parameter in fields(self):
            setattr(self, parameter.name, finite(parameters[parameter.name]))

    def _rises(self) -> bool:
        """Whether the map never decreases with the current parameters."""
        probe = self.log_odds(np.array([-1e3, -20.0, -1.0, 0.0, 1.0, 20.0, 1e3]))
        return bool(np.all(np.diff(probe) >= 0))

    @abstractmethod
    def _fit(self, sample: Sample) -> None: ...

    @abstractmethod
    def _map(self, scores: np.ndarray, types: Types | None) -> np.ndarray: ...


def finite(value: Any) -> Any:
    """A number as a float, numbers as an array; raises `ValueError` or `TypeError` for anything else."""
    numbers = np.asarray(value, dtype=np.float64)
    if not np.isfinite(numbers).all():
        raise ValueError(f"{value} is not finite")
    return numbers if numbers.ndim else float(numbers)


def bounded(scores: np.ndarray) -> np.ndarray:
    """Scores as float64, infinite ones as +-1e9; NaN raises `UserError`."""
    scores = np.asarray(scores, dtype=np.float64)
    if np.isnan(scores).any():
        raise UserError(f"{np.count_nonzero(np.isnan(scores))} scores are not numbers; check the checkpoint")
    return np.clip(scores, -LARGEST_SCORE, LARGEST_SCORE)
