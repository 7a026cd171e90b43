"""Concepts of a UMLS release: MRCONSO (names), MRSTY (semantic types), MRDEF (definitions)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..core.arrays import list_offsets
from ..core.errors import UserError
from ..core.lines import Faults, name_source, skipped_lines
from .columns import ConceptColumns, Lists, first_of_each, ordered
from .cuis import cui_numbers, rows_of
from .rrf_tables import TABLES, positions_in, read_columns
from .semantic_types import TypeHierarchy


def read_rrf_concepts(
    files: Mapping[str, tuple[Path, ...]],
    *,
    languages: Sequence[str] = ("ENG",),
    sources: Sequence[str] = (),
    term_types: Sequence[str] = (),
    semantic_types: Sequence[str] = (),
    semantic_groups: Sequence[str] = (),
    hierarchy: TypeHierarchy | None = None,
    on_error: str = "stop",
) -> tuple[ConceptColumns, dict[str, Any]]:
    """Read a release's concepts, sorted by CUI whatever the order of the files.

    The preferred name is the release's own choice: by language (in the order of `languages`), term status TS (P, S,
    then the suppressible p, s), string type STT (PF first), ISPREF (Y first), then order of file. Equal names of a
    concept are given once. Suppressed names and definitions are left out. The definition is the first one that passes
    `sources`.

    Each file is read once, by one thread per core. Memory holds the names that pass the filters, as Arrow columns.

    Args:
        files: ``MRCONSO``, ``MRSTY`` and, when wanted, ``MRDEF``, as `release_files` gives them.
        languages: LAT values kept; empty keeps all.
        sources: SAB values kept; empty keeps all.
        term_types: TTY values kept, of names; empty keeps all.
        semantic_types: keep concepts that have one of these TUIs, or a type of `semantic_groups`; both empty keep all.
        semantic_groups: groups of `hierarchy`, e.g. ``DISO``, ``group:DISO`` or ``Disorders``.
        hierarchy: needed for `semantic_groups`.
        on_error: ``"stop"`` at the first malformed line, or ``"skip"`` and count it.

    Returns:
        The concepts, and a report of what was read: ``names_read``, ``names_kept``, ``dropped`` (names by filter),
        ``concepts``, ``typed`` (concepts with a type), ``types_of_unknown_concepts`` and
        ``definitions_of_unknown_concepts`` (lines of MRSTY and MRDEF whose CUI has no name that passes the filters),
        ``skipped`` and ``reasons``.

    Raises:
        UserError: a file is missing, empty or broken; a line is malformed (names file and line); a group is unknown;
            or nothing passes the filters (names the filter).
    """
    wanted_types = [*semantic_types, *_types_of(semantic_groups, hierarchy)]
    conso, sty, mrdef = files["MRCONSO"], files["MRSTY"], files.get("MRDEF")
    of_source = Filter("sources", "SAB", sources)
    unsuppressed = Filter("suppressed", "SUPPRESS", ("N",))
    in_language, of_term_type = Filter("languages", "LAT", languages), Filter("term_types", "TTY", term_types)
    faults = [Faults(paths, on_error) for paths in (conso, sty, mrdef) if paths]
    name_filters = [one for one in (in_language, of_source, of_term_type, unsuppressed) if one.values]
    cuis, names, report = _read_names(conso, languages, name_filters, faults[0])
    types, typing_unknown = _read_values("MRSTY", "TUI", sty, cuis, faults[1])
    definitions, defining_unknown = Lists.empty(len(cuis)), 0
    if mrdef:
        in_use = [one for one in (of_source, unsuppressed) if one.values]
        definitions, defining_unknown = _read_values(
            "MRDEF", "DEF", mrdef, cuis, faults[2], filters=in_use, only_first=True
        )
    concepts = ConceptColumns(cuis, names, types, definitions)
    if wanted_types:
        concepts = concepts.kept(types.any_of(wanted_types))
        if not len(concepts):
            raise UserError(
                f"{name_source(sty)}: none of {len(cuis)} concepts has a semantic type of {', '.join(wanted_types)}; "
                f"the file has {few(types.values.to_pylist())}"
            )
    report |= {
        "concepts": len(concepts),
        "typed": int((concepts.types.sizes() > 0).sum()),
        "types_of_unknown_concepts": typing_unknown,
        "definitions_of_unknown_concepts": defining_unknown,
    }
    return concepts, report | skipped_lines(*faults)


def read_names_and_types(
    files: Mapping[str, tuple[Path, ...]], cuis: np.ndarray | None = None, *, languages: Sequence[str] = ("ENG",)
) -> tuple[np.ndarray, Lists | None, Lists | None]:
    """Read names and semantic types of some concepts, with names in the order of `read_rrf_concepts`.

    Memory holds only these concepts.

    Args:
        files: ``MRCONSO``, ``MRSTY``, or one of them.
        cuis: `cui_numbers` of the concepts; None reads all.
        languages: LAT values kept; empty keeps all.

    Returns:
        The CUIs, (n,) uint64 ascending; the names of each, the preferred one first, and the TUIs of each, both empty
        for a concept without any; None without the file.

    Raises:
        UserError: a file is missing, empty or broken, or a line is malformed (names file and line).
    """
    faults = {name: Faults(paths, "stop") for name, paths in files.items()}
    if cuis is None:
        # Every concept of a release has a type, so the smaller file has them all.
        name = "MRSTY" if "MRSTY" in files else "MRCONSO"
        blocks = read_columns(
            TABLES[name], files[name], ["CUI"], faults[name], lambda block: cui_numbers(block["CUI"])
        )
        cuis = np.concatenate([np.empty(0, np.uint64), *blocks])
    cuis = np.unique(cuis)
    names = types = None
    if "MRCONSO" in files:
        filters = [Filter("languages", "LAT", languages)] if languages else []
        filters.append(Filter("suppressed", "SUPPRESS", ("N",)))
        named, names, _ = _read_names(files["MRCONSO"], languages, filters, faults["MRCONSO"], cuis)
        sizes = np.zeros(len(cuis), np.int64)
        sizes[rows_of(cuis, named)] = names.sizes()
        names = Lists(names.values, names.positions, list_offsets(sizes))
    if "MRSTY" in files:
        types, _ = _read_values("MRSTY", "TUI", files["MRSTY"], cuis, faults["MRSTY"])
    return cuis, names, types


class Filter(NamedTuple):
    """Keeps the lines whose `column` has one of `values`.

    Attributes:
        key: recipe key that sets it, or ``suppressed``.
        column: e.g. LAT.
        values: values to keep; empty keeps all.
    """

    key: str
    column: str
    values: Sequence[str]


# Lines excluded, by recipe key of the filter and rejected value, counted after the earlier filters.
Dropped = Counter[tuple[str, str]]


def _filtered(block: pa.RecordBatch, filters: Iterable[Filter]) -> tuple[pa.RecordBatch, Dropped]:
    """The lines that pass all filters, and the number of the others."""
    retained = pa.array(np.ones(len(block), dtype=bool))
    dropped: Dropped = Counter()
    for filter in filters:
        column = block[filter.column]
        passes = pc.is_in(column, pa.array(filter.values, column.type))
        for refused in column.filter(pc.and_not(retained, passes)).value_counts().to_pylist():
            dropped[filter.key, refused["values"]] = refused["counts"]
        retained = pc.and_(retained, passes)
    # Taken by index, which is faster than filtering.
    return block.take(pc.indices_nonzero(retained)), dropped


def _nothing_left(file: str, filters: Sequence[Filter], dropped: Dropped) -> UserError:
    """The error that names the filter that dropped the last lines."""
    keys = {key for key, _ in dropped}
    last = [filter for filter in filters if filter.key in keys][-1]
    if last.key == "suppressed":
        return UserError(f"{file}: all names that pass the other filters are suppressed (SUPPRESS is not N)")
    seen = few(value for key, value in dropped if key == last.key)
    return UserError(
        f"{file}: no name passes `{last.key}: [{', '.join(last.values)}]`; of {last.column}, the file has {seen}"
    )


class _Names(NamedTuple):
    """The names of a block of MRCONSO that pass the filters, without repetitions, by rank within each concept.

    Attributes:
        cuis: numbers of the concepts, ascending.
        sizes: number of names of each concept.
        texts: the names, large_string.
        ranks: `_ranks` of each name.
    """

    cuis: np.ndarray
    sizes: np.ndarray
    texts: pa.Array
    ranks: np.ndarray


def _read_names(
    paths: Sequence[Path],
    languages: Sequence[str],
    filters: Sequence[Filter],
    faults: Faults,
    wanted: np.ndarray | None = None,
) -> tuple[np.ndarray, Lists, dict[str, Any]]:
    """Read CUI numbers, ascending, the names of each concept that pass the filters by rank, and a report.

    Args:
        paths: the file or its parts.
        languages: LAT values in order of preference.
        filters: filters of the lines.
        faults: takes malformed lines.
        wanted: read only the lines of these CUIs, of which the file may have none.
    """

    def convert(block: pa.RecordBatch) -> tuple[int, Dropped, _Names]:
        if wanted is not None:
            block = block.take(pa.array(np.flatnonzero(rows_of(wanted, cui_numbers(block["CUI"])) >= 0)))
        passing, dropped = _filtered(block, filters)
        cuis, concepts = np.unique(cui_numbers(passing["CUI"]), return_inverse=True)
        ranks = _ranks(passing, languages)
        texts = passing["STR"].dictionary_encode()
        codes = texts.indices.to_numpy()
        order = ordered(concepts, ranks)
        order = order[first_of_each(concepts[order], codes[order])]
        sizes = np.bincount(concepts[order], minlength=len(cuis))
        return len(block), dropped, _Names(cuis, sizes, texts.dictionary.take(pa.array(codes[order])), ranks[order])

    table = TABLES["MRCONSO"]
    used = list(dict.fromkeys(["CUI", "STR", "LAT", "TS", "STT", "ISPREF", *(filter.column for filter in filters)]))
    lines, dropped = 0, Dropped()
    blocks: list[_Names] = []
    for size, dropped_here, names in read_columns(table, paths, used, faults, convert):
        lines += size
        dropped.update(dropped_here)
        blocks.append(names)
    if not blocks or (wanted is None and not lines):
        raise UserError(
            f"{faults.name} contains no well-formed line; expected MRCONSO with {len(table.fields)} fields between "
            "pipes"
        )
    if wanted is None and lines == dropped.total():
        raise _nothing_left(faults.name, filters, dropped)
    by_filter = dict.fromkeys((filter.key for filter in filters), 0)
    for (key, _), count in dropped.items():
        by_filter[key] += count
    report = {"names_read": lines, "names_kept": lines - dropped.total(), "dropped": by_filter}
    return *_merge(blocks), report


def _ranks(names: pa.RecordBatch, languages: Sequence[str]) -> np.ndarray:
    """Rank of each name within its concept, (n,) int64; smaller is better."""
    rank = positions_in(names["LAT"], languages) if len(languages) > 1 else np.zeros(len(names), np.int64)
    for field, values in (("TS", ("P", "S", "p", "s")), ("STT", ("PF",)), ("ISPREF", ("Y",))):
        rank = rank * (len(values) + 1) + positions_in(names[field], values)
    return rank


def _merge(blocks: Sequence[_Names]) -> tuple[np.ndarray, Lists]:
    """Sort the concepts of all blocks, and merge concepts that several blocks share."""
    cuis, groups = np.unique(np.concatenate([block.cuis for block in blocks]), return_inverse=True)
    concepts = np.repeat(groups.astype(np.int32), np.concatenate([block.sizes for block in blocks]))
    texts = pa.concat_arrays([block.texts for block in blocks])
    order = ordered(concepts, np.concatenate([block.ranks for block in blocks]))
    concepts = concepts[order]
    # Only names of concepts that span blocks may still be repeated.
    is_divided = np.bincount(groups, minlength=len(cuis)) > 1
    divided = np.flatnonzero(is_divided[concepts])
    codes = texts.take(pa.array(order[divided])).dictionary_encode().indices.to_numpy()
    is_new = np.ones(len(order), dtype=bool)
    is_new[divided] = first_of_each(concepts[divided], codes)
    return cuis, Lists.grouped(texts, order[is_new], concepts[is_new], len(cuis))


def _read_values(
    table: str,
    column: str,
    paths: Sequence[Path],
    cuis: np.ndarray,
    faults: Faults,
    filters: Sequence[Filter] = (),
    only_first: bool = False,
) -> tuple[Lists, int]:
    """The values of a column for each concept in file order, and the number of lines of other concepts."""

    def convert(block: pa.RecordBatch) -> tuple[int, np.ndarray, pa.Array]:
        is_known = pa.array(rows_of(cuis, cui_numbers(block["CUI"])) >= 0)
        passing, _ = _filtered(block.filter(is_known), filters)
        return is_known.false_count, rows_of(cuis, cui_numbers(passing["CUI"])), passing[column]

    used = list(dict.fromkeys(["CUI", column, *(filter.column for filter in filters)]))
    counts, rows, texts = [0], [np.empty(0, np.int64)], [pa.array([], pa.large_string())]
    for count, block_rows, block_texts in read_columns(TABLES[table], paths, used, faults, convert):
        counts.append(count)
        rows.append(block_rows)
        texts.append(block_texts)
    row, values = np.concatenate(rows), pa.concat_arrays(texts).dictionary_encode()
    order = ordered(row)
    row, codes = row[order], values.indices.to_numpy()[order]
    is_new = first_of_each(row) if only_first else first_of_each(row, codes)
    return Lists.grouped(values.dictionary, codes[is_new], row[is_new], len(cuis)), sum(counts)


def _types_of(groups: Sequence[str], hierarchy: TypeHierarchy | None) -> list[str]:
    """TUIs of semantic groups."""
    if not groups:
        return []
    if hierarchy is None:
        raise ValueError("semantic_groups need a hierarchy")
    types: list[str] = []
    for group in groups:
        known = hierarchy.resolve(f"group:{group}") or hierarchy.resolve(group)
        if known is None or not known.startswith("group:"):
            names = {kind.group for kind in map(hierarchy.__getitem__, hierarchy) if kind.group}
            remedy = (
                f"use one of {few(f'group:{name}' for name in names)}" if names else "put SemGroups.txt next to SRDEF"
            )
            raise UserError(f"semantic_groups: {group} is not a semantic group; {remedy}")
        types += hierarchy.descendants(known)
    return types


def few(values: Iterable[str]) -> str:
    """A list of values for an error message."""
    ordered = sorted(values)
    return ", ".join(ordered[:12]) + (f" and {len(ordered) - 12} more" if len(ordered) > 12 else "")
