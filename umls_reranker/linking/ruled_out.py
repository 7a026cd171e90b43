"""Linked rows without the concepts that reviewers ruled out."""

from collections.abc import Collection, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..core.arrays import list_offsets
from ..serving.row_counts import RowCounts
from ..serving.rows import RankedRows


def without_concepts(
    linked: RankedRows, ruled_out: Mapping[int, Collection[str]]
) -> tuple[RankedRows, RowCounts]:
    """The rows without some of their concepts.

    No other concept takes the place of one that was the answer: no tier covers what a reviewer
    already found to be difficult.

    Args:
        linked: the rows.
        ruled_out: number of a row -> ids of concepts.

    Returns:
        The rows; and what is to be added to their counts: a row whose answer was ruled out counts
        as ``reject`` (if it had a tier) and ``ruled_out``.
    """
    ranked = linked.ranked
    lengths = pc.fill_null(pc.list_value_length(ranked), 0).to_numpy()
    offsets = list_offsets(lengths)
    items = ranked.flatten()
    cuis = items.field("cui").to_pylist()
    is_retained = np.ones(len(items), bool)
    changes = RowCounts()
    for number, ids in ruled_out.items():
        start = offsets[number]
        for position in range(start, offsets[number + 1]):
            is_retained[position] = cuis[position] not in ids
        if lengths[number] and not is_retained[start]:
            changes += _without_answer(items[int(start)].as_py())
    owner = np.repeat(np.arange(len(ranked)), lengths)
    sizes = np.bincount(owner[is_retained], minlength=len(ranked))
    lists = pa.ListArray.from_arrays(
        pa.array(list_offsets(sizes), pa.int32()),
        items.filter(pa.array(is_retained)),
        mask=ranked.is_null(),
    )
    return linked._replace(ranked=lists), changes


def _without_answer(item: Mapping[str, object]) -> RowCounts:
    """What changes in the counts where this answer is ruled out."""
    changes = RowCounts(ruled_out=1)
    if item["accepted"]:
        changes += RowCounts(accepted=-1)
    tier = item["tier"]
    if tier is not None and tier != "reject":
        changes += RowCounts(reject=1, **{str(tier): -1})
    return changes
