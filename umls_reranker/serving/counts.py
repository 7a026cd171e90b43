"""What became of the rows of a file, in counts and in the lines that a command prints of them."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from ..calibration.calibration import Calibration
from ..calibration.decisions import Decisions
from ..calibration.string_counts import StringCounts
from ..calibration.thresholds import TIERS
from ..core.arrays import values_at
from ..lists.candidate_lists import CandidateLists
from ..vocab.normalization import normalize_texts
from .list_warnings import NO_TIERS

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
    answers = values_at(np.array(lists.ids, object)[lists.cuis.codes], tops.positions, None)
    ranked = [gold for gold, error in zip(golds, errors, strict=True) if error is None]
    counts = Counter(
        ranked=len(lists),
        error=len(errors) - len(lists),
        accepted=int(tops.accepted.sum()),
        candidates=len(lists.owner),
        gold=sum(map(bool, ranked)),
        correct=sum(answer in gold for answer, gold in zip(answers, ranked, strict=True)),
        # What calibration did or did not see.
        known=int(calibration.counts.have_counted_concepts(lists.ids)[lists.cuis.codes].sum()),
        seen=int(calibration.counts.have_counted_words(normalize_texts(lists.mentions)).sum()),
    )
    tiers = tops.tiers[(tops.sizes > 0) & decisions.has_tiers]
    counts.update(TIERS[tier] for tier in tiers.tolist())
    counts["untiered"] = int(np.count_nonzero(tops.sizes)) - len(tiers)
    for name, score_range in calibration.source.score_ranges.items():
        given = lists.scores[name][np.isfinite(lists.scores[name])]
        counts["scores"] += len(given)
        counts["outside"] += int(np.isnan(score_range.inside(given)).sum())
    return counts


def said_of_counts(
    counts: Mapping[str, int], calibration: Calibration, remedy: str
) -> Iterator[str]:
    """Lines about a finished file.

    Args:
        counts: those of `FileJob.run`.
        calibration: that of the model.
        remedy: how to calibrate a model for lists that get no tiers.
    """
    yield f"{counts['ranked']:,} mentions ranked, {counts['error']:,} with an error"
    if counts["ranked"]:
        yield summary_of(counts)
    if counts["untiered"]:
        yield (
            f"{NO_TIERS} for {counts['untiered']:,} mentions: this model gives them to "
            f"{calibration.source.in_words}; for these lists: {remedy}"
        )
    elif counts["ranked"] and calibration.source.is_nobodys:
        yield f"scores and tiers are not calibrated for your lists: {remedy}"
    elif counts["ranked"]:
        yield f"tiers are for {calibration.source.in_words}"
    if distance := distance_from_calibration(counts, calibration.counts):
        yield f"caution: {distance}; scores and tiers hold for text and lists like those"
    if (
        counts["candidates"]
        and not (counts["known"] or counts["untiered"])
        and len(calibration.counts)
    ):
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


def summary_of(counts: Mapping[str, int]) -> str:
    """Share of each tier and of what is accepted, and accuracy where gold concepts are known."""
    ranked = counts["ranked"]
    tiered = sum(counts[tier] for tier in TIERS)
    others = {"no tier": counts["untiered"], "no candidates": ranked - tiered - counts["untiered"]}
    shown = {tier: counts[tier] for tier in TIERS if tiered}
    shown |= {name: count for name, count in others.items() if count}
    summary = ", ".join(f"{name} {count / ranked:.1%}" for name, count in shown.items())
    if tiered:
        summary += f"; accepted {counts['accepted'] / ranked:.1%}"
    if counts["gold"]:
        summary += (
            f"; acc@1 {counts['correct'] / counts['gold']:.3f} "
            f"of {counts['gold']:,} with a gold concept"
        )
    if counts["fitted"]:
        summary += f", {counts['fitted']:,} of them of documents that the model was fitted on"
    return summary
