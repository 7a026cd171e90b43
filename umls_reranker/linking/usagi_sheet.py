"""Sheets of Usagi, which people reviewed, as labelled mentions."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.text_files import start_of
from ..lists.read import CUI_LESS
from ..serving.formats.omop_vocabulary import OmopVocabulary
from ..vocab.codes import ConceptCodes

COLUMNS = {"sourceCode", "sourceName", "mappingStatus", "conceptId"}
APPROVED = "APPROVED"
OUR_ANSWER = "ADD_INFO:cui"


@dataclass(frozen=True)
class UsagiSheets:
    """Reads sheets.

    Attributes:
        codes: codes of the dictionary's concepts.
        vocabulary: has the codes of targets; not needed if all are our own suggestions.
    """

    codes: ConceptCodes = field(default_factory=ConceptCodes)
    vocabulary: OmopVocabulary | None = None

    @staticmethod
    def recognizes(path: Path) -> bool:
        """Whether a file is a sheet."""
        if path.suffix != ".csv" or not path.is_file() or not path.stat().st_size:
            return False
        header = start_of(path).split(b"\n", 1)[0].decode(errors="replace").strip()
        return {*COLUMNS} <= {*next(csv.reader([header]), ())}

    def mentions(self, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield place and mention of each source code, which is a document of its own.

        An approved mention has its gold concepts as ``cui``: the answer that we had suggested
        (`omop.Usagi`) if it is still the target, or else the concepts with the code of the target,
        or with a code that maps to it; without any, ``OMOP:`` and the target, which no dictionary
        has.

        Raises:
            UserError: the vocabulary is needed and not given, or cannot be read.
        """
        groups: dict[str, list[Mapping[str, str]]] = {}
        with path.open(encoding="utf-8-sig", newline="") as stream:
            for row in csv.DictReader(stream):
                groups.setdefault(row["sourceCode"], []).append(row)
        changed = {
            target for rows in groups.values() if not _suggested(rows) for target in _targets(rows)
        }
        concepts_of: dict[str, list[str]] = {}
        if changed:
            if self.vocabulary is None:
                raise UserError(
                    f"{path}: the approved target {min(changed)} is an integer of OMOP; add "
                    "--omop_concepts CONCEPT.csv CONCEPT_RELATIONSHIP.csv, which have its codes"
                )
            concepts_of = self._concepts(changed, self.vocabulary)
        for source_code, rows in groups.items():
            mention = {"doc_id": source_code, "mention_id": source_code}
            mention["mention"] = rows[0]["sourceName"]
            if rows[0]["mappingStatus"] != APPROVED:
                yield f"{path}: {source_code}", mention
                continue
            parts = [concepts_of.get(target, [f"OMOP:{target}"]) for target in _targets(rows)]
            gold: Any = parts
            if len(parts) < 2:
                gold = parts[0] if parts else CUI_LESS
            yield f"{path}: {source_code}", mention | {"cui": _suggested(rows) or gold}

    def _concepts(self, targets: Iterable[str], vocabulary: OmopVocabulary) -> dict[str, list[str]]:
        """Target -> the concepts with its code, or else with one that maps to it, if any has."""
        concepts_of_target = {}
        codes_of_target = vocabulary.sources(targets)
        concepts_of = self.codes.concepts_with({*chain.from_iterable(codes_of_target.values())})
        for target, (own, *others) in codes_of_target.items():
            by_others = chain.from_iterable(concepts_of.get(code, ()) for code in others)
            if concepts := concepts_of.get(own) or list(dict.fromkeys(by_others)):
                concepts_of_target[target] = concepts
        return concepts_of_target


def _targets(rows: Iterable[Mapping[str, str]]) -> list[str]:
    """The approved targets of a source code."""
    return [
        row["conceptId"]
        for row in rows
        if row["mappingStatus"] == APPROVED and row["conceptId"] not in ("", "0")
    ]


def _suggested(rows: list[Mapping[str, str]]) -> str:
    """Our own answer if its targets were approved, or else ""."""
    suggested = rows[0].get("sourceAutoAssignedConceptIds") or ""
    targets = _targets(rows)
    is_ours = bool(targets) and {*targets} == {*suggested.split(";")}
    return (rows[0].get(OUR_ANSWER) or "") if is_ours else ""
