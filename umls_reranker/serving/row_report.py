"""What a command prints about the rows of a finished file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .list_warnings import NO_TIERS
from .row_counts import RowCounts

if TYPE_CHECKING:
    from ..calibration.calibration import Calibration
    from ..calibration.string_counts import StringCounts

# Shares of scores and mentions that calibration did not see; above them, the report warns.
MANY_SCORES_OUTSIDE = 0.05
MANY_NEW_MENTIONS = 0.5
# With fewer strings counted, most of them are new in text like that of calibration, too.
FEWEST_STRINGS = 5_000


def ranking_report(counts: RowCounts, calibration: Calibration, remedy: str) -> Iterator[str]:
    """Lines about a file whose mentions were ranked.

    Args:
        counts: those of `FileJob.run`.
        calibration: that of the model.
        remedy: how to calibrate a model for lists that get no tiers.
    """
    yield f"{counts.ranked:,} mentions ranked, {counts.errors:,} with an error"
    if counts.ranked:
        yield summary_of(counts)
    if counts.without_tier:
        yield (
            f"{NO_TIERS} for {counts.without_tier:,} mentions: this model gives them to "
            f"{calibration.source.in_words}; for these lists: {remedy}"
        )
    elif counts.ranked and calibration.source.is_nobodys:
        yield f"scores and tiers are not calibrated for your lists: {remedy}"
    elif counts.ranked:
        yield f"tiers are for {calibration.source.in_words}"
    distance = distance_from_calibration(counts, calibration.counts)
    if distance:
        yield f"caution: {distance}; scores and tiers hold for text and lists like those"
    has_counted_none = counts.candidates > 0 and counts.of_counted_concepts == 0
    if has_counted_none and not counts.without_tier and len(calibration.counts):
        yield (
            "caution: the model has counted no concept of these candidates; "
            "are ids missing, or of another kind?"
        )


def distance_from_calibration(counts: RowCounts, strings: StringCounts) -> str:
    """How far mentions and scores are from what calibration saw, or "" if they are not far.

    Args:
        counts: those of `FileJob.run`.
        strings: the strings that the model has counted.
    """
    if not counts.ranked:
        return ""
    share_new = 1 - counts.with_counted_words / counts.ranked
    share_outside = counts.scores_outside / max(1, counts.scores)
    is_new_text = len(strings) >= FEWEST_STRINGS and share_new > max(
        MANY_NEW_MENTIONS, strings.share_once
    )
    if share_outside <= MANY_SCORES_OUTSIDE and not is_new_text:
        return ""
    return (
        f"far from what the model was calibrated on: {share_outside:.1%} of the scores are outside "
        f"its range, and it counted neither string nor words of {share_new:.1%} of the mentions"
    )


def summary_of(counts: RowCounts) -> str:
    """Share of each tier and of what is accepted, and accuracy where gold concepts are known."""
    with_tier = sum(counts.by_tier.values())
    without_candidates = counts.ranked - with_tier - counts.without_tier
    groups: dict[str, int] = {}
    if with_tier:
        groups |= counts.by_tier
    if counts.without_tier:
        groups["no tier"] = counts.without_tier
    if without_candidates:
        groups["no candidates"] = without_candidates
    summary = ", ".join(f"{name} {count / counts.ranked:.1%}" for name, count in groups.items())
    if with_tier:
        summary += f"; accepted {counts.accepted / counts.ranked:.1%}"
    if counts.with_gold:
        summary += (
            f"; acc@1 {counts.correct / counts.with_gold:.3f} "
            f"of {counts.with_gold:,} with a gold concept"
        )
    if counts.of_fitted_documents:
        summary += (
            f", {counts.of_fitted_documents:,} of them of documents that the model was fitted on"
        )
    return summary
