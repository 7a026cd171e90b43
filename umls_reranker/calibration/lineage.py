"""Where a semantic type takes thresholds from if it has too little data."""

import numpy as np

from ..data.semantic_types import GROUP_PREFIX, TypeHierarchy
from .score_maps import Types

__all__ = ["DEFAULT", "lineage", "memberships"]

DEFAULT = "default"


def lineage(node: str, hierarchy: TypeHierarchy) -> list[str]:
    """A type or group, the ancestors in its semantic group, the group, and "default".

    Ancestors of other groups are left out: two steps up, "Disease or Syndrome" would become any event. In a hierarchy
    without groups all ancestors are used.
    """
    if node == DEFAULT or node.startswith(GROUP_PREFIX):
        return [node] if node == DEFAULT else [node, DEFAULT]
    own = _group(node, hierarchy)
    kept = [t for t in hierarchy.chain(node)[1:] if t == own or _group(t, hierarchy) == own]
    return [node, *kept, DEFAULT]


def memberships(mention_types: Types, hierarchy: TypeHierarchy) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Which mentions count in which node; each distinct set of types is coded once.

    Returns:
        ((n_mentions,) int64 code of each mention's types, node -> (n_codes,) bool whether the node is in the lineage
        of any of them). Types that the hierarchy does not know count in "default" alone.
    """
    from ..data.candidate_lists import TypeSets

    coded = TypeSets.of(mention_types)
    # The last code is that of mentions without types, -1.
    codes = len(coded.sets) + 1
    members: dict[str, np.ndarray] = {DEFAULT: np.ones(codes, dtype=bool)}
    for number in np.unique(coded.codes[coded.codes >= 0]).tolist():
        for known in filter(None, map(hierarchy.resolve, coded.sets[number])):
            for node in lineage(known, hierarchy):
                members.setdefault(node, np.zeros(codes, dtype=bool))[number] = True
    return coded.codes, members


def _group(type_id: str, hierarchy: TypeHierarchy) -> str | None:
    last = hierarchy.chain(type_id)[-1:]
    return last[0] if last and last[0].startswith(GROUP_PREFIX) else None
