"""The certificate of the high tier: the lowest threshold with certified precision."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any, NamedTuple

import numpy as np

from .precision_test import PrecisionTest
from .reliability import document_index, document_sums

# Thresholds to test, fixed in advance: log-odds from 9.2 to 0 in steps of 0.05 (0.9999 to 0.5).
GRID_LOG_ODDS = 0.05 * np.arange(184, -1, -1)
GRID = np.round(1.0 / (1.0 + np.exp(-GRID_LOG_ODDS)), 6)
# Ratio of the largest document to the mean above which documents differ too much to trust one
# certificate for all.
SIMILAR_SIZES = 4.0
# The lowest target, in percents, that is named as one that documents show.
LOWEST_PERCENT = 50


@dataclass(frozen=True)
class Certificate:
    """What is certified, or what is missing for a certificate; ``str()`` says it in a sentence.

    Attributes:
        threshold: the lowest certified threshold; None if nothing is certified.
        documents: what the documents are worth in the tier: their number, as documents of equal
            size, with the answers of the tier alone.
        documents_needed: smallest such number that allows a certificate, if there is no error.
        coverage: share of answers at or above the threshold; 0 if nothing is certified.
        precision: observed share of correct answers among them; None if nothing is certified.
        size_power: power of document sizes in the test, chosen by these sizes.
        size_ratio: size of the largest document over the mean, in accepted answers.
        target: the precision to certify.
        confidence: 1 minus the error probability.
        is_one_look: whether it was tested once, at documents that were chosen before any label;
            else the test holds for whoever tests after every further document.
        answers: of enough documents without a certificate, number of the most certain answers,
            which were tested; else 0.
        errors: number of incorrect ones among them.
        reachable_target: the highest target, in percents, that holds for them; None if that is
            below 50 %.
        labelled: number of documents that may certify, with answers in the tier or without.
        further_documents: without a certificate, about how many documents more would give one if
            they are like those seen; None: no number that is worth naming, or at one look.
        further_errors: how many incorrect answers these would have in the tier.
    """

    threshold: float | None
    documents: float
    documents_needed: int
    coverage: float = 0.0
    precision: float | None = None
    size_power: float = 0.5
    size_ratio: float = 1.0
    target: float = 0.95
    confidence: float = 0.95
    is_one_look: bool = False
    answers: int = 0
    errors: int = 0
    reachable_target: float | None = None
    labelled: int = 0
    further_documents: int | None = None
    further_errors: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The form for JSON."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Certificate:
        """Inverse of `to_dict`."""
        return cls(**state)

    def __str__(self) -> str:
        if self.threshold is None:
            notes = [self._shortfall(), self._further()]
        else:
            notes = [
                f"{self.threshold:.3f}; {self.coverage:.1%} of the mentions that count for it, "
                f"of which {self.precision:.1%} are correct, in {self.labelled:,} documents"
            ]
        if self.size_ratio > SIMILAR_SIZES:
            notes.append(
                f"caution: the largest document has {self.size_ratio:.1f} times the mean number of "
                "answers; documents of one kind and of similar size certify more"
            )
        return "; ".join(filter(None, notes))

    def _shortfall(self) -> str:
        """What was tested, and what it shows."""
        if not self.answers:
            return (
                f"not certified: {self.labelled:,} documents, worth {int(self.documents)} in the "
                f"tier, of equal size; at least {self.documents_needed} are needed without an error"
            )
        precision = 1.0 - self.errors / self.answers
        shortfall = (
            f"not certified: in {self.labelled:,} documents, {self.errors:,} of the "
            f"{self.answers:,} most certain answers are incorrect: {precision:.1%} are correct, "
            f"which is not at least {100 * self.target:.4g}% for certain"
        )
        if self.reachable_target is not None:
            shortfall += (
                f"; at least {self.reachable_target:.0%} of answers like these "
                f"{self.answers:,} are correct, with {100 * self.confidence:.4g}% confidence"
            )
        return shortfall

    def _further(self) -> str:
        """How many more documents would give a certificate, if any number is named."""
        if self.further_documents is None:
            return ""
        return (
            f"about {self.further_documents:,} more documents like these would give a certificate, "
            f"with at most {self.further_errors:,} more incorrect answers among the most certain"
        )


def find_certificate(
    scores: np.ndarray,
    correct: np.ndarray,
    documents: Sequence | np.ndarray,
    test: PrecisionTest = PrecisionTest(),
) -> Certificate:
    """Find the lowest score threshold with certified precision.

    Thresholds of a fixed grid are tested downward until one fails (fixed-sequence testing, Maurer
    et al. 1995; "learn then test", Angelopoulos et al. 2021), so no correction for their number is
    due. The test is `PrecisionTest`. The sequence starts where it has the most power if the scores
    are true. Neither the start nor the test's power for sizes is chosen by labels.

    Args:
        scores: (n,) calibrated probability of each mention's answer; NaN is never accepted.
        correct: (n,) whether the answer is correct.
        documents: (n,) document of each mention.
        test: what to guarantee.
    """
    documents = list(documents)
    tiers = _tiers(np.asarray(scores, np.float64), np.asarray(correct, np.float64), documents)
    # Documents as they are where the scores expect the target.
    sizes = (
        tier.size
        for tier in reversed(tiers)
        if tier.expected.sum() >= test.target * tier.size.sum()
    )
    widest = next(sizes, np.empty(0))
    test = test.for_sizes(widest)
    size_ratio = float(widest.max() / widest.mean()) if len(widest) else 1.0
    effective = [test.effective(tier.size) for tier in tiers]
    certificate = Certificate(
        threshold=None,
        documents=max(effective, default=0.0),
        documents_needed=test.needed,
        size_power=test.size_power,
        size_ratio=size_ratio,
        target=test.target,
        confidence=test.confidence,
        is_one_look=test.is_one_look,
        labelled=len({*documents}),
    )
    # The last is that of no tier.
    power = np.full(len(tiers) + 1, -np.inf)
    for number, tier in enumerate(tiers):
        if effective[number] >= test.needed:
            power[number] = test.expected_z(tier.size, tier.expected)
    start = int(np.argmax(power))
    tested = tiers[start:] if certificate.documents >= test.needed else []
    for tier in tested:
        if not test.passes(tier.size, tier.correct):
            break
        certificate = replace(
            certificate,
            threshold=tier.threshold,
            coverage=float(tier.size.sum() / len(scores)),
            precision=float(tier.correct.sum() / tier.size.sum()),
        )
    if certificate.threshold is None and tiers:
        # Before there are enough documents, what the scores expect to be the tier.
        hopeful = tested or [tier for tier in tiers if len(tier.size) == len(widest)] or tiers
        certificate = _with_further(certificate, test, hopeful[0])
    if tested and certificate.threshold is None:
        return _with_shortfall(certificate, test, tested[0])
    return certificate


def _with_further(certificate: Certificate, test: PrecisionTest, tier: _Tier) -> Certificate:
    """The certificate that was not granted, with how many more documents would grant it."""
    share = None if test.is_one_look else test.further_share(tier.size, tier.correct)
    if share is None:
        return certificate
    errors = float(tier.size.sum() - tier.correct.sum())
    return replace(
        certificate,
        further_documents=max(1, ceil(share * certificate.labelled)),
        further_errors=int(share * errors),
    )


def _with_shortfall(certificate: Certificate, test: PrecisionTest, tier: _Tier) -> Certificate:
    """The certificate that was not granted, with what the tier that was tested first shows."""

    def fails(percent: int) -> bool:
        return not replace(test, target=percent / 100).passes(tier.size, tier.correct)

    targets = range(LOWEST_PERCENT, int(np.ceil(100 * test.target)))
    certified = bisect_left(targets, True, key=fails)
    reachable_target = targets[certified - 1] / 100 if certified else None
    return replace(
        certificate,
        answers=int(tier.size.sum()),
        errors=int(tier.size.sum() - tier.correct.sum()),
        reachable_target=reachable_target,
    )


class _Tier(NamedTuple):
    """What a threshold accepts, by document with an accepted mention.

    Attributes:
        threshold: the threshold.
        size: (documents,) number of accepted mentions.
        expected: (documents,) sum of their scores.
        correct: (documents,) number of correct ones.
    """

    threshold: float
    size: np.ndarray
    expected: np.ndarray
    correct: np.ndarray


def _tiers(
    scores: np.ndarray, correct: np.ndarray, documents: Sequence | np.ndarray
) -> list[_Tier]:
    """The tiers of all thresholds, the highest first; of those that accept the same only that."""
    accepted = np.sort(scores[~np.isnan(scores)])
    counts = len(accepted) - np.searchsorted(accepted, GRID)
    thresholds = GRID[np.unique(counts, return_index=True)[1]]
    index, document_count = document_index(documents)
    columns = [np.ones(len(scores)), scores, correct]
    # The first threshold that a mention reaches; the last number is that of none.
    reached = np.searchsorted(-thresholds, -scores)
    sums = np.zeros((document_count, len(columns)))
    tiers = []
    for number, threshold in enumerate(thresholds.tolist()):
        rows = np.flatnonzero(reached == number)
        sums += document_sums(index[rows], document_count, [column[rows] for column in columns])
        size, expected, right = sums[sums[:, 0] > 0].T
        tiers.append(_Tier(threshold, size, expected, right))
    return tiers
