"""The certificate of the high-confidence tier: the lowest threshold with certified precision."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..core.errors import UserError
from .resampling import document_index

__all__ = ["Certificate", "certify", "clopper_pearson_lower", "doubt", "find_certificate"]

# Thresholds to test, fixed in advance: log-odds from 9.2 to 0 in steps of 0.05, that is 0.9999 to 0.5.
GRID = np.round(1.0 / (1.0 + np.exp(-0.05 * np.arange(184, -1, -1))), 6)
# Weights of the mean document size below: sizes to this power. At 1 the promise was broken where large documents are
# worse (benchmarks/certificate.py), and above 1.5 coverage is lost.
SIZE_POWER = 1.5


def clopper_pearson_lower(successes: ArrayLike, n: ArrayLike, confidence: float = 0.95) -> np.ndarray:
    """Exact one-sided lower confidence bound of a binomial proportion (Clopper & Pearson 1934).

    Arrays of any shape; 0 without a success.
    """
    from scipy.special import betaincinv

    successes, n = np.asarray(successes, dtype=np.float64), np.asarray(n, dtype=np.float64)
    bound = betaincinv(np.maximum(successes, 1e-9), n - successes + 1.0, 1.0 - confidence)
    return np.where(successes > 0, bound, 0.0)


@dataclass(frozen=True)
class Certificate:
    """Result of `certify`.

    Attributes:
        threshold: the lowest certified threshold; None if nothing is certified.
        documents: effective number of calibration documents, as documents of equal size.
        documents_needed: the smallest effective number that allows a certificate, if there is no error.
        share: share of answers at or above the threshold; 0 if nothing is certified.
        precision: observed share of right answers among them; None if nothing is certified.
        documents_more: approximate number of further documents like these that a certificate needs, at the observed
            error rate; None if more would not help, since precision is nowhere above the target.
    """

    threshold: float | None
    documents: float
    documents_needed: int
    share: float = 0.0
    precision: float | None = None
    documents_more: int | None = 0

    def __str__(self) -> str:
        if self.threshold is not None:
            return f"{self.threshold:.3f}; {self.share:.1%} of these mentions, of which {self.precision:.1%} are right"
        reason = "with the errors seen among the most probable answers there are too few documents"
        more = "more of the same would not help"
        if self.documents_more is not None:
            more = f"about {self.documents_more:,} more document{'s' * (self.documents_more != 1)} like these would do"
        else:
            reason = "too many of the most probable answers are wrong"
        if self.documents < self.documents_needed:
            reason = (
                f"the calibration documents count for {int(self.documents)} of equal size, and "
                f"{self.documents_needed} or more are needed"
            )
        return f"not certified: {reason}; {more}"


def certify(
    scores: Sequence[float],
    correct: Sequence[bool],
    documents: Sequence,
    target_precision: float = 0.95,
    confidence: float = 0.95,
) -> Certificate:
    """Find the lowest score threshold with certified precision `target_precision`.

    Works for any system that gives its answers probabilities; no model is needed. With probability `confidence` over
    the labelled documents, the threshold keeps its promise for further documents like them (see `find_certificate`).
    This holds even for uncalibrated scores, but calibrated ones certify more. Map logits, cosines or distances to
    probabilities first, for example with scikit-learn's ``LogisticRegression`` fitted on other documents.

    >>> from umls_reranker import certify
    >>> scores = [0.98, 0.97, 0.6] * 100
    >>> correct = [True, True, False] * 100
    >>> found = certify(scores, correct, documents=[number // 3 for number in range(300)])
    >>> round(found.threshold, 2), round(found.share, 2), found.precision
    (0.97, 0.67, 1.0)
    >>> few = certify(scores[:30], correct[:30], documents=[number // 3 for number in range(30)])
    >>> few.threshold, few.documents_more
    (None, 49)

    Args:
        scores: (n,) probability in [0, 1] of each mention's answer; leave out mentions without an answer.
        correct: (n,) whether the answer is right.
        documents: (n,) id of the document of each mention. Mentions of a document are correlated, so documents are the
            sampled units.
        target_precision, confidence: the promise, both between 0 and 1.

    Raises:
        UserError: lengths differ, scores are not probabilities, labels are not right or wrong, there are fewer than
            two documents, or the promise is not between 0 and 1.
    """
    names = ("scores", "correct", "documents")
    for name, given in zip(names, (scores, correct, documents), strict=True):
        if not isinstance(given, Iterable):
            raise UserError(f"{name}: {given!r} is no list; give one value for every mention")
    columns = dict(zip(names, map(list, (scores, correct, documents)), strict=True))
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{count:,} {name}" for name, count in lengths.items())
        raise UserError(f"{found}: give one of each for every mention")
    for name, value in (("target_precision", target_precision), ("confidence", confidence)):
        if not _is_number(value) or not 0.0 < value < 1.0:
            raise UserError(f"{name}: {value!r} must lie between 0 and 1, such as 0.95")
    for row, score in enumerate(columns["scores"]):
        if not _is_number(score) or not 0.0 <= score <= 1.0:
            raise UserError(
                f"row {row}: the score {score!r} is no probability; leave out mentions without an answer, and map "
                "scores of another scale to probabilities first, by a logistic regression on other documents, say"
            )
    for row, label in enumerate(columns["correct"]):
        if not _is_number(label) or label not in (0, 1):
            raise UserError(f"row {row}: correct is {label!r}; give True or False")
    missing = next((row for row, name in enumerate(columns["documents"]) if _is_missing(name)), None)
    if missing is not None:
        raise UserError(f"row {missing}: the document is missing; give every mention the id of its document")
    count = len(set(columns["documents"]))
    if not count:
        raise UserError("there are no mentions; give the scores of mentions whose answers were judged")
    if count < 2:
        raise UserError(
            f"all mentions are of {count} document; what holds for other documents cannot be learned from one, so "
            "give the id of each mention's document"
        )
    return find_certificate(
        np.array(columns["scores"], np.float64),
        np.array(columns["correct"], np.float64),
        list(map(str, columns["documents"])),
        target_precision,
        confidence,
    )


def _is_missing(value: object) -> bool:
    # Of pandas' NA it is not even known whether it equals itself.
    return value is None or str(value) == "<NA>" or value != value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number | np.bool_)


def find_certificate(
    scores: np.ndarray,
    correct: np.ndarray,
    documents: Sequence | np.ndarray | None = None,
    target_precision: float = 0.95,
    confidence: float = 0.95,
) -> Certificate:
    """`certify` without checks of the arguments.

    Thresholds of a fixed grid are tested downward until one fails (fixed-sequence testing, Maurer et al. 1995; "learn
    then test", Angelopoulos et al. 2021), so no correction for their number is due. The test is `doubt`. The sequence
    starts where it has the most power if the scores are true; labels do not influence the start.

    Args:
        scores: (n,) calibrated probability of each mention's answer; NaN is never accepted.
        correct: (n,) whether the answer is right.
        documents: (n,) document of each mention; by default each mention is its own document.
    """
    scores, correct = np.asarray(scores, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    index, count = (np.arange(len(scores)), len(scores)) if documents is None else document_index(documents)

    def sums(threshold: float, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        accepted = scores >= threshold
        size = np.bincount(index[accepted])
        return size[size > 0], np.bincount(index[accepted], values[accepted])[size > 0]

    needed = int(np.ceil(np.log(1.0 - confidence) / np.log(target_precision)))
    # The highest of the thresholds that accept the same mentions.
    ordered = np.sort(scores[~np.isnan(scores)])
    _, places = np.unique(len(ordered) - np.searchsorted(ordered, GRID), return_index=True)
    thresholds = GRID[places]
    expected = [sums(threshold, scores) for threshold in thresholds]
    worth = np.array([_worth(size) for size, _ in expected])
    power = np.array([_power(size, right, target_precision) for size, right in expected])
    usable = worth >= needed
    lowest, tested = None, thresholds
    if usable.any():
        tested = thresholds[int(np.argmax(np.where(usable, power, -np.inf))) :]
        for threshold in tested:
            if doubt(*sums(threshold, correct), target_precision) > 1.0 - confidence:
                break
            lowest = float(threshold)
    documents_worth = float(worth.max(initial=0.0))
    if lowest is None:
        # If the sequence starts too far down, more documents must help there.
        cuts = [sums(threshold, correct) for threshold in (tested[:1] if usable.any() else thresholds)]
        more = _documents_more(cuts, count, target_precision, confidence)
        return Certificate(None, documents_worth, needed, documents_more=more)
    accepted = scores >= lowest
    return Certificate(lowest, documents_worth, needed, float(accepted.mean()), float(correct[accepted].mean()))


def doubt(size: np.ndarray, right: np.ndarray, target_precision: float = 0.95) -> float:
    """p-value of the hypothesis that the precision over all such documents is below the target.

    One wholly wrong document is added to those seen, then all are reweighted by independent standard exponentials (the
    Bayesian bootstrap, Rubin 1981): the p-value is the probability that the reweighted precision is below the target.
    For documents of equal size this is the bound of Gaffke (2005) and Learned-Miller & Thomas (2020), which needs no
    model of how errors cluster; for documents of one mention it is that of Clopper & Pearson. Documents of unequal
    size add one of their mean size, weighted by size to the power of 1.5.

    The probability is the saddlepoint approximation of Lugannani & Rice (1980), within 1 % of the exact one.

    Args:
        size: (documents,) accepted mentions per document, at least one.
        right: (documents,) right ones among them.

    Returns:
        p-value; 1 if the observed precision is not above the target.
    """
    from scipy.optimize import brentq
    from scipy.special import ndtr

    if not len(size):
        return 1.0
    surplus = np.append(right - target_precision * size, -target_precision * _hypothetical(size))
    if surplus.sum() <= 0:
        return 1.0

    # Saddlepoint of the cumulant generating function - sum log(1 - s surplus), which lies between a pole and 0.
    s = brentq(lambda s: np.sum(surplus / (1.0 - s * surplus)), (1.0 - 1e-9) / surplus.min(), 0.0, xtol=1e-14)
    w = -np.sqrt(max(2.0 * np.sum(np.log1p(-s * surplus)), 0.0))
    u = s * np.sqrt(np.sum((surplus / (1.0 - s * surplus)) ** 2))
    if w > -0.1:  # the precision seen is next to the target, where the formula divides 0 by 0
        return 0.5
    return float(ndtr(w) + np.exp(-(w**2) / 2) / np.sqrt(2 * np.pi) * (1.0 / w - 1.0 / u))


def _hypothetical(size: np.ndarray) -> float:
    """Size of the added document."""
    return float(np.sum(size ** (SIZE_POWER + 1.0)) / np.sum(size**SIZE_POWER))


def _worth(size: np.ndarray) -> float:
    """Effective number of documents, in units of the added one's size."""
    return round(float(size.sum() / _hypothetical(size)), 6) if len(size) else 0.0


def _power(size: np.ndarray, expected: np.ndarray, target_precision: float) -> float:
    """Standard deviations by which `doubt` would find the target exceeded if the scores were true."""
    if not len(size):
        return -np.inf
    surplus, added = expected - target_precision * size, target_precision * _hypothetical(size)
    wrong = size - expected
    return float((surplus.sum() - added) / np.sqrt(np.sum(surplus**2) + np.sum(wrong) + added**2))


def _documents_more(
    cuts: Sequence[tuple[np.ndarray, np.ndarray]], documents: int, target_precision: float, confidence: float
) -> int | None:
    """Number of further documents needed to certify the cheapest of some cuts, given sizes and right ones by document.

    Of the further documents, too, only some have an answer above a cut; `documents` is the number of all.
    With k times as many such documents the surplus of `doubt` has mean ``k total - added`` and variance ``k spread +
    added ** 2``; the least k is asked at which it is above 0 by the normal quantile of `confidence`.
    """
    from scipy.special import ndtri

    z2, most = ndtri(confidence) ** 2, np.log(1.0 - confidence) / np.log(target_precision)
    found = []
    for size, right in cuts:
        surplus = right - target_precision * size
        total, spread = surplus.sum(), np.sum(surplus**2)
        if total > 1e-9 * len(size):
            added = target_precision * _hypothetical(size)
            half = added * total + z2 * spread / 2
            times = (half + np.sqrt(half**2 - total**2 * added**2 * (1.0 - z2))) / total**2
            found.append(documents * (max(times, most / _worth(size)) - 1.0))
    return int(np.ceil(max(min(found), 1.0))) if found else None
