"""Thresholds on calibrated probabilities, and `Decisions`: what is accepted, and in which tier.

A `ThresholdTable` holds three thresholds for every semantic type seen in the calibration split and
its ancestors:

* ``accept``: the F1-optimal one over pairs, shrunk toward the parent's by support; or for all types
  the lowest with a given precision;
* ``high``: one for all types, the lowest with certified precision of the whole tier
  (`certificate`), but never below ``accept``; None if nothing is certified;
* ``low``: reached by 99 % of the correct top candidates; below it a candidate is rejected.

A type falls back along its `lineage`: itself, the ancestors in its semantic group, the group,
"default". Loading and lookup need only numpy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..core.arrays import firsts, list_offsets, ranking, values_at
from ..core.errors import TooLittleData, UserError
from ..vocab.types import GROUP_PREFIX, TypeHierarchy, TypeSets
from .certificate import Certificate, find_certificate
from .precision_test import PrecisionTest

if TYPE_CHECKING:
    from ..lists.candidate_lists import AnnotatedLists
    from .arguments import CalibrationArguments

SCHEMA_VERSION = 8
TIERS = ("high", "medium", "low", "reject")
# Tiers that a deployment may name as the lowest that it accepts.
ACCEPT_TIERS = TIERS[:2]
# The row of unknown types, and of no type.
DEFAULT = "default"
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
    """Thresholds of a type, ancestor or group: ``low <= accept <= high``; None: no high tier."""

    low: float
    accept: float
    high: float | None = None

    @property
    def edges(self) -> tuple[float, float, float]:
        """The lowest probabilities of all tiers but "reject", the lowest tier first."""
        high = np.inf if self.high is None else self.high
        return self.low, self.accept, high

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
    p, accepted, correct, is_last_of_ties = _acceptances(p, y)
    if not correct[-1:].any():
        raise ValueError("an F1 threshold needs at least one positive pair")
    f1 = np.where(is_last_of_ties, 2 * correct / (accepted + correct[-1]), -1.0)
    return _halfway(p, int(np.argmax(f1)))


def precision_threshold(p: np.ndarray, correct: np.ndarray, precision: float) -> float:
    """The lowest threshold t at which the answers with ``p >= t`` have a precision; 1 if none has.

    Args:
        p: (n,) probabilities of answers.
        correct: (n,) whether each is correct.
        precision: between 0 and 1.
    """
    p, accepted, correct, is_last_of_ties = _acceptances(p, correct)
    last = np.flatnonzero(is_last_of_ties & (correct >= precision * accepted))[-1:]
    return _halfway(p, int(last[0])) if len(last) else 1.0


def _acceptances(
    p: np.ndarray, correct: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What thresholds at each of (n,) probabilities would accept, from the highest down.

    Returns:
        The probabilities, how many are accepted, how many of them are correct, and whether no
        further one is equal, (n,) each.
    """
    order = np.argsort(-p, kind="stable")
    p = p[order]
    is_last_of_ties = np.append(p[1:], -np.inf) < p
    return p, np.arange(1.0, len(p) + 1), np.cumsum(correct[order], dtype=float), is_last_of_ties


def _halfway(p: np.ndarray, last: int) -> float:
    """A threshold between one of (n,) descending probabilities and the next; or the last."""
    below = p[min(last + 1, len(p) - 1)]
    middle = (p[last] + below) / 2
    # Rounding may leave nothing between the two.
    threshold = middle if middle > below else p[last]
    return float(threshold)


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
        return next(self.rows[ancestor] for ancestor in ancestors if ancestor in self.rows)

    def for_type(self, types: str | Sequence[str] | None = None) -> TypeThreshold:
        """Thresholds of a semantic type given by id or name; of several, the first that is known.

        A type not in the calibration split uses its nearest ancestor; an unknown type, or None,
        uses the default.
        """
        names = [types] if isinstance(types, str) else types or ()
        known = filter(None, map(self.hierarchy.resolve, names))
        node = next(known, DEFAULT)
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
            "default": asdict(self.rows[DEFAULT]),
            "types": {
                node: asdict(row) for node, row in sorted(self.rows.items()) if node != DEFAULT
            },
        }


def lineage(node: str, hierarchy: TypeHierarchy) -> list[str]:
    """A type or group, the ancestors in its semantic group, the group, and "default".

    Ancestors of other groups are left out: two steps up, "Disease or Syndrome" would become any
    event. In a hierarchy without groups all ancestors are used.
    """
    if node == DEFAULT:
        return [DEFAULT]
    if node.startswith(GROUP_PREFIX):
        return [node, DEFAULT]
    group = _group(node, hierarchy)
    ancestors = [
        kind
        for kind in hierarchy.chain(node)[1:]
        if kind == group or _group(kind, hierarchy) == group
    ]
    return [node, *ancestors, DEFAULT]


def memberships(types: TypeSets, hierarchy: TypeHierarchy) -> dict[str, np.ndarray]:
    """The sets of types that count in each node; types are ids of the hierarchy.

    Returns:
        From the root down, node -> (k + 1,) bool, whether the node is in the lineage of any type of
        each of k sets; the last is that of mentions without types, whose code is -1.
    """
    codes = len(types.sets) + 1
    members: dict[str, np.ndarray] = {DEFAULT: np.ones(codes, bool)}
    for number in np.unique(types.codes[types.codes >= 0]).tolist():
        for known in filter(None, map(hierarchy.resolve, types.sets[number])):
            for node in lineage(known, hierarchy):
                members.setdefault(node, np.zeros(codes, bool))[number] = True
    nodes = sorted(members, key=lambda node: (len(lineage(node, hierarchy)), node))
    return {node: members[node] for node in nodes}


def _group(type_id: str, hierarchy: TypeHierarchy) -> str | None:
    last = hierarchy.chain(type_id)[-1:]
    return last[0] if last and last[0].startswith(GROUP_PREFIX) else None


def fit_thresholds(
    lists: AnnotatedLists,
    probabilities: np.ndarray,
    top: np.ndarray,
    settings: CalibrationArguments,
    *,
    complete: np.ndarray | bool = True,
    for_certificate: np.ndarray | bool = True,
    share: float = 1.0,
) -> ThresholdTable:
    """Fit thresholds and certificate to n candidate lists with m candidates.

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
        for_certificate: (n,) bool, whether a mention counts for the certificate, by default all.
        share: of the error probability, what the certificate may use; 0: nothing is tested.

    Raises:
        TooLittleData: there is no gold pair.
    """
    correct = lists.is_gold(top)
    top_p = values_at(probabilities, top, np.nan)
    rows = _type_thresholds(lists, probabilities, top_p, correct)
    if settings.accept_precision is not None:
        sampled = (top >= 0) & lists.annotations.is_random_sample
        accept = precision_threshold(top_p[sampled], correct[sampled], settings.accept_precision)
        rows = {node: TypeThreshold(min(row.low, accept), accept) for node, row in rows.items()}
    accept_edges = ThresholdTable(rows, lists.hierarchy).edges(lists.types)[:, 1]
    is_accepted = (top_p >= accept_edges) & complete
    counted = np.broadcast_to(for_certificate, len(lists))
    certificate = None
    if share:
        certificate = find_certificate(
            np.where(is_accepted, top_p, np.nan)[counted],
            correct[counted],
            lists.annotations.documents[counted],
            PrecisionTest(settings.target_precision, settings.confidence, share=share),
        )
    return ThresholdTable(
        rows={node: replace(row, high=_high(row, certificate)) for node, row in rows.items()},
        hierarchy=lists.hierarchy,
        target_precision=settings.target_precision,
        confidence=settings.confidence,
        certificate=certificate,
    )


def _high(row: TypeThreshold, certificate: Certificate | None) -> float | None:
    """Where the high tier of a type begins; None if nothing is certified."""
    threshold = certificate.threshold if certificate is not None else None
    return None if threshold is None else max(threshold, row.accept)


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
    code = lists.types.codes
    pair_code = code[lists.owner]
    has_correct_top = correct & ~np.isnan(top_p)
    rows: dict[str, TypeThreshold] = {}
    # From the root down, so that parents exist when their children need them.
    for node, inside in memberships(lists.types, lists.hierarchy).items():
        ancestors = lineage(node, lists.hierarchy)[1:]
        parent = rows.get(ancestors[0]) if ancestors else None
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
        tables = {
            str(entry["name"]): _table_of(entry, hierarchy, target_precision, confidence)
            for entry in state["models"]
        }
        if not tables:
            raise TypeError("models is empty")
        return tables
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"thresholds.json is damaged ({error}); run the calibrate stage again"
        ) from error


def _table_of(
    entry: Mapping[str, Any], hierarchy: TypeHierarchy, target_precision: float, confidence: float
) -> ThresholdTable:
    """The table of an entry; `TypeError` if thresholds do not fit each other or the certificate."""
    rows = {
        node: TypeThreshold(**row)
        for node, row in {**entry["types"], DEFAULT: entry["default"]}.items()
    }
    certificate = None
    if entry["certificate"] is not None:
        certificate = Certificate.from_dict(entry["certificate"])
    for node, row in rows.items():
        if not 0.0 <= row.low <= row.accept <= 1.0:
            raise TypeError(f"thresholds of {node} are not in order")
        if row.high != _high(row, certificate):
            raise TypeError(f"high of {node} is not what the certificate allows")
    return ThresholdTable(rows, hierarchy, target_precision, confidence, certificate)


class CandidateScores(NamedTuple):
    """Scores of m candidates; all else about candidates follows from them.

    Attributes:
        logits: (m,) float32, raw log-odds of the cross-encoder; NaN where it did not score.
        log_odds: (m,) float64, by which the candidates of a list are ranked: the cross-encoder's
            log-odds or, with a fusion, those of each candidate against NIL.
        probabilities: (m,) float64, calibrated.
        list_utilities: (m,) float64, log-odds by the list fusion, all features but the
            cross-encoder; NaN where the model that decided has none.
    """

    logits: np.ndarray
    log_odds: np.ndarray
    probabilities: np.ndarray
    list_utilities: np.ndarray

    @classmethod
    def joined(
        cls, parts: Sequence[tuple[np.ndarray, CandidateScores]], size: int
    ) -> CandidateScores:
        """The scores of `size` candidates, from those of disjoint parts, each (size,) bool."""
        if len(parts) == 1 and parts[0][0].all():
            return parts[0][1]
        logits = np.full(size, np.nan, np.float32)
        joined = cls(logits, *(np.full(size, np.nan) for _ in range(3)))
        for rows, scores in parts:
            for column, values in zip(joined, scores, strict=True):
                column[rows] = values
        return joined

    def take(self, rows: np.ndarray) -> CandidateScores:
        """The scores of some candidates, (m,) bool."""
        return CandidateScores(*(column[rows] for column in self))


class Tops(NamedTuple):
    """What was decided about the top candidates of n mentions.

    Attributes:
        positions: (n,) int64, flat index of the top candidate; -1 without candidates.
        sizes: (n,) number of candidates.
        probabilities: (n,) NaN without candidates, as in `margins`.
        margins: (n,) margins over the next concept.
        tiers: (n,) indices into `TIERS`; -1 without candidates, and where no tier is given.
        accepted: (n,) bool.
        models: (n,) index of the model that decided.
    """

    positions: np.ndarray
    sizes: np.ndarray
    probabilities: np.ndarray
    margins: np.ndarray
    tiers: np.ndarray
    accepted: np.ndarray
    models: np.ndarray


@dataclass(frozen=True, eq=False)
class Decisions:
    """What models made of the m candidates of n mentions, in the order of the lists.

    Attributes:
        offsets: (n + 1,) where each mention's candidates start.
        concepts: (m,) concept of each candidate, as in `CandidateLists.concepts`.
        scores: those of the candidates.
        models: (n,) int64, the model that decides, as an index into `Calibration.models`.
        complete: (n,) bool, whether the mention has all inputs of the model. The certificate of the
            tier "high" was measured on such mentions, so others are never in it.
        missing: input that the model of all inputs reads -> (n,) bool, mentions without it.
        edges: (n, 3) float64, lowest probabilities of the tiers (`TypeThreshold.edges`).
        has_tiers: (n,) bool, whether the model was calibrated on lists like the mention's
            (`ListSource.gives_tiers_to`); others have scores alone.
        accept_tier: lowest tier accepted at rank 1.
        truncated: number of pairs whose mention or name was truncated to the model's length.
        computed: number of pairs that the cross-encoder computed; others were equal or remembered.
    """

    offsets: np.ndarray
    concepts: np.ndarray
    scores: CandidateScores
    models: np.ndarray
    complete: np.ndarray
    missing: Mapping[str, np.ndarray]
    edges: np.ndarray
    has_tiers: np.ndarray
    accept_tier: str = "medium"
    truncated: int = 0
    computed: int = 0

    @property
    def probabilities(self) -> np.ndarray:
        """(m,) as in `CandidateScores`."""
        return self.scores.probabilities

    @cached_property
    def order(self) -> np.ndarray:
        """(m,) int64, indices of the candidates by mention, the top candidate first."""
        return ranking(self.scores.log_odds, self.offsets)

    @cached_property
    def margins(self) -> np.ndarray:
        """(m,) float64, `margins` of the probabilities."""
        return margins(self.scores.probabilities, self.concepts, self.offsets)

    @cached_property
    def tiers(self) -> np.ndarray:
        """(m,) int64, indices into `TIERS`; -1 where the mention has no tiers."""
        edges = self.edges.copy()
        edges[~self.complete, -1] = np.inf
        sizes = np.diff(self.offsets)
        reached = self.scores.probabilities[:, None] >= edges.repeat(sizes, axis=0)
        return np.where(self.has_tiers.repeat(sizes), edges.shape[1] - reached.sum(axis=1), -1)

    @cached_property
    def accepted(self) -> np.ndarray:
        """(m,) bool, true for top candidates only."""
        accepted = np.zeros(len(self.order), bool)
        accepted[self.tops.positions[self.tops.accepted]] = True
        return accepted

    @cached_property
    def tops(self) -> Tops:
        """What was decided about the top candidate of each mention."""
        top = firsts(self.order, self.offsets)
        tiers = values_at(self.tiers, top, -1)
        return Tops(
            positions=top,
            sizes=np.diff(self.offsets),
            probabilities=values_at(self.scores.probabilities, top, np.nan),
            margins=values_at(self.margins, top, np.nan),
            tiers=tiers,
            accepted=(tiers >= 0) & (tiers <= TIERS.index(self.accept_tier)),
            models=self.models,
        )

    @property
    def scored(self) -> np.ndarray:
        """(n,) int64, number of candidates of each mention that the cross-encoder scored."""
        return np.diff(list_offsets(~np.isnan(self.scores.logits))[self.offsets])

    def take(self, mentions: np.ndarray) -> Decisions:
        """The decisions about some mentions, (n,) bool."""
        sizes = np.diff(self.offsets)
        rows = mentions.repeat(sizes)
        return replace(
            self,
            offsets=list_offsets(sizes[mentions]),
            concepts=self.concepts[rows],
            scores=self.scores.take(rows),
            models=self.models[mentions],
            complete=self.complete[mentions],
            missing={name: is_missing[mentions] for name, is_missing in self.missing.items()},
            edges=self.edges[mentions],
            has_tiers=self.has_tiers[mentions],
        )


def margins(probabilities: np.ndarray, concepts: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Each probability minus the highest of any other concept in its list, or minus 0 without one.

    Args:
        probabilities: (m,) probabilities of the candidates.
        concepts: (m,) concept of each candidate, as in `CandidateLists.concepts`.
        offsets: (n + 1,) where each list's candidates start.
    """
    sizes = np.diff(offsets)
    starts = offsets[:-1][sizes > 0]
    owner = np.repeat(np.arange(len(starts)), sizes[sizes > 0])
    best = np.maximum.reduceat(probabilities, starts)
    leading = np.flatnonzero(probabilities == best[owner])
    _, first_of_list = np.unique(owner[leading], return_index=True)
    leader = concepts[leading[first_of_list]]
    leads = concepts == leader[owner]
    second = np.maximum.reduceat(np.where(leads, 0.0, probabilities), starts)
    return probabilities - np.where(leads, second[owner], best[owner])
