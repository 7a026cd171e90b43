"""Retired CUIs: the current CUIs of concepts in older UMLS releases, from ``MRCUI.RRF``.

MedMentions is annotated with UMLS 2017AA. In a newer release some of its CUIs were merged into others (REL is SY),
some deleted (DEL), and of some only broader, narrower or otherwise related concepts are left (RB, RN, RO).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..core.lines import Faults, reading, skipped_lines
from .concepts import ConceptTable
from .corpus import Mention
from .cuis import cui_number, cui_numbers, cui_text
from .rrf_tables import TABLES, positions_in, read_columns

KINDS = ("SY", "RB", "RN", "RO", "DEL", "SUBX")
SYNONYM = 0


class RetiredCuis:
    """Retired CUIs and their successors.

    Args:
        lines: (n, 3) uint64, in any order: `cuis.cui_number` of a retired CUI; an index into KINDS, or another number
            for other values of REL; the CUI it is mapped to, or 0.
    """

    def __init__(self, lines: np.ndarray) -> None:
        self._lines = lines[np.argsort(lines[:, 0], kind="stable")]

    @classmethod
    def read(cls, path: Path | Sequence[Path], *, on_error: str = "stop") -> tuple[RetiredCuis, dict[str, Any]]:
        """Read ``MRCUI.RRF``; memory holds 24 bytes per line.

        Args:
            path: plain or gzip, whole or in parts.
            on_error: ``"stop"`` at the first malformed line, or ``"skip"`` and count it.

        Returns:
            The retired CUIs, and a report: ``lines``, ``skipped`` and ``reasons``.

        Raises:
            UserError: the file is missing, empty or broken; or a line is malformed (names file and line).
        """

        def convert(block: pa.RecordBatch) -> np.ndarray:
            kinds = positions_in(block["REL"], KINDS).astype(np.uint64)
            return np.stack([cui_numbers(block["CUI1"]), kinds, cui_numbers(block["CUI2"])], axis=1)

        faults = Faults(path, on_error)
        blocks = read_columns(TABLES["MRCUI"], path, ("CUI1", "REL", "CUI2"), faults, convert)
        lines = np.concatenate([np.empty((0, 3), np.uint64), *blocks])
        return cls(lines), {"lines": len(lines)} | skipped_lines(faults)

    def successor(self, cui: str, concepts: ConceptTable) -> tuple[str | None, str]:
        """The concept of the dictionary that `cui` was merged into, directly or over several releases.

        Only mergers (SY) are followed. If a CUI was merged into several, the nearest one in the dictionary is used,
        then the first in the file.

        Returns:
            The successor or None, and the outcome for `cui`: ``mapped``, ``successor_not_in_dictionary``,
            ``related_only`` (RB, RN or RO), ``deleted``, ``not_in_subset`` (SUBX), or ``not_retired`` (MRCUI does not
            know it).
        """
        start = cui_number(cui)
        reached, waiting = {start}, [start]
        while waiting:
            merged_into = [
                target for number in waiting for kind, target in self._of(number) if kind == SYNONYM and target
            ]
            waiting = [target for target in dict.fromkeys(merged_into) if target not in reached]
            reached.update(waiting)
            successors = [cui_text(number) for number in waiting]
            for row, successor in zip(concepts.rows(successors), successors, strict=True):
                if row >= 0:
                    return successor, "mapped"
        if len(reached) > 1:
            return None, "successor_not_in_dictionary"
        kinds = {KINDS[kind] for kind, _ in self._of(start) if kind < len(KINDS)}
        if kinds & {"RB", "RN", "RO"}:
            return None, "related_only"
        if "DEL" in kinds:
            return None, "deleted"
        return None, "not_in_subset" if "SUBX" in kinds else "not_retired"

    def _of(self, number: int) -> list[tuple[int, int]]:
        """Kind and target of each line of a retired CUI."""
        first, last = (np.searchsorted(self._lines[:, 0], np.uint64(number), side) for side in ("left", "right"))
        return self._lines[first:last, 1:].tolist()


@reading
def map_retired(
    mentions: Iterable[tuple[str, Mention]], retired: RetiredCuis, concepts: ConceptTable
) -> Generator[tuple[str, Mention], None, dict[str, Any]]:
    """Yield ``(split, mention)`` with gold CUIs that the dictionary lacks replaced by their successors.

    Returns:
        A `Reading`; its report has ``mentions`` and ``cuis``: numbers by outcome, of those outside the dictionary (see
        `RetiredCuis.successor`).
    """
    ends: dict[str, tuple[str | None, str]] = {}
    mention_counts: Counter[str] = Counter()
    for split, mention in mentions:
        if mention.cui not in ends:
            known = concepts.rows([mention.cui])[0] >= 0
            ends[mention.cui] = (None, "") if known else retired.successor(mention.cui, concepts)
        successor, end = ends[mention.cui]
        if end:
            mention_counts[end] += 1
        yield split, replace(mention, cui=successor) if successor else mention
    cui_counts = Counter(end for _, end in ends.values() if end)
    return {"mentions": dict(mention_counts.most_common()), "cuis": dict(cui_counts.most_common())}
