"""Formats with a row for each string, whatever the number of its mentions."""

from __future__ import annotations

import csv
import io
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from ...calibration.thresholds import TIERS
from ..outputs import OutputFormat, RankedRows


class Answer(NamedTuple):
    """The answer for a mention.

    Attributes:
        mention: the text of the mention.
        cui: id of the top candidate's concept; None if there is none.
        name: its preferred name, if it is known, or its name.
        score: its score; a probability if there is a tier.
        tier: its tier; None if the model is not calibrated for such lists.
        is_accepted: whether it is to be used; True also if the model is not calibrated.
    """

    mention: str
    cui: str | None
    name: str
    score: float
    tier: str | None
    is_accepted: bool


def answers_of(rows: RankedRows) -> list[Answer]:
    """The answers of n rows; those with an error have none."""
    answers = []
    for row, items in zip(rows.mappings(), rows.ranked.to_pylist(), strict=True):
        top: Mapping[str, Any] = items[0] if items else {}
        answer = Answer(
            mention=str(row.get("entity") or row.get("mention") or ""),
            cui=top.get("cui"),
            name=top.get("preferred_name") or top.get("name") or "",
            score=top.get("score", 0.0),
            tier=top.get("tier"),
            is_accepted=top.get("cui") is not None and top.get("accepted") is not False,
        )
        answers.append(answer)
    return answers


@dataclass
class ConceptTally:
    """How often a concept was the answer for a string.

    Attributes:
        name: name of the concept.
        count: number of mentions.
        score_sum: sum of their scores.
        tier: the lowest of their tiers; None if they have none.
    """

    name: str
    count: int = 0
    score_sum: float = 0.0
    tier: str | None = None

    def add(self, answer: Answer) -> None:
        """Count an answer."""
        self.count += 1
        self.score_sum += answer.score
        if answer.tier is not None:
            self.tier = max(self.tier or answer.tier, answer.tier, key=TIERS.index)

    @property
    def score(self) -> float:
        """Mean score of the mentions."""
        return round(self.score_sum / self.count, 6)


@dataclass
class StringTally:
    """The answers for a string: id of a concept -> its count, and the number of all mentions."""

    mentions: int = 0
    concepts: dict[str, ConceptTally] = field(default_factory=dict)

    @property
    def best(self) -> str:
        """The concept that was the answer most often, then with the highest score; "" for none."""
        concepts = self.concepts
        return max(concepts, key=lambda cui: (concepts[cui].count, concepts[cui].score), default="")

    @property
    def comment(self) -> str:
        """For how many mentions this concept was the answer, and for how many which others."""
        best = self.best
        others = [f"{cui} ({tally.count})" for cui, tally in self.concepts.items() if cui != best]
        text = f"{self.concepts[best].count} of {self.mentions} mentions"
        return f"{text}; others: {', '.join(others)}" if others else text


class FormatByString(OutputFormat):
    """A format with a row for each string, written when all mentions are counted.

    Memory holds the distinct strings. Of conflicting answers for a string, the most frequent one
    counts.

    Attributes:
        only_accepted: whether answers that are not accepted are left out.
        strings: string -> its answers, in the order of first mentions.
    """

    only_accepted: ClassVar[bool] = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.strings: dict[str, StringTally] = {}

    def content(self, rows: RankedRows) -> Any:
        return answers_of(rows)

    @contextmanager
    def writing(self, path: Path) -> Iterator[Callable[[list[Answer]], Any]]:
        yield self._add
        self.counts["strings"] = len(self.strings)
        for tally in self.strings.values():
            self.counts["without an answer"] += not tally.concepts
            self.counts["with conflicting answers"] += len(tally.concepts) > 1
        with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
            stream.writelines(self.lines())

    @abstractmethod
    def lines(self) -> Iterator[str]:
        """Yield the lines of the file, with their ends."""

    def _add(self, answers: list[Answer]) -> None:
        for answer in answers:
            if not answer.mention:
                continue
            tally = self.strings.setdefault(answer.mention, StringTally())
            tally.mentions += 1
            if answer.cui is not None and (answer.is_accepted or not self.only_accepted):
                concept = tally.concepts.setdefault(answer.cui, ConceptTally(answer.name))
                concept.add(answer)


def cells(values: Iterable[object], delimiter: str = ",") -> str:
    """A line of a table."""
    line = io.StringIO()
    csv.writer(line, delimiter=delimiter, lineterminator="\n").writerow(values)
    return line.getvalue()
