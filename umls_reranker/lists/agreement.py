"""How far the sheets of several reviewers agree, and which of their answers count."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from .gold import CUI_LESS, gold_parts

# Of one mention: sheet -> the answer in it.
BySheet = Mapping[Path, Any]
# The concept that an answer gives, as `_concept`, and two of them.
Concept = frozenset[Any]
TwoConcepts = tuple[Concept, Concept]


class Agreement(NamedTuple):
    """How far two sheets agree.

    Attributes:
        sheets: the two, as they were named.
        both: number of mentions that both answer.
        agree: of these, with the same answer.
        kappa: Cohen's, over concepts; None if both answer all mentions with one concept.
    """

    sheets: tuple[Path, Path]
    both: int
    agree: int
    kappa: float | None

    def __str__(self) -> str:
        first, second = self.sheets
        kappa = "" if self.kappa is None else f", kappa {self.kappa:.2f}"
        return f"{first} and {second}: {self.agree:,} of {self.both:,} agree{kappa}"


def said_of_sheets(mentions: Sequence[BySheet]) -> Iterator[str]:
    """How far each two sheets agree, and then all differences, with the answer that counts.

    A sheet that is named last and only answers what others answered differently is one of
    adjudicated mentions: it decides, and is compared with none.

    Args:
        mentions: mentions that several sheets answer; sheets in the order in which they were named.
    """
    adjudicated = _adjudicated(mentions)
    pairs: dict[tuple[Path, Path], list[TwoConcepts]] = {}
    for answers in mentions:
        for first, second in combinations(answers, 2):
            if adjudicated not in (first, second):
                both = (_concept(answers[first]), _concept(answers[second]))
                pairs.setdefault((first, second), []).append(both)
    for sheets, golds in pairs.items():
        yield str(agreement(sheets, golds))
    for answers in mentions:
        if len(set(map(_concept, answers.values()))) > 1:
            yield _difference(list(answers.values()))


def agreement(sheets: tuple[Path, Path], golds: Sequence[TwoConcepts]) -> Agreement:
    """The agreement of two sheets, by the two answers to each of n mentions."""
    agree = sum(first == second for first, second in golds)
    share = agree / len(golds)
    first_counts = Counter(first for first, _ in golds)
    second_counts = Counter(second for _, second in golds)
    by_chance = sum(count * second_counts[gold] for gold, count in first_counts.items())
    expected = by_chance / len(golds) ** 2
    kappa = None
    if expected < 1.0:
        kappa = (share - expected) / (1.0 - expected)
    return Agreement(sheets, len(golds), agree, kappa)


def _adjudicated(mentions: Sequence[BySheet]) -> Path | None:
    """The sheet of adjudicated mentions, if there is one."""
    sheets = list(dict.fromkeys(sheet for answers in mentions for sheet in answers))
    if len(sheets) < 3:
        return None
    # Each mention has its sheets in the order in which they were named.
    last_sheets = {list(answers)[-1] for answers in mentions if len(answers) > 2}
    if len(last_sheets) != 1:
        return None
    (last,) = last_sheets
    for answers in mentions:
        if last in answers:
            others = {_concept(answer) for sheet, answer in answers.items() if sheet != last}
            if len(others) < 2:
                return None
    return last


def _concept(answer: Any) -> Concept:
    """An answer's concept, equal where the ids are."""
    return frozenset(map(frozenset, gold_parts(answer.gold) or ()))


def _difference(answers: Sequence[Any]) -> str:
    """What several reviewers answered to a mention; the last counts."""
    *others, last = answers
    golds = [f"{_named(answer)} in {answer.position}" for answer in others]
    return f"{last.position}: {last.term.text!r} is {_named(last)}, not {', '.join(golds)}"


def _named(answer: Any) -> str:
    ids = [cui for part in gold_parts(answer.gold) or () for cui in part]
    return "|".join(ids) or CUI_LESS
