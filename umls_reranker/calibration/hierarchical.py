"""A line for each semantic type, leaning on what is above it as far as its own data do not reach."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import numpy as np

from ..core.errors import UserError
from ..data.semantic_types import TypeHierarchy
from .calibrator import Calibrator, Sample, Types
from .families import MAX_STANDARD_SLOPE, BetaCalibrator, PlattCalibrator
from .lineage import DEFAULT, lineage, memberships
from .logistic import fit_logistic, information

__all__ = ["HierarchicalBetaCalibrator", "HierarchicalPlattCalibrator", "TypeLine"]

# Share of the root's slope that a type keeps at least, so that no type's map is flat.
LEAST_SLOPE = 0.05


@dataclass(frozen=True)
class TypeLine:
    """``slope * x + intercept`` of one type, ancestor or group, x being what the root makes of the score.

    Attributes:
        support: gold candidates that it was fitted on.
    """

    slope: float
    intercept: float
    support: int


class HierarchicalPlattCalibrator(Calibrator):
    """Platt scaling (the root) and after it a line by semantic type: a slope and an intercept of its own for each.

    Fitted from the root down. Each type, ancestor or group has a normal prior around its parent's line whose precision
    is the information that `shrinkage` gold candidates of the parent carry: a type with n gold candidates counts about
    n / (n + shrinkage) of its own. So a type without right candidates, without wrong ones, or with equal scores simply
    stays near its parent; errors are those of the root.

    Args:
        hierarchy: of the types; without one, and for rows without a known type, the root alone holds.
        shrinkage: gold candidates at which a type's own data and its parent's line count equally.
    """

    method = "hierarchical_platt"
    parameter_names = ()
    root_kind: ClassVar[type[Calibrator]] = PlattCalibrator

    def __init__(self, hierarchy: TypeHierarchy | None = None, shrinkage: float = 1000.0) -> None:
        self.hierarchy = hierarchy or TypeHierarchy([])
        self.shrinkage = shrinkage
        self.root = self.root_kind()
        self.lines = {DEFAULT: TypeLine(1.0, 0.0, 0)}

    def line(self, types: str | list[str] | tuple[str, ...] | None) -> TypeLine:
        """The line of a semantic type given by id or name, or of its nearest ancestor; of several, the first known."""
        for known in filter(None, map(self.hierarchy.resolve, [types] if isinstance(types, str) else types or ())):
            return next(self.lines[node] for node in lineage(known, self.hierarchy) if node in self.lines)
        return self.lines[DEFAULT]

    @property
    def reads_types(self) -> bool:
        """Whether any type, ancestor or group has a line of its own."""
        return len(self.lines) > 1

    def to_dict(self) -> dict[str, Any]:
        """As every calibrator; the parameters are the root's, lines by node, and the hierarchy that leads to them."""
        parameters = {
            "root": self.root.to_dict()["parameters"],
            "lines": {node: asdict(line) for node, line in self.lines.items()},
            "shrinkage": self.shrinkage,
            "hierarchy": self.hierarchy.to_dict(),
        }
        return {"method": self.method, "parameters": parameters}

    def _restore(self, parameters: dict[str, Any]) -> None:
        try:
            self.hierarchy = TypeHierarchy.from_dict(parameters["hierarchy"])
            self.root._restore(parameters["root"])
            self.lines = {
                node: TypeLine(*self._finite([line["slope"], line["intercept"]], node).tolist(), int(line["support"]))
                for node, line in {**parameters["lines"], DEFAULT: parameters["lines"][DEFAULT]}.items()
            }
            self.shrinkage = float(self._finite(parameters["shrinkage"], "shrinkage"))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"calibrator.json: parameters of method '{self.method}' are damaged ({error!r}); run the calibrate "
                "stage again"
            ) from None

    def _rises(self) -> bool:
        return self.root._rises() and all(line.slope > 0 for line in self.lines.values())

    def _fit(self, sample: Sample) -> None:
        self.root._fit(sample)
        self.lines = {DEFAULT: TypeLine(1.0, 0.0, int(sample.labels.sum()))}
        if sample.types is None:
            return
        sample = replace(sample, scores=self.root.log_odds(sample.scores))
        code, members = memberships(sample.types, self.hierarchy)
        for node in sorted(members, key=lambda node: (len(lineage(node, self.hierarchy)), node)):
            above = lineage(node, self.hierarchy)[1:]
            if above:
                self.lines[node] = self._line(
                    sample.take(members[node][code]), sample.take(members[above[0]][code]), above[0]
                )

    def _line(self, own: Sample, parent: Sample, parent_node: str) -> TypeLine:
        line = self.lines[parent_node]
        mean = np.array([line.slope, line.intercept])
        most = max(line.slope, MAX_STANDARD_SLOPE / (own.scores.std() or 1.0))
        share = self.shrinkage / max(parent.labels.sum(), 1.0)
        precision = share * information(_features(parent), parent.weight, mean, parent.offsets)
        slope, intercept = fit_logistic(
            _features(own),
            own.labels,
            own.weight,
            np.array([LEAST_SLOPE, -np.inf]),
            np.array([most, np.inf]),
            offsets=own.offsets,
            prior=(mean, precision),
        )
        return TypeLine(float(slope), float(intercept), int(own.labels.sum()))

    def _map(self, scores: np.ndarray, types: Types | None) -> np.ndarray:
        scores = self.root.log_odds(scores)
        if types is None:
            return scores
        code: dict[tuple[str, ...], int] = {}
        keys = ((names,) if isinstance(names, str) else tuple(names or ()) for names in types)
        index = np.fromiter((code.setdefault(key, len(code)) for key in keys), np.int64, len(scores))
        lines = [self.line(key) for key in code]
        slopes, intercepts = (np.array([getattr(line, name) for line in lines]) for name in ("slope", "intercept"))
        return slopes[index] * scores + intercepts[index] if len(lines) else scores


class HierarchicalBetaCalibrator(HierarchicalPlattCalibrator):
    """The same after beta calibration in place of Platt scaling."""

    method = "hierarchical_beta"
    root_kind = BetaCalibrator


def _features(sample: Sample) -> np.ndarray:
    return np.stack([sample.scores, np.ones_like(sample.scores)], axis=1)
