"""Thresholds on calibrated probabilities: which candidates are accepted, and in which tier.

A `ThresholdTable` holds three thresholds for every semantic type seen in the calibration split and
its ancestors:

* ``accept``: the F1-optimal one over pairs, shrunk toward the parent's by support; or for all types
  the lowest with a given precision;
* ``high``: one for all types, the lowest with certified precision of the whole tier
  (`certificate`), but never below ``accept``; None if nothing is certified;
* ``high_broad``: the same for answers that are the gold concept or a parent of it; None if this was
  not asked for, or is not certified;
* ``low``: reached by 99 % of the correct top candidates; below it a candidate is rejected.

A type falls back along its lineage: itself, the ancestors in its semantic group, the group,
"default". Loading and lookup need only numpy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.arrays import ranking
from ..core.errors import TooLittleData, UserError
from ..vocab.types import TypeHierarchy
from .certificate import Certificate, find_certificate
from .prediction_sets import SetThreshold, correct_weights, fit_set_threshold, rank_labels
from .type_fallback import DEFAULT, Types, lineage, memberships, nearest_row, nearest_rows

if TYPE_CHECKING:
    from ..lists.candidate_lists import AnnotatedLists
    from .arguments import CalibrationArguments

SCHEMA_VERSION = 7
TIERS = ("high", "high_broad", "medium", "low", "reject")
# Tiers that a deployment may name as the lowest that it accepts.
ACCEPT_TIERS = TIERS[:3]
LOW_REACH = 0.99
# Gold pairs below which a node takes its parent's acceptance threshold unchanged, and correct top
# candidates below which it takes its parent's low threshold.
MIN_POSITIVES = 30
MIN_MENTIONS = 150
# Gold pairs k at which a node's own F1 threshold and its parent's count equally: own weight
# `n / (n + k)`. With 1,000 positives the arg-max of a perfectly calibrated type has a standard
# deviation near 0.06, about what types differ by.
SHRINKAGE = 1000.0


@dataclass(frozen=True)
class TypeThreshold:
    """Thresholds of a type, ancestor or group: ``low <= accept <= high_broad <= high``.

    None: there is no such tier.
    """

    low: float
    accept: float
    high: float | None = None
    high_broad: float | None = None

    @property
    def edges(self) -> tuple[float, ...]:
        """The lowest probabilities of all tiers but "reject", the lowest tier first."""
        high = np.inf if self.high is None else self.high
        return self.low, self.accept, high if self.high_broad is None else self.high_broad, high

    def tier(self, p: float) -> str:
        """Tier of a calibrated probability, one of `TIERS`."""
        return TIERS[len(self.edges) - sum(p >= edge for edge in self.edges)]


def f1_threshold(p: np.ndarray, y: np.ndarray) -> float:
    """The threshold t that maximizes the F1 of ``p >= t``.

    Only values between two distinct probabilities are considered, so tied pairs are accepted
    together. t is halfway to the next lower probability, so rounding cannot flip a pair. Of equal
    maxima, the highest threshold is used.

    Args:
        p: (n,) probabilities.
        y: (n,) labels 0 or 1, at least one positive.
    """
    order = np.argsort(-p, kind="stable")
    p = p[order]
    correct = np.cumsum(y[order], dtype=np.float64)
    if not correct[-1:].any():
        raise ValueError("an F1 threshold needs at least one positive pair")
    accepted = np.arange(1.0, len(p) + 1)
    is_last_of_ties = np.append(p[1:] < p[:-1], True)
    f1 = np.where(is_last_of_ties, 2 * correct / (accepted + correct[-1]), -1.0)
    return _halfway(p, int(np.argmax(f1)))


def precision_threshold(p: np.ndarray, correct: np.ndarray, precision: float) -> float:
    """The lowest threshold t at which the answers with ``p >= t`` have a precision; 1 if none has.

    Args:
        p: (n,) probabilities of answers.
        correct: (n,) whether each is correct.
        precision: between 0 and 1.
    """
    order = np.argsort(-p, kind="stable")
    p = p[order]
    accepted = np.arange(1.0, len(p) + 1)
    is_precise = np.cumsum(correct[order]) >= precision * accepted
    is_precise[:-1] &= p[1:] < p[:-1]
    return _halfway(p, int(np.flatnonzero(is_precise)[-1])) if is_precise.any() else 1.0


def _halfway(p: np.ndarray, last: int) -> float:
    """A threshold between one of (n,) descending probabilities and the next; or the last."""
    below = p[min(last + 1, len(p) - 1)]
    middle = (p[last] + below) / 2
    # Rounding may leave nothing between the two.
    return float(middle if middle > below else p[last])


@dataclass(eq=False)
class ThresholdTable:
    """Thresholds per semantic type with fallback along the type hierarchy.

    Attributes:
        rows: node id -> `TypeThreshold`; must hold "default".
        hierarchy: resolves type names and gives each type's ancestors.
        target_precision: guaranteed precision of the high-confidence tier.
        confidence: confidence of this guarantee.
        certificate: the basis of this guarantee; None in a table that was not fitted.
        broad_certificate: that of the tier high_broad; None if it was not asked for.
        sets: tier -> threshold of the prediction sets of mentions below it; none if not fitted.
    """

    rows: dict[str, TypeThreshold]
    hierarchy: TypeHierarchy
    target_precision: float = 0.95
    confidence: float = 0.95
    certificate: Certificate | None = None
    broad_certificate: Certificate | None = None
    sets: Mapping[str, SetThreshold] = field(default_factory=dict)

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

    def for_type(self, types: str | Sequence[str] | None = None) -> TypeThreshold:
        """Thresholds of a semantic type given by id or name; of several, the first that is known.

        A type not in the calibration split uses its nearest ancestor; an unknown type, or None,
        uses the default.
        """
        return nearest_row(self.rows, types, self.hierarchy)

    def edges(self, types: Types) -> np.ndarray:
        """`TypeThreshold.edges` by the mentions' types, (n, 4)."""
        rows, codes = nearest_rows(self.rows, types, self.hierarchy)
        return np.array([row.edges for row in rows])[codes]

    def set_threshold(self, accept_tier: str) -> float:
        """Threshold of the prediction sets of mentions below a tier; NaN if there are no sets."""
        fitted = self.sets.get(accept_tier)
        return np.nan if fitted is None or fitted.threshold is None else fitted.threshold

    def to_dict(self) -> dict[str, Any]:
        """Its entry in ``thresholds.json``."""
        return {
            "certificate": self.certificate and asdict(self.certificate),
            "broad_certificate": self.broad_certificate and asdict(self.broad_certificate),
            "sets": {tier: asdict(fitted) for tier, fitted in self.sets.items()},
            "default": asdict(self.rows[DEFAULT]),
            "types": {
                node: asdict(row) for node, row in sorted(self.rows.items()) if node != DEFAULT
            },
        }


def fit_thresholds(
    lists: AnnotatedLists,
    probabilities: np.ndarray,
    top: np.ndarray,
    settings: CalibrationArguments,
    *,
    complete: np.ndarray | None = None,
    for_certificate: np.ndarray | None = None,
    for_sets: np.ndarray | None = None,
    attempt: int = 1,
) -> ThresholdTable:
    """Fit thresholds, certificates and prediction sets to n candidate lists with m candidates.

    The tier that is certified is the one that is served: the mentions of all types together, each
    at or above its own type's acceptance threshold.

    Args:
        lists: the lists.
        probabilities: (m,) calibrated, by fits that have not seen the documents.
        top: (n,) index of each list's top candidate, -1 if it has none.
        settings: target precision, its confidence, and the precision of the accepted top candidates
            over all types together, which sets one threshold of acceptance; by default each type
            has that with the highest F1.
        complete: (n,) bool, whether a mention has all inputs that the model reads, by default all.
            Others are never in the high tier.
        for_certificate: (n,) bool, whether a mention counts for certificates, by default all.
        for_sets: (n,) bool, whether a mention counts for prediction sets, by default all.
        attempt: as for `certify`.

    Raises:
        TooLittleData: there is no gold pair.
    """
    correct = lists.is_gold(top)
    top_p = np.full(len(lists), np.nan)
    top_p[top >= 0] = probabilities[top[top >= 0]]
    rows = _type_thresholds(lists, probabilities, top_p, correct)
    if settings.accept_precision is not None:
        sampled = (top >= 0) & lists.annotations.is_random_sample
        accept = precision_threshold(top_p[sampled], correct[sampled], settings.accept_precision)
        rows = {node: TypeThreshold(min(row.low, accept), accept) for node, row in rows.items()}
    is_accepted = top_p >= ThresholdTable(rows, lists.hierarchy).edges(lists.types)[:, 1]
    if complete is not None:
        is_accepted &= complete
    every = np.ones(len(lists), bool)
    counted = every if for_certificate is None else for_certificate

    def certified(correct: np.ndarray) -> Certificate:
        return find_certificate(
            np.where(is_accepted, top_p, np.nan)[counted],
            correct[counted],
            lists.annotations.documents[counted],
            settings.target_precision,
            settings.confidence,
            attempt=attempt,
        )

    certificate = certified(correct)
    broad = None
    if settings.certify_relation == "parent":
        broad = certified(correct | lists.at(lists.parents_of_gold, top))
    rows = {
        node: replace(row, high=_high(row.accept, certificate), high_broad=_high(row.accept, broad))
        for node, row in rows.items()
    }
    table = ThresholdTable(
        rows=rows,
        hierarchy=lists.hierarchy,
        target_precision=settings.target_precision,
        confidence=settings.confidence,
        certificate=certificate,
        broad_certificate=broad,
    )
    counted = every if for_sets is None else for_sets
    return replace(table, sets=_fit_sets(lists, probabilities, top_p, table, counted))


def _fit_sets(
    lists: AnnotatedLists,
    probabilities: np.ndarray,
    top_p: np.ndarray,
    table: ThresholdTable,
    counted: np.ndarray,
) -> dict[str, SetThreshold]:
    """Thresholds of the prediction sets of mentions below each tier that may be accepted.

    Arguments are those of `fit_thresholds` and `_type_thresholds`, and the table without sets.
    """
    order = ranking(probabilities, lists.offsets)
    labels = rank_labels(probabilities, lists.concepts, lists.offsets, order)
    correct = correct_weights(labels, probabilities, lists.correct, lists.offsets)
    edges = table.edges(lists.types)
    sets = {}
    for number, tier in enumerate(ACCEPT_TIERS):
        is_abstention = counted & (top_p < edges[:, edges.shape[1] - 1 - number])
        sets[tier] = fit_set_threshold(
            correct[is_abstention], lists.annotations.documents[is_abstention]
        )
    return sets


def _high(accept: float, certificate: Certificate | None) -> float | None:
    """Where the tier high begins for a threshold of acceptance; None if nothing is certified."""
    if certificate is None or certificate.threshold is None:
        return None
    return max(certificate.threshold, accept)


def _type_thresholds(
    lists: AnnotatedLists, probabilities: np.ndarray, top_p: np.ndarray, correct: np.ndarray
) -> dict[str, TypeThreshold]:
    """Thresholds of each type, ancestor and group, without a high tier.

    Args:
        lists: the lists; a mention counts in each of its types.
        probabilities: (m,) of all candidates.
        top_p: (n,) that of each list's top candidate, NaN without candidates.
        correct: (n,) whether it is the gold concept.
    """
    code, members = memberships(lists.types, lists.hierarchy)
    pair_code = code[lists.owner]
    has_correct_top = correct & ~np.isnan(top_p)
    rows: dict[str, TypeThreshold] = {}
    # From the root down, so that parents exist when their children need them.
    for node, inside in members.items():
        parent = next(map(rows.get, lineage(node, lists.hierarchy)[1:]), None)
        in_node = inside[pair_code]
        accept = _accept_threshold(probabilities[in_node], lists.labels[in_node], parent)
        low = _low_threshold(top_p[inside[code] & has_correct_top], accept, parent)
        rows[node] = TypeThreshold(low, accept)
    return rows


def _accept_threshold(p: np.ndarray, labels: np.ndarray, parent: TypeThreshold | None) -> float:
    """The F1-optimal threshold of pairs (n,), shrunk toward the parent's if gold pairs are few."""
    positives = int(labels.sum())
    if parent is None:
        if not positives:
            raise TooLittleData(
                "no candidate list of the calibration split contains its gold concept; "
                "retrieve more candidates"
            )
        return f1_threshold(p, labels)
    if positives < MIN_POSITIVES:
        return parent.accept
    weight = positives / (positives + SHRINKAGE)
    return weight * f1_threshold(p, labels) + (1.0 - weight) * parent.accept


def _low_threshold(correct_p: np.ndarray, accept: float, parent: TypeThreshold | None) -> float:
    """What most correct top candidates reach, by probabilities (n,); if few, the parent's."""
    low = accept if parent is None else parent.low
    fewest = 1 if parent is None else MIN_MENTIONS
    if len(correct_p) >= fewest:
        low = float(np.quantile(correct_p, 1.0 - LOW_REACH, method="lower"))
    return min(low, accept)


def thresholds_content(tables: Mapping[str, ThresholdTable]) -> dict[str, Any]:
    """The content of ``thresholds.json``: the tables of all models, by name."""
    first = next(iter(tables.values()))
    return {
        "schema_version": SCHEMA_VERSION,
        "target_precision": first.target_precision,
        "confidence": first.confidence,
        "tiers": list(TIERS),
        "models": [{"name": name} | table.to_dict() for name, table in tables.items()],
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
        target_precision = float(state["target_precision"])
        confidence = float(state["confidence"])
        if not (0.0 < target_precision < 1.0 and 0.0 < confidence < 1.0):
            raise TypeError("target_precision or confidence is not a probability")
        tables = {}
        for entry in state["models"]:
            rows = {
                node: TypeThreshold(**row)
                for node, row in {**entry["types"], DEFAULT: entry["default"]}.items()
            }
            certificates = {
                key: None if entry[key] is None else Certificate(**entry[key])
                for key in ("certificate", "broad_certificate")
            }
            for node, row in rows.items():
                if not 0.0 <= row.low <= row.accept <= 1.0:
                    raise TypeError(f"thresholds of {node} are not in order")
                allowed = [_high(row.accept, one) for one in certificates.values()]
                if [row.high, row.high_broad] != allowed:
                    raise TypeError(f"high of {node} is not what the certificate allows")
            sets = {tier: SetThreshold(**fitted) for tier, fitted in entry["sets"].items()}
            for tier, fitted in sets.items():
                if tier not in ACCEPT_TIERS or not 0.0 <= (fitted.threshold or 0.0) <= 1.0:
                    raise TypeError(f"sets of {tier} are not of a tier and a probability")
            tables[str(entry["name"])] = ThresholdTable(
                rows=rows,
                hierarchy=hierarchy,
                target_precision=target_precision,
                confidence=confidence,
                certificate=certificates["certificate"],
                broad_certificate=certificates["broad_certificate"],
                sets=sets,
            )
        if not tables:
            raise TypeError("models is empty")
        return tables
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"thresholds.json is damaged ({error}); run the calibrate stage again"
        ) from error
