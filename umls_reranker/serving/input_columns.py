"""What the input brought, where its keys are also those of an output or of a reviewer's sheet."""

from collections.abc import Callable, Collection, Iterable
from itertools import chain
from typing import Any

import pyarrow as pa

from ..lists.table import (
    ERROR,
    LINE,
    READING_ERROR,
    REVIEWED,
    REVIEWED_NAME,
    first_values,
    has_lines,
    mappings_of,
    table_of_mappings,
)

# The key of a row, and the column of a table, with the ranked candidates.
RANKED = "ranked"
# All that sheets of reviewers set, and no input: it would pass for the answer of a reviewer.
REVIEWED_KEYS = (
    REVIEWED,
    REVIEWED_NAME,
    "reviewer",
    "reviewed_on",
    "review_comment",
    "reviewed_targets",
)
# The prefix of a key of the input that is named like one of the output.
INPUT = "input_"


def names_in_output(columns: Iterable[str], added: Iterable[str]) -> dict[str, str]:
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
        return _with_prefixes(content, REVIEWED_KEYS)
    return _changed_mappings(content, REVIEWED_KEYS, _with_prefix)


def _with_prefixes(content: pa.Table, keys: Collection[str]) -> pa.Table:
    """A table with a prefix for its columns that have one of some names."""
    names = names_in_output(content.column_names, keys)
    return content.rename_columns([names[column] for column in content.column_names])


def without_former_output(content: pa.Table) -> pa.Table:
    """What the input brought without what an earlier output of this package had added to it.

    A reason under ``error`` may be the input's own, and gets a prefix.
    """
    if has_lines(content):
        return _changed_mappings(content, (RANKED, ERROR, READING_ERROR), _without_ranked)
    former = {RANKED, READING_ERROR, ERROR}.intersection(content.column_names)
    if any(first_values(content, ERROR)):
        former.remove(ERROR)
        content = _with_prefixes(content, [ERROR])
    return content.drop_columns([*former])


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
    names = names_in_output(row, REVIEWED_KEYS)
    return {names[key]: value for key, value in row.items()}


def _without_ranked(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the input without what an earlier output of this package had added to it."""
    kept = {}
    names = names_in_output(row, [ERROR])
    for key, value in row.items():
        if key == ERROR:
            if value:
                kept[names[key]] = value
        elif key not in (RANKED, READING_ERROR):
            kept[key] = value
        elif key == RANKED and isinstance(value, str):
            # A text was not ranked by this package.
            kept[INPUT + key] = value
    return kept
