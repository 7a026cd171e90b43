"""Which row of a table a semantic type uses: its own, or that of its nearest ancestor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias, TypeVar

import numpy as np

from ..vocab.types import GROUP_PREFIX, TypeHierarchy, TypeSets

DEFAULT = "default"
T = TypeVar("T")
Types: TypeAlias = "Sequence[Sequence[str] | str | None] | TypeSets"


def lineage(node: str, hierarchy: TypeHierarchy) -> list[str]:
    """A type or group, the ancestors in its semantic group, the group, and "default".

    Ancestors of other groups are left out: two steps up, "Disease or Syndrome" would become any
    event. In a hierarchy without groups all ancestors are used.
    """
    if node == DEFAULT:
        return [DEFAULT]
    if node.startswith(GROUP_PREFIX):
        return [node, DEFAULT]
    group = _group(node, hierarchy)
    ancestors = [
        kind
        for kind in hierarchy.chain(node)[1:]
        if kind == group or _group(kind, hierarchy) == group
    ]
    return [node, *ancestors, DEFAULT]


def nearest_row(
    rows: Mapping[str, T], types: str | Sequence[str] | None, hierarchy: TypeHierarchy
) -> T:
    """The row of a type, or of its nearest ancestor; of several types, of the first that is known.

    Args:
        rows: rows by type, ancestor and group; must hold "default", the row of unknown types and of
            no type.
        types: a type (id or name), several, or None.
        hierarchy: the types' hierarchy.
    """
    names = [types] if isinstance(types, str) else types or ()
    for known in filter(None, map(hierarchy.resolve, names)):
        return next(rows[node] for node in lineage(known, hierarchy) if node in rows)
    return rows[DEFAULT]


def nearest_rows(
    rows: Mapping[str, T], types: Types, hierarchy: TypeHierarchy
) -> tuple[list[T], np.ndarray]:
    """The rows of n mentions: k by `nearest_row`, and each mention's among them, (n,) int64."""
    coded = TypeSets.of(types)
    # The last one is that of mentions without types, whose code is -1.
    return [nearest_row(rows, names, hierarchy) for names in (*coded.sets, ())], coded.codes


def memberships(
    mention_types: Types, hierarchy: TypeHierarchy
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The mentions that count in each node; each distinct set of types is coded once.

    Returns:
        (n_mentions,) int64, code of each mention's types; and, from the root down, node ->
        (n_codes,) bool, whether the node is in the lineage of any of the types. Types that the
        hierarchy does not know count only in "default".
    """
    coded = TypeSets.of(mention_types)
    # The last code is that of mentions without types, -1.
    codes = len(coded.sets) + 1
    members: dict[str, np.ndarray] = {DEFAULT: np.ones(codes, dtype=bool)}
    for number in np.unique(coded.codes[coded.codes >= 0]).tolist():
        for known in filter(None, map(hierarchy.resolve, coded.sets[number])):
            for node in lineage(known, hierarchy):
                members.setdefault(node, np.zeros(codes, dtype=bool))[number] = True
    nodes = sorted(members, key=lambda node: (len(lineage(node, hierarchy)), node))
    return coded.codes, {node: members[node] for node in nodes}


def _group(type_id: str, hierarchy: TypeHierarchy) -> str | None:
    last = hierarchy.chain(type_id)[-1:]
    return last[0] if last and last[0].startswith(GROUP_PREFIX) else None
