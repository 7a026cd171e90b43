"""Retired CUIs: the current CUIs of concepts in older UMLS releases, from ``MRCUI.RRF``.

MedMentions is annotated with UMLS 2017AA. In a newer release some of its CUIs were merged into others (REL is SY).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from .concepts import ConceptTable, StringRows
from .corpus import Mention
from .rrf_tables import read_table

SCHEMA = pa.schema({"CUI1": pa.string(), "CUI2": pa.string()})


class RetiredCuis:
    """CUIs that were merged into others, as `RetiredCuis.read` finds them.

    Args:
        mergers: columns ``CUI1`` (the retired CUI) and ``CUI2``, in any order.
    """

    def __init__(self, mergers: pa.Table) -> None:
        self._retired = StringRows.of(mergers["CUI1"].combine_chunks())
        self._successors = mergers["CUI2"].combine_chunks()

    @classmethod
    def read(cls, path: Path) -> RetiredCuis:
        """Read the mergers of ``MRCUI.RRF``, plain or gzip.

        Raises:
            UserError: the file is missing, empty or damaged, or a line is malformed (names file and line).
        """
        blocks = read_table("MRCUI", path, ["CUI1", "REL", "CUI2"])
        mergers = [block.filter(pc.equal(block["REL"], "SY")).select(SCHEMA.names) for block in blocks]
        return cls(pa.Table.from_batches(mergers, SCHEMA))

    def successor(self, cui: str, concepts: ConceptTable) -> str | None:
        """The concept of the dictionary that `cui` was merged into, directly or over several releases.

        If a CUI was merged into several, the nearest one in the dictionary is used, then the first in the file.
        """
        reached, waiting = {cui}, [cui]
        while waiting:
            rows, _ = self._retired.find(pa.array(waiting, pa.string()))
            merged_into = self._successors.take(pa.array(rows)).to_pylist()
            waiting = [target for target in dict.fromkeys(merged_into) if target not in reached]
            reached.update(waiting)
            for successor, row in zip(waiting, concepts.rows(waiting), strict=True):
                if row >= 0:
                    return successor
        return None


def map_retired(
    mentions: Iterable[tuple[str, Mention]], retired: RetiredCuis, concepts: ConceptTable
) -> Iterator[tuple[str, Mention]]:
    """Yield ``(split, mention)`` with gold CUIs that the dictionary lacks replaced by their successors, if any."""
    current: dict[str, str] = {}
    for split, mention in mentions:
        if mention.cui not in current:
            is_known = concepts.rows([mention.cui])[0] >= 0
            current[mention.cui] = (not is_known and retired.successor(mention.cui, concepts)) or mention.cui
        yield split, replace(mention, cui=current[mention.cui])
