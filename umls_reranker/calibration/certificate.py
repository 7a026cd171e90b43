"""The certificate of the high-confidence tier: the lowest threshold with certified precision; earlier certificates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

import numpy as np

from ..core.errors import UserError
from ..core.progress import progress
from .precision_test import PrecisionTest
from .resampling import document_index

# Thresholds to test, fixed in advance: log-odds from 9.2 to 0 in steps of 0.05, that is 0.9999 to 0.5.
GRID = np.round(1.0 / (1.0 + np.exp(-0.05 * np.arange(184, -1, -1))), 6)
# Targets for which a sequence may start where that of a lower target starts.
USUAL_TARGETS = (0.8, 0.85, 0.9, 0.95, 0.975, 0.99)
# Ratio of the largest document to the mean above which documents differ too much to trust one certificate for all.
SIMILAR_SIZES = 4.0
# Share of the error probability that the second certificate gets; each further one gets half of the one before.
LATER_SHARE = 0.05
# For the outlook: a second confidence, numbers of documents, and draws of each.
OTHER_CONFIDENCE, OUTLOOK_DOCUMENTS, OUTLOOK_DRAWS = 0.9, (200, 400, 800), 8


@dataclass(frozen=True)
class Certificate:
    """What is certified, or what is missing for a certificate; ``str()`` says it in a sentence.

    Attributes:
        threshold: the lowest certified threshold; None if nothing is certified.
        documents: effective number of calibration documents, as documents of equal size.
        documents_needed: smallest effective number that allows a certificate, if there is no error.
        share: share of answers at or above the threshold; 0 if nothing is certified.
        precision: observed share of correct answers among them; None if nothing is certified.
        even: if nothing is certified, an estimate of how many documents, all of them new, the next certificate needs
            with even odds; None if more would not help.
        likely: the same with odds of four in five.
        size_power: power of document sizes in the test, chosen by these sizes.
        size_ratio: size of the largest document over the mean, in accepted answers.
        most_wrong: assumed largest share of incorrect answers in a document's tier; 1 assumes nothing.
        attempt: 1 for the first certificate, 2 for a later one on new documents, and so on.
        outlook: for information, estimates of the share that would be certified: "confidence 0.90" with these
            documents, "200 documents" and so on with more or fewer documents like these.
    """

    threshold: float | None
    documents: float
    documents_needed: int
    share: float = 0.0
    precision: float | None = None
    even: int | None = None
    likely: int | None = None
    size_power: float = 0.5
    size_ratio: float = 1.0
    most_wrong: float = 1.0
    attempt: int = 1
    outlook: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        notes = [self._result()]
        if self.most_wrong < 1:
            notes.append(f"assuming that at most {self.most_wrong:.0%} of the tier is incorrect in any document")
        if self.size_ratio > SIMILAR_SIZES:
            notes.append(
                f"caution: the largest document has {self.size_ratio:.1f} times the mean number of answers; documents "
                "of one kind and of similar size certify more"
            )
        if self.outlook:
            shares = [f"{share:.1%} with {name}" for name, share in self.outlook.items()]
            notes.append(f"for information only: {', '.join(shares)}")
        return "; ".join(notes)

    def _result(self) -> str:
        if self.threshold is not None:
            return (
                f"{self.threshold:.3f}; {self.share:.1%} of these mentions, of which {self.precision:.1%} are correct"
            )
        reason = "too few documents for the errors seen among the most probable answers"
        if self.even is None:
            reason = "too many of the most probable answers are incorrect"
        if self.documents < self.documents_needed:
            reason = (
                f"the calibration documents are worth {int(self.documents)} of equal size, but at least "
                f"{self.documents_needed} are needed"
            )
        more = "more documents with as many errors would not help"
        if self.even is not None:
            odds = "" if self.likely is None else f" and about {self.likely:,} for an 80 % chance"
            more = f"estimate: a second attempt needs new documents, about {self.even:,} for an even chance{odds}"
        return f"not certified: {reason}; {more}"


def find_certificate(
    scores: np.ndarray,
    correct: np.ndarray,
    documents: Sequence | np.ndarray | None = None,
    target_precision: float = 0.95,
    confidence: float = 0.95,
    *,
    most_wrong: float = 1.0,
    attempt: int = 1,
    has_outlook: bool = False,
) -> Certificate:
    """Find the lowest score threshold with certified precision.

    Thresholds of a fixed grid are tested downward until one fails (fixed-sequence testing, Maurer et al. 1995; "learn
    then test", Angelopoulos et al. 2021), so no correction for their number is due. The test is `PrecisionTest`. The
    sequence starts where it has the most power if the scores are true. Neither the start nor the test's power for
    sizes is chosen by labels.

    Args:
        scores: (n,) calibrated probability of each mention's answer; NaN is never accepted.
        correct: (n,) whether the answer is correct.
        documents: (n,) document of each mention; by default each mention is its own document.
        target_precision: as for `certify`.
        confidence: as for `certify`.
        most_wrong: as for `certify`.
        attempt: as for `certify`.
        has_outlook: whether to estimate `Certificate.outlook`. What it shows must not decide about confidence or
            documents of the certificate itself.
    """
    shares = {}
    if has_outlook and len(scores) and documents is not None:
        shares = _outlook(
            scores, correct, documents, PrecisionTest(target_precision, confidence, most_wrong=most_wrong)
        )
    test = PrecisionTest(target_precision, confidence_of(attempt, confidence), most_wrong=most_wrong)
    search = _Search.of(scores, correct, documents, test)
    test, sizes = search.test, search.widest
    ratio = float(sizes.max() / sizes.mean()) if len(sizes) else 1.0
    certificate = Certificate(
        None,
        search.effective,
        test.needed,
        size_power=test.size_power,
        size_ratio=ratio,
        most_wrong=most_wrong,
        attempt=attempt,
        outlook=shares,
    )
    if search.lowest is not None:
        return replace(
            certificate,
            threshold=float(search.thresholds[search.lowest]),
            share=search.accepted / len(scores),
            precision=float(search.observed[search.lowest][1].sum() / search.accepted),
        )
    test = replace(test, confidence=confidence_of(attempt + 1, confidence))
    # For a lower target the sequence may start lower, but that must not require more documents.
    starts = set()
    for target in (target_precision, *(usual for usual in USUAL_TARGETS if usual > target_precision)):
        like = replace(test, target=target)
        starts.add(int(np.argmax([like.expected_z(*each, has_added=False) for each in search.expected])))
    estimates = [test.documents_estimate(*search.observed[start], search.documents) for start in sorted(starts)]
    even, likely = (
        min((number for number in numbers if number is not None), default=None)
        for numbers in zip(*estimates, strict=True)
    )
    return replace(certificate, even=even, likely=likely)


def confidence_of(attempt: int, confidence: float) -> float:
    """The confidence at which a certificate is tested, so that trying again does not add up.

    The first has the whole error probability. Each later one rests on new documents alone and gets `LATER_SHARE` of
    it, halved each time. So however often somebody tries, the probability of any false certificate is at most 1.1
    times that of one.
    """
    share = 1.0 if attempt == 1 else LATER_SHARE * 0.5 ** (attempt - 2)
    return 1.0 - share * (1.0 - confidence)


@dataclass(frozen=True)
class _Search:
    """A sequence of tests.

    Attributes:
        test: the test, with the power that suits the document sizes where the scores expect the target.
        thresholds: (T,) from the highest down, each the highest of those that accept the same mentions.
        expected: for each threshold, accepted mentions of each document that has any, and the sums of their scores.
        observed: the same with the numbers of correct ones.
        widest: accepted mentions of documents at the lowest threshold at which the scores expect the target.
        documents: number of all documents.
        effective: the largest effective number of documents at any threshold.
        lowest: index of the lowest certified threshold; None if the first test fails.
    """

    test: PrecisionTest
    thresholds: np.ndarray
    expected: list[tuple[np.ndarray, np.ndarray]]
    observed: list[tuple[np.ndarray, np.ndarray]]
    widest: np.ndarray
    documents: int
    effective: float
    lowest: int | None

    @classmethod
    def of(
        cls,
        scores: np.ndarray,
        correct: np.ndarray,
        documents: Sequence | np.ndarray | None,
        test: PrecisionTest,
    ) -> _Search:
        """Run the sequence; arguments as for `find_certificate`."""
        scores, correct = np.asarray(scores, dtype=np.float64), np.asarray(correct, dtype=np.float64)
        index, count = (np.arange(len(scores)), len(scores)) if documents is None else document_index(documents)
        ordered = np.sort(scores[~np.isnan(scores)])
        _, positions = np.unique(len(ordered) - np.searchsorted(ordered, GRID), return_index=True)
        thresholds = GRID[positions]
        expected, observed = (_sums(scores, values, index, count, thresholds) for values in (scores, correct))
        likely = [size for size, total in expected if total.sum() >= test.target * size.sum()]
        widest = likely[-1] if likely else np.empty(0, np.int64)
        test = test.for_sizes(widest)
        effective = np.array([test.effective(size) for size, _ in expected])
        usable, lowest = effective >= test.needed, None
        if usable.any():
            power = np.array([test.expected_z(*each) for each in expected])
            for row in range(int(np.argmax(np.where(usable, power, -np.inf))), len(thresholds)):
                if test.p_value(*observed[row]) > 1.0 - test.confidence:
                    break
                lowest = row
        return cls(test, thresholds, expected, observed, widest, count, float(effective.max(initial=0)), lowest)

    @property
    def accepted(self) -> int:
        """Number of mentions at or above the certified threshold."""
        return 0 if self.lowest is None else int(self.observed[self.lowest][0].sum())


def _sums(
    scores: np.ndarray, values: np.ndarray, index: np.ndarray, count: int, thresholds: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each threshold, from the highest down: accepted mentions of each document that has any, and their sums."""
    # The first threshold that a mention reaches; the last number is that of none.
    reached = np.searchsorted(-thresholds, -scores)
    order = np.argsort(reached, kind="stable")
    ends = np.searchsorted(reached[order], np.arange(len(thresholds)), side="right")
    size, total, sums, start = np.zeros(count, np.int64), np.zeros(count), [], 0
    for end in ends.tolist():
        rows = order[start:end]
        size += np.bincount(index[rows], minlength=count)
        total += np.bincount(index[rows], values[rows], minlength=count)
        sums.append((size[size > 0], total[size > 0]))
        start = end
    return sums


def _outlook(
    scores: np.ndarray, correct: np.ndarray, documents: Sequence | np.ndarray, test: PrecisionTest
) -> dict[str, float]:
    """Shares that would be certified at a lower confidence, and with other numbers of documents drawn from these."""
    index, count = document_index(documents)
    order = np.argsort(index, kind="stable")
    rows, shares = np.split(order, np.cumsum(np.bincount(index, minlength=count))[:-1]), dict[str, float]()
    if test.confidence > OTHER_CONFIDENCE:
        search = _Search.of(scores, correct, index, replace(test, confidence=OTHER_CONFIDENCE))
        shares[f"confidence {OTHER_CONFIDENCE:.2f}"] = search.accepted / len(scores)
    rng = np.random.default_rng(0)
    bar = progress(total=len(OUTLOOK_DOCUMENTS) * OUTLOOK_DRAWS, desc="estimating other certificates", unit=" draws")
    for number in OUTLOOK_DOCUMENTS:
        accepted, drawn_mentions = 0, 0
        for _ in range(OUTLOOK_DRAWS):
            drawn = [rows[document] for document in rng.integers(0, count, number)]
            mentions, of_mention = np.concatenate(drawn), np.repeat(np.arange(number), list(map(len, drawn)))
            search = _Search.of(scores[mentions], correct[mentions], of_mention, test)
            accepted, drawn_mentions = accepted + search.accepted, drawn_mentions + len(mentions)
            bar.update()
        shares[f"{number} documents"] = accepted / drawn_mentions
    bar.close()
    return shares


@dataclass(frozen=True)
class CertificateHistory:
    """The certificates of a model and of the versions that it was derived from, granted or not.

    Attributes:
        certificates: for each, the oldest first, hashes of the ids of its documents.
    """

    certificates: tuple[frozenset[str], ...] = ()

    def is_new(self, documents: Iterable[str]) -> np.ndarray:
        """Whether each of n documents is in no certificate so far, (n,) bool."""
        used = frozenset[str]().union(*self.certificates)
        return np.array([_hash(name) not in used for name in documents], bool)

    def after(self, documents: Iterable[str]) -> CertificateHistory:
        """The history with one more certificate, which rests on these documents."""
        return CertificateHistory((*self.certificates, frozenset(map(_hash, documents))))

    def before(self) -> CertificateHistory:
        """The history without its last certificate."""
        return CertificateHistory(self.certificates[:-1])

    def to_list(self) -> list[list[str]]:
        """The form for JSON."""
        return [sorted(documents) for documents in self.certificates]

    @classmethod
    def from_list(cls, state: Any) -> CertificateHistory:
        """Inverse of `to_list`.

        Raises:
            UserError: the history is damaged.
        """
        if not isinstance(state, list) or not all(isinstance(documents, list) for documents in state):
            raise UserError(
                "calibrator.json: the record of earlier certificates is missing or damaged; run umls-reranker "
                "calibrate again"
            )
        return cls(tuple(frozenset(map(str, documents)) for documents in state))


NO_CERTIFICATES = CertificateHistory()


def note_on_certificate(certified_by: Mapping[str, int], *, is_certified: bool) -> str:
    """A sentence about a later certificate: its documents, and whether it was granted; empty for a first one.

    Args:
        certified_by: ``attempt`` and ``documents``, as in ``calibrator.json``.
        is_certified: whether it was granted for all inputs.
    """
    attempt, documents = certified_by["attempt"], certified_by["documents"]
    if attempt == 1:
        return ""
    result = "granted" if is_certified else "not granted, so the high tier is removed"
    return (
        f"certificate {attempt} of this model is {result}: it uses {documents:,} new documents drawn at random; "
        "documents of earlier certificates cannot certify again"
    )


def _hash(document: str) -> str:
    # Sixteen digits: two of a million documents share a hash with probability 3e-8.
    return blake2b(str(document).encode(), digest_size=8).hexdigest()
