"""Decision thresholds on calibrated probabilities: which candidate to accept, which to trust without a second look.

A `ThresholdTable` holds three thresholds for every semantic type seen in the calibration split and its ancestors:

* ``accept``: the F1-optimal one over pairs, shrunk toward the parent's by support;
* ``high``: the lowest one whose precision over top candidates is certified (`certify`), or None;
* ``low``: what 99 % of the correct top candidates reach; below it a candidate is rejected outright.

A type falls back along its lineage: itself, the ancestors of its own semantic group, the group, "default".
Loading and looking up need numpy alone.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..data.semantic_types import TypeHierarchy
from ..errors import UserError
from .certificate import CERTIFICATION_GRID, Certificate, certify, clopper_pearson_lower
from .lineage import DEFAULT, lineage, memberships
from .reliability import document_index

__all__ = [
    "TIERS",
    "ThresholdTable",
    "TypeThreshold",
    "f1_threshold",
]

SCHEMA_VERSION = 1
TIERS = ("high", "medium", "low", "reject")
LOW_REACH = 0.99


def f1_threshold(p: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """The threshold t that maximizes the F1 of ``p >= t``, and that F1.

    Only values between two distinct probabilities are considered, so tied pairs are accepted together. t lies halfway
    to the next lower probability, where rounding cannot flip a pair. Of equal maxima the highest threshold wins.

    Args:
        p: (n,) probabilities. y: (n,) labels 0/1, at least one positive.
    """
    order = np.argsort(-np.asarray(p, dtype=np.float64), kind="stable")
    return _f1_threshold_sorted(np.asarray(p, dtype=np.float64)[order], np.asarray(y)[order])


@dataclass(frozen=True)
class TypeThreshold:
    """Thresholds of one semantic type, ancestor or group, what they rest on and where they came from.

    ``low <= accept <= high``. The ``*_level`` fields name the most specific node whose data contributed: the type
    itself, an ancestor, "group:..." or "default"; `high_level` is None where `high` is.
    """

    accept: float
    high: float | None
    low: float
    own_accept: float | None
    own_f1: float | None
    support_pairs: int
    support_positives: int
    support_mentions: int
    accept_level: str
    high_level: str | None
    low_level: str

    @property
    def level(self) -> str:
        """Where the threshold of acceptance came from."""
        return self.accept_level

    def tier(self, p: float) -> str:
        """ "high", "medium", "low" or "reject" for a calibrated probability."""
        if self.high is not None and p >= self.high:
            return "high"
        if p >= self.accept:
            return "medium"
        return "low" if p >= self.low else "reject"


class ThresholdTable:
    """Thresholds per semantic type with fallback along the type hierarchy.

    Args:
        rows: node id -> `TypeThreshold`; must hold "default".
        hierarchy: resolves type names and gives each type's ancestors.
        target_precision, confidence: what the high-confidence tier promises.
    """

    def __init__(
        self,
        rows: dict[str, TypeThreshold],
        hierarchy: TypeHierarchy,
        target_precision: float = 0.95,
        confidence: float = 0.95,
    ) -> None:
        self.rows = rows
        self.hierarchy = hierarchy
        self.target_precision = target_precision
        self.confidence = confidence
        self._found: dict[str, TypeThreshold] = {}

    @classmethod
    def fit(
        cls,
        pair_p: np.ndarray,
        pair_y: np.ndarray,
        pair_mention: np.ndarray,
        top1_p: np.ndarray,
        top1_correct: np.ndarray,
        mention_types: Sequence[Sequence[str] | str | None],
        hierarchy: TypeHierarchy,
        *,
        groups: Sequence | None = None,
        min_positives: int = 30,
        min_mentions: int = 150,
        shrinkage: float = 1000.0,
        target_precision: float = 0.95,
        confidence: float = 0.95,
    ) -> "ThresholdTable":
        """Thresholds from the candidate lists of the calibration split.

        Args:
            pair_p: (n_pairs,) calibrated probabilities of all candidates.
            pair_y: (n_pairs,) 1 for the gold concept.
            pair_mention: (n_pairs,) index into the mentions.
            top1_p: (n_mentions,) probability of the candidate ranked first; NaN where a mention has no candidate.
            top1_correct: (n_mentions,) whether it is the gold concept.
            mention_types: per mention its semantic types (ids or names); a mention counts in each of them.
            groups: (n_mentions,) document of each mention, for the certificate; see `certify`.
            min_positives: gold pairs below which a node takes its parent's acceptance threshold as it is.
            min_mentions: top candidates at 0.5 or above below which a node's precision is not tested, and correct top
                candidates below which it takes its parent's low threshold.
            shrinkage: gold pairs k at which a node's own F1 threshold and its parent's count equally: own weight
                n / (n + k). With 1,000 positives the arg-max of a perfectly calibrated type has a standard deviation
                near 0.06, about what types differ by.

        The error probability ``1 - confidence`` is shared equally by all nodes that are tested (Bonferroni), so with
        that confidence *every* certificate of the table holds. A node without a certificate takes its parent's, unless
        its own mentions contradict it: a 95 % upper bound of its precision there below the target.

        Raises:
            UserError: no gold pair at all, so that there is nothing to fit.
        """
        pairs = _Sorted.of(pair_p, pair_y, np.asarray(pair_mention))
        if not pairs.y.any():
            raise UserError("the calibration split's candidate lists hold no gold concept; retrieve more candidates")
        scored = np.flatnonzero(~np.isnan(np.asarray(top1_p, dtype=np.float64)))
        tops = _Sorted.of(np.asarray(top1_p)[scored], np.asarray(top1_correct)[scored], scored)
        documents = None if groups is None else document_index(groups)[0][tops.mention]

        code, members = memberships(mention_types, hierarchy)
        pair_code, top_code = code[pairs.mention], code[tops.mention]
        plausible = top_code[tops.p >= CERTIFICATION_GRID[-1]]
        tested = {node for node, inside in members.items() if np.count_nonzero(inside[plausible]) >= min_mentions}
        level = 1.0 - (1.0 - confidence) / max(len(tested), 1)
        rows: dict[str, TypeThreshold] = {}
        certificates: dict[str, tuple[Certificate, str] | None] = {}
        # From the root down, so that a parent is there when its children need it.
        for node in sorted(members, key=lambda node: (len(lineage(node, hierarchy)), node)):
            in_pairs, in_tops = members[node][pair_code], members[node][top_code]
            p, y, top_p, correct = pairs.p[in_pairs], pairs.y[in_pairs], tops.p[in_tops], tops.y[in_tops]
            positives, right = int(y.sum()), top_p[correct == 1]
            parent_node = next(iter(lineage(node, hierarchy)[1:]), None)
            parent = rows.get(parent_node)

            own, own_f1 = _f1_threshold_sorted(p, y) if positives else (None, None)
            if parent is None:
                accept, accept_level = own, node
            elif positives < min_positives:
                accept, accept_level = parent.accept, parent.accept_level
            else:
                weight = positives / (positives + shrinkage)
                accept, accept_level = weight * own + (1.0 - weight) * parent.accept, node

            certificates[node] = certificates.get(parent_node)
            inside = None if documents is None else documents[in_tops]
            found = certify(top_p, correct, target_precision, level, inside) if node in tested else None
            if found is not None:
                certificates[node] = found, node
            elif certificates[node] and _contradicted(top_p, correct, certificates[node][0], target_precision):
                certificates[node] = None
            high = certificates[node][0].at_least(accept) if certificates[node] else None

            if len(right) and (len(right) >= min_mentions or parent is None):
                low, low_level = float(np.quantile(right, 1.0 - LOW_REACH, method="lower")), node
            else:
                low, low_level = (parent.low, parent.low_level) if parent else (accept, node)

            rows[node] = TypeThreshold(
                accept=accept,
                high=high,
                low=min(low, accept),
                own_accept=own,
                own_f1=own_f1,
                support_pairs=len(p),
                support_positives=positives,
                support_mentions=len(top_p),
                accept_level=accept_level,
                high_level=certificates[node][1] if high is not None else None,
                low_level=low_level,
            )
        return cls(rows, hierarchy, target_precision, confidence)

    def for_type(self, types: str | Sequence[str] | None = None) -> TypeThreshold:
        """Thresholds of a semantic type given by id or name; of several, the first that is known.

        A type that the calibration split did not hold takes those of its nearest ancestor; an unknown type, or None,
        takes the default.
        """
        if isinstance(types, str) or types is None:
            types = [types]
        for known in filter(None, map(self.hierarchy.resolve, types)):
            if known not in self._found:
                self._found[known] = next(
                    self.rows[node] for node in lineage(known, self.hierarchy) if node in self.rows
                )
            return self._found[known]
        return self.rows[DEFAULT]

    def tier(self, p: float, types: str | Sequence[str] | None = None) -> str:
        """Tier of a calibrated probability: "high", "medium", "low" or "reject"."""
        return self.for_type(types).tier(p)

    def to_dict(self) -> dict[str, Any]:
        """The content of ``thresholds.json``."""
        return {
            "schema_version": SCHEMA_VERSION,
            "target_precision": self.target_precision,
            "confidence": self.confidence,
            "tiers": list(TIERS),
            "default": asdict(self.rows[DEFAULT]),
            "types": {node: asdict(row) for node, row in sorted(self.rows.items()) if node != DEFAULT},
            "hierarchy": self.hierarchy.to_dict(),
        }

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> "ThresholdTable":
        """The table that `to_dict` wrote.

        Raises:
            UserError: a newer schema, or a key that is missing or does not fit.
        """
        version = state.get("schema_version")
        if version != SCHEMA_VERSION:
            raise UserError(
                f"thresholds.json has schema_version {version}, this version reads {SCHEMA_VERSION}; "
                "upgrade umls_reranker or fit the thresholds again"
            )
        try:
            rows = {node: TypeThreshold(**row) for node, row in {**state["types"], DEFAULT: state["default"]}.items()}
            for node, row in rows.items():
                if not 0.0 <= row.low <= row.accept <= (1.0 if row.high is None else row.high) <= 1.0:
                    raise TypeError(f"thresholds of {node} are not in order")
            hierarchy = TypeHierarchy.from_dict(state["hierarchy"])
            return cls(rows, hierarchy, float(state["target_precision"]), float(state["confidence"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"thresholds.json is damaged ({error}); run the calibrate stage again") from error


@dataclass(frozen=True)
class _Sorted:
    """Probabilities in descending order, with labels and mention indices; subsets stay sorted."""

    p: np.ndarray
    y: np.ndarray
    mention: np.ndarray

    @classmethod
    def of(cls, p: np.ndarray, y: np.ndarray, mention: np.ndarray) -> "_Sorted":
        p = np.asarray(p, dtype=np.float64)
        order = np.argsort(-p, kind="stable")
        return cls(p[order], np.asarray(y)[order].astype(np.int8), mention[order])


def _f1_threshold_sorted(p: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """`f1_threshold` of probabilities in descending order."""
    true_positives = np.cumsum(y, dtype=np.float64)
    if not len(p) or true_positives[-1] == 0:
        raise ValueError("an F1 threshold needs at least one positive pair")
    last_of_tie = np.append(p[1:] < p[:-1], True)
    f1 = 2 * true_positives / (np.arange(1, len(p) + 1) + true_positives[-1])
    best = int(np.argmax(np.where(last_of_tie, f1, -1.0)))
    below = p[best + 1] if best + 1 < len(p) else p[best]
    middle = (p[best] + below) / 2
    return float(middle if middle > below else p[best]), float(f1[best])


def _contradicted(top_p: np.ndarray, correct: np.ndarray, certificate: Certificate, target: float) -> bool:
    """Whether a 95 % upper bound of the precision at an inherited threshold lies below the target."""
    accepted = top_p >= certificate.lowest
    n, wrong = np.count_nonzero(accepted), np.count_nonzero(accepted & (correct == 0))
    return n > 0 and float(1.0 - clopper_pearson_lower(wrong, n)) < target
