"""Baselines: simple systems on the same candidate lists.

Each gives one answer per mention: a CUI, or None for no answer.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..data.normalization import normalize_name

if TYPE_CHECKING:
    from ..data.candidate_lists import CandidateLists

__all__ = ["StringFrequency", "answer_ranks", "baseline_answers", "exact_match", "notes_on_lists", "retriever"]

Answers = list[str | None]


class StringFrequency:
    """Remembers the most frequent concept of each string in the training split.

    Strings are compared normalized (`normalize_name`); among equally frequent concepts the smaller CUI wins.
    """

    def __init__(self) -> None:
        self._best: dict[str, str] = {}

    @classmethod
    def fit(cls, mentions: Iterable[tuple[str, str]]) -> StringFrequency:
        """Count (mention text, gold CUI) pairs of the training split."""
        counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for text, cui in mentions:
            counts[normalize_name(text)][cui] += 1
        fitted = cls()
        fitted._best = {
            string: min(seen.items(), key=lambda item: (-item[1], item[0]))[0] for string, seen in counts.items()
        }
        return fitted

    def __len__(self) -> int:
        """Number of distinct strings seen."""
        return len(self._best)

    def predict(self, mentions: Sequence[str]) -> Answers:
        """The most frequent CUI of each string, None for unseen strings."""
        return [self._best.get(normalize_name(mention)) for mention in mentions]


def retriever(cuis: Sequence[Sequence[str]]) -> Answers:
    """The first retrieved candidate, None for an empty list."""
    return [candidates[0] if len(candidates) else None for candidates in cuis]


def exact_match(
    mentions: Sequence[str], cuis: Sequence[Sequence[str]], names_of: Callable[[str], Iterable[str]]
) -> Answers:
    """The first candidate with the mention as a name (both normalized), or None.

    Args:
        mentions: (n,) mention texts.
        cuis: (n,) candidate lists in retrieval order.
        names_of: all names of a CUI; called once per CUI.
    """
    known: dict[str, frozenset[str]] = {}
    answers: Answers = []
    for mention, candidates in zip(mentions, cuis, strict=True):
        wanted = normalize_name(mention)
        answer = None
        for cui in candidates:
            if cui not in known:
                known[cui] = frozenset(map(normalize_name, names_of(cui)))
            if wanted in known[cui]:
                answer = cui
                break
        answers.append(answer)
    return answers


def baseline_answers(
    mentions: Sequence[str],
    cuis: Sequence[Sequence[str]],
    names_of: Callable[[str], Iterable[str]],
    frequency: StringFrequency,
) -> dict[str, Answers]:
    """Answers of all baselines by name.

    Returns:
        ``retriever``, ``exact_match``, ``most_frequent_cui`` (no answer for unseen strings) and
        ``most_frequent_cui_else_retriever``, the strongest: it knows the corpus and always answers.
    """
    first = retriever(cuis)
    frequent = frequency.predict(mentions)
    return {
        "retriever": first,
        "exact_match": exact_match(mentions, cuis, names_of),
        "most_frequent_cui": frequent,
        "most_frequent_cui_else_retriever": [
            known if known is not None else fallback for known, fallback in zip(frequent, first, strict=True)
        ],
    }


def answer_ranks(answers: Answers, gold: Sequence[str] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Answers in the form that `linking_metrics` takes.

    Returns:
        ((n,) int64 ranks: 0 where the answer is the gold CUI, -1 elsewhere; (n,) bool whether there is an answer)
    """
    right = np.array([answer == cui for answer, cui in zip(answers, gold, strict=True)], dtype=bool)
    answered = np.array([answer is not None for answer in answers], dtype=bool)
    return np.where(right, 0, -1).astype(np.int64), answered


def notes_on_lists(lists: CandidateLists, has_dictionary: bool) -> list[str]:
    """Sentences about what a report on given candidate lists cannot compare with."""
    notes = ["The retriever alone is the order in which the lists came."]
    if lists.scores:
        notes[0] += f" Its confidence is their first score, {next(iter(lists.scores))}_score."
    else:
        notes.append("The lists carry no scores, so nothing is known of the confidence of the retriever.")
    if not has_dictionary:
        notes.append(
            "There is no dictionary: exact match knows only names in the lists, near misses only names that concepts "
            "share there, and every right concept counts as one that could be found."
        )
    if not lists.types.is_known.any():
        notes.append("The mentions came without semantic types, so nothing is measured by type.")
    return notes
