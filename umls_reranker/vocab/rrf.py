"""The concepts of a UMLS release: names, definitions and semantic types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..core.errors import UserError
from .concepts import NameLists, table_of_lists
from .distinct_lists import distinct_lists
from .rrf_lines import filtered_lines, values_by_cui

# What makes a name preferred, after its language: field, and its values from best to worst.
PREFERENCES = {"TS": ("P", "S", "p", "s"), "STT": ("PF",), "ISPREF": ("Y",)}
# The names that a source itself prefers; several CUIs may have one of its codes.
CODE_PREFERENCES = {"TTY": ("MH", "NM", "PT")} | PREFERENCES


def read_rrf_concepts(
    files: Mapping[str, Path],
    *,
    languages: Sequence[str] = ("ENG",),
    sources: Sequence[str] = (),
    identifiers: str | None = None,
) -> tuple[pa.Table, dict[str, Any]]:
    """Read a release's concepts, sorted by id whatever the order of the files.

    The preferred name is the release's own choice: by language (in the order of `languages`), term
    status TS (P, S, then the suppressible p, s), string type STT (PF first), ISPREF (Y first), then
    order of file. Equal names of a concept are given once. Suppressed names and definitions are
    left out. The definition is the first one that passes `sources`. Memory holds the names that
    pass the filters, twice while they are sorted.

    Args:
        files: ``MRCONSO`` and, when wanted, ``MRSTY`` and ``MRDEF``, as `release_files` gives them.
        languages: LAT values kept; empty keeps all.
        sources: SAB values kept; empty keeps all.
        identifiers: source (SAB) whose codes are the concept ids, with the CUIs of each as its
            alternates; only its names and definitions are kept. None: ids are CUIs.

    Returns:
        The concepts in `CONCEPT_SCHEMA`, and a report of what was read: ``names_read``,
        ``names_kept`` and ``dropped`` (names by filter).

    Raises:
        UserError: a file is missing, empty or damaged; a line is malformed (names file and line);
            or no name passes the filters (names the filter).
    """
    sources = [identifiers] if identifiers else sources
    lists, report = read_names(files["MRCONSO"], languages, sources, by_code=bool(identifiers))
    alternates = lists.alternates
    cuis = alternates.values.unique() if alternates else lists.ids
    definitions = None
    if "MRDEF" in files:
        filters = {"SUPPRESS": ["N"], "SAB": sources}
        lines, _ = filtered_lines("MRDEF", files["MRDEF"], ["CUI", "DEF"], filters)
        _, texts = values_by_cui(lines, "DEF", cuis)
        lists_of_texts = _lists_of_codes(texts, cuis, alternates)
        # The first of each list, or "" of an empty one.
        definitions = pc.binary_join(pc.list_slice(lists_of_texts, 0, 1), "")
    if "MRSTY" in files:
        _, types = read_types(files["MRSTY"], cuis)
        lists = lists._replace(types=_lists_of_codes(types, cuis, alternates))
    return table_of_lists(lists, definitions), report


def _lists_of_codes(
    lists: pa.ListArray, cuis: pa.Array, alternates: pa.ListArray | None
) -> pa.ListArray:
    """The lists of CUIs as lists of the concepts with these alternates; None: CUIs are concepts."""
    if alternates is None:
        return lists
    value_lists = lists.take(pc.index_in(pc.list_flatten(alternates), cuis))
    rows = pc.list_parent_indices(alternates).take(pc.list_parent_indices(value_lists)).to_numpy()
    return distinct_lists(rows, pa.chunked_array([pc.list_flatten(value_lists)]), len(alternates))


def read_names(
    path: Path,
    languages: Sequence[str] = ("ENG",),
    sources: Sequence[str] = (),
    wanted: pa.Array | None = None,
    by_code: bool = False,
) -> tuple[NameLists, dict[str, Any]]:
    """Read the names of MRCONSO that pass the filters.

    Args:
        path: the file.
        languages: LAT values kept, in order of preference; empty keeps all.
        sources: SAB values kept; empty keeps all.
        wanted: read only these CUIs, of which the file may have none; None reads all.
        by_code: whether ids are the codes of the source, not CUIs.

    Returns:
        Ids and names, and with `by_code` the CUIs of each code as its alternates; and the counts of
        the report.

    Raises:
        UserError: as `read_rrf_concepts`.
    """
    filters = {"LAT": languages, "SAB": sources, "SUPPRESS": ["N"]}
    further_preferences = CODE_PREFERENCES if by_code else PREFERENCES
    preferences = {"LAT": languages} | further_preferences
    used = ["CODE", "STR", "CUI"] if by_code else ["CUI", "STR"]
    names, counts = filtered_lines("MRCONSO", path, used, filters, preferences, wanted)
    dropped = {field: counts[field] for field in filters}
    if not len(names) and wanted is None:
        raise UserError(
            f"{path}: none of {counts['lines']:,} names passes the filters {filters}, "
            f"which leave out {dropped}; change languages or sources"
        )
    report = {"names_read": counts["lines"], "names_kept": len(names), "dropped": dropped}
    ids = names[0].unique()
    ids = ids.take(pc.sort_indices(ids))
    rows = pc.index_in(names[0], ids).to_numpy().astype(np.int64)
    cuis = distinct_lists(rows, names["CUI"], len(ids)) if by_code else None
    texts = names["STR"]
    ranks = names["rank"].to_numpy()
    # Frees the other columns of millions of rows.
    del names
    return NameLists(ids, distinct_lists(rows, texts, len(ids), ranks), alternates=cuis), report


def read_types(path: Path, cuis: pa.Array | None = None) -> tuple[pa.Array, pa.ListArray]:
    """CUIs, and the semantic types (TUI) of each from MRSTY; None reads all.

    Raises:
        UserError: as `read_rrf_table`.
    """
    lines, _ = filtered_lines("MRSTY", path, ["CUI", "TUI"])
    return values_by_cui(lines, "TUI", cuis)
