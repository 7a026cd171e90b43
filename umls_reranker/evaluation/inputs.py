"""Figures where inputs are missing or incorrect: the same lists with inputs removed, or with semantic types replaced.

Requests bring less than the model reads, and pipelines predict types, while test mentions have annotated ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..calibration.decisions import rank
from ..calibration.inputs import without
from ..calibration.network_logits import NetworkLogits, Unseen, unseen_inputs
from ..models.cross_encoder import PairScorer, Scores, score_lists
from .figures import slice_figures
from .linking import Documents
from .outcomes import Outcomes

if TYPE_CHECKING:
    from ..calibration.decisions import Decisions
    from ..calibration.probabilities import Calibration
    from ..data.candidate_lists import AnnotatedLists, CandidateLists
    from ..data.semantic_types import TypeHierarchy
    from ..data.type_sets import TypeSets

# Shares of typed mentions that get an incorrect type.
LEVELS = (0.0, 0.05, 0.1, 0.2)

TypeLists: TypeAlias = "Sequence[Sequence[str]] | TypeSets"


def missing_input_figures(
    lists: AnnotatedLists,
    logits: np.ndarray,
    scorer: PairScorer,
    calibration: Calibration,
    documents: Documents,
    split: str,
) -> dict[str, dict[str, Any]]:
    """What a model answers with all inputs, and with those of each of its fallback models.

    Args:
        lists: of the split.
        logits: (m,) of its candidates.
        scorer: of the model; scores candidates that are retained where the network sees less.
        documents: of the mentions. split: name of the lists.

    Returns:
        name of the inputs -> ``certified``, whether the tier high is for the model that decided, and `slice_figures`
        of all mentions.
    """
    network_inputs = scorer.template.reads
    network = NetworkLogits(scorer, lists, "scoring", {(): logits})
    report = {}
    for model in calibration.models:
        reduced, unseen = without(lists, model.removed), unseen_inputs(model.removed, network_inputs)

        def score(_: CandidateLists, retained: np.ndarray, unseen: Unseen = unseen) -> Scores:
            return Scores(network(unseen, retained), 0)

        outcomes = Outcomes.of(reduced, rank(reduced, score, calibration, network_inputs=network_inputs))
        figures = slice_figures(outcomes, documents, split)
        report[model.name] = {"certified": model.thresholds.is_certified} | figures
    return report


def replaced_types(
    types: TypeLists,
    candidate_types: TypeLists,
    offsets: np.ndarray,
    seen: TypeLists,
    hierarchy: TypeHierarchy,
    seed: int,
) -> dict[float, list[tuple[str, ...]]]:
    """Types of n mentions, a share of which is replaced by plausible incorrect ones.

    An incorrect type is drawn from the types of the candidates in the mention's list, mapped to the annotators' types
    (the nearest broader type in `seen`). If none of them contradicts the mention's types, it is drawn by frequency
    from `seen`.

    Args:
        types: n lists of annotated ids or names.
        candidate_types: m lists of ids from the dictionary.
        offsets: (n + 1,) where each mention's candidates start.
        seen: types of other mentions, such as the calibration split's.
        hierarchy: of the types.
        seed: of the draws.

    Returns:
        level (`LEVELS`) -> n lists; a mention whose type is incorrect at one level has the same one at the next.
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


def incorrect_type_figures(
    lists: AnnotatedLists,
    logits: np.ndarray,
    scorer: PairScorer,
    decide: Callable[[AnnotatedLists, Scores | Callable[[CandidateLists, np.ndarray], Scores]], Decisions],
    seen: TypeLists,
    documents: Documents,
    split: str,
) -> dict[str, dict[str, Any]]:
    """Figures of a model if some mentions have an incorrect type.

    Thresholds, features and, if its template shows types, the cross-encoder use the incorrect type.

    Args:
        lists: of the split, with annotated types.
        logits: (m,) of its candidates.
        scorer: of the model; scores lists with an incorrect type again, as far as they are served.
        decide: `decisions.rank` with calibration and thresholds of the model.
        seen: types of other mentions, as for `replaced_types`.
        documents: of the mentions. split: name of the lists.

    Returns:
        level -> ``replaced``, the number of mentions with an incorrect type, and `slice_figures` of all mentions;
        empty where no mention has a type.
    """
    levels = replaced_types(lists.types, lists.candidate_types, lists.offsets, seen, lists.hierarchy, documents.seed)
    is_replaced = {
        level: np.array([old != new for old, new in zip(lists.types, types, strict=True)])
        for level, types in levels.items()
    }
    highest = LEVELS[-1]
    if not is_replaced[highest].any():
        return {}
    rescored = np.array(logits)
    if scorer.template.mention_types:
        changed = lists.with_types(levels[highest]).take(is_replaced[highest])

        def score(lists: CandidateLists, retained: np.ndarray) -> Scores:
            return score_lists(scorer, lists, "scoring with incorrect types", retained)

        rescored[is_replaced[highest][lists.owner]] = decide(changed, score).logits
    report = {}
    for level, types in levels.items():
        typed, replaced = lists.with_types(types), is_replaced[level]
        scores = Scores(np.where(replaced[lists.owner], rescored, logits), 0)
        figures = slice_figures(Outcomes.of(typed, decide(typed, scores)), documents, split)
        report[f"{level:.2f}"] = {"replaced": int(replaced.sum())} | figures
    return report
