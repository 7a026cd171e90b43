"""Lists in which some mentions have an incorrect semantic type, as a pipeline predicts them."""

from __future__ import annotations

from collections import Counter
from functools import cache

import numpy as np

from ..lists.candidate_lists import AnnotatedLists

# Shares of typed mentions that are given an incorrect type.
INCORRECT_TYPES = (0.05, 0.1, 0.2)


def with_incorrect_types(lists: AnnotatedLists, seed: int) -> dict[float, AnnotatedLists]:
    """The lists with incorrect types for a share of the typed mentions.

    An incorrect type is one that contradicts the mention's, drawn from the types of its candidates
    as annotators would name them (the nearest broader type that any mention has), or if there is
    none by frequency.

    Returns:
        Share -> lists; a mention whose type is incorrect at one share has the same one at the next.
        Empty where no mention has a type.
    """
    rng = np.random.default_rng(seed)
    hierarchy = lists.hierarchy
    annotated = [tuple(filter(None, map(hierarchy.resolve, names))) for names in lists.types]
    frequency = Counter(node for nodes in annotated for node in nodes)

    @cache
    def as_annotated(type_id: str) -> str | None:
        return next((broader for broader in hierarchy.chain(type_id) if broader in frequency), None)

    @cache
    def contradicts(type_id: str, nodes: tuple[str, ...]) -> bool:
        return not hierarchy.agree([type_id], nodes)

    incorrect = {}
    for row, nodes in enumerate(annotated):
        items = range(lists.offsets[row], lists.offsets[row + 1])
        kinds = (as_annotated(kind) for item in items for kind in lists.candidate_types[item])
        for counts in (Counter(filter(None, kinds)), frequency):
            chances = {kind: n for kind, n in counts.items() if contradicts(kind, nodes)}
            if nodes and chances:
                p = np.array(list(chances.values())) / sum(chances.values())
                incorrect[row] = list(chances)[rng.choice(len(chances), p=p)]
                break
    order = rng.permutation(list(incorrect)).tolist()
    changed = {}
    for share in INCORRECT_TYPES if incorrect else ():
        types = list(map(tuple, lists.types))
        for row in order[: round(share * len(order))]:
            types[row] = (incorrect[row],)
        changed[share] = lists.with_types(types)
    return changed
