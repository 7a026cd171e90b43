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


# At 0.95: 95, 135, 180 and 360 documents of equal size.
PLAN = (
    PlannedLook(1.05, 0.2),
    PlannedLook(1.5, 0.2),
    PlannedLook(2.0, 0.4),
    PlannedLook(4.0, 0.2),
)
# Share of the error probability for the second study of the same documents; each further one gets
# half as much, so that all together are false in at most 1.1 times as many cases as one.
LATER_SHARE = 0.05
# No number is smaller than 0.5 to the 1,074.
MOST_HALVINGS = 1_000


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
    least = exact_needed(PrecisionTest(target, confidence, share=PLAN[0].share))
    for multiple, share in PLAN:
        worth = _next_integer(multiple * least)
        test = PrecisionTest(target, confidence, share=share)
        documents = documents_worth(worth, test, np.asarray(sizes))
        documents = _next_integer(documents / tier_coverage)
        if looks:
            documents = max(documents, looks[-1].documents + 1)
        looks.append(Look(documents, share))
    return tuple(looks)


def documents_worth(worth: int, test: PrecisionTest, sizes: np.ndarray) -> int:
    """The number of documents of a pool that are worth so many of equal size.

    Args:
        worth: number of documents of equal size.
        test: the test of the look.
        sizes: number of mentions of each document of the pool.
    """
    if not len(sizes) or np.all(sizes == sizes[0]):
        return worth
    ordered = np.sort(sizes)
    mean_size = float(ordered.mean())
    documents = worth
    # The fewer documents, the larger the power of their sizes that keeps the level.
    for power in SIZE_POWERS:
        of_power = replace(test, size_power=power)
        added_size = float(of_power.added_size(ordered, np.ones((1, len(ordered))))[0])
        documents = max(worth, _next_integer(worth * added_size / mean_size))
        # As many documents, whose sizes are spread as those of the pool.
        places = (np.arange(documents) + 0.5) / documents * len(ordered)
        if test.for_sizes(ordered[places.astype(int)]).size_power <= power:
            break
    return documents


def _next_integer(value: float) -> int:
    """The least integer that is no smaller; one that a value exceeds by rounding alone is it."""
    return ceil(round(value, 9))


def expected_coverage(scores: np.ndarray, target: float) -> float:
    """The largest share of answers, the most certain, whose scores expect the target precision.

    Args:
        scores: (n,) probability of each mention's answer; NaN without one.
        target: the precision.
    """
    if not len(scores):
        return 0.0
    ordered = -np.sort(-scores[~np.isnan(scores)])
    means = np.cumsum(ordered) / np.arange(1, len(ordered) + 1)
    return float(np.count_nonzero(means >= target) / len(scores))


def later_share(attempt: int) -> float:
    """Share of the error probability for a study: 1 is the first, 2 the next on new documents."""
    if attempt == 1:
        return 1.0
    return LATER_SHARE * 0.5 ** min(attempt - 2, MOST_HALVINGS)


def at_attempt(look: Look, attempt: int) -> Look:
    """The look in a study that is not the first."""
    return replace(look, share=look.share * later_share(attempt))
