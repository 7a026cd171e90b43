"""Verdicts in a line: is a system better than the order of the lists, and is another better yet?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .comparison import FEWEST_DOCUMENTS
from .formatting import interval, with_ends
from .intervals import Measure
from .systems import MODEL

# Two systems are about equal if telling them apart takes over this many times the mentions.
MOST_TIMES_MENTIONS = 20


def verdict_on_gain(gain: Measure, mentions: int, documents: int) -> str:
    """In one line, whether a system is better than the order of the lists.

    Args:
        gain: its ``gain`` of `compare_systems`.
        mentions: number of mentions that it was measured on.
        documents: number of their documents.

    Returns:
        "gain" or "loss" if the interval of the difference excludes 0 and there are at least
        `FEWEST_DOCUMENTS`; else "inconclusive", with about how many mentions more would make the
        interval around this difference exclude 0.
    """
    value = gain["value"]
    ends = interval(gain, separator=" to ")
    direction = "over" if value >= 0 else "against"
    points = f"{100 * value:+.1f} points {direction} the original order"
    difference = with_ends(points, ends)
    if documents < FEWEST_DOCUMENTS:
        return (
            f"inconclusive: {difference}; {documents} documents are too few, "
            f"label at least {FEWEST_DOCUMENTS}"
        )
    if gain["low"] > 0 or gain["high"] < 0:
        outcome = "gain" if value > 0 else "loss"
        return f"{outcome}: {difference}"
    times_more = _times_more_mentions(gain)
    if times_more > MOST_TIMES_MENTIONS:
        return f"inconclusive: {difference}; the two are about equal on lists like these"
    mentions_of_document = mentions / documents
    more = max(times_more * mentions, mentions_of_document, 1.0)
    with_two_digits = float(f"{more:.2g}")
    return f"inconclusive: {difference}; label about {with_two_digits:,.0f} more mentions"


def _times_more_mentions(gain: Measure) -> float:
    """How many times the mentions are needed in addition, so that the interval excludes 0.

    The interval shrinks with the square root of the mentions: it must reach no further than from
    the value to 0. One that just touches 0 may do so because it is skewed, so half its width counts
    if that is more.
    """
    value = gain["value"]
    if not value:
        return np.inf
    toward_0 = value - gain["low"] if value > 0 else gain["high"] - value
    half_width = (gain["high"] - gain["low"]) / 2
    reach = max(toward_0, half_width)
    return (reach / value) ** 2 - 1.0


def best_row(metrics: Mapping[str, Any]) -> str:
    """The end of a verdict: the system of highest acc@1, or "" if no system exceeds this model."""
    accuracy = {
        name: metrics["figures"][f"systems/{name}/acc@1"]["value"]
        for name in metrics["rows"]["systems"]
    }
    best = max(accuracy, key=lambda name: accuracy[name])
    if accuracy[best] <= accuracy[MODEL]:
        return ""
    values = f"{accuracy[best]:.1%}, here {accuracy[MODEL]:.1%}"
    return f"; the highest acc@1 is that of {metrics['rows']['systems'][best]}: {values}"
