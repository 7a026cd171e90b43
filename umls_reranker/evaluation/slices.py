"""Figures for parts of a split: semantic groups and types, strings and concepts seen or unseen in training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..calibration.reliability import calibration_report
from ..calibration.resampling import document_index, document_sums, ratio
from ..data.semantic_types import TypeHierarchy
from .linking import measure
from .outcomes import Outcomes

__all__ = ["SMALLEST_SLICE", "group_slices", "key_figures", "slice_figures", "type_slices"]

# With fewer mentions, a type is not listed and no calibration figure is given.
SMALLEST_SLICE = 50
WITHOUT_TYPE = "without type"


def group_slices(outcomes: Outcomes, hierarchy: TypeHierarchy, **options: int) -> dict[str, dict[str, Any]]:
    """Figures of every semantic group, the largest first; a mention counts in the group of each of its types.

    In a hierarchy without groups, the broadest ancestors take their role. Mentions with unknown types form their own
    group.

    Returns:
        group id -> `slice_figures` with its ``name``.
    """
    heads = [_heads(types, hierarchy) for types in outcomes.types]
    return _slices(outcomes, heads, hierarchy, 1, options)


def type_slices(outcomes: Outcomes, hierarchy: TypeHierarchy, **options: int) -> dict[str, dict[str, Any]]:
    """Figures of every semantic type with at least `SMALLEST_SLICE` mentions, the most certain excess of errors first.

    Returns:
        type id -> `slice_figures` with its ``name``, ordered by the lower end of the interval of ``excess_error``.
    """
    known = [set(filter(None, map(hierarchy.resolve, types))) for types in outcomes.types]
    slices = _slices(outcomes, known, hierarchy, SMALLEST_SLICE, options)
    # A type whose mentions all lack candidates has no excess, and comes last.
    return dict(sorted(slices.items(), key=lambda item: -np.nan_to_num(item[1]["excess_error"]["low"], nan=-1.0)))


def slice_figures(outcomes: Outcomes, *, resamples: int, seed: int) -> dict[str, Any]:
    """Figures over mentions, each ``{"value", "low", "high"}`` with 95 % by document.

    Returns:
        Counts ``mentions``, ``documents``, ``in_dictionary``; ``acc@1``; ``acc@1_in_dictionary``; ``accepted_share``
        and ``accepted_precision``; ``high_share`` and ``high_precision``; ``excess_error``, the share of wrong answers
        beyond what the scores predict (mean score minus share of right answers; positive: too confident); and, with at
        least `SMALLEST_SLICE` mentions with candidates, ``debiased_ece`` of the top scores.
    """
    correct, scored, accepted = outcomes.correct, outcomes.scored, outcomes.accepted
    high, known = outcomes.tier == "high", outcomes.in_dictionary
    index, documents = document_index(outcomes.document)
    score = np.nan_to_num(outcomes.score)
    ratios = {
        "acc@1": (correct, np.ones(len(outcomes))),
        "acc@1_in_dictionary": (correct & known, known),
        "accepted_share": (accepted, np.ones(len(outcomes))),
        "accepted_precision": (accepted & correct, accepted),
        "high_share": (high, np.ones(len(outcomes))),
        "high_precision": (high & correct, high),
        "excess_error": (score - correct * scored, scored),
    }
    figures: dict[str, Any] = {
        "mentions": len(outcomes),
        "documents": documents,
        "in_dictionary": int(known.sum()),
        "accepted": int(accepted.sum()),
        "high": int(high.sum()),
    }
    for name, columns in ratios.items():
        figures[name] = measure(document_sums(index, documents, columns), ratio, resamples=resamples, seed=seed)
    if np.count_nonzero(scored) >= SMALLEST_SLICE:
        of_top = calibration_report(
            outcomes.score[scored], correct[scored].astype(int), index[scored], resamples=resamples, seed=seed
        )
        figures["debiased_ece"] = of_top["debiased_ece"]
    return figures


def key_figures(outcomes: Outcomes, *, resamples: int, seed: int) -> dict[str, Any]:
    """Those of `slice_figures` that say what a change of the inputs does."""
    figures = slice_figures(outcomes, resamples=resamples, seed=seed)
    names = ("acc@1", "accepted_share", "accepted_precision", "high", "high_share", "high_precision")
    return {name: figures[name] for name in names}


def _heads(types: Sequence[str], hierarchy: TypeHierarchy) -> set[str]:
    chains = [hierarchy.chain(known) or [known] for known in map(hierarchy.resolve, types) if known]
    return {chain[-1] for chain in chains} or {WITHOUT_TYPE}


def _slices(
    outcomes: Outcomes, labels: list[set[str]], hierarchy: TypeHierarchy, smallest: int, options: dict[str, int]
) -> dict[str, dict[str, Any]]:
    rows: dict[str, list[int]] = {}
    for row, names in enumerate(labels):
        for name in sorted(names):
            rows.setdefault(name, []).append(row)
    ordered = sorted(rows.items(), key=lambda item: (-len(item[1]), item[0]))
    return {
        name: {"name": name if name == WITHOUT_TYPE else hierarchy.name(name)}
        | slice_figures(outcomes.select(np.array(inside)), **options)
        for name, inside in ordered
        if len(inside) >= smallest
    }
