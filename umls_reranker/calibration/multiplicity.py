"""Which precisions are tested for a certificate, and how the error probability is shared among them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .certificate import FLOOR, is_promising
from .lineage import DEFAULT

__all__ = ["confidence_levels"]


def confidence_levels(
    members: Mapping[str, np.ndarray],
    code: np.ndarray,
    top_p: np.ndarray,
    documents: np.ndarray | None,
    min_mentions: int,
    target: float,
    confidence: float,
) -> dict[str, float]:
    """Nodes whose precision is tested, each with its own confidence; labels have no say in it.

    Half of the error probability goes to "default", on which all types without a certificate of their own fall back;
    the other half is shared equally (Bonferroni) by the nodes that hold enough plausible mentions, not the very ones
    of a node above, and would pass if their probabilities were true.

    Args:
        members: node -> (codes,) whether it holds the mentions of a code; see `lineage.memberships`.
        code, top_p, documents: (n,) code, top probability and document of each mention that has candidates.
        min_mentions: plausible mentions (top probability of 0.5 or more) that a node needs.
        target, confidence: of all certificates together.

    Returns:
        node -> confidence of its own test.
    """
    plausible = code[top_p >= FLOOR]
    enough = [node for node, inside in members.items() if np.count_nonzero(inside[plausible]) >= min_mentions]
    # The broadest first, so that of nodes with the same mentions the broadest is tested and the others inherit.
    enough.sort(
        key=lambda node: (node != DEFAULT, -np.count_nonzero(members[node][code]), not node.startswith("group:"), node)
    )
    distinct = list({members[node][code].tobytes(): node for node in reversed(enough)}.values())[::-1]
    error = 1.0 - confidence
    others = [node for node in distinct if node != DEFAULT]
    # Tested as strictly as if all of them were.
    screen = 1.0 - error / 2 / max(len(others), 1)
    insides = {node: members[node][code] for node in others}
    others = [
        node
        for node, inside in insides.items()
        if is_promising(top_p[inside], target, screen, None if documents is None else documents[inside])
    ]
    levels = {node: 1.0 - error / 2 / len(others) for node in others}
    if DEFAULT in distinct:
        levels[DEFAULT] = 1.0 - error / (2 if others else 1)
    return levels
