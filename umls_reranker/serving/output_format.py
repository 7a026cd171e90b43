"""What a format of files with ranked mentions is, and what it may need besides the rows."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from ..core.json_files import strict
from ..lists.table import as_text
from ..vocab.concept_codes import ConceptCodes
from ..vocab.concept_columns import ConceptColumns
from .rows import RankedRows

# The beginnings of texts that programs for tables take for formulas.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class FormatSettings:
    """What formats may need besides the rows.

    Attributes:
        codes: the codes of concepts, in the vocabularies that are asked for.
        model: the model that ranked the rows, publishable (`locators.portable_locator`).
        omop_concepts: CONCEPT.csv and CONCEPT_RELATIONSHIP.csv of an OMOP vocabulary.
        only_accepted: whether formats of other tools have only answers that are accepted.
        top: number of candidates of a line; None: as the format has it.
        for_spreadsheet: whether texts that a program for tables would run get an apostrophe.
        concepts: those of the index, whose names tell candidates apart; None: there is none.
    """

    codes: ConceptCodes = field(default_factory=ConceptCodes)
    model: str = ""
    omop_concepts: Sequence[Path] = ()
    only_accepted: bool = True
    top: int | None = None
    for_spreadsheet: bool = False
    concepts: ConceptColumns | None = None


class OutputFormat(ABC):
    """A format of files with ranked mentions, for one output.

    To add one, write a subclass, and a line in `outputs.OUTPUT_FORMATS`.

    Attributes:
        name: its name, for ``--format``.
        endings: endings of files that are in this format, if it is not named.
        help: one line about it.
        beside: ending of a file that belongs to each of its files; "" for none.
        about_beside: what that file has.
        counts: what to say of the written rows.

    Args:
        settings: what it may need besides the rows.
    """

    name: ClassVar[str]
    endings: ClassVar[tuple[str, ...]] = ()
    help: ClassVar[str]
    beside: ClassVar[str] = ""
    about_beside: ClassVar[str] = ""

    def __init__(self, settings: FormatSettings = FormatSettings()) -> None:
        self.settings = settings
        self.counts = Counter[str]()

    @abstractmethod
    def write(self, path: Path, parts: Iterable[RankedRows]) -> None:
        """Write a new file of all rows, whose parts may be iterated over several times."""

    def write_beside(self, path: Path, parts: Iterable[RankedRows]) -> None:
        """Write the file that belongs to that of `write`, before it."""
        raise NotImplementedError

    def codes(self, cui: str | None) -> dict[str, list[str]]:
        """Vocabulary -> the codes of an answer, best first; {} if none are asked for."""
        sources = self.settings.codes.sources
        codes = self.settings.codes.of(cui or "") if sources else ()
        return {
            source: [code.code for code in codes if code.source == source] for source in sources
        }

    def is_used(self, answer: Mapping[str, Any]) -> bool:
        """Whether a format of other tools has an answer (`RankedRows.concepts`)."""
        return bool(
            answer.get("cui") and (answer.get("accepted") or not self.settings.only_accepted)
        )

    def cell(self, value: Any) -> Any:
        """A value for a cell: a program for tables would run a text such as ``=1+1``."""
        is_formula = isinstance(value, str) and value.startswith(FORMULA)
        return f"'{value}" if is_formula and self.settings.for_spreadsheet else value


class LinesFormat(OutputFormat):
    """A format with lines of text for each part."""

    @abstractmethod
    def lines(self, rows: RankedRows) -> Iterable[bytes]:
        """The lines of a part, with their ends."""

    def write(self, path: Path, parts: Iterable[RankedRows]) -> None:
        """Write the lines of all parts."""
        with path.open("wb") as stream:
            for rows in parts:
                stream.writelines(self.lines(rows))


def json_line(value: Any) -> bytes:
    """A value as JSON, without a line break."""
    return json.dumps(strict(value), ensure_ascii=False, default=as_text).encode(
        errors="backslashreplace"
    )
