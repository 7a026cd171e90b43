"""Calibration by semantic group and type, where an average over all may hide that some are far off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..data.semantic_types import TypeHierarchy
from .families import Types
from .lineage import DEFAULT, memberships
from .reliability import calibration_report
from .resampling import document_index

__all__ = ["reports_by_type"]


def reports_by_type(
    p: np.ndarray,
    y: np.ndarray,
    groups: Sequence,
    types: Types,
    hierarchy: TypeHierarchy,
    *,
    least: int = 100,
    bins: int = 15,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """`calibration_report` of each semantic group and of each type that mentions bear, the largest first.

    Args:
        p, y, groups: (n,) probabilities, labels and documents, of pairs or of top candidates.
        types: n semantic types (ids or names); a row counts in each of its types and in their groups.
        least: rows below which a type is left out.

    Returns:
        ``T047`` or ``group:DISO`` -> the report, with ``rows``, ``positives`` and ``documents``.
    """
    p, y, index = np.asarray(p), np.asarray(y), document_index(groups)[0]
    code, members = memberships(types, hierarchy)
    own = {
        hierarchy.resolve(name) for names in types for name in ([names] if isinstance(names, str) else names or ())
    }
    reports = {}
    for node, codes in members.items():
        inside = codes[code]
        rows = int(np.count_nonzero(inside))
        if node == DEFAULT or (node in hierarchy and node not in own) or rows < least:
            continue
        reports[node] = {
            "rows": rows,
            "positives": int(y[inside].sum()),
            "documents": len(np.unique(index[inside])),
            **calibration_report(p[inside], y[inside], index[inside], bins=bins, resamples=resamples, seed=seed),
        }
    return dict(sorted(reports.items(), key=lambda item: (-item[1]["rows"], item[0])))
