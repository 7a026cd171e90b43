"""Where a semantic type without thresholds of its own finds some: its ancestors and its group.

A lineage is a list of nodes, the nearest first: the type itself, its ancestors in the semantic
group, the group, and "default".
"""

from __future__ import annotations

import numpy as np

from ..vocab.type_sets import TypeSets
from ..vocab.types import GROUP_PREFIX, TypeHierarchy

# The row of unknown types, and of no type.
DEFAULT = "default"


def lineage(node: str, hierarchy: TypeHierarchy) -> list[str]:
    """A type or group, the ancestors in its semantic group, the group, and "default".

    Ancestors of other groups are left out: two steps up, "Disease or Syndrome" would become any
    event. In a hierarchy without groups all ancestors are used.
    """
    if node == DEFAULT:
        return [DEFAULT]
    if node.startswith(GROUP_PREFIX):
        return [node, DEFAULT]
    group = _group_of(node, hierarchy)
    ancestors = [
        kind for kind in hierarchy.chain(node)[1:] if group in (kind, _group_of(kind, hierarchy))
    ]
    return [node, *ancestors, DEFAULT]


def memberships(types: TypeSets, hierarchy: TypeHierarchy) -> dict[str, np.ndarray]:
    """The sets of types that count in each node; types are ids of the hierarchy.

    Returns:
        From the root down, node -> (k + 1,) bool, whether the node is in the lineage of any type of
        each of k sets; the last is that of mentions without types, whose code is -1.
    """
    set_count = len(types.sets) + 1
    members: dict[str, np.ndarray] = {DEFAULT: np.ones(set_count, bool)}
    used_sets = np.unique(types.codes[types.codes >= 0])
    for number in used_sets.tolist():
        for resolved in filter(None, map(hierarchy.resolve, types.sets[number])):
            for node in lineage(resolved, hierarchy):
                members.setdefault(node, np.zeros(set_count, bool))[number] = True
    # A child's lineage is longer than its parent's.
    nodes = sorted(members, key=lambda node: (len(lineage(node, hierarchy)), node))
    return {node: members[node] for node in nodes}


def _group_of(type_id: str, hierarchy: TypeHierarchy) -> str | None:
    """The semantic group of a type, the last of its chain; None in a hierarchy without groups."""
    chain = hierarchy.chain(type_id)
    if chain and chain[-1].startswith(GROUP_PREFIX):
        return chain[-1]
    return None
