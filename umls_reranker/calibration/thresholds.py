"""Thresholds on calibrated probabilities: the tiers, and where they begin for each semantic type.

A `ThresholdTable` holds three thresholds for every semantic type seen in the calibration split and
its ancestors:

* ``accept``: the F1-optimal one over pairs, shrunk toward the parent's by support; or for all types
  the lowest with a given precision;
* ``high``: one for all types, the lowest with certified precision of the whole tier
  (`certificate`), but never below ``accept``; None if nothing is certified;
* ``low``: reached by 99 % of the correct top candidates; below it a candidate is rejected.

A type falls back along its `lineage`. Lookup needs only numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np

from ..vocab.type_sets import TypeSets
from ..vocab.types import TypeHierarchy
from .certificate import Certificate
from .type_lineage import DEFAULT, lineage

TIERS = ("high", "medium", "low", "reject")
# Tiers that a deployment may name as the lowest that it accepts.
ACCEPT_TIERS = TIERS[:2]
# The threshold of a precision that no answers have: the next number above every probability.
ABOVE_ALL = 1.0 + 2.0**-52


@dataclass(frozen=True)
class TypeThreshold:
    """Thresholds of a type, ancestor or group: ``low <= accept <= high``; None: no high tier."""

    low: float
    accept: float
    high: float | None = None

    @property
    def edges(self) -> tuple[float, float, float]:
        """The lowest probabilities of all tiers but "reject", the lowest tier first."""
        high = np.inf if self.high is None else self.high
        return self.low, self.accept, high

    def to_dict(self) -> dict[str, float]:
        """Its entry in ``thresholds.json``; the certificate there says what is ``high``."""
        return {"low": self.low, "accept": self.accept}

    def tier(self, p: float) -> str:
        """Tier of a calibrated probability, one of `TIERS`."""
        reached = sum(p >= edge for edge in self.edges)
        return TIERS[len(self.edges) - reached]


def high_threshold(row: TypeThreshold, certificate: Certificate | None) -> float | None:
    """Where the high tier of a type begins; None if nothing is certified."""
    threshold = certificate.threshold if certificate is not None else None
    return None if threshold is None else max(threshold, row.accept)


@dataclass(eq=False)
class ThresholdTable:
    """Thresholds per semantic type with fallback along the type hierarchy.

    Attributes:
        rows: node id -> `TypeThreshold`; must hold "default".
        hierarchy: resolves type names and gives each type's ancestors.
        target_precision: guaranteed precision of the high-confidence tier.
        confidence: confidence of this guarantee.
        certificate: the basis of this guarantee; None in a table that was not fitted.
    """

    rows: dict[str, TypeThreshold]
    hierarchy: TypeHierarchy
    target_precision: float = 0.95
    confidence: float = 0.95
    certificate: Certificate | None = None
    # What was looked up: a hierarchy has more types than are asked for.
    _row_of_node: dict[str, TypeThreshold] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def uncertified(cls) -> ThresholdTable:
        """Thresholds of a model without any: all candidates are in one tier."""
        return cls({DEFAULT: TypeThreshold(low=0.0, accept=0.0)}, TypeHierarchy([]))

    @property
    def is_certified(self) -> bool:
        """Whether any mention can be in the tier high."""
        return self.certificate is not None and self.certificate.threshold is not None

    @property
    def reads_types(self) -> bool:
        """Whether any type, ancestor or group has its own thresholds."""
        return len(self.rows) > 1

    def _nearest_row(self, node: str) -> TypeThreshold:
        """The row of a type or group, or of its nearest ancestor that has one."""
        ancestors = lineage(node, self.hierarchy)
        nearest = next(ancestor for ancestor in ancestors if ancestor in self.rows)
        return self.rows[nearest]

    def for_type(self, types: str | Sequence[str] | None = None) -> TypeThreshold:
        """Thresholds of a semantic type given by id or name; of several, the first that is known.

        A type not in the calibration split uses its nearest ancestor; an unknown type, or None,
        uses the default.
        """
        names = [types] if isinstance(types, str) else types or ()
        resolved = filter(None, map(self.hierarchy.resolve, names))
        node = next(resolved, DEFAULT)
        if node not in self._row_of_node:
            self._row_of_node[node] = self._nearest_row(node)
        return self._row_of_node[node]

    def edges(self, types: TypeSets) -> np.ndarray:
        """`TypeThreshold.edges` by the types of n mentions, (n, 3)."""
        # The last row is that of mentions without types, whose code is -1.
        rows = [*map(self.for_type, types.sets), self.rows[DEFAULT]]
        return np.array([row.edges for row in rows])[types.codes]

    def summary(self) -> dict[str, float]:
        """How many types and groups have a threshold of their own, and how these differ.

        Returns:
            ``types``, and the ``lowest``, ``median`` and ``highest`` score from which on a top
            candidate is accepted; without types, that of the default.
        """
        of_types = [row.accept for node, row in self.rows.items() if node != DEFAULT]
        accepting = of_types or [self.rows[DEFAULT].accept]
        return {
            "types": len(of_types),
            "lowest": min(accepting),
            "median": median(accepting),
            "highest": max(accepting),
        }

    def to_dict(self) -> dict[str, Any]:
        """Its entry in ``thresholds.json``."""
        return {
            "certificate": self.certificate and self.certificate.to_dict(),
            "default": self.rows[DEFAULT].to_dict(),
            "types": {
                node: row.to_dict() for node, row in sorted(self.rows.items()) if node != DEFAULT
            },
        }
