"""Sheets of Usagi, which people reviewed, as labelled mentions."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ...core.errors import UserError
from ...lists.read import CUI_LESS
from ...vocab.codes import ConceptCodes
from .omop_vocabulary import OmopVocabulary

COLUMNS = {"sourceCode", "sourceName", "mappingStatus", "conceptId"}
APPROVED = "APPROVED"
OUR_ANSWER = "ADD_INFO:cui"


def usagi_mentions(
    path: Path, codes: ConceptCodes, vocabulary: OmopVocabulary | None
) -> Iterator[dict[str, Any]]:
    """Yield a mention for each source code of a sheet, which is a document of its own.

    An approved mention has its gold concepts as ``cui``: the answer that we had suggested
    (`omop.Usagi`) if it is still the target, or else the concepts with the code of the target, or
    with a code that maps to it; without any, ``OMOP:`` and the target, which no dictionary has.

    Args:
        path: the sheet.
        codes: codes of the dictionary's concepts.
        vocabulary: has the codes of targets; not needed if all are our own suggestions.

    Raises:
        UserError: the file is no sheet, or the vocabulary is needed and not given.
    """
    groups: dict[str, list[Mapping[str, str]]] = {}
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream)
        if missing := COLUMNS - {*(reader.fieldnames or ())}:
            raise UserError(f"{path} is no sheet of Usagi: it has no column {min(missing)}")
        for row in reader:
            groups.setdefault(row["sourceCode"], []).append(row)
    changed = {
        target for rows in groups.values() if not _suggested(rows) for target in _targets(rows)
    }
    if changed and vocabulary is None:
        raise UserError(
            f"{path}: the approved target {min(changed)} is an integer of OMOP; add "
            "--omop_concepts CONCEPT.csv CONCEPT_RELATIONSHIP.csv, which have its codes"
        )
    concepts_of = _concepts(changed, codes, vocabulary) if vocabulary and changed else {}
    for source_code, rows in groups.items():
        mention = {"doc_id": source_code, "mention_id": source_code}
        mention["mention"] = rows[0]["sourceName"]
        if rows[0]["mappingStatus"] != APPROVED:
            yield mention
            continue
        parts = [concepts_of.get(target, [f"OMOP:{target}"]) for target in _targets(rows)]
        gold = _suggested(rows) or (parts if len(parts) > 1 else [*parts, CUI_LESS][0])
        yield mention | {"cui": gold}


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


def _concepts(
    targets: Iterable[str], codes: ConceptCodes, vocabulary: OmopVocabulary
) -> dict[str, list[str]]:
    """Target -> the concepts of the dictionary with its code, or else with one that maps to it."""
    codes_of_target = vocabulary.sources(targets)
    all_codes = {code for codes_of in codes_of_target.values() for code in codes_of}
    concepts_of = codes.concepts_with(all_codes)
    found = {}
    for target, (own, *others) in codes_of_target.items():
        concepts = concepts_of.get(own) or [
            cui for code in others for cui in concepts_of.get(code, ())
        ]
        if concepts:
            found[target] = list(dict.fromkeys(concepts))
    return found
