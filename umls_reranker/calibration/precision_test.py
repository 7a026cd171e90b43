"""The test behind a certificate: is the precision over all documents like those seen below a target?

One document is added to those seen, with all answers incorrect; then all are reweighted by independent standard
exponentials (the Bayesian bootstrap, Rubin 1981). The p-value is the probability that the reweighted precision is
below the target. For documents of equal size this is the bound of Gaffke (2005) and Learned-Miller & Thomas (2020),
which needs no model of how errors cluster; for documents of one mention it is that of Clopper & Pearson. Where sizes
differ the added document has a weighted mean of them, with weights chosen by the sizes alone
(`PrecisionTest.for_sizes`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

# Weights of the added document's size are sizes to one of these powers; the last one is the largest size.
SIZE_POWERS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 10.0, float("inf"))
# How often the largest documents may be entirely incorrect. With more, hardly any power suffices where they are few.
MOST_OFTEN_WRONG = 0.5
# Draws for the choice of the power, and standard errors by which one of several levels may exceed its limit by chance.
POWER_DRAWS, POWER_ERRORS = 4_000, 3.0
# Halvings of the interval that holds the saddlepoint.
HALVINGS = 45


@dataclass(frozen=True)
class PrecisionTest:
    """The test for one target.

    Attributes:
        target: precision, between 0 and 1.
        confidence: 1 minus the level of the test.
        size_power: sizes to this power are the weights of the added document's size.
        most_wrong: share of incorrect answers in the added document. Below 1 assumes that no document is worse.
    """

    target: float = 0.95
    confidence: float = 0.95
    size_power: float = SIZE_POWERS[0]
    most_wrong: float = 1.0

    def for_sizes(self, size: np.ndarray) -> PrecisionTest:
        """The same test with the smallest power that keeps its level for documents of these sizes.

        Documents are drawn from those seen. Each of the largest is entirely incorrect with the same probability, at
        most `MOST_OFTEN_WRONG`, and all others are correct, so that the precision is the target. For every number of
        largest documents the test may pass in at most 1 - confidence of the draws, up to Monte Carlo error. Labels
        are not used.

        Args:
            size: (documents,) number of accepted mentions, at least one each.
        """
        kinds, kind = np.unique(size, return_inverse=True)
        if len(kinds) < 2:
            return replace(self, size_power=SIZE_POWERS[0])
        rng, documents, of_kind = np.random.default_rng(0), len(size), np.bincount(kind)
        counts = rng.multinomial(documents, of_kind / documents, size=POWER_DRAWS)
        # Chance by the number of largest documents; the fewest that may be wrong often enough, and more of them.
        chance = (
            (1.0 - self.target) * size.sum() / (self.most_wrong * np.cumsum(np.sort(size)[::-1]))
        )
        fewest, half = int(np.argmax(chance <= MOST_OFTEN_WRONG)) + 1, max(1, documents // 2)
        numbers = np.unique(np.round(np.geomspace(min(fewest, half), half, 8)).astype(int))
        # How many documents are larger than those of a kind.
        larger = documents - np.cumsum(of_kind)
        drawn = [
            rng.binomial(
                counts, chance[number - 1] * np.clip(number - larger, 0, of_kind) / of_kind
            )
            for number in numbers
            if chance[number - 1] <= MOST_OFTEN_WRONG
        ]
        correct = np.concatenate([kinds, (1.0 - self.most_wrong) * kinds])
        level = 1.0 - self.confidence
        most = level + POWER_ERRORS * np.sqrt(level * self.confidence / POWER_DRAWS)
        for power in SIZE_POWERS:
            test = replace(self, size_power=power)
            passed = (
                np.mean(
                    test.p_values(np.tile(kinds, 2), correct, np.hstack([counts - wrong, wrong]))
                    <= level
                )
                for wrong in drawn
            )
            if all(share <= most for share in passed):
                break
        return test

    @property
    def needed(self) -> int:
        """The smallest number of documents of equal size that can pass, if all of their answers are correct."""
        if self._deficit <= 0:
            return 1
        odds = (1.0 - self.target) / self._deficit
        return int(np.ceil(round(np.log(1.0 - self.confidence) / -np.log1p(odds), 9)))

    def added_size(self, size: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Size of the added document in each draw, (draws,), by counts (draws, k) of documents of sizes (k,)."""
        largest = np.where(counts > 0, size, 0).max(axis=1, initial=0)
        if np.isinf(self.size_power):
            return largest
        # Relative to the largest, or large powers overflow.
        weight = counts * (size / np.maximum(largest, 1)[:, None]) ** self.size_power
        return np.sum(weight * size, axis=1) / np.maximum(weight.sum(axis=1), 1e-300)

    def effective(self, size: np.ndarray) -> float:
        """Number of documents with these accepted mentions, (documents,), in units of the added document's size."""
        if not len(size):
            return 0.0
        return round(float(size.sum() / self.added_size(size, np.ones((1, len(size))))[0]), 6)

    def expected_z(self, size: np.ndarray, expected: np.ndarray) -> float:
        """Standard deviations by which the precision would exceed the target if scores were true.

        Args:
            size: (documents,) number of accepted mentions, at least one each.
            expected: (documents,) sum of their scores.
        """
        if not len(size):
            return -np.inf
        surplus = expected - self.target * size
        added = self._deficit * float(self.added_size(size, np.ones((1, len(size))))[0])
        variance = np.sum(surplus**2 + size - expected) + added**2
        return float((surplus.sum() - added) / np.sqrt(max(variance, 1e-300)))

    def p_value(self, size: np.ndarray, correct: np.ndarray) -> float:
        """The p-value of documents with these accepted mentions, (documents,), and correct ones among them.

        Returns:
            The p-value; 1 if the observed precision is not above the target.
        """
        return float(self.p_values(size, correct, np.ones((1, len(size))))[0])

    def p_values(self, size: np.ndarray, correct: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """The p-value of each draw, (draws,), of counts (draws, k) of documents of sizes (k,) and correct ones (k,).

        The saddlepoint approximation of Lugannani & Rice (1980), within 1 % of the exact probability.
        """
        from scipy.special import ndtr

        surplus, added = (
            correct - self.target * size,
            -self._deficit * self.added_size(size, counts),
        )
        # Of kinds that a draw lacks, 0 instead: the logarithm below is not defined for them.
        present = np.where(counts > 0, surplus, 0.0)
        least = np.minimum(present.min(axis=1, initial=0.0), added)
        # Without an accepted mention nothing is below 0, and nothing is shown.
        some, p = (counts @ surplus + added > 0) & (least < 0), np.ones(len(counts))
        if not some.any():
            return p
        counts, present, added = counts[some].astype(float), present[some], added[some]
        # Saddlepoint of the cumulant generating function - sum log(1 - s surplus), which lies between a pole and 0.
        low, high = (1.0 - 1e-9) / least[some], np.zeros(len(added))
        for _ in range(HALVINGS):
            s = (low + high) / 2
            ratio = present / (1.0 - s[:, None] * present)
            is_above = np.einsum("dk,dk->d", counts, ratio) + added / (1.0 - s * added) > 0
            low, high = np.where(is_above, low, s), np.where(is_above, s, high)
        logs = np.einsum("dk,dk->d", counts, np.log1p(-s[:, None] * present)) + np.log1p(-s * added)
        spread = np.einsum("dk,dk->d", counts, ratio**2) + (added / (1.0 - s * added)) ** 2
        w, u = -np.sqrt(np.maximum(2.0 * logs, 0.0)), s * np.sqrt(spread)
        # Near the target precision, the formula divides 0 by 0.
        is_close = w > -0.1
        w, u = np.where(is_close, -1.0, w), np.where(is_close, -1.0, u)
        tail = ndtr(w) + np.exp(-(w**2) / 2) / np.sqrt(2 * np.pi) * (1.0 / w - 1.0 / u)
        p[some] = np.where(is_close, 0.5, tail)
        return p

    @property
    def _deficit(self) -> float:
        """How far the added document is below the target, as a share of its size."""
        return self.target - (1.0 - self.most_wrong)
