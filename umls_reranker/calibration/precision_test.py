"""The test of the high tier: is the precision over documents like those seen below a target?

One document is added to those seen, with all answers incorrect; then all are reweighted by
independent standard exponentials (the Bayesian bootstrap, Rubin 1981). The p-value is the
probability that the reweighted precision is below the target. For documents of equal size this is
the bound of Gaffke (2005) and Learned-Miller & Thomas (2020), which needs no model of how errors
cluster; for documents of one mention it is that of Clopper & Pearson. Where sizes differ the added
document has a weighted mean of them, with weights chosen by the sizes alone
(`PrecisionTest.for_sizes`).

Whoever may look after every label needs a smaller level than one look: `PrecisionTest.level_at`.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np

from ..core.errors import UserError

# Weights of the added document's size: sizes to one of these powers; the last: the largest size.
SIZE_POWERS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 10.0, float("inf"))
# How often the largest documents may be entirely incorrect. With more, hardly any power suffices
# where they are few.
MOST_OFTEN_INCORRECT = 0.5
# Level of a test that may be repeated at any number of documents, chosen by simulation: this share
# of the error probability up to the documents of `FIRST_ERRORS`, and less by this power of the
# documents beyond.
FIRST_SHARE = 0.3
LEVEL_DECAY = 0.7
# Documents at which the level begins to fall, in expected errors of a tier that has the target.
FIRST_ERRORS = 3.0
# Draws for the choice of the power, and standard errors by which one of several levels may exceed
# its limit by chance.
POWER_DRAWS = 4_000
POWER_ERRORS = 3.0
# How many times as many documents are named, at most, as what a certificate would take; steps of
# less than 1 %.
MOST_TIMES = 20.0
TIMES_TRIED = 400
# Halvings of the interval that holds the saddlepoint.
HALVINGS = 45


def is_number(value: object) -> bool:
    """Whether a value is a number of Python or NumPy."""
    return isinstance(value, int | float | np.number | np.bool_)


@dataclass(frozen=True)
class PrecisionTest:
    """The test for one target.

    Attributes:
        target: precision, between 0 and 1.
        confidence: 1 minus the error probability, between 0 and 1.
        size_power: sizes to this power are the weights of the added document's size.
        is_one_look: whether the documents were chosen before any of their labels was known and are
            tested once; else the test may be repeated after every further document.

    Raises:
        UserError: target or confidence is not between 0 and 1.
    """

    target: float = 0.95
    confidence: float = 0.95
    size_power: float = SIZE_POWERS[0]
    is_one_look: bool = False

    def __post_init__(self) -> None:
        for name, value in (("target_precision", self.target), ("confidence", self.confidence)):
            if not is_number(value) or not 0.0 < value < 1.0:
                raise UserError(f"{name}: {value!r} must lie between 0 and 1, such as 0.95")

    def level_at(self, documents: float) -> float:
        """Error probability of the test of documents that are worth so many of equal size.

        At one look all of it; else so much that all looks, after every document, are false together
        in at most ``1 - confidence`` of cases.
        """
        error_probability = 1.0 - self.confidence
        if self.is_one_look:
            return error_probability
        relative = documents * (1.0 - self.target) / FIRST_ERRORS
        return FIRST_SHARE * error_probability * max(1.0, relative) ** -LEVEL_DECAY

    def passes(self, size: np.ndarray, correct: np.ndarray, times: float = 1.0) -> bool:
        """Whether documents show the target, by their accepted mentions and correct ones.

        Args:
            size: (documents,) number of accepted mentions.
            correct: (documents,) number of correct ones.
            times: how many of each document there are.
        """
        level = self.level_at(times * self.effective(size))
        return self.p_value(size, correct, times) <= level

    def for_sizes(self, size: np.ndarray) -> PrecisionTest:
        """The same test with the smallest power that keeps its level for documents of these sizes.

        Documents are drawn from those seen. Each of the largest is entirely incorrect with the same
        probability, at most `MOST_OFTEN_INCORRECT`, and all others are correct, so that the
        precision is the target. For every number of largest documents the test may pass in at most
        the level of the draws, up to Monte Carlo error. Labels are not used.

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
        for power in SIZE_POWERS:
            test = replace(self, size_power=power)
            level = test.level_at(test.effective(size))
            most = level + POWER_ERRORS * np.sqrt(level * (1.0 - level) / POWER_DRAWS)
            p_values = (
                test.p_values(sizes, correct, np.hstack([counts - incorrect, incorrect]))
                for incorrect in draws
            )
            if all(np.mean(p <= level) <= most for p in p_values):
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
        return _needed(replace(self, size_power=SIZE_POWERS[0]))

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

    def p_value(self, size: np.ndarray, correct: np.ndarray, times: float = 1.0) -> float:
        """The p-value of documents; arguments as for `passes`.

        Returns:
            The p-value; 1 if the observed precision is not above the target.
        """
        return float(self.p_values(size, correct, np.full((1, len(size)), times))[0])

    def further_share(self, size: np.ndarray, correct: np.ndarray) -> float | None:
        """How many times as many documents, with as many errors in each, would pass besides these.

        Args:
            size: (documents,) number of accepted mentions.
            correct: (documents,) number of correct ones.

        Returns:
            The share of the documents, 0 if they pass; None if no number up to `MOST_TIMES` does.
        """
        times = np.geomspace(1.0, MOST_TIMES, TIMES_TRIED)
        first = bisect_left(times, True, key=partial(self.passes, size, correct))
        return None if first == len(times) else float(times[first] - 1.0)

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


@cache
def _needed(test: PrecisionTest) -> int:
    """The smallest number of documents of equal size that passes without an error."""

    def passes(documents: int) -> bool:
        return test.passes(np.ones(documents), np.ones(documents))

    enough = 1
    while not passes(enough):
        enough *= 2
    return 1 + bisect_left(range(1, enough), True, key=passes)


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
