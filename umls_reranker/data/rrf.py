"""UMLS releases in Rich Release Format: MRCONSO (names), MRSTY (semantic types), MRDEF (definitions).

Columns are those of the UMLS Reference Manual, chapter 3 (National Library of Medicine): fields end in ``|``, there
is no quoting, a line ends in ``\\n``. Files may be gzip, and in the parts that NLM ships.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ..core.errors import UserError
from ..core.lines import Faults, name_source, skipped_lines
from .concept_columns import ConceptColumns
from .cuis import CUI_BYTES
from .grouping import Lists, distinct, first_of_each, ordered
from .pipes import Block, read_columns
from .release import find_release_file
from .rrf_filters import Filter, Filters, Matched, few
from .semantic_types import TypeHierarchy

__all__ = ["read_rrf_concepts"]

MRCONSO = (
    *("CUI", "LAT", "TS", "LUI", "STT", "SUI", "ISPREF", "AUI", "SAUI", "SCUI", "SDUI", "SAB", "TTY", "CODE"),
    *("STR", "SRL", "SUPPRESS", "CVF"),
)
MRSTY = ("CUI", "TUI", "STN", "STY", "ATUI", "CVF")
MRDEF = ("CUI", "AUI", "ATUI", "SATUI", "SAB", "DEF", "SUPPRESS", "CVF")

CUI_LENGTH = {"CUI": CUI_BYTES}


def read_rrf_concepts(
    folder: str | Path,
    *,
    languages: Sequence[str] = ("ENG",),
    sources: Sequence[str] = (),
    term_types: Sequence[str] = (),
    keep_suppressed: bool = False,
    semantic_types: Sequence[str] = (),
    semantic_groups: Sequence[str] = (),
    definition_sources: Sequence[str] = (),
    hierarchy: TypeHierarchy | None = None,
    on_error: str = "stop",
) -> tuple[ConceptColumns, dict[str, Any]]:
    """Read a release's concepts, sorted by CUI whatever the order of the files.

    The preferred name is the release's own choice: by language (in the order of `languages`), term status TS (P, S,
    then the suppressible p, s), string type STT (PF first), ISPREF (Y first), then order of file. Names of a concept
    that are spelled the same are given once. The definition is the first one that passes `sources` and
    `keep_suppressed`, by `definition_sources` and then by order of file.

    Each file is read once, by a thread for each core; held in memory are the names that pass the filters, as Arrow
    columns. benchmarks/concept_table.py measures time and memory.

    Args:
        folder: holds ``MRCONSO.RRF``, ``MRSTY.RRF`` and, when wanted, ``MRDEF.RRF``, each plain, ``.gz`` or in parts.
        languages: LAT values kept; empty keeps all.
        sources: SAB values kept; empty keeps all.
        term_types: TTY values kept, of names; empty keeps all.
        keep_suppressed: keep names and definitions whose SUPPRESS is not N.
        semantic_types: keep concepts that have one of these TUIs, or a type of `semantic_groups`; both empty keep all.
        semantic_groups: groups of `hierarchy`, e.g. ``DISO``, ``group:DISO`` or ``Disorders``.
        definition_sources: SAB values whose definitions are preferred, best first; empty goes by order of file.
        hierarchy: needed for `semantic_groups`.
        on_error: ``"stop"`` at the first malformed line, or ``"skip"`` and count it.

    Returns:
        the concepts, and a report of what was read: ``names_read``, ``names_kept``, ``dropped`` (names by filter),
        ``concepts``, ``typed`` (concepts with a type), ``types_of_unknown_concepts`` and
        ``definitions_of_unknown_concepts`` (lines of MRSTY and MRDEF whose CUI has no name that passes the filters),
        ``skipped`` and ``reasons``.

    Raises:
        UserError: a file is missing, empty or broken; a line is malformed (names file and line); a group is unknown;
            or nothing passes the filters (names the one that left nothing).
    """
    folder = Path(folder)
    wanted = [*semantic_types, *_types_of(semantic_groups, hierarchy)]
    conso, sty, mrdef = (
        _require(folder, "MRCONSO.RRF"),
        _require(folder, "MRSTY.RRF"),
        find_release_file(folder, "MRDEF.RRF"),
    )

    of_source = Filter("sources", "SAB", sources)
    unsuppressed = Filter("keep_suppressed", "SUPPRESS", () if keep_suppressed else ("N",))
    in_language, of_term_type = Filter("languages", "LAT", languages), Filter("term_types", "TTY", term_types)
    filters = Filters([in_language, of_source, of_term_type, unsuppressed])
    faults = [Faults(paths, on_error) for paths in (conso, sty, mrdef) if paths]
    cuis, names = _read_names(conso, languages, filters, faults[0])
    types, strange_types = _read_types(sty, cuis, faults[1])
    definitions, strange_definitions = Lists.empty(len(cuis)), 0
    if mrdef:
        in_use = Filters([of_source, unsuppressed])
        definitions, strange_definitions = _read_definitions(mrdef, cuis, in_use, definition_sources, faults[2])
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


class _NameBlock(NamedTuple):
    """The names of a block of MRCONSO that pass the filters, best first within each concept, each spelling once.

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

    def convert(block: Block) -> _NameBlock:
        matched = filters.match(block)
        rows = matched.rows
        cuis, concepts = distinct(block.numbers("CUI", rows))
        ranks = _ranks(block, rows, languages)
        texts = block.strings("STR", rows).dictionary_encode()
        codes = texts.indices.to_numpy()
        order = ordered(concepts, ranks)
        order = order[first_of_each(concepts[order], codes[order])]
        sizes = np.bincount(concepts[order], minlength=len(cuis))
        return _NameBlock(matched, cuis, sizes, texts.dictionary.take(pa.array(codes[order])), ranks[order])

    blocks: list[_NameBlock] = []
    for block in read_columns(paths, MRCONSO, (), ("CUI", "STR"), faults, longest=CUI_LENGTH, convert=convert):
        filters.count(block.matched)
        blocks.append(block._replace(matched=None))
    if not filters.read:
        raise UserError(
            f"{faults.name} holds no well-formed line; expected MRCONSO, {len(MRCONSO)} fields between pipes"
        )
    if not filters.kept:
        raise filters.nothing_left(faults.name)
    return _merge(blocks)


def _ranks(block: Block, rows: np.ndarray, languages: Sequence[str]) -> np.ndarray:
    """How far a name is from being the preferred one, (n,), int64; smaller is better."""
    rank = block.places_in("LAT", languages, rows) if len(languages) > 1 else 0
    for field, values in (("TS", ("P", "S", "p", "s")), ("STT", ("PF",)), ("ISPREF", ("Y",))):
        rank = rank * (len(values) + 1) + block.places_in(field, values, rows)
    return rank


def _merge(blocks: Sequence[_NameBlock]) -> tuple[np.ndarray, Lists]:
    """Bring the concepts of all blocks into order, and together where several blocks have names of one."""
    numbers = np.concatenate([block.cuis for block in blocks])
    cuis, concepts_of_groups = distinct(numbers)
    concepts = np.repeat(concepts_of_groups.astype(np.int32), np.concatenate([block.sizes for block in blocks]))
    names = pa.concat_arrays([block.names for block in blocks])
    # In a sorted file, only the concepts that a block's end divides are not in order yet.
    is_divided = np.bincount(concepts_of_groups, minlength=len(cuis)) > 1
    divided = is_divided[concepts]
    is_sorted = not (numbers[1:] < numbers[:-1]).any()
    loose = np.flatnonzero(divided) if is_sorted else np.arange(len(concepts))
    ranks = np.concatenate([block.ranks for block in blocks])
    order = np.arange(len(concepts))
    order[loose] = loose[ordered(concepts[loose], ranks[loose])]
    concepts = concepts[order]
    divided = np.flatnonzero(divided[order])
    texts = names.take(pa.array(order[divided])).dictionary_encode().indices.to_numpy()
    kept = np.ones(len(order), dtype=bool)
    kept[divided] = first_of_each(concepts[divided], texts)
    return cuis, Lists.grouped(names, order[kept], concepts[kept], len(cuis))


def _read_types(paths: Sequence[Path], cuis: np.ndarray, faults: Faults) -> tuple[Lists, int]:
    """Semantic types of each concept in order of file, and the number of lines of other concepts."""

    def convert(block: Block) -> tuple[np.ndarray, np.ndarray, list[str]]:
        types = block.strings("TUI").dictionary_encode()
        return _rows_of(cuis, block), types.indices.to_numpy(), types.dictionary.to_pylist()

    code_of: dict[str, int] = {}
    rows, codes = [np.empty(0, np.int32)], [np.empty(0, np.int64)]
    strange = 0
    for block_rows, block_codes, values in read_columns(
        paths, MRSTY, (), ("CUI", "TUI"), faults, longest=CUI_LENGTH, convert=convert
    ):
        known = block_rows >= 0
        strange += len(known) - int(known.sum())
        translation = np.array([code_of.setdefault(value, len(code_of)) for value in values], dtype=np.int64)
        rows.append(block_rows[known])
        codes.append(translation[block_codes[known]])
    row, code = np.concatenate(rows), np.concatenate(codes)
    order = ordered(row)
    kept = np.ones(len(order), dtype=bool)
    # Most concepts have one type, which cannot come twice.
    several = np.flatnonzero((np.bincount(row, minlength=len(cuis)) > 1)[row[order]])
    kept[several] = first_of_each(row[order[several]], code[order[several]])
    order = order[kept]
    return Lists.grouped(pa.array(code_of, pa.string()), code[order], row[order], len(cuis)), strange


def _read_definitions(
    paths: Sequence[Path], cuis: np.ndarray, filters: Filters, preferred: Sequence[str], faults: Faults
) -> tuple[Lists, int]:
    """The first definition of each concept by source, and the number of lines of other concepts."""

    def convert(block: Block) -> tuple[np.ndarray, np.ndarray, pa.Array, int]:
        concepts = _rows_of(cuis, block)
        kept = filters.match(block).rows
        kept = kept[concepts[kept] >= 0]
        ranks = block.places_in("SAB", preferred, kept)
        return concepts[kept], ranks, block.strings("DEF", kept), int((concepts < 0).sum())

    rows, ranks, texts = [np.empty(0, np.int32)], [np.empty(0, np.int64)], [pa.array([], pa.large_string())]
    strange = 0
    for block_rows, block_ranks, block_texts, count in read_columns(
        paths, MRDEF, (), ("CUI", "DEF"), faults, longest=CUI_LENGTH, convert=convert
    ):
        rows.append(block_rows)
        ranks.append(block_ranks)
        texts.append(block_texts)
        strange += count
    row = np.concatenate(rows)
    order = ordered(row, np.concatenate(ranks))
    order = order[first_of_each(row[order])]
    return Lists.grouped(pa.concat_arrays(texts), order, row[order], len(cuis)), strange


def _rows_of(known: np.ndarray, block: Block) -> np.ndarray:
    """Rows of a block's CUIs among the ascending numbers `known`, (n,), int32; -1 where it is not there."""
    wanted = block.numbers("CUI")
    places = np.searchsorted(known, wanted).clip(max=len(known) - 1)
    return np.where(known[places] == wanted, places, -1).astype(np.int32)


def _types_of(groups: Sequence[str], hierarchy: TypeHierarchy | None) -> list[str]:
    """TUIs of semantic groups."""
    if groups and hierarchy is None:
        raise ValueError("semantic_groups need a hierarchy")
    types: list[str] = []
    for group in groups:
        known = hierarchy.resolve(f"group:{group}") or hierarchy.resolve(group)
        if known is None or not known.startswith("group:"):
            names = sorted({hierarchy.chain(kind)[-1] for kind in hierarchy})
            raise UserError(f"semantic_groups: {group} is no semantic group; take one of {few(names)}")
        types += hierarchy.descendants(known)
    return types


def _require(folder: Path, name: str) -> tuple[Path, ...]:
    paths = find_release_file(folder, name)
    if not paths:
        below = next((below for below in ("META", "umls/META") if find_release_file(folder / below, name)), None)
        hint = f"did you mean {folder / below}?" if below else "check umls_dir in the recipe"
        raise UserError(f"{folder} holds neither {name} nor {name}.gz; {hint}")
    return paths
