"""The folder of concepts in a run or an index: its files, and how they are written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..core.arrow_files import arrow_writer
from ..core.errors import UserError
from ..core.json_files import write_json
from ..core.parallel import map_in_order
from .concepts import ROWS_PER_BATCH
from .normalization import normalize_names
from .string_rows import StringRows, hash_strings
from .types import TypeHierarchy

# The folder of concepts in the folder of an index or a run, and the files in it.
CONCEPTS_FOLDER = "concepts"
CONCEPTS_FILE = "concepts.arrow"
ROWS_BY_CUI_FILE = "rows_by_cui.arrow"
ROWS_BY_NAME_FILE = "rows_by_name.arrow"
HIERARCHY_FILE = "semantic_types.json"


def is_index(folder: Path) -> bool:
    """Whether a folder is an index or a run, with concepts, and no folder META of a release."""
    return (folder / CONCEPTS_FOLDER).is_dir() and not any(folder.glob("MR*.RRF*"))


def write_concepts(concepts: pa.Table, hierarchy: TypeHierarchy, path: Path) -> int:
    """Write a concept folder: concepts sorted by CUI, their rows by CUI and by name, and the types.

    Args:
        concepts: of `CONCEPT_SCHEMA`, in any order.
        hierarchy: the hierarchy of their types.
        path: the folder.

    Returns:
        The number of concepts.

    Raises:
        UserError: a concept id is repeated or empty, or there is no concept.
    """
    if not len(concepts):
        raise UserError("no concepts are left; check the filters of the concept source")
    concepts = _sorted_by_cui(concepts)
    cuis = concepts["cui"].combine_chunks()
    _require_distinct(cuis)
    alternates = concepts["alternates"].combine_chunks()
    tables = {
        CONCEPTS_FILE: concepts,
        ROWS_BY_CUI_FILE: StringRows.table_of_ids(cuis, alternates),
        ROWS_BY_NAME_FILE: rows_by_name(concepts),
    }
    for name, table in tables.items():
        with arrow_writer(path / name, table.schema) as writer:
            writer.write_table(table)
    write_json(path / HIERARCHY_FILE, hierarchy.to_dict())
    return len(concepts)


def _sorted_by_cui(concepts: pa.Table) -> pa.Table:
    """The concepts in the order of their ids, each column in one chunk."""
    order = pc.sort_indices(concepts["cui"])
    is_descending = pc.less(order.slice(1), order.slice(0, len(order) - 1))
    # Millions of concepts that are in order already are not copied.
    if pc.any(is_descending).as_py():
        concepts = concepts.take(order)
    return concepts.combine_chunks()


def _require_distinct(cuis: pa.StringArray) -> None:
    """Refuse ids, in ascending order, of which one is empty or repeated."""
    following = cuis.slice(1)
    is_repeated = pc.equal(following, cuis.slice(0, len(cuis) - 1))
    invalid = pa.concat_arrays([cuis.filter(pc.equal(cuis, "")), following.filter(is_repeated)])
    if len(invalid):
        raise UserError(
            f"the concept id {invalid[0].as_py()!r} is empty or repeated; "
            "give each concept an id of its own"
        )


def rows_by_name(
    concepts: pa.Table, forms: Callable[[pa.StringArray], pa.StringArray] = normalize_names
) -> pa.Table:
    """The table for `StringRows` of the names of concepts in a form, by default normalized."""

    def hashed(start: int) -> tuple[np.ndarray, np.ndarray]:
        """Hash and row of each name of the batch of concepts that begins at `start`."""
        batch = concepts.slice(start, ROWS_PER_BATCH)
        preferred = batch["name"].combine_chunks()
        synonyms = batch["synonyms"].combine_chunks()
        names = forms(pa.concat_arrays([preferred, pc.list_flatten(synonyms)]))
        rows_of_synonyms = pc.list_parent_indices(synonyms).to_numpy()
        rows = np.concatenate([np.arange(len(preferred)), rows_of_synonyms])
        return hash_strings(names), start + rows

    starts = range(0, len(concepts), ROWS_PER_BATCH)
    hashes, rows = zip(*map_in_order(hashed, starts), strict=True)
    return StringRows.table_of(np.concatenate(hashes), np.concatenate(rows))
