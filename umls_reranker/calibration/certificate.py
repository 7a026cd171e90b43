"""The certificate of the high tier: the lowest threshold with certified precision; its history.

`certify` is for the scores of any system.

Is the precision over documents like those seen below a target? One document is added to those seen,
with all answers incorrect; then all are reweighted by independent standard exponentials (the
Bayesian bootstrap, Rubin 1981). The p-value is the probability that the reweighted precision is
below the target. For documents of equal size this is the bound of Gaffke (2005) and Learned-Miller
& Thomas (2020), which needs no model of how errors cluster; for documents of one mention it is that
of Clopper & Pearson. Where sizes differ the added document has a weighted mean of them, with
weights chosen by the sizes alone (`PrecisionTest.for_sizes`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..core.errors import UserError
from ..core.files import is_finite
from .calibrators import LabelledScores, PlattCalibrator
from .reliability import document_folds, document_index, document_sums

if TYPE_CHECKING:
    from ..lists.candidate_lists import Annotations

# Weights of the added document's size: sizes to one of these powers; the last: the largest size.
SIZE_POWERS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 10.0, float("inf"))
# How often the largest documents may be entirely incorrect. With more, hardly any power suffices
# where they are few.
MOST_OFTEN_INCORRECT = 0.5
# Draws for the choice of the power, and standard errors by which one of several levels may exceed
# its limit by chance.
POWER_DRAWS = 4_000
POWER_ERRORS = 3.0
# Share of the error probability for the second certificate; each further one gets half as much.
LATER_SHARE = 0.05
# Halvings of the interval that holds the saddlepoint.
HALVINGS = 45
# Thresholds to test, fixed in advance: log-odds from 9.2 to 0 in steps of 0.05 (0.9999 to 0.5).
GRID_LOG_ODDS = 0.05 * np.arange(184, -1, -1)
GRID = np.round(1.0 / (1.0 + np.exp(-GRID_LOG_ODDS)), 6)
# Ratio of the largest document to the mean above which documents differ too much to trust one
# certificate for all.
SIMILAR_SIZES = 4.0
# The lowest target, in percents, that is named as one that documents would have certified.
LOWEST_PERCENT = 50
# Tolerance for probabilities outside [0, 1] by rounding: a cosine of 1 is often 1.0000001.
ROUNDING = 1e-5


@dataclass(frozen=True)
class PrecisionTest:
    """The test for one target.

    Attributes:
        target: precision, between 0 and 1.
        confidence: 1 minus the error probability of all certificates, between 0 and 1.
        size_power: sizes to this power are the weights of the added document's size.
        attempt: 1 for the first certificate, 2 for a later one on new documents, and so on.

    Raises:
        UserError: target or confidence is not between 0 and 1.
    """

    target: float = 0.95
    confidence: float = 0.95
    size_power: float = SIZE_POWERS[0]
    attempt: int = 1

    def __post_init__(self) -> None:
        for name, value in (("target_precision", self.target), ("confidence", self.confidence)):
            if not is_number(value) or not 0.0 < value < 1.0:
                raise UserError(f"{name}: {value!r} must lie between 0 and 1, such as 0.95")

    @property
    def level(self) -> float:
        """Error probability of this certificate, so that trying again does not add up.

        The first has the whole error probability. Each later one rests on new documents alone and
        gets `LATER_SHARE` of it, halved each time. So however often somebody tries, the probability
        of any false certificate is at most 1.1 times that of one.
        """
        # No number is smaller than 0.5 to the 1,074.
        share = 1.0 if self.attempt == 1 else LATER_SHARE * 0.5 ** min(self.attempt - 2, 1_000)
        return share * (1.0 - self.confidence)

    def for_sizes(self, size: np.ndarray) -> PrecisionTest:
        """The same test with the smallest power that keeps its level for documents of these sizes.

        Documents are drawn from those seen. Each of the largest is entirely incorrect with the same
        probability, at most `MOST_OFTEN_INCORRECT`, and all others are correct, so that the
        precision is the target. For every number of largest documents the test may pass in at most
        `level` of the draws, up to Monte Carlo error. Labels are not used.

        Args:
            size: (documents,) number of accepted mentions, at least one each.
        """
        kinds, frequency = np.unique(size, return_counts=True)
        if len(kinds) < 2:
            return replace(self, size_power=SIZE_POWERS[0])
        rng = np.random.default_rng(0)
        counts = rng.multinomial(len(size), frequency / len(size), size=POWER_DRAWS)
        draws = self._incorrect_documents(rng, counts, kinds, frequency)
        sizes = np.tile(kinds, 2)
        correct = np.concatenate([kinds, np.zeros(len(kinds))])
        most = self.level + POWER_ERRORS * np.sqrt(self.level * (1.0 - self.level) / POWER_DRAWS)
        for power in SIZE_POWERS:
            test = replace(self, size_power=power)
            p_values = (
                test.p_values(sizes, correct, np.hstack([counts - incorrect, incorrect]))
                for incorrect in draws
            )
            if all(np.mean(p <= self.level) <= most for p in p_values):
                break
        return test

    def _incorrect_documents(
        self, rng: np.random.Generator, counts: np.ndarray, kinds: np.ndarray, frequency: np.ndarray
    ) -> list[np.ndarray]:
        """Draw which documents are entirely incorrect, for several numbers of largest documents.

        Args:
            rng: generator of the draws.
            counts: (draws, k) documents of each size.
            kinds: (k,) the sizes.
            frequency: (k,) number of documents seen of each size.

        Returns:
            For each number of largest documents, (draws, k), how many of a size are incorrect.
        """
        answers = np.cumsum(np.repeat(kinds, frequency)[::-1])
        # Chance by the number of largest documents; the fewest that may be so often enough, and
        # more of them.
        chance = (1.0 - self.target) * answers[-1] / answers
        fewest = int(np.argmax(chance <= MOST_OFTEN_INCORRECT)) + 1
        half = max(1, len(answers) // 2)
        numbers = np.unique(np.round(np.geomspace(min(fewest, half), half, 8)).astype(int))
        # How many documents are larger than those of a kind.
        larger = len(answers) - np.cumsum(frequency)
        incorrect = []
        for number in numbers:
            chance_of_largest = chance[number - 1]
            if chance_of_largest > MOST_OFTEN_INCORRECT:
                continue
            among_largest = np.clip(number - larger, 0, frequency) / frequency
            incorrect.append(rng.binomial(counts, chance_of_largest * among_largest))
        return incorrect

    @property
    def needed(self) -> int:
        """The smallest number of documents of equal size that can pass, without an error."""
        odds = (1.0 - self.target) / self.target
        return int(np.ceil(round(np.log(self.level) / -np.log1p(odds), 9)))

    def added_size(self, size: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Size of the added document, (draws,), by counts (draws, k) of documents of sizes (k,)."""
        largest = np.where(counts > 0, size, 0).max(axis=1, initial=0)
        if np.isinf(self.size_power):
            return largest
        # Relative to the largest, or large powers overflow.
        weight = counts * (size / np.maximum(largest, 1)[:, None]) ** self.size_power
        return np.sum(weight * size, axis=1) / np.maximum(weight.sum(axis=1), 1e-300)

    def effective(self, size: np.ndarray) -> float:
        """Number of documents of these sizes, (documents,), in sizes of the added document."""
        if not len(size):
            return 0.0
        return round(float(size.sum() / self.added_size(size, np.ones((1, len(size))))[0]), 6)

    def expected_z(self, size: np.ndarray, expected: np.ndarray) -> float:
        """Standard deviations by which the precision would exceed the target if scores were true.

        Args:
            size: (documents,) number of accepted mentions, at least one each; not empty.
            expected: (documents,) sum of their scores.
        """
        surplus = expected - self.target * size
        added = self.target * float(self.added_size(size, np.ones((1, len(size))))[0])
        variance = np.sum(surplus**2 + size - expected) + added**2
        return float((surplus.sum() - added) / np.sqrt(max(variance, 1e-300)))

    def p_value(self, size: np.ndarray, correct: np.ndarray) -> float:
        """The p-value of documents by their accepted mentions and correct ones, (documents,) each.

        Returns:
            The p-value; 1 if the observed precision is not above the target.
        """
        return float(self.p_values(size, correct, np.ones((1, len(size))))[0])

    def p_values(self, size: np.ndarray, correct: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """P-values (draws,) of counts (draws, k) of documents of sizes (k,) and correct ones (k,).

        Saddlepoint approximation of Lugannani & Rice (1980), within 1 % of the exact probability.
        """
        surplus = correct - self.target * size
        added = -self.target * self.added_size(size, counts)
        # Of kinds that a draw lacks, 0 instead: the logarithm in `_tail` is not defined for them.
        present = np.where(counts > 0, surplus, 0.0)
        least = np.minimum(present.min(axis=1, initial=0.0), added)
        # Without an accepted mention nothing is below 0, and nothing is shown.
        some = (counts @ surplus + added > 0) & (least < 0)
        p = np.ones(len(counts))
        if some.any():
            p[some] = _tail(counts[some].astype(float), present[some], added[some], least[some])
        return p


def _shown(value: Any) -> str:
    """A value for messages; Python does not write integers of thousands of digits."""
    is_too_large = isinstance(value, int) and not is_finite(value)
    return "with hundreds of digits" if is_too_large else repr(value)


def is_number(value: object) -> bool:
    """Whether a value is a number of Python or NumPy."""
    return isinstance(value, int | float | np.number | np.bool_)


def _tail(
    counts: np.ndarray, surplus: np.ndarray, added: np.ndarray, least: np.ndarray
) -> np.ndarray:
    """The probability that exponentials, weighted by surpluses, sum to less than 0, (draws,).

    Args:
        counts: (draws, k) number of documents of a kind.
        surplus: (draws, k) their correct answers above the target.
        added: (draws,) surplus of the added document, at most 0.
        least: (draws,) the least surplus of a draw, below 0.
    """
    from scipy.special import ndtr

    # Saddlepoint of the cumulant generating function - sum log(1 - s surplus), which lies between a
    # pole and 0.
    low = (1.0 - 1e-9) / least
    high = np.zeros(len(added))
    for _ in range(HALVINGS):
        s = (low + high) / 2
        ratio = surplus / (1.0 - s[:, None] * surplus)
        is_above = np.einsum("dk,dk->d", counts, ratio) + added / (1.0 - s * added) > 0
        low = np.where(is_above, low, s)
        high = np.where(is_above, s, high)
    logs = np.einsum("dk,dk->d", counts, np.log1p(-s[:, None] * surplus))
    logs += np.log1p(-s * added)
    spread = np.einsum("dk,dk->d", counts, ratio**2)
    spread += (added / (1.0 - s * added)) ** 2
    w = -np.sqrt(np.maximum(2.0 * logs, 0.0))
    u = s * np.sqrt(spread)
    # Near the target precision, the formula divides 0 by 0.
    is_close = w > -0.1
    w = np.where(is_close, -1.0, w)
    u = np.where(is_close, -1.0, u)
    normal_density = np.exp(-(w**2) / 2) / np.sqrt(2 * np.pi)
    tail = ndtr(w) + normal_density * (1.0 / w - 1.0 / u)
    return np.where(is_close, 0.5, tail)


@dataclass(frozen=True)
class Certificate:
    """What is certified, or what is missing for a certificate; ``str()`` says it in a sentence.

    Attributes:
        threshold: the lowest certified threshold; None if nothing is certified.
        documents: effective number of calibration documents, as documents of equal size.
        documents_needed: smallest effective number that allows a certificate, if there is no error.
        coverage: share of answers at or above the threshold; 0 if nothing is certified.
        precision: observed share of correct answers among them; None if nothing is certified.
        size_power: power of document sizes in the test, chosen by these sizes.
        size_ratio: size of the largest document over the mean, in accepted answers.
        attempt: 1 for the first certificate, 2 for a later one on new documents, and so on.
        target: the precision to certify.
        answers: of enough documents without a certificate, number of the most certain answers,
            which were tested; else 0.
        errors: number of incorrect ones among them.
        reachable_target: the highest target, in percents, that they would have certified; None if
            that is below 50 %.
    """

    threshold: float | None
    documents: float
    documents_needed: int
    coverage: float = 0.0
    precision: float | None = None
    size_power: float = 0.5
    size_ratio: float = 1.0
    attempt: int = 1
    target: float = 0.95
    answers: int = 0
    errors: int = 0
    reachable_target: float | None = None

    def __str__(self) -> str:
        if self.threshold is None:
            notes = [f"not certified: {self._shortfall()}"]
        else:
            notes = [
                f"{self.threshold:.3f}; {self.coverage:.1%} of the mentions that count for it, "
                f"of which {self.precision:.1%} are correct"
            ]
        if self.size_ratio > SIMILAR_SIZES:
            notes.append(
                f"caution: the largest document has {self.size_ratio:.1f} times the mean number of "
                "answers; documents of one kind and of similar size certify more"
            )
        return "; ".join(notes)

    def _shortfall(self) -> str:
        """What was missing for a certificate, and what would help."""
        if not self.answers:
            return (
                f"the calibration documents are worth {int(self.documents)} of equal size; "
                f"at least {self.documents_needed} are needed without an error, "
                "and more with errors: label more documents"
            )
        precision = 1.0 - self.errors / self.answers
        effect = "help" if precision > self.target else "not help"
        shortfall = (
            f"{self.errors:,} of the {self.answers:,} most certain answers are incorrect: "
            f"{precision:.1%} are correct, not {100 * self.target:.4g}% for certain, "
            f"in documents worth {int(self.documents)} of equal size; "
            f"more documents like these would {effect}"
        )
        if self.reachable_target is not None:
            shortfall += (
                f"; these would have certified {self.reachable_target:.0%}: choose a lower target "
                "before you label further documents"
            )
        return shortfall


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
        attempt=test.attempt,
        target=test.target,
    )
    # The last is that of no tier.
    power = np.full(len(tiers) + 1, -np.inf)
    for number, tier in enumerate(tiers):
        if effective[number] >= test.needed:
            power[number] = test.expected_z(tier.size, tier.expected)
    start = int(np.argmax(power))
    tested = tiers[start:] if certificate.documents >= test.needed else []
    for tier in tested:
        if test.p_value(tier.size, tier.correct) > test.level:
            break
        certificate = replace(
            certificate,
            threshold=tier.threshold,
            coverage=float(tier.size.sum() / len(scores)),
            precision=float(tier.correct.sum() / tier.size.sum()),
        )
    if tested and certificate.threshold is None:
        return _with_shortfall(certificate, test, tested[0])
    return certificate


def _with_shortfall(certificate: Certificate, test: PrecisionTest, tier: _Tier) -> Certificate:
    """The certificate that was not granted, with what the tier that was tested first shows."""

    def fails(percent: int) -> bool:
        return replace(test, target=percent / 100).p_value(tier.size, tier.correct) > test.level

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


def certify(  # noqa: PLR0913 (one call without a model has all of its options)
    scores: Sequence[float],
    correct: Sequence[bool],
    documents: Sequence,
    target_precision: float = 0.95,
    confidence: float = 0.95,
    *,
    calibrate: bool = False,
    certified_before: Collection = (),
    attempt: int = 1,
    mentions: Sequence[str] | None = None,
) -> Certificate:
    """Find the lowest score threshold with certified precision.

    Works for any system that scores its answers; no model is needed. With probability
    ``confidence`` over the labelled documents, the answers at or above the threshold have a
    precision of at least ``target_precision`` over further documents like them. This holds even for
    uncalibrated scores, but calibrated scores certify more. Decide about target and confidence
    beforehand, and certify once: choosing between certificates breaks the guarantee.

    Thresholds of a fixed grid are tested downward until one fails (fixed-sequence testing, Maurer
    et al. 1995; "learn then test", Angelopoulos et al. 2021). Documents are the sampled units.

    >>> from umls_reranker import certify
    >>> scores = [0.98, 0.97, 0.6] * 100
    >>> correct = [True, True, False] * 100
    >>> certificate = certify(scores, correct, documents=[number // 3 for number in range(300)])
    >>> round(certificate.threshold, 2), round(certificate.coverage, 2), certificate.precision
    (0.97, 0.67, 1.0)
    >>> few = certify(scores[:30], correct[:30], documents=[number // 3 for number in range(30)])
    >>> few.threshold, few.documents_needed
    (None, 59)

    Args:
        scores: (n,) score of each mention's answer, the higher the more certain; leave out mentions
            without an answer. Probabilities in [0, 1], unless ``calibrate`` is set.
        correct: (n,) whether the answer is correct.
        documents: (n,) id of the document of each mention; mentions of a document are correlated.
        target_precision: guaranteed precision, between 0 and 1.
        confidence: probability that the guarantee holds, between 0 and 1.
        calibrate: for scores of any scale, such as logits or cosines: maps them to probabilities by
            logistic regression, each fifth of the documents by a fit on the others. The threshold
            is one of your scores.
        certified_before: ids of the documents of earlier certificates of these scores, granted or
            not. They only help to calibrate: trying again with the same documents would not keep
            the confidence.
        attempt: 1 for the first certificate, 2 for the next, and so on. The first has the whole
            error probability (1 - confidence). Later ones together get a tenth of it, so that
            errors do not add up; they need more documents.
        mentions: (n,) texts of the mentions, in the order of their documents: documents with nearly
            the same ones, such as notes copied forward, then count as one. Without them a copy with
            an id of its own counts as further evidence, and a certificate over many copies can be
            false far more often than the confidence says. Copies of fewer than three different
            mentions are not seen either way.

    Raises:
        UserError: lengths differ, scores are not probabilities, labels are neither True nor False,
            there are fewer than two documents, no document is new, or target or confidence
            is not between 0 and 1.
    """
    if not isinstance(attempt, int) or attempt < 1 or (attempt == 1 and len(certified_before)):
        raise UserError(
            f"attempt: {attempt!r} must be 1, or 2 and more for a certificate after "
            "those of certified_before"
        )
    test = PrecisionTest(target_precision, confidence, attempt=attempt)
    sample, names = _checked_answers(scores, correct, documents, calibrate)
    former = {*map(str, certified_before)}
    is_new = np.array([name not in former for name in names], bool)
    if mentions is not None:
        if len(mentions) != len(names):
            raise UserError(f"{len(mentions):,} mentions of {len(names):,} scores: give one each")
        # Loading a model needs none of this.
        from ..lists.duplicates import joined_by_mentions

        joined = joined_by_mentions(names.tolist(), list(map(str, mentions)))
        is_new = ~np.isin(joined, joined[~is_new])
        names = joined
    probabilities = _cross_fitted(sample, names) if calibrate else sample.scores
    if not is_new.any():
        raise UserError("all documents are in certified_before; only new ones can certify")
    certificate = find_certificate(
        probabilities[is_new], sample.labels[is_new], names[is_new], test
    )
    if not calibrate or certificate.threshold is None:
        return certificate
    # The map is that of a fit on all rows.
    platt = PlattCalibrator()
    platt.fit(sample)
    p = certificate.threshold
    score = (np.log(p) - np.log1p(-p) - platt.intercept) / platt.slope
    return replace(certificate, threshold=float(score))


def _checked_answers(
    scores: Any, correct: Any, documents: Any, calibrate: bool
) -> tuple[LabelledScores, np.ndarray]:
    """The arguments of `certify`: scores with labels, and names of documents, (n,)."""
    columns: dict[str, list[Any]] = {}
    for name, values in (("scores", scores), ("correct", correct), ("documents", documents)):
        if not isinstance(values, Iterable):
            raise UserError(f"{name}: {values!r} is not a list; give one value per mention")
        columns[name] = list(values)
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{count:,} {name}" for name, count in lengths.items())
        raise UserError(f"{counts}: give one of each per mention")
    for row, (score, label, document) in enumerate(zip(*columns.values(), strict=True)):
        if not is_number(score) or not is_finite(score):
            raise UserError(
                f"row {row}: the score {_shown(score)} is not a number; "
                "leave out mentions without an answer"
            )
        if not calibrate and not -ROUNDING <= score <= 1.0 + ROUNDING:
            raise UserError(
                f"row {row}: the score {score!r} is not a probability; "
                "pass calibrate=True to map scores on another scale to probabilities"
            )
        if not is_number(label) or label not in (0, 1):
            raise UserError(f"row {row}: correct is {_shown(label)}; give True or False")
        # pandas.NA cannot be compared, not even with itself.
        is_id = isinstance(document, Hashable) and document is not None
        if not is_id or str(document) == "<NA>" or document != document:
            raise UserError(
                f"row {row}: the document is missing or no id; give every mention that of its "
                "document"
            )
    numbers = np.array(columns["scores"], np.float64)
    if len(set(columns["documents"])) < 2:
        found = "all mentions are from 1 document" if len(numbers) else "there are no mentions"
        raise UserError(
            f"{found}, which says nothing about other documents; give labelled mentions of two or "
            "more, and the id of each one's document"
        )
    scores = numbers if calibrate else np.clip(numbers, 0.0, 1.0)
    labels = np.array(columns["correct"], np.float64)
    documents = np.array(list(map(str, columns["documents"])), object)
    return LabelledScores(scores=scores, labels=labels), documents


def _cross_fitted(sample: LabelledScores, documents: np.ndarray) -> np.ndarray:
    """Held-out probabilities by logistic regression, (n,)."""
    fold = document_folds(documents, seed=0)
    probabilities = np.empty(len(fold))
    for number in range(fold.max() + 1):
        held_out = fold == number
        fitted = PlattCalibrator().fit(sample.take(~held_out))
        probabilities[held_out] = fitted(sample.scores[held_out])
    return probabilities


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

    def are_of_new_documents(self, annotations: Annotations) -> np.ndarray:
        """Whether a mention's document, and each like it, is in no certificate, (n,) bool."""
        used = {*annotations.documents[~self.is_new(annotations.doc_ids)]}
        return np.array([document not in used for document in annotations.documents], bool)

    def after(self, documents: Iterable[str]) -> CertificateHistory:
        """The history with one more certificate, which rests on these documents."""
        return CertificateHistory((*self.certificates, frozenset(map(_hash, documents))))

    def to_list(self) -> list[list[str]]:
        """The form for JSON."""
        return [sorted(documents) for documents in self.certificates]

    @classmethod
    def from_list(cls, state: Any) -> CertificateHistory:
        """Inverse of `to_list`.

        Raises:
            UserError: the history is damaged.
        """
        if not isinstance(state, list) or not all(
            isinstance(documents, list) for documents in state
        ):
            raise UserError(
                "calibrator.json: the record of earlier certificates is missing or damaged; "
                "run umls-reranker calibrate again"
            )
        return cls(tuple(frozenset(map(str, documents)) for documents in state))


NO_CERTIFICATES = CertificateHistory()


def note_on_certificate(certified_by: Mapping[str, int], *, is_certified: bool) -> str:
    """A sentence about a later certificate and its documents; empty for a first one.

    Args:
        certified_by: ``attempt`` and ``documents``, as in ``calibrator.json``.
        is_certified: whether it was granted for all inputs.
    """
    attempt = certified_by["attempt"]
    if attempt == 1:
        return ""
    result = "granted" if is_certified else "not granted, so the high tier is removed"
    return (
        f"certificate {attempt} of this model is {result}: it uses {certified_by['documents']:,} "
        "new documents drawn at random; documents of earlier certificates cannot certify again"
    )


def _hash(document: str) -> str:
    # Sixteen digits: two of a million documents share a hash with probability 3e-8.
    return blake2b(str(document).encode(), digest_size=8).hexdigest()
