"""Answers of reviewers, from sheets with a line for each term, and the rows that they answer.

A sheet has ``mention``, ``choice`` or ``gold_cui`` (`choices.gold_of_line`; blank: nobody
answered), and optionally ``doc_id``, ``mention_id``, ``source_code``, ``left``, ``right``,
``reviewer``, ``reviewed_on``.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from ..core.errors import UserError, warn_caller
from .agreement import said_of_sheets
from .candidates import concept_id
from .choices import ANSWER, CHOICE, gold_of_line
from .gold import CUI_LESS, GOLD_KEYS, gold_parts, id_text
from .rows import Rows
from .sheets import sheet_rows
from .table import table_of_mappings

# The most lines that a message about several names.
MOST_NAMED = 10
# Keys of a term's own code, and its vocabulary, and how often it occurs: ours, and others'.
SOURCE_CODE = ("source_code", "sourceCode")
SOURCE_VOCABULARY = ("source_vocabulary", "source_vocabulary_id")
FREQUENCY = ("frequency", "sourceFrequency")
# Key of a drawn row: its number in the drawn order, from 1.
SAMPLE_POSITION = "sample_position"


class Term(NamedTuple):
    """A mention as its source knows it: the text, and "" where there is no code or vocabulary."""

    text: str
    code: str = ""
    vocabulary: str = ""


def term_of(row: Mapping[str, Any]) -> Term:
    """The term of a row of a mention."""
    return Term(
        str(row.get("mention") or row.get("entity") or ""),
        first_of(row, SOURCE_CODE),
        first_of(row, SOURCE_VOCABULARY),
    )


def first_of(row: Mapping[str, Any], keys: Sequence[str]) -> str:
    """The value of the first of some keys that a row has, as `gold.id_text`, or ""."""
    texts = (id_text(row.get(key)) for key in keys)
    return next(filter(None, texts), "")


class Answer(NamedTuple):
    """What a reviewer answered.

    Attributes:
        position: the line of the sheet, for messages.
        term: the term that was reviewed.
        gold: the gold concept (`gold.gold_parts`); None: the reviewer left it open.
        reviewer: who answered; "" if the sheet does not say.
        reviewed_on: the day, as 2026-12-31; "" if the sheet does not say.
        comment: the reviewer's; may be "".
        targets: the standard concepts of OMOP that were approved; of sheets of Usagi alone.
        ruled_out: ids that the reviewer found to be wrong, in all their forms; of SSSOM alone.
        other_codes: the term's code in other forms.
    """

    position: Any
    term: Term
    gold: Any
    reviewer: str = ""
    reviewed_on: str = ""
    comment: str = ""
    targets: tuple[str, ...] = ()
    ruled_out: tuple[str, ...] = ()
    other_codes: tuple[str, ...] = ()


class Answers:
    """Answers by the ids of document and mention, and those without context also by the term.

    Of several sheets that answer a mention, the one that was named last decides.

    Args:
        answers: each with the row of its sheet, sheet by sheet.

    Attributes:
        given: the answers that are not open.

    Raises:
        UserError: two answers of one sheet to one mention_id differ; names both lines.
    """

    def __init__(self, answers: Iterable[tuple[Mapping[str, Any], Answer]]) -> None:
        self._of_mention: defaultdict[tuple[str | None, str | None], list[Answer]]
        self._of_mention = defaultdict(list)
        self._of_term: defaultdict[tuple[str, str], list[Answer]] = defaultdict(list)
        # Those to no mention_id, which are about every mention of their term.
        self._of_term_alone: defaultdict[tuple[str, str], list[Answer]] = defaultdict(list)
        self.given: list[Answer] = []
        for row, answer in answers:
            if answer.gold is not None:
                self.given.append(answer)
            key = _mention_key(row, answer.term)
            if not has_context(row):
                for code in (answer.term.code, *answer.other_codes):
                    term = _key(answer.term._replace(code=code))
                    self._of_term[term].append(answer)
                    if key[1] is None:
                        self._of_term_alone[term].append(answer)
            if key[1] is not None:
                self._of_mention[key].append(answer)
                _one(self._of_mention[key])

    @property
    def count(self) -> int:
        """Number of lines with an answer, those of several sheets to one mention counted once."""
        return len(self.given) - sum(len(sheets) - 1 for sheets in self._of_several_sheets())

    def agreement(self) -> Iterator[str]:
        """How far sheets agree that answer the same mentions, and where they do not."""
        return said_of_sheets(list(self._of_several_sheets()))

    def _of_several_sheets(self) -> Iterator[dict[Path, Answer]]:
        """Of each mention or term that several sheets answer, the answer of each."""
        for answers in (*self._of_mention.values(), *self._of_term_alone.values()):
            of_sheets = {}
            for answer in answers:
                if answer.gold is not None:
                    of_sheets[_sheet_of(answer)] = answer
            if len(of_sheets) > 1:
                yield of_sheets

    def of(self, row: Mapping[str, Any], position: Any, context: object = None) -> Answer | None:
        """The answer to a row: of its mention_id, or of its term where it has no context.

        Args:
            row: the row.
            position: where it is, for messages.
            context: the text of its document, if that is not in the row.

        Raises:
            UserError: the answer of its mention_id is about another text, or two answers of a
                sheet to its term differ; names both places.
        """
        term = term_of(row)
        answers = self._of_mention.get(_mention_key(row, term), ())
        for answer in answers:
            if _key(answer.term)[0] != _key(term)[0]:
                raise UserError(
                    f"{position}: the text of this mention_id is {term.text!r}, but in "
                    f"{answer.position} {answer.term.text!r} was reviewed; take that line out, or "
                    "give the changed mention another id"
                )
        if answers:
            return _one(answers)
        if context or has_context(row) or _key(term) not in self._of_term:
            return None
        return _one(self._of_term[_key(term)])


def has_context(row: Mapping[str, Any]) -> bool:
    """Whether the meaning of a row's mention may depend on the text around it."""
    return any(row.get(key) for key in ("document", "text", "left", "right"))


def _mention_key(row: Mapping[str, Any], term: Term) -> tuple[str | None, str | None]:
    """The ids of document and mention; a term that is its own document has none."""
    document = id_text(row.get("doc_id"))
    if document == term.text:
        document = None
    return document, id_text(row.get("mention_id"))


def _key(term: Term) -> tuple[str, str]:
    """The same for what programs for tables write: apostrophes, and other breaks of lines."""
    return " ".join(term.text.removeprefix("'").split()), term.code


def _sheet_of(answer: Answer) -> Path:
    """The file of an answer."""
    return answer.position.path


def _one(answers: Sequence[Answer]) -> Answer:
    """The answer that counts: of the last sheet; those that are open say at most what is wrong."""
    closed = [answer for answer in answers if answer.gold is not None] or answers
    of_sheets: dict[Path, Answer] = {}
    for other in closed:
        first = of_sheets.setdefault(_sheet_of(other), other)
        if gold_parts(other.gold) != gold_parts(first.gold):
            raise UserError(
                f"{other.position}: {other.term.text!r} is {other.gold}, but {first.gold} in "
                f"{first.position}; let one of the two lines stand"
            )
    last = list(of_sheets.values())[-1]
    ruled_out: list[str] = []
    for other in answers:
        ruled_out += other.ruled_out
        if _are_ruled_out(last.gold, other.ruled_out):
            raise UserError(
                f"{other.position}: {other.term.text!r} is not {last.gold}, but is it in "
                f"{last.position}; let one of the two lines stand"
            )
    return last._replace(ruled_out=tuple(dict.fromkeys(ruled_out)))


def _are_ruled_out(gold: Any, ruled_out: Sequence[str]) -> bool:
    """Whether an id of the gold concept is wrong."""
    return any(not {*ids}.isdisjoint(ruled_out) for ids in gold_parts(gold) or ())


def refuse_ids(faults: Sequence[str]) -> None:
    """Refuse gold concepts that are none, if there are any faults, each with its place."""
    if not faults:
        return
    named = "; ".join(faults[:MOST_NAMED])
    more = f"; and {len(faults) - MOST_NAMED:,} more" if len(faults) > MOST_NAMED else ""
    raise UserError(f"{named}{more}; correct them, or write {CUI_LESS} where there is none")


def read_sheet(path: Path) -> Iterator[tuple[dict[str, str], Answer]]:
    """Yield the lines of a sheet of reviewed terms, and their answers.

    Raises:
        UserError: the file cannot be read, or a cell is no answer or no day; names the line.
    """
    for position, cells in sheet_rows(path, (CHOICE, ANSWER), ("mention", "entity")):
        yield cells, answer_of_cells(position, cells, gold_of_line(position, cells))


def answer_of_cells(position: Any, cells: Mapping[str, str], gold: Any) -> Answer:
    """The answer in a line of a sheet.

    Args:
        position: the line.
        cells: its cells, which may have ``reviewer``, ``reviewed_on`` and ``comment``.
        gold: as of `Answer`.

    Raises:
        UserError: ``reviewed_on`` is no day; names the line.
    """
    day = cells.get("reviewed_on", "")
    try:
        day = day and date.fromisoformat(day[:10]).isoformat()
    except ValueError:
        raise UserError(
            f"{position}: reviewed_on is {day!r}; write the day as 2026-12-31"
        ) from None
    return Answer(
        position,
        term_of(cells),
        gold,
        reviewer=cells.get("reviewer", ""),
        reviewed_on=day,
        comment=cells.get("comment", ""),
    )


def answered(rows: Rows, answers: Answers) -> tuple[Rows, list[str]]:
    """The rows of lists with the gold concepts that reviewers gave them, and the place of each.

    Left out, with a warning, are rows that have none: nothing is known about them. That of a row
    whose line in the sheet is blank does not count. Where a reviewer only said that a candidate is
    wrong, no candidate counts as correct: to leave the row out would leave out an error. The same
    holds for a row that was drawn before the last one with an answer, and passed over.

    Raises:
        UserError: as `Answers.of`; or no row has an answer.
    """
    content = rows.mappings()
    places = list(map(str, rows.positions))
    retained = []
    matched = 0
    without_correct = 0
    for number, (row, position) in enumerate(zip(content, rows.positions, strict=True)):
        answer = answers.of(row, position)
        if answer is not None:
            content[number] = {key: row[key] for key in row if key not in GOLD_KEYS}
            content[number]["cui"] = answer.gold
            matched += answer.gold is not None
            if answer.gold is None and _has_candidate(row, answer.ruled_out):
                content[number]["cui"] = CUI_LESS
                without_correct += 1
            places[number] = f"{answer.position} (the answer to {position})"
        if any(content[number].get(key) is not None for key in GOLD_KEYS):
            retained.append(number)
    if not matched:
        raise UserError("no row of the lists has an answer in the sheets; give those of one file")
    if without_correct:
        warn_caller(
            f"of {without_correct:,} rows the sheets only say which candidate is wrong: none "
            "counts as correct there, whatever the model answers"
        )
    passed_over = _passed_over(content, retained)
    for number in passed_over:
        content[number] = {**content[number], "cui": CUI_LESS}
    retained = sorted([*retained, *passed_over])
    _warn_of_passed_over([places[number] for number in passed_over])
    if matched < answers.count:
        warn_caller(f"{answers.count - matched:,} answers of the sheets are to no row of the lists")
    if len(retained) < len(content):
        warn_caller(
            f"{len(content) - len(retained):,} of {len(content):,} rows have no answer and are "
            "left out; figures and certificates hold for mentions like those with one"
        )
    positions = [rows.positions[at] for at in retained]
    answered_rows = table_of_mappings([content[at] for at in retained])
    return Rows(positions, answered_rows), [places[at] for at in retained]


def _passed_over(rows: Sequence[Mapping[str, Any]], retained: Sequence[int]) -> list[int]:
    """The numbers of drawn rows without an answer, before the last with one in the drawn order."""
    positions = {}
    for number, row in enumerate(rows):
        position = row.get(SAMPLE_POSITION)
        if isinstance(position, int) and row.get("is_random_sample") is not False:
            positions[number] = position
    last = max((positions[number] for number in retained if number in positions), default=0)
    left_open = positions.keys() - {*retained}
    return sorted(number for number in left_open if positions[number] < last)


def _warn_of_passed_over(places: Sequence[str]) -> None:
    """Name the rows that count as incorrect because they were passed over."""
    if places:
        warn_caller(
            f"{len(places):,} drawn rows before the last answered one were left open; they count "
            f"as incorrect: {', '.join(places[:MOST_NAMED])}"
        )


def _has_candidate(row: Mapping[str, Any], ids: Sequence[str]) -> bool:
    """Whether any of the ids is that of a candidate of a row."""
    candidates = row.get("candidates") or ()
    return any(isinstance(item, dict) and concept_id(item) in ids for item in candidates)
