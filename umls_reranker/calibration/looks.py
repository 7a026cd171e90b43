"""Looks: at how many documents a certificate is tested, and at what level, fixed before labels.

Let look k test the first n_k documents of a drawn order at level a_k. If numbers, levels, target
and system are chosen without labels, each look is false with a probability of at most a_k, whenever
one stops and whatever was seen between looks; so any of them is false with a probability of at most
the sum of the levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import NamedTuple

import numpy as np

from .precision_test import SIZE_POWERS, PrecisionTest, exact_needed


class PlannedLook(NamedTuple):
    """A look of a plan for any pool.

    Attributes:
        multiple: what its documents are worth, as a multiple of the least number of documents that
            can certify at the first look.
        share: the share of the study's error probability.
    """

    multiple: float
    share: float


# For a precision of 0.95 these are looks at 95, 135, 180 and 360 documents of equal size.
PLAN = (
    PlannedLook(1.05, 0.2),
    PlannedLook(1.5, 0.2),
    PlannedLook(2.0, 0.4),
    PlannedLook(4.0, 0.2),
)
# This share of the error probability is for a second study; each further one gets half as much, so
# that all together are false in at most 1.1 times as many cases as one.
LATER_SHARE = 0.05
# Floating point has no number between 0 and 0.5 to the 1,074, and a share is never 0.
LARGEST_EXPONENT = 1_000


@dataclass(frozen=True)
class Look:
    """A test at a number of documents.

    Attributes:
        documents: the number of first documents of the drawn order that it is of.
        share: the share of the study's error probability that it may use.
    """

    documents: int
    share: float


def planned_looks(
    target: float = 0.95,
    confidence: float = 0.95,
    *,
    sizes: Sequence[int] | np.ndarray = (),
    tier_coverage: float = 1.0,
) -> tuple[Look, ...]:
    """The looks of a plan for documents of a pool.

    Args:
        target: precision to certify.
        confidence: of all looks together.
        sizes: number of mentions of each document of the pool that the sample is drawn from, not of
            the sample: to wait until its own sizes allow a look favors samples with few large
            documents. Empty: of equal size.
        tier_coverage: expected share of the documents that have any answer in the tier, by a model
            that has seen none of their labels.

    Raises:
        UserError: target or confidence is not between 0 and 1.
    """
    looks: list[Look] = []
    fewest = exact_needed(PrecisionTest(target, confidence, share=PLAN[0].share))
    for planned in PLAN:
        equal_documents = _rounded_up(planned.multiple * fewest)
        test = PrecisionTest(target, confidence, share=planned.share)
        with_answers = documents_worth(equal_documents, test, np.asarray(sizes))
        count = _rounded_up(with_answers / tier_coverage)
        if looks:
            count = max(count, looks[-1].documents + 1)
        looks.append(Look(count, planned.share))
    return tuple(looks)


def documents_worth(equal_documents: int, test: PrecisionTest, sizes: np.ndarray) -> int:
    """The number of documents of a pool that are worth so many of equal size.

    This is a fixed point. The number follows from the power of sizes by which the test weighs
    documents: a larger one needs more documents. And the power follows from the number: the fewer
    documents, the larger the power that keeps the level of the test. The smallest power decides
    that keeps the level for the documents that it needs.

    Args:
        equal_documents: number of documents of equal size.
        test: the test of the look.
        sizes: number of mentions of each document of the pool.
    """
    if not len(sizes) or np.all(sizes == sizes[0]):
        return equal_documents
    pool = np.sort(sizes)
    for power in SIZE_POWERS:
        count = _count_at_power(power, equal_documents, test, pool)
        # The last power, which is infinite, is never too small.
        if _power_for_count(count, test, pool) <= power:
            break
    return count


def _count_at_power(
    power: float, equal_documents: int, test: PrecisionTest, pool: np.ndarray
) -> int:
    """The number of documents worth so many of equal size, if the power of sizes is given.

    Arguments are those of `documents_worth`, with the sizes of the pool in ascending order.
    """
    one_of_each = np.ones((1, len(pool)))
    added_size = float(replace(test, size_power=power).added_size(pool, one_of_each)[0])
    return max(equal_documents, _rounded_up(equal_documents * added_size / float(pool.mean())))


def _power_for_count(count: int, test: PrecisionTest, pool: np.ndarray) -> float:
    """The smallest power of sizes that keeps the level for so many documents of the pool.

    Their sizes are spread as those of the pool, (documents,) in ascending order.
    """
    quantiles = (np.arange(count) + 0.5) / count
    positions = (quantiles * len(pool)).astype(int)
    return test.for_sizes(pool[positions]).size_power


def _rounded_up(value: float) -> int:
    """Round up, unless the value exceeds an integer by a rounding error alone."""
    return ceil(round(value, 9))


def expected_coverage(scores: np.ndarray, target: float) -> float:
    """The largest share of answers, the most certain, whose scores expect the target precision.

    Args:
        scores: (n,) probability of each mention's answer; NaN without one.
        target: the precision.
    """
    if not len(scores):
        return 0.0
    descending = -np.sort(-scores[~np.isnan(scores)])
    means = np.cumsum(descending) / np.arange(1, len(descending) + 1)
    return float(np.count_nonzero(means >= target) / len(scores))


def later_share(attempt: int) -> float:
    """Share of the error probability for a study.

    Args:
        attempt: 1 for the first study, 2 for the next on new documents, and so on.
    """
    if attempt == 1:
        return 1.0
    return LATER_SHARE * 0.5 ** min(attempt - 2, LARGEST_EXPONENT)


def at_attempt(look: Look, attempt: int) -> Look:
    """The look in a study that is not the first."""
    return replace(look, share=look.share * later_share(attempt))
