"""What is counted of ranked mentions, and what is said of a finished file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from ..calibration.decisions import Decisions
from ..calibration.probabilities import Calibration
from ..calibration.string_counts import StringCounts
from ..calibration.thresholds import TIERS
from ..core.arrays import values_at
from ..lists.candidate_lists import CandidateLists
from ..lists.read import Rows
from ..vocab.text import normalize_texts

# Shares of scores and mentions that calibration did not see, above which this is said.
OUTSIDE = 0.05
NEW = 0.5
# With fewer strings counted, most of them are new in text like that of calibration, too.
FEWEST_STRINGS = 5_000


def counts_of(
    lists: CandidateLists,
    decisions: Decisions,
    golds: Sequence[Collection[str]],
    errors: Sequence[str | None],
    calibration: Calibration,
) -> Counter[str]:
    """Counts, as of `FileJob.run`, of a batch of rows, of which those without an error are ranked.

    Args:
        lists: lists of the n ranked rows.
        decisions: what was decided about them.
        golds: ids of the gold concepts of all rows.
        errors: of each row, why it was not ranked.
        calibration: of the model.
    """
    tops = decisions.tops
    ids = np.array(lists.ids, object)[lists.cuis.codes]
    answers = values_at(ids, tops.positions, None)
    ranked = [gold for gold, error in zip(golds, errors, strict=True) if error is None]
    counts = Counter(TIERS[tier] for tier in tops.tiers[tops.sizes > 0].tolist())
    counts["ranked"] = len(lists)
    counts["error"] = len(errors) - len(lists)
    counts["accepted"] = int(tops.accepted.sum())
    counts["candidates"] = len(lists.owner)
    counts["gold"] = sum(map(bool, ranked))
    counts["correct"] = sum(answer in gold for answer, gold in zip(answers, ranked, strict=True))
    # What calibration did or did not see.
    counts["known"] = int(calibration.counts.known(lists.ids)[lists.cuis.codes].sum())
    counts["seen"] = int(calibration.counts.have_seen(normalize_texts(lists.mentions)).sum())
    for name, score_range in calibration.score_ranges.items():
        given = lists.scores[name][np.isfinite(lists.scores[name])]
        counts["scores"] += len(given)
        counts["outside"] += int(np.isnan(score_range.inside(given)).sum())
    return counts


def first_error(rows: Rows, errors: Sequence[str | None]) -> str | None:
    """Place and reason of the first row with an error."""
    named = zip(rows.positions, errors, strict=True)
    return next((f"{position}: {error}" for position, error in named if error), None)


def said_of_counts(
    counts: Mapping[str, int], strings: StringCounts, *, has_tiers: bool = True
) -> Iterator[str]:
    """Lines about a finished file.

    Args:
        counts: those of `FileJob.run`.
        strings: the strings that the model has counted.
        has_tiers: whether tiers were given.
    """
    yield f"{counts['ranked']:,} mentions ranked, {counts['error']:,} with an error"
    if counts["ranked"]:
        yield summary_of(counts, has_tiers)
    if distance := distance_from_calibration(counts, strings):
        yield f"caution: {distance}; scores and tiers hold for text and lists like those"
    if has_tiers and counts["candidates"] and not counts["known"] and len(strings):
        yield (
            "caution: the model has counted no concept of these candidates; "
            "are ids missing, or of another kind?"
        )


def distance_from_calibration(counts: Mapping[str, int], strings: StringCounts) -> str:
    """How far mentions and scores are from what calibration saw, or "" if they are not far.

    Args:
        counts: those of `FileJob.run`.
        strings: the strings that the model has counted.
    """
    new = 1 - counts["seen"] / max(1, counts["ranked"])
    outside = counts["outside"] / max(1, counts["scores"])
    is_new = len(strings) >= FEWEST_STRINGS and new > max(NEW, strings.share_once)
    if not counts["ranked"] or (outside <= OUTSIDE and not is_new):
        return ""
    return (
        f"far from what the model was calibrated on: {outside:.1%} of the scores are outside "
        f"its range, and it counted neither string nor words of {new:.1%} of the mentions"
    )


def summary_of(counts: Mapping[str, int], has_tiers: bool = True) -> str:
    """Share of each tier and of what is accepted, and accuracy where gold concepts are known."""
    ranked = counts["ranked"]
    in_tier = {tier: counts[tier] for tier in TIERS}
    without = ranked - sum(in_tier.values())
    if not has_tiers:
        in_tier = {}
    if without or not has_tiers:
        in_tier["no candidates"] = without
    summary = ", ".join(f"{tier} {count / ranked:.1%}" for tier, count in in_tier.items())
    if has_tiers:
        summary += f"; accepted {counts['accepted'] / ranked:.1%}"
    if counts["gold"]:
        accuracy = counts["correct"] / counts["gold"]
        summary += f"; acc@1 {accuracy:.3f} of {counts['gold']:,} with a gold concept"
    return summary
