"""Figures of some of the mentions: of a tier, of a semantic group or type, seen in training or not.

Each slice is a row of a table in ``metrics.json``, such as ``groups/group:DISO``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..calibration.thresholds import TIERS
from ..core.parallel import progress
from ..vocab.normalization import normalize_name
from ..vocab.types import TypeHierarchy
from .calibration_figures import top_calibration
from .intervals import Documents, Measure
from .metrics import SMALL_SUPPORT, measure_figures
from .outcomes import Outcomes

# With fewer mentions, a type is not listed, and a slice has no calibration error.
SMALLEST_SLICE = 50
WITHOUT_TYPE = "without type"
# The figure of the worst group, if no group is large enough.
NOT_MEASURED = {
    "value": np.nan,
    "n": 0,
    "population": f"groups with {SMALL_SUPPORT:,} mentions",
}


def slice_figures(outcomes: Outcomes, documents: Documents) -> dict[str, Measure]:
    """Figures of a slice of the mentions, with ``top1_debiased_ece`` if there are enough."""
    figures = measure_figures(outcomes, documents, in_slices=True)
    if outcomes.has_candidates.sum() >= SMALLEST_SLICE:
        figures["top1_debiased_ece"] = top_calibration(outcomes, documents)["debiased_ece"]
    return figures


class Slice(NamedTuple):
    """Some of n mentions: a row of a table.

    Attributes:
        table: the table.
        row: key of the row in ``metrics.json``.
        label: title of the row.
        mentions: (n,) bool, the mentions.
    """

    table: str
    row: str
    label: str
    mentions: np.ndarray


def mention_slices(
    outcomes: Outcomes,
    mentions: Sequence[str],
    hierarchy: TypeHierarchy,
    counted: Iterable[tuple[str, str]] = (),
) -> list[Slice]:
    """Slices of n mentions.

    Args:
        outcomes: their outcomes.
        mentions: their texts.
        hierarchy: in one without groups, the broadest ancestors take their role.
        counted: text and gold CUI of the mentions that the model counts.

    Returns:
        Those of the table ``tiers``; ``subsets`` seen and unseen among `counted`, if there are any;
        and if any type is known, ``groups``, the largest first, and ``types`` with at least
        `SMALLEST_SLICE` mentions. A mention counts in each of its types.
    """
    slices = [Slice("tiers", tier, tier, outcomes.tier == tier) for tier in TIERS]
    counted = list(counted)
    if counted:
        slices += _seen_slices(outcomes, mentions, counted)
    types = []
    for names in outcomes.types:
        resolved = {hierarchy.resolve(name) for name in names}
        types.append({type_id for type_id in resolved if type_id})
    if any(types):
        groups = [_groups_of(type_ids, hierarchy) for type_ids in types]
        slices += _type_slices("groups", groups, hierarchy, smallest=1)
        slices += _type_slices("types", types, hierarchy, smallest=SMALLEST_SLICE)
    return slices


def _seen_slices(
    outcomes: Outcomes, mentions: Sequence[str], counted: Sequence[tuple[str, str]]
) -> list[Slice]:
    """Four slices: whether the string of a mention, and its gold concept, occur in `counted`."""
    strings = {normalize_name(text) for text, _ in counted}
    cuis = {cui for _, cui in counted}
    seen_string = np.array([normalize_name(text) in strings for text in mentions])
    # Of a mention with several gold concepts, any.
    seen_cui = np.array([not cuis.isdisjoint(gold.split("|")) for gold in outcomes.gold])
    return [
        Slice("subsets", "seen_string", "string seen", seen_string),
        Slice("subsets", "unseen_string", "string unseen", ~seen_string),
        Slice("subsets", "seen_cui", "concept seen", seen_cui),
        Slice("subsets", "unseen_cui", "concept unseen", ~seen_cui),
    ]


def _groups_of(type_ids: set[str], hierarchy: TypeHierarchy) -> set[str]:
    """The groups of a mention's types, or `WITHOUT_TYPE`; a group stands for itself."""
    groups = set()
    for type_id in type_ids:
        # The type, its parent and so on, the group last; of a group it is empty.
        chain = hierarchy.chain(type_id) or [type_id]
        groups.add(chain[-1])
    return groups or {WITHOUT_TYPE}


def _type_slices(
    table: str, ids_of_mentions: Sequence[set[str]], hierarchy: TypeHierarchy, smallest: int
) -> list[Slice]:
    """A slice for each type or group that n mentions have, the one with most mentions first.

    Args:
        table: ``types`` or ``groups``.
        ids_of_mentions: (n,) the types or groups of each mention.
        hierarchy: has their names.
        smallest: the fewest mentions of a slice.
    """
    slices = []
    for row in sorted(set().union(*ids_of_mentions)):
        mentions = np.array([row in ids for ids in ids_of_mentions])
        if mentions.sum() >= smallest:
            label = row if row == WITHOUT_TYPE else hierarchy.name(row)
            slices.append(Slice(table, row, label, mentions))
    return sorted(slices, key=lambda one: -one.mentions.sum())


def measure_slices(
    outcomes: Outcomes, documents: Documents, slices: Sequence[Slice]
) -> tuple[dict[str, Measure], dict[str, dict[str, str]]]:
    """Figures of slices by ``TABLE/ROW/NAME``, and label by row of each table.

    Tiers also have a ``coverage``. The types whose overconfidence is surest come first: those with
    the highest lower end of its interval.
    """
    figures: dict[str, Measure] = {}
    rows: dict[str, dict[str, str]] = {}
    for one in progress(slices, desc="measuring groups and types", unit=" slices"):
        if not one.mentions.any():
            continue
        key = f"{one.table}/{one.row}"
        slice_measures = slice_figures(outcomes.select(one.mentions), documents.take(one.mentions))
        figures |= {f"{key}/{name}": figure for name, figure in slice_measures.items()}
        rows.setdefault(one.table, {})[one.row] = one.label
        if one.table == "tiers":
            figures[f"{key}/coverage"] = documents.measure([one.mentions, outcomes.every])
    if "types" in rows:
        lower_ends = {row: figures[f"types/{row}/overconfidence"]["low"] for row in rows["types"]}
        # -1 is the lowest overconfidence that there is: types without an interval come last.
        surest_first = sorted(lower_ends, key=lambda row: -np.nan_to_num(lower_ends[row], nan=-1.0))
        rows["types"] = {row: rows["types"][row] for row in surest_first}
    return figures, rows


def worst_groups(figures: Mapping[str, Measure], groups: Mapping[str, str]) -> dict[str, Measure]:
    """The worst group of `SMALL_SUPPORT` or more mentions, by acc@1 and by debiased ECE."""
    worst = {}
    for name, worst_of in (("acc@1", min), ("top1_debiased_ece", max)):
        large = []
        for row, label in groups.items():
            figure = figures.get(f"groups/{row}/{name}", NOT_MEASURED)
            if figure["n"] >= SMALL_SUPPORT:
                large.append(figure | {"population": f"mentions of {label}"})
        worst[f"worst_group_{name}"] = worst_of(
            large, key=lambda figure: figure["value"], default=NOT_MEASURED
        )
    return worst
