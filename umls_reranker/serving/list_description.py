"""What labelled lists hold, in words, before anything is scored."""

from collections.abc import Iterator, Sequence

import numpy as np

from ..calibration.score_range import are_sentinels
from ..lists.annotated_lists import AnnotatedLists, Annotations
from ..lists.columns import FIELDS

# Number of types that a line names.
NAMED_TYPES = 3
# From this many lists on, some usually lack their gold concept.
MANY_LISTS = 100
# Documents for each different mention from which on a text seems to have been repeated.
REPEATED = 2
# Share of the lists along which a score that rises seems to be against their order.
MOSTLY = 0.9


def describe_lists(lists: AnnotatedLists, cross_encoder_inputs: Sequence[str]) -> str:
    """Describe the lists in lines of text.

    Args:
        lists: the lists.
        cross_encoder_inputs: inputs that the cross-encoder reads (`PairTemplate.reads`); none
            without one.
    """
    annotations = lists.annotations
    lines = [
        f"{len(lists):,} mentions of {len({*annotations.doc_ids}):,} documents; "
        f"{lists.not_in_list:,} without their gold concept among the candidates, "
        "which count as errors",
        f"candidate scores: {', '.join(f'{name}_score' for name in lists.scores) or 'none'}",
        *_about_partial_scores(lists),
        *_about_documents(annotations),
        *_about_repeated_mentions(lists),
        *_about_sentinels(lists),
        *_about_rising_scores(lists),
    ]
    if len(lists) >= MANY_LISTS and not lists.not_in_list:
        lines.append(
            "caution: every list has its gold concept; if it was added to them, "
            "all figures are too good"
        )
    lines += _about_inputs(lists, cross_encoder_inputs)
    if lists.dictionary is not None:
        known = lists.dictionary.known(lists.cuis.to_list())
        counts = " and ".join(f"{name} of {count:,}" for name, count in known.items())
        lines.append(f"of {len(lists.names):,} candidates, the dictionary has {counts}")
    if unknown := lists.unknown_types:
        lines.append(
            f"{len(unknown):,} types of mentions are unknown to the model: "
            f"{', '.join(unknown[:NAMED_TYPES])}; use ids or names of the UMLS Semantic Network, "
            "or of the model's thresholds.json"
        )
    return "\n".join(lines)


def _about_partial_scores(lists: AnnotatedLists) -> list[str]:
    """A line for each score that only some candidates have."""
    return [
        f"{name}_score: {np.count_nonzero(~np.isfinite(lists.scores[name])):,} of "
        f"{len(lists.names):,} candidates lack it; "
        "they count as not found by this retriever, with the lowest score of their list"
        for name in lists.partial_scores
    ]


def _about_rising_scores(lists: AnnotatedLists) -> Iterator[str]:
    """A line for each score against which the lists seem to be sorted."""
    for name, column in lists.scores.items():
        # Candidates without this score say nothing of the order.
        scored = np.flatnonzero(np.isfinite(column))
        firsts = np.flatnonzero(np.diff(lists.owner[scored], prepend=-1))
        lasts = np.append(firsts[1:], len(scored)) - 1 if len(scored) else firsts
        first = column[scored[firsts]]
        last = column[scored[lasts]]
        if np.count_nonzero(last > first) > MOSTLY * np.count_nonzero(last != first):
            yield (
                f"caution: {name}_score rises along lists: negate it if the best come first "
                "(higher is better), else reverse the lists, "
                "for a gain over their order would mean nothing"
            )


def _about_inputs(lists: AnnotatedLists, cross_encoder_inputs: Sequence[str]) -> Iterator[str]:
    """Lines about types, and about texts of candidates that any has."""
    candidates = len(lists.names)
    typed = np.count_nonzero(lists.types.is_known)
    candidates_with_types = np.count_nonzero(lists.candidate_types.codes >= 0)
    yield (
        f"entity_type: {typed:,} of {len(lists):,} mentions; "
        f"semantic_types: {candidates_with_types:,} of {candidates:,} candidates"
    )
    for key in FIELDS:
        if count := candidates - getattr(lists, f"{key}s").null_count:
            verb = "read" if key in cross_encoder_inputs else "not read"
            yield f"{key}: {count:,} of {candidates:,} candidates, {verb} by the cross-encoder"


def _about_sentinels(lists: AnnotatedLists) -> Iterator[str]:
    """A line for each score with values that stand for something else."""
    for name, column in lists.scores.items():
        values = np.sort(column[are_sentinels(column)])
        if len(values):
            ends = " to ".join(dict.fromkeys(f"{value:g}" for value in values[[0, -1]]))
            yield (
                f"caution: {name}_score: {len(values):,} of {len(column):,} candidates "
                f"have {ends}, far from all other scores; they count as without this score: "
                "give null where there is none"
            )


def _about_documents(annotations: Annotations) -> Iterator[str]:
    """A line about documents that count as one, if any do."""
    is_joined = annotations.documents != annotations.doc_ids
    for row in np.flatnonzero(is_joined)[:1]:
        yield (
            f"caution: {len({*annotations.doc_ids[is_joined]}):,} documents repeat others, or "
            f"nearly ({annotations.doc_ids[row]} repeats {annotations.documents[row]}); they "
            f"count as one with those: {len({*annotations.documents}):,} are left"
        )


def _about_repeated_mentions(lists: AnnotatedLists) -> Iterator[str]:
    """A line where far fewer texts than documents were labelled, if they are."""
    documents = len({*lists.annotations.documents})
    mentions = len({*lists.mentions})
    if documents >= REPEATED * mentions:
        yield (
            f"caution: {documents:,} documents have only {mentions:,} different mentions: figures "
            "and certificates hold for these, not for others; give each term once"
        )
