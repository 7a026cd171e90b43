"""Retired CUIs: the current CUIs of concepts in older UMLS releases, from ``MRCUI.RRF``.

MedMentions is annotated with UMLS 2017AA. In a newer release some of its CUIs were merged into others (REL is SY),
some deleted (DEL), and of some only broader, narrower or otherwise related concepts are left (RB, RN, RO). Columns
are those of the UMLS Reference Manual, chapter 3.
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
from .cuis import CUI_BYTES, cui_number, cui_numbers, cui_text
from .pipes import places_in, read_columns

__all__ = ["RetiredCuis", "map_retired"]

MRCUI = ("CUI1", "VER", "REL", "RELA", "MAPREASON", "CUI2", "MAPIN")
KINDS = ("SY", "RB", "RN", "RO", "DEL", "SUBX")
SYNONYM = 0


class RetiredCuis:
    """Retired CUIs and their successors.

    Args:
        retired: (n,) uint64, `cuis.cui_number` of the retired CUIs, in any order.
        kinds: (n,) indices into KINDS; another number for other values of REL.
        targets: (n,) uint64, the CUIs they are mapped to, or 0.
    """

    def __init__(self, retired: np.ndarray, kinds: np.ndarray, targets: np.ndarray) -> None:
        order = np.argsort(retired, kind="stable")
        self._retired, self._kinds, self._targets = retired[order], kinds[order], targets[order]

    @classmethod
    def read(cls, path: Path | Sequence[Path], *, on_error: str = "stop") -> tuple[RetiredCuis, dict[str, Any]]:
        """Read ``MRCUI.RRF``; memory holds 17 bytes per line.

        Args:
            path: plain or gzip, whole or in parts.
            on_error: ``"stop"`` at the first malformed line, or ``"skip"`` and count it.

        Returns:
            the retired CUIs, and a report: ``lines``, ``skipped`` and ``reasons``.

        Raises:
            UserError: the file is missing, empty or broken; or a line is malformed (names file and line).
        """

        def convert(block: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            kinds = places_in(block["REL"], KINDS).astype(np.int8)
            return cui_numbers(block["CUI1"]), kinds, cui_numbers(block["CUI2"])

        columns = [(np.empty(0, np.uint64), np.empty(0, np.int8), np.empty(0, np.uint64))]
        required, longest = ("CUI1", "REL"), {"CUI1": CUI_BYTES, "CUI2": CUI_BYTES}
        faults = Faults(path, on_error)
        columns += read_columns(
            path, MRCUI, ("CUI1", "REL", "CUI2"), required, faults, longest=longest, convert=convert
        )
        retired, kinds, targets = (np.concatenate(parts) for parts in zip(*columns, strict=True))
        return cls(retired, kinds, targets), {"lines": len(retired)} | skipped_lines(faults)

    def successor(self, cui: str, concepts: ConceptTable) -> tuple[str | None, str]:
        """The concept of the dictionary that `cui` was merged into, directly or over several releases.

        Only mergers (SY) are followed. If a CUI was merged into several, the nearest one in the dictionary is used,
        then the first in the file.

        Returns:
            the successor or None, and the outcome for `cui`: ``mapped``, ``successor_not_in_dictionary``,
            ``related_only`` (RB, RN or RO), ``deleted``, ``not_in_subset`` (SUBX), or ``not_retired`` (MRCUI does not
            know it).
        """
        start = cui_number(cui)
        reached, waiting = {start}, [start]
        while waiting:
            targets = [target for number in waiting for target in self._merged_into(number)]
            waiting = [target for target in dict.fromkeys(targets) if target not in reached]
            reached.update(waiting)
            successors = [cui_text(number) for number in waiting]
            for row, successor in zip(concepts.rows(successors), successors, strict=True):
                if row >= 0:
                    return successor, "mapped"
        if len(reached) > 1:
            return None, "successor_not_in_dictionary"
        kinds = {KINDS[kind] for kind in self._kinds[self._lines(start)] if kind < len(KINDS)}
        if kinds & {"RB", "RN", "RO"}:
            return None, "related_only"
        if "DEL" in kinds:
            return None, "deleted"
        return None, "not_in_subset" if "SUBX" in kinds else "not_retired"

    def _lines(self, number: int) -> slice:
        first, last = (np.searchsorted(self._retired, np.uint64(number), side) for side in ("left", "right"))
        return slice(int(first), int(last))

    def _merged_into(self, number: int) -> list[int]:
        lines = self._lines(number)
        targets = self._targets[lines][self._kinds[lines] == SYNONYM]
        return [target for target in targets.tolist() if target]


@reading
def map_retired(
    mentions: Iterable[tuple[str, Mention]], retired: RetiredCuis, concepts: ConceptTable
) -> Generator[tuple[str, Mention], None, dict[str, Any]]:
    """Yield ``(split, mention)`` with gold CUIs that the dictionary lacks replaced by their successors.

    Returns:
        a `Reading`; its report has ``mentions`` and ``cuis``: numbers by outcome, of those outside the dictionary (see
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
