"""Relations of concepts: parents and children, broader and narrower ones, synonyms, siblings.

In a UMLS release they are in ``MRREL.RRF`` (UMLS Reference Manual, chapter 3), where ``CUI1|...|PAR|CUI2`` says that
CUI2 is a parent of CUI1; in an ontology they are ``is_a``.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ..core.lines import Faults, reading, skipped_lines
from .arrow import map_numbers, write_numbers
from .cuis import cui_numbers, rows_of
from .rrf_tables import TABLES, positions_in, read_columns

RELATIONS_FILE = "relations.npy"
RELATION_KINDS = ("SY", "PAR", "CHD", "RB", "RN", "SIB")
"""Kinds of relation, the closest first; a kind's number is its position here."""

INVERSE = {"SY": "SY", "PAR": "CHD", "CHD": "PAR", "RB": "RN", "RN": "RB", "SIB": "SIB"}

# An entry is one int64: row, related row, and a bit for each kind. They sort by row, then by related row.
KIND_BITS = len(RELATION_KINDS)
ALL_KINDS = (1 << KIND_BITS) - 1
ROW_BITS = 28
ENTRIES_AT_ONCE = 4_000_000


class RelationTable:
    """The relations between concepts; memory-mapped.

    Rows are those of the `ConceptTable` in the same folder. Relations are kept in both directions, so
    ``related(a, b, ["PAR"])`` equals ``related(b, a, ["CHD"])``.
    """

    def __init__(self, entries: np.ndarray) -> None:
        self._entries = entries

    @classmethod
    def load(cls, folder: str | Path) -> RelationTable:
        """Open the relations of a concept folder; without a file, no concepts are related.

        Raises:
            UserError: the file is broken.
        """
        path = Path(folder) / RELATIONS_FILE
        return cls(map_numbers(path, np.int64) if path.exists() else np.empty(0, np.int64))

    def __len__(self) -> int:
        """Number of ordered pairs of related concepts."""
        return len(self._entries)

    def related(self, gold: np.ndarray, rows: np.ndarray, kinds: Sequence[str] = RELATION_KINDS) -> np.ndarray:
        """Whether each of `rows` has one of the relations `kinds` to its gold concept, e.g. is its parent (PAR).

        Args:
            gold: (n, 1) int, rows of gold concepts, or another shape that broadcasts with `rows`.
            rows: (n, k) int, rows of concepts. Row -1 is related to nothing, and no concept is related to itself.
            kinds: some of `RELATION_KINDS`.

        Returns:
            Bool, of the common shape.

        """
        bits = sum(1 << RELATION_KINDS.index(kind) for kind in set(kinds))
        return (self._bits(gold, rows) & bits) != 0

    def kind_between(self, gold: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The closest relation of each of `rows` to its gold concept.

        Args:
            gold: as for `related`.
            rows: as for `related`.

        Returns:
            int8 indices into `RELATION_KINDS`, of the common shape; -1 if not related.
        """
        bits = self._bits(gold, rows)
        lowest = bits & -bits
        return np.where(bits > 0, np.log2(np.maximum(lowest, 1)), -1).astype(np.int8)

    def _bits(self, gold: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Bits of the kinds that `rows` are of to `gold`, int64."""
        gold, rows = np.broadcast_arrays(np.asarray(gold, np.int64), np.asarray(rows, np.int64))
        if not len(self._entries):
            return np.zeros(gold.shape, np.int64)
        keys = _entries(gold, rows)
        positions = np.searchsorted(self._entries, keys).clip(max=len(self._entries) - 1)
        entries = self._entries[positions]
        # A row of -1 makes the key negative, unlike any entry.
        return np.where(entries >> KIND_BITS == keys >> KIND_BITS, entries & ALL_KINDS, 0)


class Relations(NamedTuple):
    """Relations read from a file.

    Attributes:
        first: (n,) uint64, `cuis.cui_numbers` of one concept.
        second: (n,) uint64, those of the other.
        kinds: (n,) int64, relation of the second to the first, positions in `RELATION_KINDS`.
    """

    first: np.ndarray
    kinds: np.ndarray
    second: np.ndarray

    @classmethod
    def from_parents(cls, pairs: Sequence[tuple[str, str]]) -> Relations:
        """Relations of concepts to their parents, from pairs of CUIs ``(child, parent)``."""
        children = pa.array([child for child, _ in pairs], pa.large_string())
        parents = pa.array([parent for _, parent in pairs], pa.large_string())
        kinds = np.full(len(pairs), RELATION_KINDS.index("PAR"))
        return cls(cui_numbers(children), kinds, cui_numbers(parents))


@reading
def read_relations(
    path: Path | Sequence[Path], *, kinds: Sequence[str], on_error: str = "stop"
) -> Generator[Relations, None, dict[str, Any]]:
    """Stream MRREL's relations of the wanted kinds; memory holds a few blocks of the file.

    Relations of all sources are used, also of sources whose names are not kept; suppressed ones are left out.

    Args:
        path: ``MRREL.RRF``, plain or gzip, or its parts in order.
        kinds: REL values kept, of `RELATION_KINDS`.
        on_error: ``"stop"`` at the first malformed line, or ``"skip"`` and count it.

    Returns:
        A `Reading`; its report has ``lines``, ``dropped`` (lines by filter), ``skipped`` and ``reasons``.

    Raises:
        UserError: the file is missing, empty or broken; or a line is malformed (names file and line).
    """
    is_wanted = np.array([kind in kinds for kind in RELATION_KINDS] + [False])

    def convert(block: pa.RecordBatch) -> tuple[int, int, int, Relations]:
        codes = positions_in(block["REL"], RELATION_KINDS)
        of_kind = is_wanted[codes]
        retained = of_kind & (positions_in(block["SUPPRESS"], ("N",)) == 0)
        first, second = (cui_numbers(block[name].filter(pa.array(retained))) for name in ("CUI1", "CUI2"))
        return len(block), int(of_kind.sum()), len(first), Relations(first, codes[retained], second)

    sizes = np.zeros(3, dtype=np.int64)
    used = ("CUI1", "REL", "CUI2", "SUPPRESS")
    faults = Faults(path, on_error)
    for *counts, relations in read_columns(TABLES["MRREL"], path, used, faults, convert):
        sizes += counts
        yield relations
    lines, of_kind, retained = sizes.tolist()
    dropped = {"relations": lines - of_kind, "suppressed": of_kind - retained}
    return {"lines": lines, "dropped": dropped} | skipped_lines(faults)


def write_relations(relations: Iterable[Relations], cuis: np.ndarray, folder: Path) -> dict[str, Any]:
    """Write the relations between concepts of the dictionary, each once and in both directions.

    Memory holds 8 bytes per ordered pair of related concepts, and three times as much while sorting.

    Args:
        relations: blocks of relations, in any order.
        cuis: `cuis.cui_numbers` by row, ascending.
        folder: the concept folder.

    Returns:
        counts: ``outside_dictionary`` and ``within_concept`` (relations left out), ``pairs`` (ordered pairs of
        related concepts) and ``pairs_by_kind``.
    """
    inverse = np.array([RELATION_KINDS.index(INVERSE[kind]) for kind in RELATION_KINDS])
    counts = {"outside_dictionary": 0, "within_concept": 0}
    entries = [np.empty(0, np.int64)]
    limit = ENTRIES_AT_ONCE
    for block in relations:
        first, second = rows_of(cuis, block.first), rows_of(cuis, block.second)
        inside = (first >= 0) & (second >= 0)
        apart = inside & (first != second)
        counts["outside_dictionary"] += int((~inside).sum())
        counts["within_concept"] += int((inside & ~apart).sum())
        first, second, kinds = first[apart], second[apart], block.kinds[apart]
        entries += [_entries(first, second, 1 << kinds), _entries(second, first, 1 << inverse[kinds])]
        if sum(map(len, entries)) > limit:
            entries = [_unite(entries)]
            limit = max(ENTRIES_AT_ONCE, 2 * len(entries[0]))
    united = _unite(entries)
    write_numbers(folder / RELATIONS_FILE, united)
    by_kind = {kind: int(((united >> bit) & 1).sum()) for bit, kind in enumerate(RELATION_KINDS)}
    return counts | {"pairs": len(united), "pairs_by_kind": by_kind}


def _unite(blocks: Sequence[np.ndarray]) -> np.ndarray:
    """Sorted entries, with those of the same two rows merged."""
    entries = np.concatenate(blocks)
    entries.sort()
    pairs = entries >> KIND_BITS
    starts = np.flatnonzero(np.concatenate([pairs[:1] >= 0, pairs[1:] != pairs[:-1]]))
    return np.bitwise_or.reduceat(entries, starts) if len(starts) else entries


def _entries(first: np.ndarray, second: np.ndarray, bits: np.ndarray | int = 0) -> np.ndarray:
    return (first << (ROW_BITS + KIND_BITS)) | (second << KIND_BITS) | bits
