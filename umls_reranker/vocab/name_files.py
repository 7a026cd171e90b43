"""A dictionary in one file of names, as lists of names and as concepts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .concepts import NameLists, table_of_lists
from .distinct_lists import distinct_lists
from .name_rows import ALTERNATE_SEPARATOR, read_name_rows
from .type_sets import TypeSets
from .types import TypeHierarchy

# What the column ``preferred`` says of a preferred name, in lower case.
TRUE_TEXTS = pa.array(["1", "1.0", "true", "yes"])
EMPTY_TEXT = pa.array([""])
# In a cell of the column ``semantic_type``.
TYPE_SEPARATOR = "|"
# Unknown types that a report names.
REPORTED_TYPES = 12


def read_name_lists(path: Path) -> NameLists:
    """Read a file of names, plain or gzip, in a form recognized by its content, into memory.

    Returns:
        Ids and distinct names of n concepts, the ids or names of their semantic types, as in the
        file, and their alternate ids, without those that are another concept's own.

    Raises:
        UserError: as for `read_name_rows`.
    """
    rows = read_name_rows(path)
    ids = rows.ids.unique()
    ids = ids.take(pc.sort_indices(ids))
    # The concept of each row, by its number among the ids.
    concept_of = pc.index_in(rows.ids, ids).to_numpy().astype(np.int64)
    is_true = pc.is_in(pc.utf8_lower(rows.columns["preferred"]), TRUE_TEXTS)
    is_preferred = is_true.to_numpy(zero_copy_only=False)

    def lists(name: str, separator: str, left_out: pa.StringArray) -> pa.ListArray:
        """The values of each concept in a column, those of preferred rows first."""
        values_of_rows = pc.split_pattern(rows.columns[name], separator)
        values = pc.utf8_trim_whitespace(pc.list_flatten(values_of_rows))
        is_retained = pc.invert(pc.is_in(values, left_out))
        row_of = pc.list_parent_indices(values_of_rows).filter(is_retained).to_numpy()
        retained = pa.chunked_array([values.filter(is_retained)])
        # The least rank comes first.
        ranks = ~is_preferred[row_of]
        return distinct_lists(concept_of[row_of], retained, len(ids), ranks)

    return NameLists(
        ids=ids,
        names=lists("name", rows.separator, EMPTY_TEXT),
        types=lists("semantic_type", TYPE_SEPARATOR, EMPTY_TEXT),
        alternates=lists("id", ALTERNATE_SEPARATOR, pa.concat_arrays([ids, EMPTY_TEXT])),
    )


def read_name_concepts(path: Path, hierarchy: TypeHierarchy) -> tuple[pa.Table, dict[str, Any]]:
    """Read a file of names as concepts in `CONCEPT_SCHEMA`, sorted by id.

    Returns:
        The concepts; and a report with their number of ``names``, and the first ``unknown_types``,
        which `hierarchy` lacks.
    """
    lists = read_name_lists(path)
    resolved, unknown = TypeSets.of_lists(lists.types).resolved(hierarchy)
    sets = pa.array(map(list, resolved.sets), pa.list_(pa.string()))
    types = sets.take(pa.array(resolved.codes))
    report = {"names": len(lists.names.values), "unknown_types": unknown[:REPORTED_TYPES]}
    return table_of_lists(lists._replace(types=types)), report
