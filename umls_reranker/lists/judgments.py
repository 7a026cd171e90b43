"""Answers of reviewers in files of other programs: of OpenRefine, and in SSSOM.

OpenRefine exports a CSV in which a matched cell has the name of its concept. So a column says what
was judged, by whom or what, and of which text; `EXPRESSION` makes it.

In SSSOM (https://mapping-commons.github.io/sssom) a curator's decision is a row with the
justification ``semapv:ManualMappingCuration``, as sssom-curator and biomappings write it: an exact
match is an answer, and with the modifier ``Not`` it rules a concept out. Other rows say nothing.
"""

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from ..core.errors import UserError
from ..core.text_files import read_table
from ..vocab.code_systems import LOCAL, code_of, code_system_of
from .answers import Answer, answer_of_cells
from .cells import gold_of_cell
from .choices import gold_of_line
from .gold import CUI_LESS, gold_parts
from .reading_errors import naming
from .rows import RowPosition
from .sheets import DELIMITERS, sheet_rows

# The column of OpenRefine, its expression in GREL, and what separates its parts.
OPENREFINE = "openrefine"
EXPRESSION = (
    '[cell.recon.judgment, cell.recon.judgmentAction, cell.recon.match.id, value].join(" | ")'
)
SEPARATOR = " | "
# What a service matched without a person.
AUTOMATIC = "auto"
SSSOM_COLUMNS = {"subject_label", "predicate_id", "object_id", "mapping_justification"}
MANUAL = "semapv:ManualMappingCuration"
EXACT = ("skos:exactMatch", "owl:equivalentClass", "owl:sameAs")
NOT = "Not"
NO_TERM = "sssom:NoTermFound"
COMMENT = "#"


def read_judgments(path: Path) -> Iterator[tuple[Mapping[str, str], Answer]] | None:
    """The rows of a file of OpenRefine or in SSSOM, and their answers; None: it is another file.

    Errors are raised while it is read, and name the line.

    Raises:
        UserError: a row says nothing that these programs write, or two contradict each other.
    """
    columns = _columns(path)
    if OPENREFINE in columns:
        return _of_openrefine(path)
    if SSSOM_COLUMNS.issubset(columns):
        return _of_sssom(path)
    return None


def _columns(path: Path) -> list[str]:
    """The columns of a table, below comments; [] of what is none."""
    if path.suffix not in DELIMITERS or not path.is_file():
        return []
    with path.open(encoding="utf-8-sig", errors="replace") as stream:
        header = next((line for line in stream if not line.startswith(COMMENT)), "")
    delimiter = max(";", DELIMITERS[path.suffix], key=header.count)
    return next(csv.reader([header], delimiter=delimiter), [])


class Judgment(NamedTuple):
    """A cell of the column of OpenRefine.

    Attributes:
        text: the text that was judged.
        cui: the matched concept; `CUI_LESS` for a new one, "" if nobody matched any.
    """

    text: str
    cui: str


def _of_openrefine(path: Path) -> Iterator[tuple[Mapping[str, str], Answer]]:
    for position, cells in sheet_rows(path, (OPENREFINE,)):
        judgment = _judgment(cells[OPENREFINE])
        if judgment is None:
            raise UserError(
                f"{position}: {OPENREFINE} is {cells[OPENREFINE]!r:.80}; make this column in "
                "OpenRefine by Edit column, Add column based on this column, with the expression "
                f"{EXPRESSION}"
            )
        gold = gold_of_cell(position, OPENREFINE, judgment.cui) or None
        written = gold_of_line(position, cells)
        if None not in (gold, written) and gold_parts(gold) != gold_parts(written):
            raise UserError(
                f"{position}: {OPENREFINE} says {gold}, but the sheet {written}; let one of the "
                "two stand"
            )
        # The column that was judged may have the name of the concept.
        row = cells | {"mention": judgment.text or cells.get("mention", "")}
        yield row, answer_of_cells(position, row, gold or written)


def _judgment(cell: str) -> Judgment | None:
    """What a cell of `EXPRESSION` says; None: it is none."""
    if not cell:
        return Judgment("", "")
    judgment, _, rest = cell.partition(SEPARATOR)
    action, _, text = rest.partition(SEPARATOR)
    cui = ""
    if judgment == "matched":
        cui, _, text = text.partition(SEPARATOR)
        if not cui.strip():
            return None
    elif judgment == "new":
        cui = CUI_LESS
    elif judgment != "none":
        return None
    if not text:
        return None
    if action == AUTOMATIC:
        # What the model says is no answer to it.
        cui = ""
    return Judgment(text, cui)


def _of_sssom(path: Path) -> Iterator[tuple[Mapping[str, str], Answer]]:
    """What was ruled out, row by row; and then the answer about each subject.

    A subject may have an exact match in each of several vocabularies: any of them is right.
    """
    matched: dict[tuple[str, str], tuple[Mapping[str, str], Answer]] = {}
    for position, cells in _sssom_rows(path):
        if cells["mapping_justification"] != MANUAL or cells["predicate_id"] not in EXACT:
            continue
        modifier = cells.get("predicate_modifier", "")
        target = cells["object_id"]
        if modifier not in ("", NOT):
            raise UserError(
                f"{position}: predicate_modifier is {modifier!r}; it is {NOT}, or blank"
            )
        if not cells["subject_label"] or not target:
            raise UserError(
                f"{position}: subject_label or object_id is blank; fill in both, or take the row "
                "out"
            )
        codes = _forms(cells.get("subject_id", ""))
        row = {
            "mention": cells["subject_label"],
            "source_code": codes[-1],
            "reviewer": _reviewer(cells),
            "reviewed_on": cells.get("mapping_date", ""),
            "comment": cells.get("comment", ""),
        }
        answer = answer_of_cells(position, row, None)._replace(other_codes=codes[:-1])
        if modifier == NOT:
            yield row, answer._replace(ruled_out=_forms(target))
            continue
        ids = [*_forms(target)]
        if target == NO_TERM:
            ids = [CUI_LESS]
        subject = (row["mention"], codes[0])
        first_row, answer = matched.get(subject, (row, answer))
        gold = [*(answer.gold or ()), *ids]
        matched[subject] = (first_row, answer._replace(gold=gold))
    yield from matched.values()


def _sssom_rows(path: Path) -> Iterator[tuple[RowPosition, dict[str, str]]]:
    """The rows below the comments, each with its line in the file."""
    with naming(path):
        with path.open(encoding="utf-8-sig", newline="") as stream:
            lines = stream.readlines()
        for number, line in enumerate(lines):
            if not line.startswith(COMMENT):
                break
            lines[number] = "\n"
        text = io.StringIO("".join(lines), newline="")
        rows = read_table(path, text, DELIMITERS[path.suffix])
        _, columns = next(rows)
        for number, row in rows:
            cells = dict(zip(columns, map(str.strip, row), strict=True))
            yield RowPosition(path, number), cells


def _reviewer(cells: Mapping[str, str]) -> str:
    """Who decided: by name, or else by id."""
    names = (
        cells.get(f"{kind}_{of}", "") for of in ("label", "id") for kind in ("author", "reviewer")
    )
    return next(filter(None, names), "")


def _forms(curie: str) -> tuple[str, ...]:
    """An id with its prefix as it is written, and in capitals, and the code that it is."""
    prefix, mark, local = curie.partition(":")
    if not mark:
        return (curie,)
    if prefix == code_system_of(LOCAL).prefix:
        return (curie, unquote(local))
    upper = curie.replace(prefix, prefix.upper(), 1)
    return tuple(dict.fromkeys((curie, upper, unquote(code_of(upper).code))))
