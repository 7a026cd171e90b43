"""Formats with a row for each string, whatever the number of its mentions."""

from __future__ import annotations

import csv
import io
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

from ...calibration.thresholds import TIERS
from ..parts import OutputFormat, RankedRows

Answer = Mapping[str, Any]


def answers_of(rows: RankedRows) -> Iterator[Answer]:
    """The answers of n rows, with keys of `parts.ANSWER_TYPES`, and ``mention``."""
    for row, answer in zip(rows.mappings(), rows.answers(), strict=True):
        yield answer | {"mention": str(row.get("entity") or row.get("mention") or "")}


def is_used(answer: Answer) -> bool:
    """Whether there is an answer, and it is accepted, or the model is not calibrated."""
    return answer["answer"] is not None and answer["accepted"] is not False


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
        self.score_sum += answer["answer_score"]
        tiers = [tier for tier in (self.tier, answer["tier"]) if tier is not None]
        self.tier = max(tiers, key=TIERS.index, default=None)

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

    def write(self, path: Path, parts: Iterable[RankedRows]) -> None:
        """Count all answers, then write the lines of the strings."""
        for answer in chain.from_iterable(map(answers_of, parts)):
            tally = self.strings.setdefault(answer["mention"], StringTally())
            tally.mentions += 1
            if is_used(answer) or (answer["answer"] and not self.only_accepted):
                name = answer["answer_name"] or ""
                tally.concepts.setdefault(answer["answer"], ConceptTally(name)).add(answer)
        # What no text could be read of.
        self.strings.pop("", None)
        self.counts["strings"] = len(self.strings)
        for tally in self.strings.values():
            self.counts["without an answer"] += not tally.concepts
            self.counts["with conflicting answers"] += len(tally.concepts) > 1
        with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
            stream.writelines(self.lines())

    @abstractmethod
    def lines(self) -> Iterator[str]:
        """Yield the lines of the file, with their ends."""


def cells(values: Iterable[object], delimiter: str = ",") -> str:
    """A line of a table."""
    line = io.StringIO()
    # The writer quotes carriage returns and line feeds only if its own lines end in them.
    csv.writer(line, delimiter=delimiter, lineterminator="\r\n").writerow(values)
    return line.getvalue().removesuffix("\r\n") + "\n"
