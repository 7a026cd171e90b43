"""Rows of the input and what was made of them, in memory and as a part of an output."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from ..core.arrow_files import arrow_writer, open_arrow
from ..lists.gold import CUI_LESS
from ..lists.table import (
    ERROR,
    REVIEWED,
    REVIEWED_NAME,
    as_brought,
    first_values,
    has_lines,
    mappings_of,
)
from .input_columns import RANKED, without_former_output
from .ranked_candidate import RANKED_TYPE
from .row_counts import RowCounts

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
# The key of the metadata of a part with all but columns.
STATE = b"umls_reranker_part"


class RankedRows(NamedTuple):
    """n rows of the input and what was made of them.

    Attributes:
        content: what the input brought (`table.row_table`).
        ranked: n lists of `RANKED_TYPE`, null for rows with an error.
        errors: n reasons why a row was not ranked, None if it was.
        counts: the counts of these rows.
        first_error: place and reason of the first row with an error.
    """

    content: pa.Table
    ranked: pa.ListArray
    errors: list[str | None]
    counts: RowCounts = RowCounts()
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
            "counts": self.counts.as_json(),
            "first_error": self.first_error,
        }
        metadata = (table.schema.metadata or {}) | {STATE: json.dumps(state).encode()}
        table = table.replace_schema_metadata(metadata)
        with arrow_writer(path, table.schema) as writer:
            writer.write_table(table)

    @staticmethod
    def outcome(path: Path) -> tuple[RowCounts, str | None]:
        """Counts and first error of what `save` wrote."""
        state = _state(open_arrow(path))
        return RowCounts.from_json(state["counts"]), state["first_error"]

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
            counts=RowCounts.from_json(state["counts"]),
            first_error=state["first_error"],
        )


def _state(table: pa.Table) -> dict[str, Any]:
    return json.loads(table.schema.metadata[STATE])


def plain_text(text: str) -> str:
    """The text as it can be encoded: half of a surrogate pair is no text, and becomes its code."""
    return text.encode(errors="backslashreplace").decode()
