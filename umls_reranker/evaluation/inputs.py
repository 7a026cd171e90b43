"""Figures where semantic types are incorrect: pipelines predict them, while test mentions have annotated ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..core.progress import progress
from ..models.cross_encoder import Scores, score_lists
from .figures import slice_figures
from .outcomes import Outcomes

if TYPE_CHECKING:
    from ..data.candidate_lists import CandidateLists
    from ..data.semantic_types import TypeHierarchy
    from ..data.type_sets import TypeSets
    from .answers import Answers

# Shares of typed mentions that are given an incorrect type.
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
    """Replace the types of a share of n mentions by plausible incorrect types.

    An incorrect type is drawn from the types of the candidates in the mention's list, mapped to the annotators' types
    (the nearest broader type in `seen`). If none of them contradicts the mention's types, it is drawn by frequency
    from `seen`.

    Args:
        types: n lists of annotated ids or names.
        candidate_types: m lists of ids from the dictionary.
        offsets: (n + 1,) where each mention's candidates start.
        seen: types of other mentions, such as the calibration split's.
        hierarchy: the types' hierarchy.
        seed: seed of the draws.

    Returns:
        Level (`LEVELS`) -> n lists; a mention whose type is incorrect at one level has the same one at the next.
    """
    rng = np.random.default_rng(seed)
    frequency = Counter(filter(None, (hierarchy.resolve(name) for names in seen for name in names)))

    @cache
    def as_annotated(type_id: str) -> str | None:
        return next((broader for broader in hierarchy.chain(type_id) if broader in frequency), None)

    @cache
    def contradicts(type_id: str, annotated: tuple[str, ...]) -> bool:
        return not hierarchy.agree([type_id], annotated)

    incorrect: dict[int, tuple[str, ...]] = {}
    for row, names in enumerate(types):
        annotated = tuple(filter(None, map(hierarchy.resolve, names)))
        if not annotated:
            continue
        listed: Counter[str] = Counter()
        for candidate in range(offsets[row], offsets[row + 1]):
            listed.update(filter(None, map(as_annotated, candidate_types[candidate])))
        for counts in (listed, frequency):
            chances = {kind: count for kind, count in counts.items() if contradicts(kind, annotated)}
            if chances:
                shares = np.array(list(chances.values())) / sum(chances.values())
                incorrect[row] = (list(chances)[rng.choice(len(chances), p=shares)],)
                break
    order = rng.permutation(list(incorrect)).tolist()
    levels = {}
    for share in LEVELS:
        replaced = set(order[: round(share * len(order))])
        levels[share] = [incorrect[row] if row in replaced else tuple(names) for row, names in enumerate(types)]
    return levels


def incorrect_type_figures(answers: Answers, seen: TypeLists) -> dict[str, dict[str, Any]]:
    """Figures of a model if some mentions have an incorrect type.

    Thresholds, features and, if its template shows types, the cross-encoder use the incorrect type; lists with an
    incorrect type are then scored again, as in serving.

    Args:
        answers: answers for lists with annotated types.
        seen: types of other mentions, as for `replaced_types`.

    Returns:
        Level -> ``replaced``, the number of mentions with an incorrect type, and `slice_figures` of all mentions;
        empty where no mention has a type.
    """
    lists, documents, split = answers.lists, answers.documents, answers.split
    levels = replaced_types(lists.types, lists.candidate_types, lists.offsets, seen, lists.hierarchy, documents.seed)
    is_replaced = {
        level: np.array([old != new for old, new in zip(lists.types, types, strict=True)])
        for level, types in levels.items()
    }
    highest = LEVELS[-1]
    if not is_replaced[highest].any():
        return {}
    rescored = np.array(answers.logits)
    if answers.template.mention_types:
        changed = lists.with_types(levels[highest]).take(is_replaced[highest])

        def score(lists: CandidateLists, retained: np.ndarray) -> Scores:
            return score_lists(answers.scorer, lists, "scoring with incorrect types", retained)

        rescored[is_replaced[highest][lists.owner]] = answers.decide(changed, score).logits
    report = {}
    for level, types in progress(levels.items(), desc="measuring incorrect types", unit=" levels"):
        typed, replaced = lists.with_types(types), is_replaced[level]
        scores = Scores(np.where(replaced[lists.owner], rescored, answers.logits), 0)
        figures = slice_figures(Outcomes.of(typed, answers.decide(typed, scores)), documents, split)
        report[f"{level:.2f}"] = {"replaced": int(replaced.sum())} | figures
    return report
