"""What wrong semantic types cost: pipelines predict them, while test mentions have those of annotators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from .slices import slice_figures

if TYPE_CHECKING:
    from ..calibration.candidate_lists import CandidateLists
    from ..data.semantic_types import TypeHierarchy
    from ..models.cross_encoder import PairScorer
    from .outcomes import Outcomes

__all__ = ["LEVELS", "replaced_types", "wrong_type_figures"]

# Shares of the mentions with types that get a wrong one.
LEVELS = (0.0, 0.05, 0.1, 0.2)
FIGURES = ("acc@1", "accepted_share", "accepted_precision", "high", "high_share", "high_precision")

TypeLists = Sequence[Sequence[str]]


def replaced_types(
    types: TypeLists,
    candidate_types: TypeLists,
    offsets: np.ndarray,
    seen: TypeLists,
    hierarchy: TypeHierarchy,
    seed: int,
) -> dict[float, list[list[str]]]:
    """Types of n mentions of which a share is wrong, in a plausible way.

    A wrong type is drawn from those of the candidates in the mention's own list, in the words of the annotators (the
    nearest broader type that `seen` holds); where none of them contradicts the mention's own types, by frequency from
    `seen`.

    Args:
        types: n lists of ids or names, those of annotators.
        candidate_types: m lists of ids, those of the dictionary.
        offsets: (n + 1,) where each mention's candidates start.
        seen: types of other mentions, such as the calibration split's.
        hierarchy: of the types.
        seed: of what is drawn.

    Returns:
        level (`LEVELS`) -> n lists; a mention whose type is wrong at one level has the same one at the next.
    """
    rng = np.random.default_rng(seed)
    frequency = Counter(filter(None, (hierarchy.resolve(name) for names in seen for name in names)))

    @cache
    def as_annotated(type_id: str) -> str | None:
        return next((broader for broader in hierarchy.chain(type_id) if broader in frequency), None)

    @cache
    def contradicts(type_id: str | None, own: tuple[str, ...]) -> bool:
        return type_id is not None and not hierarchy.agree([type_id], own)

    wrong: dict[int, list[str]] = {}
    for row, given in enumerate(types):
        own = tuple(filter(None, map(hierarchy.resolve, given)))
        listed = [as_annotated(kind) for kinds in candidate_types[offsets[row] : offsets[row + 1]] for kind in kinds]
        others = Counter(kind for kind in listed if contradicts(kind, own))
        others = others or {kind: count for kind, count in frequency.items() if contradicts(kind, own)}
        if own and others:
            share = np.array(list(others.values())) / sum(others.values())
            wrong[row] = [list(others)[rng.choice(len(others), p=share)]]
    order = rng.permutation(list(wrong)).tolist()
    levels = {}
    for share in LEVELS:
        changed = set(order[: round(share * len(order))])
        levels[share] = [wrong[row] if row in changed else list(given) for row, given in enumerate(types)]
    return levels


def wrong_type_figures(
    lists: CandidateLists,
    logits: np.ndarray,
    scorer: PairScorer,
    answer: Callable[[CandidateLists, np.ndarray], Outcomes],
    candidate_types: TypeLists,
    seen: TypeLists,
    hierarchy: TypeHierarchy,
    *,
    resamples: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """What a model answers where some mentions come with a wrong type.

    Thresholds, evidence and, where its template shows types, the cross-encoder all go by the wrong type.

    Args:
        lists: of the split, with the types of annotators.
        logits: (m,) of its candidates.
        scorer: of the model; scores again what reads a wrong type.
        answer: from lists and logits to outcomes.
        candidate_types, seen, hierarchy: as of `replaced_types`.

    Returns:
        level -> ``replaced``, the number of mentions with a wrong type, and `FIGURES` of `slice_figures` over all
        mentions; empty where no mention has a type.
    """
    own = lists.types
    levels = replaced_types(own, candidate_types, lists.offsets, seen, hierarchy, seed)
    changed = {share: np.array([a != b for a, b in zip(own, given, strict=True)]) for share, given in levels.items()}
    if not changed[LEVELS[-1]].any():
        return {}
    given = {
        share: lists.with_types(types, candidate_types, hierarchy, scorer.template) for share, types in levels.items()
    }
    rescored = np.array(logits)
    if scorer.template.mention_types:
        most = LEVELS[-1]
        inside = changed[most][lists.mention_of]
        rescored[inside] = given[most].score(scorer, "scoring with wrong types", changed[most]).logits
    report = {}
    for share, part in given.items():
        figures = slice_figures(
            answer(part, np.where(changed[share][lists.mention_of], rescored, logits)), resamples=resamples, seed=seed
        )
        report[f"{share:.2f}"] = {"replaced": int(changed[share].sum())} | {name: figures[name] for name in FIGURES}
    return report
