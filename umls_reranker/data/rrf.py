"""UMLS releases in Rich Release Format: MRCONSO (names), MRSTY (semantic types), MRDEF (definitions).

Columns are those of the UMLS Reference Manual, chapter 3 (National Library of Medicine): fields end in ``|``, there
is no quoting, a line ends in ``\\n``. Files may be gzip, and in the parts that NLM ships.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..core.errors import UserError
from ..core.lines import Faults, name_source, skipped_lines
from .columns import ConceptColumns, Lists, distinct, first_of_each, ordered
from .cuis import CUI_BYTES, cui_numbers, rows_of
from .pipes import places_in, read_columns
from .semantic_types import TypeHierarchy

__all__ = ["few", "read_rrf_concepts"]

MRCONSO = (
    *("CUI", "LAT", "TS", "LUI", "STT", "SUI", "ISPREF", "AUI", "SAUI", "SCUI", "SDUI", "SAB", "TTY", "CODE"),
    *("STR", "SRL", "SUPPRESS", "CVF"),
)
MRSTY = ("CUI", "TUI", "STN", "STY", "ATUI", "CVF")
MRDEF = ("CUI", "AUI", "ATUI", "SATUI", "SAB", "DEF", "SUPPRESS", "CVF")

CUI_LENGTH = {"CUI": CUI_BYTES}


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
    benchmarks/concept_table.py measures time and memory.

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
        the concepts, and a report of what was read: ``names_read``, ``names_kept``, ``dropped`` (names by filter),
        ``concepts``, ``typed`` (concepts with a type), ``types_of_unknown_concepts`` and
        ``definitions_of_unknown_concepts`` (lines of MRSTY and MRDEF whose CUI has no name that passes the filters),
        ``skipped`` and ``reasons``.

    Raises:
        UserError: a file is missing, empty or broken; a line is malformed (names file and line); a group is unknown;
            or nothing passes the filters (names the filter).
    """
    wanted = [*semantic_types, *_types_of(semantic_groups, hierarchy)]
    conso, sty, mrdef = files["MRCONSO"], files["MRSTY"], files.get("MRDEF")
    of_source = Filter("sources", "SAB", sources)
    unsuppressed = Filter("suppressed", "SUPPRESS", ("N",))
    in_language, of_term_type = Filter("languages", "LAT", languages), Filter("term_types", "TTY", term_types)
    filters = Filters([in_language, of_source, of_term_type, unsuppressed])
    faults = [Faults(paths, on_error) for paths in (conso, sty, mrdef) if paths]
    cuis, names = _read_names(conso, languages, filters, faults[0])
    types, strange_types = _read_types(sty, cuis, faults[1])
    definitions, strange_definitions = Lists.empty(len(cuis)), 0
    if mrdef:
        in_use = Filters([of_source, unsuppressed])
        definitions, strange_definitions = _read_definitions(mrdef, cuis, in_use, faults[2])
    concepts = ConceptColumns(cuis, names, types, definitions)
    if wanted:
        concepts = concepts.kept(types.any_of(wanted))
        if not len(concepts):
            raise UserError(
                f"{name_source(sty)}: none of {len(cuis)} concepts has a semantic type of {', '.join(wanted)}; "
                f"the file has {few(types.values.to_pylist())}"
            )
    report = {
        "names_read": filters.read,
        "names_kept": filters.kept,
        "dropped": filters.dropped,
        "concepts": len(concepts),
        "typed": int((concepts.types.sizes() > 0).sum()),
        "types_of_unknown_concepts": strange_types,
        "definitions_of_unknown_concepts": strange_definitions,
    }
    return concepts, report | skipped_lines(*faults)


class Filter(NamedTuple):
    """Keeps the lines whose `column` has one of `values`.

    Attributes:
        key: recipe key that sets it, or ``suppressed``.
        column: e.g. LAT.
        values: empty keeps all.
    """

    key: str
    column: str
    values: Sequence[str]


class Matched(NamedTuple):
    """The result of the filters on a block.

    Attributes:
        read: lines seen.
        kept: those that pass all filters.
        dropped: lines that each filter drops, of those kept by earlier filters.
        found: values of each filter's column, if no line passes it.
    """

    read: int
    kept: pa.RecordBatch
    dropped: list[int]
    found: list[list[str]]


class Filters:
    """A sequence of filters, and their counts over all blocks of a file.

    Attributes:
        active: filters that do not keep everything.
        read: lines seen.
        kept: lines that pass.
    """

    def __init__(self, filters: Iterable[Filter]) -> None:
        self.active = [filter for filter in filters if filter.values]
        self.read = self.kept = 0
        self._dropped = [0] * len(self.active)
        self._found: list[set[str]] = [set() for _ in self.active]

    @property
    def dropped(self) -> dict[str, int]:
        """Lines dropped, by recipe key."""
        return {filter.key: count for filter, count in zip(self.active, self._dropped, strict=True)}

    def match(self, block: pa.RecordBatch) -> Matched:
        """Apply to a block; changes no state, so threads may call it."""
        kept = pa.array(np.ones(len(block), dtype=bool))
        dropped, found = [], []
        for filter in self.active:
            column, before = block[filter.column], kept
            kept = pc.and_(before, pc.is_in(column, pa.array(filter.values, column.type)))
            found.append([] if kept.true_count else column.filter(before).unique().to_pylist())
            dropped.append(before.true_count - kept.true_count)
        # Taken by index, which is faster than filtering.
        return Matched(len(block), block.take(pc.indices_nonzero(kept)), dropped, found)

    def count(self, matched: Matched) -> None:
        """Add a block's counts."""
        self.read += matched.read
        self.kept += len(matched.kept)
        self._dropped = [total + count for total, count in zip(self._dropped, matched.dropped, strict=True)]
        for known, found in zip(self._found, matched.found, strict=True):
            known.update(found)

    def nothing_left(self, file: str) -> UserError:
        """The error that names the filter that dropped the last lines."""
        place = max(place for place, count in enumerate(self._dropped) if count)
        key, column, values = self.active[place]
        if key == "suppressed":
            return UserError(f"{file}: all names that pass the other filters are suppressed (SUPPRESS is not N)")
        seen = few(self._found[place])
        return UserError(f"{file}: no name passes `{key}: [{', '.join(values)}]`; of {column}, the file has {seen}")


class _NameBlock(NamedTuple):
    """The names of a block of MRCONSO that pass the filters, best first within each concept, without repetitions.

    Attributes:
        matched: by the filters.
        cuis: numbers of the concepts, ascending.
        sizes: names of each concept.
        names: large_string.
        ranks: of each name, `_ranks`.
    """

    matched: Matched
    cuis: np.ndarray
    sizes: np.ndarray
    names: pa.Array
    ranks: np.ndarray


def _read_names(
    paths: Sequence[Path], languages: Sequence[str], filters: Filters, faults: Faults
) -> tuple[np.ndarray, Lists]:
    """CUI numbers, ascending, and the names of each concept that pass the filters, best first."""

    def convert(block: pa.RecordBatch) -> _NameBlock:
        matched = filters.match(block)
        kept = matched.kept
        cuis, concepts = distinct(cui_numbers(kept["CUI"]))
        ranks = _ranks(kept, languages)
        texts = kept["STR"].dictionary_encode()
        codes = texts.indices.to_numpy()
        order = ordered(concepts, ranks)
        order = order[first_of_each(concepts[order], codes[order])]
        sizes = np.bincount(concepts[order], minlength=len(cuis))
        return _NameBlock(matched, cuis, sizes, texts.dictionary.take(pa.array(codes[order])), ranks[order])

    columns = (filter.column for filter in filters.active)
    used = list(dict.fromkeys(["CUI", "STR", "LAT", "TS", "STT", "ISPREF", *columns]))
    blocks: list[_NameBlock] = []
    for block in read_columns(paths, MRCONSO, used, ("CUI", "STR"), faults, longest=CUI_LENGTH, convert=convert):
        filters.count(block.matched)
        blocks.append(block._replace(matched=None))
    if not filters.read:
        raise UserError(
            f"{faults.name} holds no well-formed line; expected MRCONSO, {len(MRCONSO)} fields between pipes"
        )
    if not filters.kept:
        raise filters.nothing_left(faults.name)
    return _merge(blocks)


def _ranks(names: pa.RecordBatch, languages: Sequence[str]) -> np.ndarray:
    """Rank of a name within its concept, (n,), int64; smaller is better."""
    rank = places_in(names["LAT"], languages) if len(languages) > 1 else np.zeros(len(names), np.int64)
    for field, values in (("TS", ("P", "S", "p", "s")), ("STT", ("PF",)), ("ISPREF", ("Y",))):
        rank = rank * (len(values) + 1) + places_in(names[field], values)
    return rank


def _merge(blocks: Sequence[_NameBlock]) -> tuple[np.ndarray, Lists]:
    """Sort the concepts of all blocks, and merge concepts that several blocks share."""
    numbers = np.concatenate([block.cuis for block in blocks])
    cuis, concepts_of_groups = distinct(numbers)
    concepts = np.repeat(concepts_of_groups.astype(np.int32), np.concatenate([block.sizes for block in blocks]))
    names = pa.concat_arrays([block.names for block in blocks])
    # In a sorted file, only concepts divided between blocks are out of order.
    is_divided = np.bincount(concepts_of_groups, minlength=len(cuis)) > 1
    is_divided = is_divided[concepts]
    is_sorted = not (numbers[1:] < numbers[:-1]).any()
    loose = np.flatnonzero(is_divided) if is_sorted else np.arange(len(concepts))
    ranks = np.concatenate([block.ranks for block in blocks])
    order = np.arange(len(concepts))
    order[loose] = loose[ordered(concepts[loose], ranks[loose])]
    concepts = concepts[order]
    divided = np.flatnonzero(is_divided[order])
    texts = names.take(pa.array(order[divided])).dictionary_encode().indices.to_numpy()
    kept = np.ones(len(order), dtype=bool)
    kept[divided] = first_of_each(concepts[divided], texts)
    return cuis, Lists.grouped(names, order[kept], concepts[kept], len(cuis))


def _read_types(paths: Sequence[Path], cuis: np.ndarray, faults: Faults) -> tuple[Lists, int]:
    """Semantic types of each concept in order of file, and the number of lines of other concepts."""

    def convert(block: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray, list[str]]:
        types = block["TUI"].dictionary_encode()
        return rows_of(cuis, cui_numbers(block["CUI"])), types.indices.to_numpy(), types.dictionary.to_pylist()

    code_of: dict[str, int] = {}
    rows, codes = [np.empty(0, np.int32)], [np.empty(0, np.int64)]
    strange = 0
    for block_rows, block_codes, values in read_columns(
        paths, MRSTY, ("CUI", "TUI"), ("CUI", "TUI"), faults, longest=CUI_LENGTH, convert=convert
    ):
        known = block_rows >= 0
        strange += len(known) - int(known.sum())
        translation = np.array([code_of.setdefault(value, len(code_of)) for value in values], dtype=np.int64)
        rows.append(block_rows[known])
        codes.append(translation[block_codes[known]])
    row, code = np.concatenate(rows), np.concatenate(codes)
    order = ordered(row)
    kept = np.ones(len(order), dtype=bool)
    # Most concepts have one type, which cannot be repeated.
    several = np.flatnonzero((np.bincount(row, minlength=len(cuis)) > 1)[row[order]])
    kept[several] = first_of_each(row[order[several]], code[order[several]])
    order = order[kept]
    return Lists.grouped(pa.array(code_of, pa.string()), code[order], row[order], len(cuis)), strange


def _read_definitions(paths: Sequence[Path], cuis: np.ndarray, filters: Filters, faults: Faults) -> tuple[Lists, int]:
    """The first definition of each concept, and the number of lines of other concepts."""

    def convert(block: pa.RecordBatch) -> tuple[np.ndarray, pa.Array, int]:
        strange = int((rows_of(cuis, cui_numbers(block["CUI"])) < 0).sum())
        kept = filters.match(block).kept
        concepts = rows_of(cuis, cui_numbers(kept["CUI"]))
        known = pa.array(concepts >= 0)
        kept = kept.filter(known)
        return concepts[concepts >= 0], kept["DEF"], strange

    rows, texts = [np.empty(0, np.int32)], [pa.array([], pa.large_string())]
    strange = 0
    for block_rows, block_texts, count in read_columns(
        paths, MRDEF, ("CUI", "SAB", "DEF", "SUPPRESS"), ("CUI", "DEF"), faults, longest=CUI_LENGTH, convert=convert
    ):
        rows.append(block_rows)
        texts.append(block_texts)
        strange += count
    row = np.concatenate(rows)
    order = np.argsort(row, kind="stable")
    order = order[first_of_each(row[order])]
    return Lists.grouped(pa.concat_arrays(texts), order, row[order], len(cuis)), strange


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
                f"take one of {few(f'group:{name}' for name in names)}" if names else "put SemGroups.txt next to SRDEF"
            )
            raise UserError(f"semantic_groups: {group} is no semantic group; {remedy}")
        types += hierarchy.descendants(known)
    return types


def few(values: Iterable[str]) -> str:
    """Values as an error message lists them."""
    ordered = sorted(values)
    return ", ".join(ordered[:12]) + (f" and {len(ordered) - 12} more" if len(ordered) > 12 else "")
