"""Systems that need no model: exact names, the most frequent concept of a string, and labels.

Strings are compared normalized (`normalize_name`). A system answers each mention with one concept
id, or None.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np

from ..lists.annotated_lists import AnnotatedLists
from ..vocab.normalization import normalize_name
from .systems import System

AnswerIds = Sequence[str | None]


def baselines(lists: AnnotatedLists, counted: Iterable[tuple[str, str]]) -> dict[str, System]:
    """Systems with one answer or none.

    Args:
        lists: the lists.
        counted: text and gold CUI of the mentions that the model counts; none: only the first
            system.

    Returns:
        Those that answer any mention, and otherwise than the order and each other:
        ``exact_match``, the concept with the mention as a name, if only one has it;
        ``most_frequent_cui`` of the mention's string among these, of equally frequent ones the
        smaller; and ``most_frequent_cui_else_order``, the strongest: it knows the corpus and
        answers every list.
    """
    concept_of = _most_frequent((normalize_name(text), cui) for text, cui in counted)
    frequent = [concept_of.get(normalize_name(text)) for text in lists.mentions]
    first = _first_candidates(lists)
    answers = {
        "exact_match": _exact_matches(lists),
        "most_frequent_cui": frequent,
        "most_frequent_cui_else_order": _first_else_second(frequent, first),
    }
    return _distinct_systems(answers, lists, [first])


def free_baselines(lists: AnnotatedLists, folds: np.ndarray) -> dict[str, System]:
    """What names and labels give without a model, with the labels of other documents.

    Args:
        lists: n lists with all their candidates.
        folds: (n,) folds of the documents; labels of a mention's own fold do not count.

    Returns:
        ``exact_match``, as of `baselines`, and ``label_else_exact_match``, which answers with the
        most frequent gold concept of the mention's string where there is one.
    """
    strings = [normalize_name(text) for text in lists.mentions]
    golds = lists.annotations.trainable.tolist()
    labels: list[str | None] = [None] * len(lists)
    for fold in np.unique(folds):
        of_others = np.flatnonzero(folds != fold)
        concept_of = _most_frequent((strings[row], golds[row]) for row in of_others if golds[row])
        for row in np.flatnonzero(folds == fold):
            labels[row] = concept_of.get(strings[row])
    exact = _exact_matches(lists)
    # Without a label that helps, both are one.
    answers = {"exact_match": exact, "label_else_exact_match": _first_else_second(labels, exact)}
    return _distinct_systems(answers, lists)


def _exact_matches(lists: AnnotatedLists) -> AnswerIds:
    """The concept of which a candidate has the mention as its name, if there is one only."""
    cuis = lists.cuis.to_list()
    names = [normalize_name(name) for name in lists.names.to_list()]
    answers = []
    for mention, (start, end) in zip(lists.mentions, pairwise(lists.offsets), strict=True):
        string = normalize_name(mention)
        concepts = {cuis[row] for row in range(start, end) if names[row] == string}
        only_concept = concepts.pop() if len(concepts) == 1 else None
        answers.append(only_concept)
    return answers


def _first_candidates(lists: AnnotatedLists) -> AnswerIds:
    """The first candidate of each list."""
    cuis = lists.cuis.to_list()
    return [cuis[start] if start < end else None for start, end in pairwise(lists.offsets)]


def _most_frequent(labels: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The most frequent concept of each string among pairs of both, of equal ones the smallest."""
    concept_of: dict[str, str] = {}
    for (string, cui), _ in sorted(Counter(labels).items(), key=lambda item: (-item[1], item[0])):
        concept_of.setdefault(string, cui)
    return concept_of


def _first_else_second(first: AnswerIds, second: AnswerIds) -> AnswerIds:
    """The first answer to each mention, or the second where there is no first."""
    return [one or other for one, other in zip(first, second, strict=True)]


def _distinct_systems(
    answers: Mapping[str, AnswerIds], lists: AnnotatedLists, others: Sequence[AnswerIds] = ()
) -> dict[str, System]:
    """The systems that answer something, and otherwise than those before them and `others`."""
    systems = {}
    seen = [*others]
    for name, ids in answers.items():
        if any(ids) and ids not in seen:
            systems[name] = System.answering(ids, lists.annotations.alternatives)
            seen.append(ids)
    return systems
