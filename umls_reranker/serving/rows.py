"""Ranked rows: the candidates of mentions, as Python objects and in Arrow; the parts of an output,
rows of the input with what was made of them; and what a format is, which writes them.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, get_args, get_type_hints

import numpy as np
import pyarrow as pa

from ..calibration.decisions import Decisions
from ..calibration.fallback_models import ALL_INPUTS
from ..calibration.thresholds import TIERS
from ..core.arrays import RepeatedTexts
from ..core.arrow_files import arrow_writer, open_arrow
from ..core.json_files import strict
from ..lists.candidate_lists import CandidateLists
from ..lists.columns import as_arrow
from ..lists.gold import CUI_LESS
from ..lists.table import (
    ARROW_TYPES,
    ERROR,
    LINE,
    REVIEWED,
    REVIEWED_NAME,
    as_brought,
    as_text,
    first_values,
    has_lines,
    mappings_of,
    table_of_mappings,
)
from ..vocab.concept_codes import ConceptCodes
from ..vocab.concept_columns import ConceptColumns

# The key of a row, and the column of a table, with the ranked candidates.
RANKED = "ranked"


class RankedCandidate(NamedTuple):
    """One candidate after reranking.

    This is the one table of a ranked row's fields: rows of files, Arrow's and Spark's types and the
    bodies of the service follow from it, and ``_columns`` has the values.

    Attributes:
        candidate: the object that was passed in, unchanged.
        name: its name.
        cui: the id of its concept, or None.
        rank: 1 for the top candidate.
        logit: raw log-odds of the cross-encoder; None if the candidate was pruned, or if the model
            has no cross-encoder or gives it no weight.
        score: calibrated probability that this candidate is the mention's concept, from all
            features. Candidates are ranked by it (by its unrounded log-odds).
        margin: this score minus the highest score of any other concept in the list, by CUI or else
            by name. It is negative below the top concept, and the score itself for a lone concept.
        tier: ``high``, ``medium``, ``low`` or ``reject``. The certificate of the model that decided
            sets ``high``, the thresholds of the mention's semantic type set the others.
            None where the candidates are not of the source that the model was calibrated on
            (`UMLSReranker.calibrated_on`).
        accepted: whether to map the mention to this candidate: it has rank 1, reaches the type's
            threshold, and is in a tier that the deployment accepts (`UMLSReranker.accept_tier`).
            None as for `tier`.
        model_name: the model that decided, the same for all candidates of a mention: "all", or a
            fallback model, "no type", "names" or "names, no type".
        scored: number of the mention's candidates that the cross-encoder scored, the same for all
            of them.
    """

    candidate: Any
    name: str
    cui: str | None
    rank: int
    logit: float | None
    score: float
    margin: float
    tier: str | None
    accepted: bool | None
    model_name: str = ALL_INPUTS
    scored: int = 0

    @property
    def cross_encoder_score(self) -> float:
        """The same as `score`."""
        return self.score

    def as_row(self) -> dict[str, Any]:
        """All fields except `candidate`, as in files and JSON."""
        return dict(zip(RANKED_FIELDS, self[1:], strict=True))


#: Type of a ranked candidate in Arrow; a mention has a list of these, its top candidate first.
RANKED_TYPE = pa.struct(
    {
        # All but the first of a union is None.
        name: ARROW_TYPES[(get_args(kind) or (kind,))[0]]
        for name, kind in get_type_hints(RankedCandidate).items()
        if name != "candidate"
    }
)
RANKED_FIELDS = tuple(field.name for field in RANKED_TYPE)


def ranked_candidates(
    lists: CandidateLists, decisions: Decisions, candidates: list[Any], model_names: Sequence[str]
) -> list[list[RankedCandidate]]:
    """The candidates of n mentions, the top candidate of each first.

    Args:
        lists: the n mentions and their m candidates.
        decisions: what was decided about them.
        candidates: the m objects that the lists were made from.
        model_names: names of the models that may decide (`UMLSReranker.model_names`).
    """
    objects = [candidates[position] for position in decisions.order.tolist()]
    columns = _columns(lists, decisions, model_names)
    logits = decisions.scores.logits[decisions.order].astype(np.float64)
    columns["logit"] = np.where(np.isnan(logits), np.array(None), logits)
    values = [
        column.to_list() if isinstance(column, RepeatedTexts) else column.tolist()
        for column in columns.values()
    ]
    ranked = list(map(RankedCandidate._make, zip(objects, *values, strict=True)))
    return [ranked[start:end] for start, end in pairwise(lists.offsets.tolist())]


def ranked_column(
    lists: CandidateLists, decisions: Decisions, model_names: Sequence[str]
) -> pa.ListArray:
    """Like `ranked_candidates`, without the objects: n lists of `RANKED_TYPE`."""
    columns = _columns(lists, decisions, model_names)
    arrays = []
    for ranked_field, column in zip(RANKED_TYPE, columns.values(), strict=True):
        if isinstance(column, RepeatedTexts):
            arrays.append(as_arrow(column))
        else:
            arrays.append(pa.array(column, ranked_field.type, from_pandas=True))
    rows = pa.StructArray.from_arrays(arrays, fields=list(RANKED_TYPE))
    return pa.ListArray.from_arrays(pa.array(lists.offsets, pa.int32()), rows)


def _columns(
    lists: CandidateLists, decisions: Decisions, model_names: Sequence[str]
) -> dict[str, RepeatedTexts | np.ndarray]:
    """The m values of each of `RANKED_FIELDS`, in the order of rank; a missing logit is NaN."""
    order = decisions.order
    owner = lists.owner
    scores = decisions.scores
    accepted = decisions.accepted[order]
    if not decisions.has_tiers.all():
        accepted = np.where(decisions.has_tiers[owner], accepted, np.array(None))
    return {
        "name": lists.names[order],
        "cui": lists.cuis[order],
        "rank": np.arange(1, len(order) + 1) - lists.offsets[:-1][owner],
        "logit": scores.logits[order].astype(np.float64),
        "score": scores.probabilities[order],
        "margin": decisions.margins[order],
        # The last is that of mentions without tiers, whose code is -1.
        "tier": RepeatedTexts((*TIERS, None), decisions.tiers[order]),
        "accepted": accepted,
        "model_name": RepeatedTexts(model_names, decisions.models[owner]),
        "scored": decisions.scored[owner],
    }


# Columns of tables -> which of a row's concepts they are about, from 0, and their field.
ANSWER_COLUMNS = {
    "answer": (0, "cui"),
    "answer_name": (0, "name"),
    "answer_score": (0, "score"),
    "tier": (0, "tier"),
    "accepted": (0, "accepted"),
    "second": (1, "cui"),
    "second_name": (1, "name"),
    "second_score": (1, "score"),
}
ANSWER_TYPES = {
    column: RANKED_TYPE.field(name).type for column, (_, name) in ANSWER_COLUMNS.items()
} | {ERROR: pa.string()}
# All that sheets of reviewers set, and no input: it would pass for the answer of a reviewer.
REVIEWED_KEYS = (
    REVIEWED,
    REVIEWED_NAME,
    "reviewer",
    "reviewed_on",
    "review_comment",
    "reviewed_targets",
)
# The beginnings of texts that programs for tables take for formulas.
FORMULA = ("=", "+", "-", "@", "\t", "\r")
# The prefix of a key of the input that is named like one of the output.
INPUT = "input_"
# The key of the metadata of a part with all but columns.
STATE = b"umls_reranker_part"


class RankedRows(NamedTuple):
    """n rows of the input and what was made of them.

    Attributes:
        content: what the input brought (`table.row_table`).
        ranked: n lists of `RANKED_TYPE`, null for rows with an error.
        errors: n reasons why a row was not ranked, None if it was.
        counts: as of `FileJob.run`.
        first_error: place and reason of the first row with an error.
    """

    content: pa.Table
    ranked: pa.ListArray
    errors: list[str | None]
    counts: Mapping[str, int] = MappingProxyType({})
    first_error: str | None = None

    def mappings(self) -> list[dict[str, Any]]:
        """What the input brought, as Python objects."""
        return mappings_of(self.content)

    def answers(self) -> list[dict[str, Any]]:
        """For each row the columns of `ANSWER_TYPES`, with preferred names where there are any."""
        answers = []
        for concepts, error in zip(self.concepts(2), self.errors, strict=True):
            first_two = [*concepts, {}, {}]
            answer = {
                column: first_two[at].get(name) for column, (at, name) in ANSWER_COLUMNS.items()
            }
            answers.append(answer | {ERROR: error})
        return answers

    def concepts(self, count: int) -> Iterator[list[dict[str, Any]]]:
        """For each row the first of its ranked concepts; the reviewer's alone, if one answered.

        A reviewer's has ``cui``, ``name`` and ``accepted``, others all of `RANKED_FIELDS`.
        """
        reviewed = first_values(self.content, REVIEWED)
        names = first_values(self.content, REVIEWED_NAME)
        for items, cui, name in zip(self.ranked.to_pylist(), reviewed, names, strict=True):
            concepts: dict[str | None, dict[str, Any]] = {}
            for item in items or ():
                own_name = item.get("preferred_name") or item["name"]
                concepts.setdefault(item["cui"] or item["name"], item | {"name": own_name})
            if cui:
                known = None if cui == CUI_LESS else cui
                concepts = {known: {"cui": known, "name": name, "accepted": True}}
            yield [*concepts.values()][:count]

    def save(self, path: Path) -> None:
        """Write the part, without what an earlier output of this package had added to the rows.

        A table keeps its columns, and mappings are repeated as they are.
        """
        content = without_former_output(self.content)
        table = as_brought(content)
        for key in (REVIEWED, REVIEWED_NAME):
            if has_lines(content) and key in content.column_names:
                table = table.append_column(key, content[key])
        errors = [plain_text(error) if error else None for error in self.errors]
        table = table.append_column(RANKED, self.ranked)
        table = table.append_column(ERROR, pa.array(errors, pa.string()))
        state = {
            "counts": self.counts,
            "first_error": self.first_error,
        }
        metadata = (table.schema.metadata or {}) | {STATE: json.dumps(state).encode()}
        table = table.replace_schema_metadata(metadata)
        with arrow_writer(path, table.schema) as writer:
            writer.write_table(table)

    @staticmethod
    def outcome(path: Path) -> tuple[dict[str, int], str | None]:
        """Counts and first error of what `save` wrote."""
        state = _state(open_arrow(path))
        return state["counts"], state["first_error"]

    @classmethod
    def load(cls, path: Path) -> RankedRows:
        """Read what `save` wrote."""
        table = open_arrow(path)
        state = _state(table)
        metadata = {key: value for key, value in table.schema.metadata.items() if key != STATE}
        content = table.drop_columns([RANKED, ERROR]).replace_schema_metadata(metadata or None)
        return cls(
            content=content,
            ranked=table[RANKED].combine_chunks(),
            errors=table[ERROR].to_pylist(),
            counts=state["counts"],
            first_error=state["first_error"],
        )


def input_names(columns: Iterable[str], added: Iterable[str]) -> dict[str, str]:
    """Column of the input -> its name in an output that adds columns: a prefix tells it apart."""
    names = {column: column for column in columns}
    taken = {*names, *added}
    for column in names.keys() & {*added}:
        while names[column] in taken:
            names[column] = INPUT + names[column]
    return names


def without_reviewed(content: pa.Table) -> pa.Table:
    """What the input brought, with a prefix for keys that only sheets of reviewers set."""
    if not has_lines(content):
        names = input_names(content.column_names, REVIEWED_KEYS)
        return content.rename_columns([names[column] for column in content.column_names])
    return _changed_mappings(content, REVIEWED_KEYS, _with_prefix)


def without_former_output(content: pa.Table) -> pa.Table:
    """What the input brought without what an earlier output of this package had added to it."""
    if not has_lines(content):
        return content.drop_columns([*{RANKED, ERROR}.intersection(content.column_names)])
    return _changed_mappings(content, (RANKED, ERROR), _without_ranked)


def _changed_mappings(
    content: pa.Table,
    keys: Collection[str],
    change: Callable[[dict[str, Any]], dict[str, Any]],
) -> pa.Table:
    """A table of mappings, of which a function changed those that have any of some keys."""
    lines = content[LINE].to_pylist()
    # As JSON has a key; a text may have it, too.
    if not any(f'"{key}"' in line for line in lines for key in keys):
        return content
    rows = mappings_of(content)
    if set(keys).isdisjoint(chain.from_iterable(rows)):
        return content
    return table_of_mappings([change(row) for row in rows])


def _with_prefix(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the input with a prefix for keys that only sheets of reviewers set."""
    names = input_names(row, REVIEWED_KEYS)
    return {names[key]: value for key, value in row.items()}


def _without_ranked(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the input without what an earlier output of this package had added to it."""
    kept = {}
    for key, value in row.items():
        if key not in (RANKED, ERROR):
            kept[key] = value
        elif key == RANKED and isinstance(value, str):
            # A text was not ranked by this package.
            kept[INPUT + key] = value
    return kept


def _state(table: pa.Table) -> dict[str, Any]:
    return json.loads(table.schema.metadata[STATE])


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


def plain_text(text: str) -> str:
    """The text as it can be encoded: half of a surrogate pair is no text, and becomes its code."""
    return text.encode(errors="backslashreplace").decode()
