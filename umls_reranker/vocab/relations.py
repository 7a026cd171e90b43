"""Synonymous concepts: read from MRREL, written into a concept folder, and looked up by row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..core.arrow_files import arrow_writer, open_arrow
from .rrf_tables import read_rrf_table

RELATIONS_FILE = "relations.arrow"
# REL of two concepts that a vocabulary calls synonyms; broader, narrower and sibling concepts are
# often good negatives.
SYNONYM_REL = "SY"
SYNONYM_PAIRS = pa.schema({"CUI1": pa.string(), "CUI2": pa.string()})
# A pair of rows is one number of 64 bits: a row, a related row, and in the lowest bits the kind of
# their relation. It is 0 for synonyms; files of earlier versions have parents and children, too.
KIND_BITS = 2
ROW_BITS = 30


class RelationTable:
    """The synonymous concepts of a concept folder, seen from both; memory-mapped.

    Rows are those of the `ConceptTable` in the same folder.
    """

    def __init__(self, pairs: np.ndarray) -> None:
        # (n,) int64, ascending: from the upper bits, a row, a related row, 0.
        self._pairs = pairs

    @classmethod
    def load(cls, folder: str | Path) -> RelationTable:
        """Open the relations of a concept folder.

        Raises:
            OSError, pa.ArrowInvalid: the file is missing or damaged.
        """
        return cls(open_arrow(Path(folder) / RELATIONS_FILE)["relation"].to_numpy())

    def __len__(self) -> int:
        """Number of ordered pairs of related concepts."""
        return len(self._pairs)

    def related(self, gold: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Whether each of `rows` is a synonym of its gold concept; row -1 is none.

        Args:
            gold: (n, 1) int, rows of gold concepts, or another shape that broadcasts with `rows`.
            rows: (n, k) int, rows of concepts.

        Returns:
            Bool, of the common shape.
        """
        gold, rows = np.broadcast_arrays(np.asarray(gold, np.int64), np.asarray(rows, np.int64))
        wanted = _pair_numbers(gold, rows)
        if not len(self._pairs):
            return np.zeros(wanted.shape, bool)
        positions = np.searchsorted(self._pairs, wanted).clip(max=len(self._pairs) - 1)
        # A row of -1 makes the number negative, unlike any pair.
        return self._pairs[positions] == wanted


def read_relations(path: Path, pairs: int = 4_000_000) -> Iterator[pa.Table]:
    """Yield MRREL's synonymous CUIs in blocks, of all sources; suppressed lines are left out.

    Args:
        path: ``MRREL.RRF``, plain or gzip.
        pairs: number of pairs of a block, at least.

    Raises:
        UserError: the file is missing, empty or damaged, or a line is malformed (names file and
            line).
    """
    waiting: list[pa.RecordBatch] = []
    for block in read_rrf_table("MRREL", path, ["CUI1", "REL", "CUI2", "SUPPRESS"]):
        is_synonym = pc.equal(block["REL"], SYNONYM_REL)
        retained = pc.and_(is_synonym, pc.equal(block["SUPPRESS"], "N"))
        waiting.append(block.filter(retained).select(SYNONYM_PAIRS.names))
        if sum(map(len, waiting)) > pairs:
            yield pa.Table.from_batches(waiting)
            waiting = []
    yield pa.Table.from_batches(waiting, SYNONYM_PAIRS)


def write_relations(relations: Iterable[pa.Table], cuis: pa.Array, folder: Path) -> int:
    """Write the related concepts of the dictionary: a pair once, seen from both.

    Memory holds 8 bytes per ordered pair, and three times as much while sorting.

    Args:
        relations: tables of `SYNONYM_PAIRS`.
        cuis: the concept ids by row.
        folder: the concept folder.

    Returns:
        The number of ordered pairs.
    """
    pairs = np.empty(0, np.int64)
    for block in relations:
        first = _rows_in(block["CUI1"], cuis)
        second = _rows_in(block["CUI2"], cuis)
        is_pair = (first >= 0) & (second >= 0) & (first != second)
        forward = _pair_numbers(first[is_pair], second[is_pair])
        backward = _pair_numbers(second[is_pair], first[is_pair])
        pairs = np.unique(np.concatenate([pairs, forward, backward]))
    schema = pa.schema({"relation": pa.int64()})
    with arrow_writer(folder / RELATIONS_FILE, schema) as writer:
        writer.write_table(pa.table([pairs], schema=schema))
    return len(pairs)


def _rows_in(ids: pa.ChunkedArray, cuis: pa.Array) -> np.ndarray:
    """The row of each id among the CUIs, (n,) int64; -1 where it is not one of them."""
    return pc.fill_null(pc.index_in(ids, cuis), -1).to_numpy().astype(np.int64)


def _pair_numbers(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Each two rows, (n,) int64, as one number: first, second, kind 0; negative if a row is."""
    return ((first << ROW_BITS) | second) << KIND_BITS
