"""Which concepts are related: parents and children, broader and narrower ones, synonyms.

In a UMLS release they are in ``MRREL.RRF`` (UMLS Reference Manual, chapter 3), where ``CUI1|...|PAR|CUI2`` says that
CUI2 is a parent of CUI1; in an ontology they are ``is_a``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .arrow import arrow_writer, open_arrow
from .rrf_tables import read_table

RELATIONS_FILE = "relations.arrow"
RELATIONS = ("SY", "PAR", "CHD", "RB", "RN")
"""Values of REL that count; siblings (SIB) are often good negatives."""

PAIRS = pa.schema({"CUI1": pa.string(), "CUI2": pa.string()})
ROW_BITS = 32
PAIRS_AT_ONCE = 4_000_000


class RelationTable:
    """The pairs of related concepts of a concept folder, in both directions; memory-mapped.

    Rows are those of the `ConceptTable` in the same folder.
    """

    def __init__(self, pairs: np.ndarray) -> None:
        # (n,) int64, ascending: a row in the upper, the related row in the lower 32 bits.
        self._pairs = pairs

    @classmethod
    def load(cls, folder: str | Path) -> RelationTable:
        """Open the relations of a concept folder.

        Raises:
            OSError, pa.ArrowInvalid: the file is missing or damaged.
        """
        return cls(open_arrow(Path(folder) / RELATIONS_FILE)["pair"].to_numpy())

    def __len__(self) -> int:
        """Number of ordered pairs of related concepts."""
        return len(self._pairs)

    def related(self, gold: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Whether each of `rows` is related to its gold concept; row -1 is related to nothing, and none to itself.

        Args:
            gold: (n, 1) int, rows of gold concepts, or another shape that broadcasts with `rows`.
            rows: (n, k) int, rows of concepts.

        Returns:
            Bool, of the common shape.
        """
        gold, rows = np.broadcast_arrays(np.asarray(gold, np.int64), np.asarray(rows, np.int64))
        wanted = _pairs(gold, rows)
        if not len(self._pairs):
            return np.zeros(wanted.shape, bool)
        positions = np.searchsorted(self._pairs, wanted).clip(max=len(self._pairs) - 1)
        # A row of -1 makes the number negative, unlike any pair.
        return self._pairs[positions] == wanted


def read_relations(path: Path) -> Iterator[pa.Table]:
    """Yield MRREL's pairs of related CUIs in blocks, of all sources; suppressed lines are left out.

    Args:
        path: ``MRREL.RRF``, plain or gzip.

    Raises:
        UserError: the file is missing, empty or damaged, or a line is malformed (names file and line).
    """
    waiting: list[pa.RecordBatch] = []
    for block in read_table("MRREL", path, ["CUI1", "REL", "CUI2", "SUPPRESS"]):
        is_related = pc.is_in(block["REL"], pa.array(RELATIONS))
        retained = pc.and_(is_related, pc.equal(block["SUPPRESS"], "N"))
        waiting.append(block.filter(retained).select(PAIRS.names))
        if sum(map(len, waiting)) > PAIRS_AT_ONCE:
            yield pa.Table.from_batches(waiting)
            waiting = []
    yield pa.Table.from_batches(waiting, PAIRS)


def write_relations(relations: Iterable[pa.Table], cuis: pa.Array, folder: Path) -> int:
    """Write the pairs of related concepts of the dictionary, each once and in both directions.

    Memory holds 8 bytes per ordered pair, and three times as much while sorting.

    Args:
        relations: tables of `PAIRS`.
        cuis: the concept ids by row.
        folder: the concept folder.

    Returns:
        The number of ordered pairs.
    """
    pairs = np.empty(0, np.int64)
    for block in relations:
        first, second = (pc.fill_null(pc.index_in(column, cuis), -1).to_numpy() for column in block.columns)
        inside = (first >= 0) & (second >= 0) & (first != second)
        first, second = first[inside].astype(np.int64), second[inside].astype(np.int64)
        pairs = np.unique(np.concatenate([pairs, _pairs(first, second), _pairs(second, first)]))
    schema = pa.schema({"pair": pa.int64()})
    with arrow_writer(folder / RELATIONS_FILE, schema) as writer:
        writer.write_table(pa.table([pairs], schema=schema))
    return len(pairs)


def _pairs(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    # A negative row keeps the number negative.
    return (first << ROW_BITS) | second
