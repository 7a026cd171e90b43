"""Further names of a dictionary's concepts, from files of names with its ids."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..core.errors import UserError
from ..core.files import excerpt
from .concepts import (
    Concept,
    ConceptColumns,
    StringRows,
    concept_table,
    join_concepts,
    read_name_rows,
    rows_by_name,
)
from .text import normalize_names

LEFT_OUT_FILE = "left_out_names.csv"
LEFT_OUT_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "name": pa.string(),
        "file": pa.string(),
        "line": pa.int64(),
        "reason": pa.string(),
        "ids_of_others": pa.string(),
    }
)


def add_names(
    concepts: pa.Table, paths: Sequence[Path]
) -> tuple[pa.Table, pa.Table, dict[str, Any]]:
    """Add names to concepts, but none that another concept has; normalized names are compared.

    Args:
        concepts: the dictionary, of `CONCEPT_SCHEMA`.
        paths: files of names (`read_name_rows`); of the ids of a row the first counts.

    Returns:
        The concepts; the names that are left out, of `LEFT_OUT_SCHEMA`; and the numbers of
        ``added_names``, of ``known_names``, which the concept has already, and of
        ``left_out_names`` by reason.

    Raises:
        UserError: a file cannot be read, or the dictionary lacks an id (names the line).
    """
    columns = ConceptColumns(concepts)
    names = [name for path in paths for name in _names_of(path, columns)]
    forms = normalize_names(pa.array([name["name"] for name in names], pa.string()))
    rows, offsets = StringRows(rows_by_name(concepts)).find(forms)
    ids = columns.column("cui", rows).to_pylist()
    in_files: defaultdict[str, set[str]] = defaultdict(set)
    for name, form in zip(names, forms.to_pylist(), strict=True):
        in_files[form].add(name["id"])
    added: defaultdict[str, dict[str, None]] = defaultdict(dict)
    left_out = []
    for number, (name, form) in enumerate(zip(names, forms.to_pylist(), strict=True)):
        in_dictionary = ids[offsets[number] : offsets[number + 1]]
        if name["id"] in in_dictionary:
            continue
        if others := in_dictionary or sorted(in_files[form] - {name["id"]}):
            owner = "the dictionary has" if in_dictionary else "the files have"
            reason = f"{owner} it for another concept"
            left_out.append(name | {"reason": reason, "ids_of_others": "|".join(others)})
        else:
            added[name["id"]][name["name"]] = None
    further = [Concept(cui, name, (*rest,)) for cui, (name, *rest) in added.items()]
    report = {
        "added_names": sum(map(len, added.values())),
        "left_out_names": dict(Counter(name["reason"] for name in left_out)),
    }
    joined, _ = join_concepts([concepts, concept_table(further)])
    return joined, pa.Table.from_pylist(left_out, LEFT_OUT_SCHEMA), report


def _names_of(path: Path, columns: ConceptColumns) -> Iterator[dict[str, Any]]:
    """The first columns of `LEFT_OUT_SCHEMA` for each name of a file."""
    table = read_name_rows(path)
    cuis = columns.column("cui", columns.rows(table.ids)).to_pylist()
    cells = table.columns["name"].to_pylist()
    for cui, cell, line in zip(cuis, cells, table.lines.tolist(), strict=True):
        if cui is None:
            raise UserError(
                f"{path}:{line}: the dictionary has no concept with the id of {excerpt(cell)}; "
                "correct it or remove the line"
            )
        for name in cell.split(table.separator):
            if name := name.strip():
                yield {"id": cui, "name": name, "file": path.name, "line": line}
