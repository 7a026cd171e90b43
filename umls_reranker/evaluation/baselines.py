"""Baselines: simple systems on the same candidate lists.

Each gives one answer per mention: a CUI, or None for no answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from ..data.normalization import normalize_name

if TYPE_CHECKING:
    from ..data.candidate_lists import CandidateLists

Answers = list[str | None]


def most_frequent_cuis(mentions: Sequence[str], known_mentions: Iterable[tuple[str, str]]) -> Answers:
    """The CUI that each mention's string has most often among known ones, None for unseen strings.

    Strings are compared normalized (`normalize_name`); among equally frequent concepts the smaller CUI wins.
    `StringCounts` cannot do this: its hashes tell how often a string means a given concept, but not which concepts it
    means.

    Args:
        mentions: (n,) mention texts.
        known_mentions: text and gold CUI of each known mention.
    """
    uses = Counter((normalize_name(text), cui) for text, cui in known_mentions)
    most_frequent: dict[str, str] = {}
    for (string, cui), _ in sorted(uses.items(), key=lambda item: (-item[1], item[0])):
        most_frequent.setdefault(string, cui)
    return [most_frequent.get(normalize_name(mention)) for mention in mentions]


def exact_match(
    mentions: Sequence[str], cuis: Sequence[Sequence[str]], names_of: Callable[[str], Iterable[str]]
) -> Answers:
    """The first candidate with the mention as a name (both normalized), or None.

    Args:
        mentions: (n,) mention texts.
        cuis: (n,) candidate lists in retrieval order.
        names_of: function that returns all names of a CUI; called once per CUI.
    """

    @cache
    def normalized_names(cui: str) -> frozenset[str]:
        return frozenset(map(normalize_name, names_of(cui)))

    answers: Answers = []
    for mention, candidates in zip(mentions, cuis, strict=True):
        string = normalize_name(mention)
        answers.append(next((cui for cui in candidates if string in normalized_names(cui)), None))
    return answers


def baseline_answers(
    lists: CandidateLists, names_of: Callable[[str], Iterable[str]], known_mentions: Iterable[tuple[str, str]]
) -> dict[str, Answers]:
    """Answers of all baselines by name; `names_of` and `known_mentions` are as for the functions above.

    Returns:
        ``exact_match``, ``most_frequent_cui`` (no answer for unseen strings) and
        ``most_frequent_cui_else_retriever``, the strongest: it knows the corpus and answers every list.
    """
    candidates = lists.cuis.to_list()
    cuis = [candidates[start:end] for start, end in pairwise(lists.offsets.tolist())]
    frequent = most_frequent_cuis(lists.mentions, known_mentions)
    or_retrieved = list(frequent)
    for row, candidates in enumerate(cuis):
        if frequent[row] is None and candidates:
            or_retrieved[row] = candidates[0]
    return {
        "exact_match": exact_match(lists.mentions, cuis, names_of),
        "most_frequent_cui": frequent,
        "most_frequent_cui_else_retriever": or_retrieved,
    }


def answer_ranks(answers: Answers, gold: Sequence[str] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Answers in the form that `linking_metrics` takes.

    Returns:
        (n,) int64 ranks, 0 if the answer is the gold CUI, else -1; and (n,) bool, whether there is an answer.
    """
    is_correct = np.array([answer == cui for answer, cui in zip(answers, gold, strict=True)], dtype=bool)
    answered = np.array([answer is not None for answer in answers], dtype=bool)
    return np.where(is_correct, 0, -1).astype(np.int64), answered


def notes_on_lists(lists: CandidateLists, has_dictionary: bool) -> list[str]:
    """Sentences about baselines that a report on user-provided candidate lists cannot have."""
    notes = ["The retriever alone is the original order of the lists."]
    if lists.scores:
        notes[0] += f" Its confidence is their first score, {next(iter(lists.scores))}_score."
    else:
        notes.append("The lists have no scores, so the confidence of the retriever is unknown.")
    if not has_dictionary:
        notes.append(
            "There is no dictionary: exact match and near misses use only the names in the lists, and every gold "
            "concept counts as in the dictionary."
        )
    if not lists.types.is_known.any():
        notes.append("The mentions have no semantic types, so nothing is measured by type.")
    return notes
