"""Answers of reviewers, from sheets with a line for each term, and the rows that they answer.

A sheet has ``mention``, ``choice`` or ``gold_cui`` (`choices.gold_of_line`; blank: nobody
answered), and optionally ``doc_id``, ``mention_id``, ``source_code``, ``left``, ``right``,
``reviewer``, ``reviewed_on``.
"""

from __future__ import annotations

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


class _Context(NamedTuple):
    """The text around a mention, without blanks, which programs for tables may change.

    Attributes:
        left: the text before it.
        right: the text after it.
        document: the text of its document, where left and right are not known.
    """

    left: str
    right: str
    document: str

    @classmethod
    def of(cls, row: Mapping[str, Any], document: object = None) -> _Context:
        """The context that a row has, or the text of its document."""
        document = row.get("document") or row.get("text") or document
        texts = (row.get("left"), row.get("right"), document)
        return cls(*("".join(str(text or "").split()) for text in texts))

    @property
    def sides(self) -> tuple[str, str]:
        """The texts before and after the mention."""
        return self.left, self.right

    def is_that_of(self, other: _Context, mention: str) -> bool:
        """Whether a mention has the same context in two places."""
        if any(self.sides) and any(other.sides):
            return self.sides == other.sides
        if self.document and other.document:
            return self.document == other.document
        whole = self.document or other.document
        if not whole:
            return self.sides == other.sides
        sides = self if any(self.sides) else other
        around = "".join([sides.left, *mention.split(), sides.right])
        return any(sides.sides) and around in whole


class _Line(NamedTuple):
    """A line of a sheet.

    Attributes:
        ids: those of its document and mention.
        context: the text around its mention.
        answer: what it says.
    """

    ids: tuple[str | None, str | None]
    context: _Context
    answer: Answer


class Answers:
    """Answers by the ids of document and mention where the text agrees, or else by the text.

    So they outlive that a file is cleaned, sorted or widened. By its text a mention is found where
    the text around it is the same, too, or both have none, and no two mentions with this text have
    different answers. Of several sheets that answer a mention, the one that was named last decides.

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
        self._of_text: defaultdict[tuple[str, str], list[_Line]] = defaultdict(list)
        self.given: list[Answer] = []
        for row, answer in answers:
            if answer.gold is not None:
                self.given.append(answer)
            line = _Line(_mention_key(row, answer.term), _Context.of(row), answer)
            for code in (answer.term.code, *answer.other_codes):
                self._of_text[_key(answer.term._replace(code=code))].append(line)
            if line.ids[1] is not None:
                self._of_mention[line.ids].append(answer)
                _one(self._of_mention[line.ids])

    @property
    def count(self) -> int:
        """Number of lines with an answer, those of several sheets to one mention counted once."""
        return len(self.given) - sum(len(sheets) - 1 for sheets in self._of_several_sheets())

    def agreement(self) -> Iterator[str]:
        """How far sheets agree that answer the same mentions, and where they do not."""
        return said_of_sheets(list(self._of_several_sheets()))

    def _of_several_sheets(self) -> Iterator[dict[Path, Answer]]:
        """Of each mention or term that several sheets answer, the answer of each."""
        # Lines with no mention_id are about every mention of their term.
        of_terms = (
            [line.answer for line in lines if line.ids[1] is None and not any(line.context)]
            for lines in self._of_text.values()
        )
        for answers in (*self._of_mention.values(), *of_terms):
            of_sheets = {}
            for answer in answers:
                if answer.gold is not None:
                    of_sheets[_sheet_of(answer)] = answer
            if len(of_sheets) > 1:
                yield of_sheets

    def of(self, row: Mapping[str, Any], context: object = None) -> Answer | None:
        """The answer to a row, if there is one.

        Args:
            row: the row.
            context: the text of its document, if that is not in the row.

        Raises:
            UserError: two answers of a sheet to its term differ; names both lines.
        """
        term = term_of(row)
        own = [
            answer
            for answer in self._of_mention.get(_mention_key(row, term), ())
            if _key(answer.term)[0] == _key(term)[0]
        ]
        if own:
            return _one(own)
        own_context = _Context.of(row, context)
        of_ids: defaultdict[tuple[str | None, str | None], list[Answer]] = defaultdict(list)
        for line in self._of_text.get(_key(term), ()):
            if line.context.is_that_of(own_context, term.text):
                of_ids[line.ids].append(line.answer)
        if not of_ids:
            return None
        of_mentions = [_one(answers) for answers in of_ids.values()]
        golds = {gold_parts(answer.gold) for answer in of_mentions if answer.gold is not None}
        if len(golds) > 1 and all(mention_id is not None for _, mention_id in of_ids):
            return None
        return _one(of_mentions)

    def of_former_text(self, row: Mapping[str, Any]) -> Answer | None:
        """The answer to the mention_id of a row when it had another text, if there is one."""
        term = term_of(row)
        for answer in self._of_mention.get(_mention_key(row, term), ()):
            if answer.gold is not None and _key(answer.term)[0] != _key(term)[0]:
                return answer
        return None


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

    Left out, with a warning, are rows that have none: nothing is known about them. So is a row
    whose mention_id was answered when it had another text. The gold concept of a row whose line in
    the sheet is blank does not count. Where a reviewer only said that a candidate is wrong, no
    candidate counts as correct: to leave the row out would leave out an error. The same holds for a
    row that was drawn before the last one with an answer, and passed over.

    Raises:
        UserError: as `Answers.of`; or no row has an answer.
    """
    content = rows.mappings()
    places = list(map(str, rows.positions))
    retained = []
    matched = 0
    without_correct = 0
    for number, (row, position) in enumerate(zip(content, rows.positions, strict=True)):
        answer = answers.of(row)
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
    _warn_of_changed(rows, answers)
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


def _warn_of_changed(rows: Rows, answers: Answers) -> None:
    """Name the rows without an answer whose mention_id was answered when it had another text."""
    changed = []
    for row, position in zip(rows.mappings(), rows.positions, strict=True):
        former = answers.of_former_text(row)
        if former is not None and answers.of(row) is None:
            texts = f"now {term_of(row).text!r}, {former.term.text!r} in {former.position}"
            changed.append(f"{position} ({texts})")
    if changed:
        warn_caller(
            f"the text of {len(changed):,} rows is no longer the one that was answered; they have "
            f"no answer until it is given again: {', '.join(changed[:MOST_NAMED])}"
        )


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
