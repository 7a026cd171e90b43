"""A description of labelled lists: their content, and what cannot be used, with what would make it usable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..calibration.inputs import lacking, lists_with_any
from ..core.settings import FEATURES
from ..data.candidate_lists import AnnotatedLists
from ..data.labelled_lists import LABEL_FIELDS, LabelledLists, UnknownTypes, repeated_rows
from ..data.list_columns import FIELDS, MENTION_FIELDS
from ..data.semantic_types import TypeHierarchy

# Number of types that a line names.
NAMED_TYPES = 3


def described(labelled: LabelledLists, network_inputs: Sequence[str]) -> str:
    """The description in lines of text.

    Args:
        labelled: the lists.
        network_inputs: inputs that the cross-encoder reads (`PairTemplate.reads`); none without one.
    """
    lists = labelled.lists
    scores = ", ".join(f"{name}_score" for name in lists.scores)
    lines = [
        f"{len(lists):,} mentions of {len(set(lists.annotations.documents)):,} documents; {labelled.not_in_list:,} "
        "without their gold concept among the candidates, which count as errors",
        f"candidate scores: {scores or 'none'}",
        *_added(labelled),
        *_unread_keys(labelled),
        *_unused_types(labelled),
        *_unread_texts(labelled, _inputs(network_inputs)),
    ]
    if repeated := repeated_rows(labelled):
        row, first_row = repeated[0]
        lines.append(
            f"duplicate rows within a document: {len(repeated):,} (first: {row}, same as {first_row}); remove them "
            "unless they are separate mentions"
        )
    return "\n".join(lines)


def _inputs(network_inputs: Sequence[str]) -> set[str]:
    """Inputs that the network or a feature of lists reads."""
    of_features = (feature.inputs for feature in FEATURES.values() if feature.column is not None)
    return {*network_inputs}.union(*of_features)


def _added(labelled: LabelledLists) -> Iterator[str]:
    if labelled.dictionary is not None:
        cuis = labelled.lists.cuis.to_list()
        known = (f"{name} of {count:,}" for name, count in labelled.dictionary.known(cuis).items())
        yield f"of {len(cuis):,} candidates, the dictionary has {' and '.join(known)}"


def _unread_keys(labelled: LabelledLists) -> Iterator[str]:
    if labelled.unread_columns:
        keys = ", ".join(dict.fromkeys((*MENTION_FIELDS, *LABEL_FIELDS)))
        yield f"ignored fields of mentions: {', '.join(labelled.unread_columns)}; the fields of a mention are {keys}"
    if labelled.unread_keys:
        keys = ", ".join(labelled.unread_keys)
        yield f"ignored fields of candidates: {keys}; a score must be named NAME_score and be a number"
    if labelled.blank_scores:
        keys = ", ".join(f"{name}_score" for name in labelled.blank_scores)
        yield f"ignored scores of candidates: {keys}; every candidate needs a number, but none has one"


def _unused_types(labelled: LabelledLists) -> Iterator[str]:
    lists = labelled.lists
    for rows, unknown in (
        ("mentions", labelled.unknown_mention_types),
        ("candidates", labelled.unknown_candidate_types),
    ):
        if unknown.rows:
            known = _known(lists.hierarchy)
            yield f"{rows} with a type unknown to the model: {unknown.rows:,} ({_named(unknown)}); {known}"
    has_types, is_typed = lists.types.is_known, lists.candidate_types.codes >= 0
    if has_types.any() and not is_typed.any():
        yield (
            "entity_type: no candidate has semantic_types, so types cannot be compared; add the types of the "
            "candidates' concepts, or use --umls_dir with MRSTY.RRF"
        )
    elif is_typed.any() and not has_types.any():
        yield "semantic_types of candidates: no mention has a type to compare them with; add entity_type to mentions"
    elif is_typed.any() and not is_typed.all():
        yield _partial("semantic_types", is_typed, lists)


def _named(unknown: UnknownTypes) -> str:
    further = len(unknown.names) - NAMED_TYPES
    ending = f" and {further:,} more" if further > 0 else ""
    return ", ".join(map(repr, unknown.names[:NAMED_TYPES])) + ending


def _known(hierarchy: TypeHierarchy) -> str:
    if not len(hierarchy):
        return "it knows none"
    examples = ", ".join(f"{kind} or {hierarchy.name(kind)}" for kind in [*hierarchy][:NAMED_TYPES])
    return f"use ids or names of types that it knows ({len(hierarchy):,}, such as {examples})"


def _unread_texts(labelled: LabelledLists, inputs: set[str]) -> Iterator[str]:
    lists, dictionary = labelled.lists, labelled.dictionary
    has_text = int((~lacking(lists, "context", {})).sum())
    if has_text and "context" not in inputs:
        yield (f"not used: left and right of {has_text:,} mentions; only models trained with context_tokens read them")
    for name in FIELDS:
        if name == "preferred_name" and name not in inputs and dictionary is not None:
            # It comes from the dictionary, not from the lists.
            continue
        has_value = np.array([text is not None for text in getattr(lists, f"{name}s").to_pylist()], bool)
        if has_value.any() and name not in inputs:
            yield (
                f"not used: {name} of {has_value.sum():,} candidates; only models trained with candidate_fields: "
                f"[{name}] read it"
            )
        elif has_value.any() and not has_value.all():
            yield _partial(name, has_value, lists)


def _partial(name: str, has_value: np.ndarray, lists: AnnotatedLists) -> str:
    """Inputs that only some of the candidates have, (m,) bool."""
    complete = len(lists) - int(lists_with_any(~has_value, lists.offsets).sum())
    return (
        f"{name}: {has_value.sum():,} of {len(has_value):,} candidates have it; it is used for the {complete:,} "
        "mentions whose candidates all have it; add it to all candidates"
    )
