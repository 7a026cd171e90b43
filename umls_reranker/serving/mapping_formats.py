"""What formats of other tools have in common: they hold what is accepted or reviewed."""

import csv
import io
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from ..lists.answers import FREQUENCY, Term, first_of, term_of
from ..lists.table import REVIEWED
from .output_format import OutputFormat
from .review_sheet import ReviewSheet
from .rows import RankedRows
from .term_tallies import ConceptTally, StringTally

# The name of this package in files of other tools.
TOOL = "umls_reranker"


class Mappings(OutputFormat):
    """A format of what is accepted or reviewed; a sheet of the rest lies beside it."""

    beside = ".candidates.csv"
    about_beside = "what is not accepted, to be reviewed"

    def write_beside(self, path: Path, parts: Iterable[RankedRows]) -> None:
        """Write the sheet."""
        sheet = ReviewSheet(self.settings)
        sheet.only_open = True
        sheet.write(path, parts)


class FormatByString(Mappings):
    """A format with a row for each term: string and source code. All mentions are counted first.

    Memory holds the distinct terms. Of conflicting answers for a term, the most frequent one
    counts, but a reviewer's before all.

    Attributes:
        has_further: whether as many concepts of a mention count as the settings say, not one.
        strings: term -> its answers, in the order of first mentions.
    """

    has_further: ClassVar[bool] = False

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.strings: dict[Term, StringTally] = {}

    def write(self, path: Path, parts: Iterable[RankedRows]) -> None:
        """Count all answers, then write the lines of the strings."""
        concepts_of_mention = 1
        if self.has_further and self.settings.top:
            concepts_of_mention = self.settings.top
        for rows in parts:
            answers_of_rows = rows.concepts(concepts_of_mention)
            for row, answers in zip(rows.mappings(), answers_of_rows, strict=True):
                self._count(row, answers)
        # A row whose text could not be read has none.
        self.strings = {term: tally for term, tally in self.strings.items() if term.text}
        tallies = self.strings.values()
        self.counts.update(
            {
                "strings": len(tallies),
                "without an answer": sum(not tally.concepts for tally in tallies),
                "with conflicting answers": sum(tally.has_conflict for tally in tallies),
            }
        )
        with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
            stream.writelines(self.lines())

    def _count(self, row: Mapping[str, Any], answers: Sequence[Mapping[str, Any]]) -> None:
        """Count a mention and its answers, the first of them first."""
        tally = self.strings.setdefault(term_of(row), StringTally())
        is_reviewed = bool(row.get(REVIEWED))
        if is_reviewed and not tally.reviewed:
            tally.reviewed = row
            # What the model answered for earlier mentions does not count any more.
            tally.concepts.clear()
        tally.mentions += 1
        tally.frequency += int(first_of(row, FREQUENCY) or 1)
        if is_reviewed != bool(tally.reviewed):
            return
        for rank, answer in enumerate(answers):
            if self.is_used(answer):
                name = answer["name"] or ""
                concept = tally.concepts.setdefault(answer["cui"], ConceptTally(name))
                concept.add(answer, is_first=rank == 0)

    @abstractmethod
    def lines(self) -> Iterator[str]:
        """Yield the lines of the file, with their ends."""


def table_line(values: Iterable[object], delimiter: str = ",") -> str:
    """A line of a table."""
    line = io.StringIO()
    # The writer quotes carriage returns and line feeds only if its own lines end in them.
    csv.writer(line, delimiter=delimiter, lineterminator="\r\n").writerow(values)
    return line.getvalue().removesuffix("\r\n") + "\n"
