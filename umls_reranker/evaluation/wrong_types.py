"""The effect of wrong semantic types: pipelines predict types, while test mentions have annotated ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..models.cross_encoder import Scores, score_lists
from .outcomes import Outcomes
from .slices import key_figures

if TYPE_CHECKING:
    from ..calibration.decisions import Decisions
    from ..data.candidate_lists import AnnotatedLists, CandidateLists
    from ..data.semantic_types import TypeHierarchy
    from ..data.type_sets import TypeSets
    from ..models.cross_encoder import PairScorer

__all__ = ["LEVELS", "replaced_types", "wrong_type_figures"]

# Shares of typed mentions that get a wrong type.
LEVELS = (0.0, 0.05, 0.1, 0.2)

TypeLists: TypeAlias = "Sequence[Sequence[str]] | TypeSets"


def replaced_types(
    types: TypeLists,
    candidate_types: TypeLists,
    offsets: np.ndarray,
    seen: TypeLists,
    hierarchy: TypeHierarchy,
    seed: int,
) -> dict[float, list[tuple[str, ...]]]:
    """Types of n mentions, a share of which is replaced by plausible wrong ones.

    A wrong type is drawn from the types of the candidates in the mention's list, mapped to the annotators' types (the
    nearest broader type in `seen`). If none of them contradicts the mention's types, it is drawn by frequency from
    `seen`.

    Args:
        types: n lists of annotated ids or names.
        candidate_types: m lists of ids from the dictionary.
        offsets: (n + 1,) where each mention's candidates start.
        seen: types of other mentions, such as the calibration split's.
        hierarchy: of the types.
        seed: of the draws.

    Returns:
        level (`LEVELS`) -> n lists; a mention whose type is wrong at one level has the same one at the next.
    """
    rng = np.random.default_rng(seed)
    frequency = Counter(filter(None, (hierarchy.resolve(name) for names in seen for name in names)))

    @cache
    def as_annotated(type_id: str) -> str | None:
        return next((broader for broader in hierarchy.chain(type_id) if broader in frequency), None)

    @cache
    def contradicts(type_id: str, own: tuple[str, ...]) -> bool:
        return not hierarchy.agree([type_id], own)

    wrong: dict[int, tuple[str, ...]] = {}
    for row, given in enumerate(types):
        own = tuple(filter(None, map(hierarchy.resolve, given)))
        places = range(offsets[row], offsets[row + 1])
        listed = filter(None, (as_annotated(kind) for place in places for kind in candidate_types[place]))
        others = Counter(kind for kind in listed if contradicts(kind, own))
        others = others or Counter({kind: count for kind, count in frequency.items() if contradicts(kind, own)})
        if own and others:
            chances = np.array(list(others.values())) / others.total()
            wrong[row] = (list(others)[rng.choice(len(others), p=chances)],)
    order = rng.permutation(list(wrong)).tolist()
    levels = {}
    for share in LEVELS:
        changed = set(order[: round(share * len(order))])
        levels[share] = [wrong[row] if row in changed else tuple(given) for row, given in enumerate(types)]
    return levels


def wrong_type_figures(
    lists: AnnotatedLists,
    logits: np.ndarray,
    scorer: PairScorer,
    decide: Callable[[AnnotatedLists, Scores | Callable[[CandidateLists, np.ndarray], Scores]], Decisions],
    seen: TypeLists,
    *,
    resamples: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Figures of a model if some mentions have a wrong type.

    Thresholds, features and, if its template shows types, the cross-encoder use the wrong type.

    Args:
        lists: of the split, with annotated types.
        logits: (m,) of its candidates.
        scorer: of the model; scores lists with a wrong type again, as far as they are served.
        decide: `decisions.rank` with calibration and thresholds of the model.
        seen: types of other mentions, as for `replaced_types`.

    Returns:
        level -> ``replaced``, the number of mentions with a wrong type, and `key_figures` over all mentions; empty
        where no mention has a type.
    """
    own, owner = lists.types, lists.owner
    levels = replaced_types(own, lists.candidate_types, lists.offsets, seen, lists.hierarchy, seed)
    changed = {share: np.array([a != b for a, b in zip(own, given, strict=True)]) for share, given in levels.items()}
    most = LEVELS[-1]
    if not changed[most].any():
        return {}
    given = {share: lists.with_types(types) for share, types in levels.items()}
    rescored = np.array(logits)
    if scorer.template.mention_types:
        part = given[most].take(changed[most])

        def score(lists: CandidateLists, retained: np.ndarray) -> Scores:
            return score_lists(scorer, lists, "scoring with wrong types", retained)

        rescored[changed[most][owner]] = decide(part, score).logits
    report = {}
    for share, part in given.items():
        scores = Scores(np.where(changed[share][owner], rescored, logits), 0)
        figures = key_figures(Outcomes.of(part, decide(part, scores)), resamples=resamples, seed=seed)
        report[f"{share:.2f}"] = {"replaced": int(changed[share].sum())} | figures
    return report
