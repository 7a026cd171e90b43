"""Decision thresholds on calibrated probabilities: which candidates are accepted, and which are in the certified tier.

A `ThresholdTable` holds three thresholds for every semantic type seen in the calibration split and its ancestors:

* ``accept``: the F1-optimal one over pairs, shrunk toward the parent's by support;
* ``high``: one for all types, the lowest with certified precision of the whole tier (`certificate`), but never below
  ``accept``; None if nothing is certified;
* ``low``: reached by 99 % of the correct top candidates; below it a candidate is rejected.

A type falls back along its lineage: itself, the ancestors in its semantic group, the group, "default". Loading and
lookup need only numpy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ..core.errors import UserError
from ..data.semantic_types import TypeHierarchy
from ..data.type_sets import TypeSets
from .certificate import Certificate, find_certificate
from .lineage import DEFAULT, lineage, memberships, nearest_row, nearest_rows
from .precision_test import PrecisionTest
from .resampling import document_index
from .score_maps import Types

SCHEMA_VERSION = 4
TIERS = ("high", "medium", "low", "reject")
LOW_REACH = 0.99


@dataclass(frozen=True)
class TypeThreshold:
    """Thresholds of one semantic type, ancestor or group, with their support and origin.

    ``low <= accept <= high``. The ``*_level`` fields name the most specific node whose data contributed: the type
    itself, an ancestor, "group:..." or "default".
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
    low_level: str

    def tier(self, p: float) -> str:
        """Tier of a calibrated probability: "high", "medium", "low" or "reject"."""
        if self.high is not None and p >= self.high:
            return "high"
        if p >= self.accept:
            return "medium"
        return "low" if p >= self.low else "reject"


def f1_threshold(p: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """The threshold t that maximizes the F1 of ``p >= t``, and that F1.

    Only values between two distinct probabilities are considered, so tied pairs are accepted together. t is halfway to
    the next lower probability, so rounding cannot flip a pair. Of equal maxima, the highest threshold is used.

    Args:
        p: (n,) probabilities.
        y: (n,) labels 0 or 1, at least one positive.
    """
    pairs = _Sorted.of(p, y)
    p, correct = pairs.p, np.cumsum(pairs.y, dtype=np.float64)
    if not correct[-1:].any():
        raise ValueError("an F1 threshold needs at least one positive pair")
    f1 = np.where(np.append(p[1:] < p[:-1], True), 2 * correct / (np.arange(1.0, len(p) + 1) + correct[-1]), -1.0)
    last = int(np.argmax(f1))
    below = p[min(last + 1, len(p) - 1)]
    middle = (p[last] + below) / 2
    # If rounding leaves nothing between the two, the probability itself.
    return float(middle if middle > below else p[last]), float(f1[last])


@dataclass(eq=False)
class ThresholdTable:
    """Thresholds per semantic type with fallback along the type hierarchy.

    Attributes:
        rows: node id -> `TypeThreshold`; must hold "default".
        hierarchy: resolves type names and gives each type's ancestors.
        target_precision: guaranteed precision of the high-confidence tier.
        confidence: confidence of this guarantee.
        certificate: the basis of this guarantee; None in a table that was not fitted.
        contradicted: for information, nodes whose own calibration mentions in the tier contradict the guarantee: the
            certificate's test finds their precision below the target. They stay in the tier, because the certificate
            covers all types together.
    """

    rows: dict[str, TypeThreshold]
    hierarchy: TypeHierarchy
    target_precision: float = 0.95
    confidence: float = 0.95
    certificate: Certificate | None = None
    contradicted: tuple[str, ...] = ()

    @classmethod
    def fit(
        cls,
        pair_p: np.ndarray,
        pair_y: np.ndarray,
        pair_mention: np.ndarray,
        top1_p: np.ndarray,
        top1_correct: np.ndarray,
        mention_types: Types,
        hierarchy: TypeHierarchy,
        *,
        groups: Sequence | np.ndarray | None = None,
        complete: np.ndarray | None = None,
        min_positives: int = 30,
        min_mentions: int = 150,
        shrinkage: float = 1000.0,
        target_precision: float = 0.95,
        confidence: float = 0.95,
        attempt: int = 1,
        has_outlook: bool = False,
    ) -> "ThresholdTable":
        """Fit thresholds to the candidate lists of the calibration split.

        Args:
            pair_p: (n_pairs,) calibrated probabilities of all candidates.
            pair_y: (n_pairs,) 1 for the gold concept.
            pair_mention: (n_pairs,) index into the mentions.
            top1_p: (n_mentions,) probability of the top candidate; NaN for a mention without candidates.
            top1_correct: (n_mentions,) whether it is the gold concept.
            mention_types: per mention its semantic types (ids or names); a mention counts in each of them.
            hierarchy: the types' hierarchy.
            groups: (n_mentions,) document of each mention, for the certificate; by default each mention is its own
                document.
            complete: (n_mentions,) bool, whether a mention has all inputs that the model reads; by default all have.
                Others are never in the high tier, so the certificate does not count them.
            min_positives: gold pairs below which a node takes its parent's acceptance threshold unchanged.
            min_mentions: correct top candidates below which a node takes its parent's low threshold.
            shrinkage: gold pairs k at which a node's own F1 threshold and its parent's count equally: own weight
                n / (n + k). With 1,000 positives the arg-max of a perfectly calibrated type has a standard deviation
                near 0.06, about what types differ by.
            target_precision: as for `certify`.
            confidence: as for `certify`.
            attempt: as for `certify`.
            has_outlook: whether the certificate estimates the share with other numbers of documents.

        The tier that is certified is the one that is served: the mentions of all types together, each at or above its
        own type's acceptance threshold.

        Raises:
            UserError: there is no gold pair.
        """
        pairs = _Sorted.of(pair_p, pair_y, np.asarray(pair_mention))
        scored = np.flatnonzero(~np.isnan(np.asarray(top1_p, dtype=np.float64)))
        tops = _Sorted.of(np.asarray(top1_p)[scored], np.asarray(top1_correct)[scored], scored)
        coded = TypeSets.of(mention_types)
        code, members = memberships(coded, hierarchy)
        pair_code, top_code = code[pairs.mention], code[tops.mention]
        rows: dict[str, TypeThreshold] = {}
        # From the root down, so that parents exist when their children need them.
        for node in members:
            in_pairs, in_tops = members[node][pair_code], members[node][top_code]
            p, y, top_p, correct = pairs.p[in_pairs], pairs.y[in_pairs], tops.p[in_tops], tops.y[in_tops]
            positives, correct_p = int(y.sum()), top_p[correct == 1]
            parent = next(map(rows.get, lineage(node, hierarchy)[1:]), None)

            optimum, f1 = f1_threshold(p, y) if positives else (None, None)
            if parent is None:
                if optimum is None:
                    raise UserError(
                        "no candidate list of the calibration split contains its gold concept; retrieve more "
                        "candidates"
                    )
                accept, accept_level = optimum, node
            elif optimum is None or positives < min_positives:
                accept, accept_level = parent.accept, parent.accept_level
            else:
                weight = positives / (positives + shrinkage)
                accept, accept_level = weight * optimum + (1.0 - weight) * parent.accept, node

            if len(correct_p) and (len(correct_p) >= min_mentions or parent is None):
                low, low_level = float(np.quantile(correct_p, 1.0 - LOW_REACH, method="lower")), node
            else:
                low, low_level = (parent.low, parent.low_level) if parent else (accept, node)

            rows[node] = TypeThreshold(
                accept=accept,
                high=None,
                low=min(low, accept),
                own_accept=optimum,
                own_f1=f1,
                support_pairs=len(p),
                support_positives=positives,
                support_mentions=len(top_p),
                accept_level=accept_level,
                low_level=low_level,
            )
        if complete is not None:
            tops = replace(tops, p=np.where(np.asarray(complete)[tops.mention], tops.p, np.nan))
        accept = cls(rows, hierarchy).edges(coded)[tops.mention, 1]
        documents = tops.mention if groups is None else document_index(groups)[0][tops.mention]
        served = np.where(tops.p >= accept, tops.p, np.nan), tops.y, documents, target_precision, confidence
        certificate = find_certificate(*served, attempt=attempt, has_outlook=has_outlook)
        contradicted: list[str] = []
        if certificate.threshold is not None:
            threshold = certificate.threshold
            rows = {node: replace(row, high=max(threshold, row.accept)) for node, row in rows.items()}
            in_tier = tops.p >= np.maximum(threshold, accept)
            # The certificate's test with correct and incorrect exchanged.
            test = PrecisionTest(1.0 - target_precision, confidence, certificate.size_power)
            inside = {node: in_tier & codes[top_code] for node, codes in members.items() if node != DEFAULT}
            contradicted = [
                node for node, rows_of in inside.items() if _fails(test, tops.y[rows_of], documents[rows_of])
            ]
        return cls(rows, hierarchy, target_precision, confidence, certificate, tuple(sorted(contradicted)))

    @classmethod
    def uncertified(cls) -> "ThresholdTable":
        """Thresholds of a model without any: all candidates are in one tier."""
        return cls({DEFAULT: TypeThreshold(0.0, None, 0.0, None, None, 0, 0, 0, DEFAULT, DEFAULT)}, TypeHierarchy([]))

    @property
    def is_certified(self) -> bool:
        """Whether any mention can be in the tier high."""
        return self.certificate is not None and self.certificate.threshold is not None

    @property
    def reads_types(self) -> bool:
        """Whether any type, ancestor or group has its own thresholds."""
        return len(self.rows) > 1

    def for_type(self, types: str | Sequence[str] | None = None) -> TypeThreshold:
        """Thresholds of a semantic type given by id or name; of several, the first that is known.

        A type not in the calibration split uses its nearest ancestor; an unknown type, or None, uses the default.
        """
        return nearest_row(self.rows, types, self.hierarchy)

    def edges(self, types: Types) -> np.ndarray:
        """Lowest probabilities of the tiers low, medium and high for mentions of these types, (n, 3)."""
        rows, codes = nearest_rows(self.rows, types, self.hierarchy)
        return np.array([(row.low, row.accept, np.inf if row.high is None else row.high) for row in rows])[codes]

    def to_dict(self) -> dict[str, Any]:
        """Its entry in ``thresholds.json``."""
        return {
            "certificate": None if self.certificate is None else asdict(self.certificate),
            "contradicted": list(self.contradicted),
            "default": asdict(self.rows[DEFAULT]),
            "types": {node: asdict(row) for node, row in sorted(self.rows.items()) if node != DEFAULT},
        }


def thresholds_content(tables: Mapping[str, ThresholdTable]) -> dict[str, Any]:
    """The content of ``thresholds.json``: the tables of all models by their names, of one guarantee and hierarchy."""
    first = next(iter(tables.values()))
    return {
        "schema_version": SCHEMA_VERSION,
        "target_precision": first.target_precision,
        "confidence": first.confidence,
        "tiers": list(TIERS),
        "inputs": [{"name": name} | table.to_dict() for name, table in tables.items()],
        "hierarchy": first.hierarchy.to_dict(),
    }


def load_thresholds(state: dict[str, Any]) -> dict[str, ThresholdTable]:
    """The tables that `thresholds_content` wrote, that of the model of all inputs first.

    Raises:
        UserError: another schema, or a key that is missing or does not fit.
    """
    version = state.get("schema_version")
    if version != SCHEMA_VERSION:
        raise UserError(
            f"thresholds.json has schema_version {version}, this version reads {SCHEMA_VERSION}; "
            "run the calibrate stage again, or install the version of umls_reranker that wrote it"
        )
    try:
        hierarchy = TypeHierarchy.from_dict(state["hierarchy"])
        guarantee = float(state["target_precision"]), float(state["confidence"])
        if not all(0.0 < number < 1.0 for number in guarantee):
            raise TypeError("target_precision or confidence is not a probability")
        tables = {}
        for entry in state["inputs"]:
            rows = {node: TypeThreshold(**row) for node, row in {**entry["types"], DEFAULT: entry["default"]}.items()}
            for node, row in rows.items():
                if not 0.0 <= row.low <= row.accept <= (1.0 if row.high is None else row.high) <= 1.0:
                    raise TypeError(f"thresholds of {node} are not in order")
            certificate = None if entry["certificate"] is None else Certificate(**entry["certificate"])
            tables[str(entry["name"])] = ThresholdTable(
                rows, hierarchy, *guarantee, certificate, tuple(map(str, entry["contradicted"]))
            )
        if not tables:
            raise TypeError("inputs is empty")
        return tables
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"thresholds.json is damaged ({error}); run the calibrate stage again") from error


@dataclass(frozen=True)
class _Sorted:
    """Probabilities in descending order, with labels and mention indices; subsets stay sorted."""

    p: np.ndarray
    y: np.ndarray
    mention: np.ndarray

    @classmethod
    def of(cls, p: np.ndarray, y: np.ndarray, mention: np.ndarray | None = None) -> "_Sorted":
        p = np.asarray(p, dtype=np.float64)
        order = np.argsort(-p, kind="stable")
        return cls(p[order], np.asarray(y)[order].astype(np.int8), order if mention is None else mention[order])


def _fails(test: PrecisionTest, correct: np.ndarray, documents: np.ndarray) -> bool:
    """Whether so many answers are incorrect that `test` finds their share above its target."""
    size, incorrect = np.bincount(documents), np.bincount(documents, 1.0 - correct)
    return test.p_value(size[size > 0], incorrect[size > 0]) <= 1.0 - test.confidence
