"""What was found in labelled lists, printed before anything is scored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..data.labelled_lists import LabelledLists

# Number of types that a line names.
NAMED_TYPES = 3


def described(labelled: LabelledLists, network_inputs: Sequence[str]) -> str:
    """The description in lines of text.

    Args:
        labelled: the lists.
        network_inputs: inputs that the cross-encoder reads (`PairTemplate.reads`); none without one.
    """
    return "\n".join(_lines(labelled, network_inputs))


def _lines(labelled: LabelledLists, network_inputs: Sequence[str]) -> Iterator[str]:
    lists, candidates = labelled.lists, len(labelled.lists.names)
    yield (
        f"{len(lists):,} mentions of {len(set(lists.annotations.documents)):,} documents; {labelled.not_in_list:,} "
        "without their gold concept among the candidates, which count as errors"
    )
    yield f"candidate scores: {', '.join(f'{name}_score' for name in lists.scores) or 'none'}"
    typed, known = int(lists.types.is_known.sum()), int((lists.candidate_types.codes >= 0).sum())
    yield f"entity_type: {typed:,} of {len(lists):,} mentions; semantic_types: {known:,} of {candidates:,} candidates"
    for key, texts in (("preferred_name", lists.preferred_names), ("definition", lists.definitions)):
        if count := candidates - texts.null_count:
            reads = "read by the cross-encoder" if key in network_inputs else "not read by the cross-encoder"
            yield f"{key}: {count:,} of {candidates:,} candidates, {reads}"
    if labelled.dictionary is not None:
        found = (f"{name} of {count:,}" for name, count in labelled.dictionary.known(lists.cuis.to_list()).items())
        yield f"of {candidates:,} candidates, the dictionary has {' and '.join(found)}"
    if unknown := lists.unknown_types:
        yield (
            f"{len(unknown):,} types of mentions are unknown to the model: {', '.join(unknown[:NAMED_TYPES])}; "
            "use ids or names of the UMLS Semantic Network, or of the model's thresholds.json"
        )
