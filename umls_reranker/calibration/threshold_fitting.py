"""Fit the thresholds of semantic types, and the certificate of the high tier, to labelled lists."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..core.arrays import values_at
from ..core.errors import TooLittleData
from .certificate import find_certificate
from .precision_test import PrecisionTest
from .thresholds import ABOVE_ALL, ThresholdTable, TypeThreshold, high_threshold
from .type_lineage import lineage, memberships

if TYPE_CHECKING:
    from ..lists.annotated_lists import AnnotatedLists
    from .arguments import CalibrationArguments

# Share of the correct top candidates that reach the low threshold.
LOW_REACH = 0.99
# Gold pairs below which a node takes its parent's acceptance threshold unchanged, and correct top
# candidates below which it takes its parent's low threshold.
MIN_POSITIVES = 30
MIN_MENTIONS = 150
# Gold pairs k at which a node's own F1 threshold and its parent's count equally: own weight
# `n / (n + k)`. With 1,000 positives the arg-max of a perfectly calibrated type has a standard
# deviation near 0.06, about what types differ by.
SHRINKAGE = 1000.0


def fit_thresholds(
    lists: AnnotatedLists,
    probabilities: np.ndarray,
    top: np.ndarray,
    settings: CalibrationArguments,
    *,
    complete: np.ndarray | bool = True,
    for_certificate: np.ndarray | bool = True,
    is_one_look: bool = False,
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
            Without any there is none.
        is_one_look: as of `PrecisionTest`.

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
    if counted.any():
        certificate = find_certificate(
            np.where(is_accepted, top_p, np.nan)[counted],
            correct[counted],
            lists.annotations.documents[counted],
            PrecisionTest(settings.target_precision, settings.confidence, is_one_look=is_one_look),
        )
    return ThresholdTable(
        rows={
            node: replace(row, high=high_threshold(row, certificate)) for node, row in rows.items()
        },
        hierarchy=lists.hierarchy,
        target_precision=settings.target_precision,
        confidence=settings.confidence,
        certificate=certificate,
    )


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
    # The set of types of each mention (n,), and of each candidate's mention (m,).
    code = lists.types.codes
    pair_code = code[lists.owner]
    has_correct_top = correct & ~np.isnan(top_p)
    rows: dict[str, TypeThreshold] = {}
    # From the root down, so that parents exist when their children need them.
    for node, is_in_node in memberships(lists.types, lists.hierarchy).items():
        ancestors = lineage(node, lists.hierarchy)[1:]
        parent = rows.get(ancestors[0]) if ancestors else None
        pairs = is_in_node[pair_code]
        accept = _accept_threshold(probabilities[pairs], lists.labels[pairs], parent)
        correct_tops = is_in_node[code] & has_correct_top
        low = _low_threshold(top_p[correct_tops], accept, parent)
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


def f1_threshold(p: np.ndarray, y: np.ndarray) -> float:
    """The threshold t that maximizes the F1 of ``p >= t``.

    Only values between two distinct probabilities are considered, so tied pairs are accepted
    together. t is halfway to the next lower probability, so rounding cannot flip a pair. Of equal
    maxima, the highest threshold is used.

    Args:
        p: (n,) probabilities.
        y: (n,) labels 0 or 1, at least one positive.
    """
    acceptances = _Acceptances.of(p, y)
    if not acceptances.correct[-1:].any():
        raise ValueError("an F1 threshold needs at least one positive pair")
    positives = acceptances.correct[-1]
    f1 = 2 * acceptances.correct / (acceptances.accepted + positives)
    f1_of_thresholds = np.where(acceptances.is_last_of_ties, f1, -1.0)
    return acceptances.threshold_after(int(np.argmax(f1_of_thresholds)))


def precision_threshold(p: np.ndarray, correct: np.ndarray, precision: float) -> float:
    """The lowest threshold t at which the answers with ``p >= t`` have a precision.

    `ABOVE_ALL` if none has.

    Args:
        p: (n,) probabilities of answers.
        correct: (n,) whether each is correct.
        precision: between 0 and 1.
    """
    acceptances = _Acceptances.of(p, correct)
    has_precision = acceptances.correct >= precision * acceptances.accepted
    possible = np.flatnonzero(acceptances.is_last_of_ties & has_precision)
    if not len(possible):
        return ABOVE_ALL
    return acceptances.threshold_after(int(possible[-1]))


class _Acceptances(NamedTuple):
    """What thresholds at each of n probabilities would accept, from the highest down.

    Attributes:
        p: (n,) the probabilities, descending.
        accepted: (n,) float64, how many are accepted: those up to and with each one.
        correct: (n,) float64, how many of these are correct.
        is_last_of_ties: (n,) bool, whether no further probability is equal. Only there a threshold
            can lie.
    """

    p: np.ndarray
    accepted: np.ndarray
    correct: np.ndarray
    is_last_of_ties: np.ndarray

    @classmethod
    def of(cls, p: np.ndarray, correct: np.ndarray) -> _Acceptances:
        """Sort (n,) probabilities with their labels, 0 or 1."""
        order = np.argsort(-p, kind="stable")
        p = p[order]
        return cls(
            p=p,
            accepted=np.arange(1.0, len(p) + 1),
            correct=np.cumsum(correct[order], dtype=float),
            is_last_of_ties=np.append(p[1:], -np.inf) < p,
        )

    def threshold_after(self, last: int) -> float:
        """A threshold halfway between the probability at an index and the next; or the last."""
        lowest_accepted = self.p[last]
        next_lower = self.p[min(last + 1, len(self.p) - 1)]
        middle = (lowest_accepted + next_lower) / 2
        # Rounding may leave nothing between the two.
        threshold = middle if middle > next_lower else lowest_accepted
        return float(threshold)
