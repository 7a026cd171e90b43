"""FHIR: a CodeableConcept for each mention, in the order of the rows (NDJSON)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ...vocab.code_systems import LOCAL, code_of, system_of
from ..outputs import LinesFormat, RankedRows
from .by_string import Answer, answers_of

EXTENSIONS = "urn:umls-reranker:"


class Fhir(LinesFormat):
    """CodeableConcepts with a coding for each code of an accepted concept, and for its own id.

    One that is not accepted has only its text. Extensions hold the score, the tier, and the ids
    of mention and document, but never the text around the mention.
    """

    name = "fhir"
    help = "FHIR: NDJSON, a CodeableConcept for each mention"

    def content(self, rows: RankedRows) -> list[bytes]:
        concepts = map(self._concept, rows.mappings(), answers_of(rows))
        texts = (json.dumps(concept, ensure_ascii=False) for concept in concepts)
        return [text.encode(errors="backslashreplace") + b"\n" for text in texts]

    def _concept(self, row: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
        concept: dict[str, Any] = {}
        if extensions := list(_extensions(row, answer)):
            concept["extension"] = extensions
        if answer.cui is not None and answer.is_accepted:
            concept["coding"] = list(self._codings(answer.cui, answer.name))
        if answer.mention:
            concept["text"] = answer.mention
        return concept

    def _codings(self, cui: str, name: str) -> Iterator[dict[str, str]]:
        own = code_of(cui, self.settings.codes.sources)
        codes = [*self.settings.codes.of(cui)]
        if own not in codes and own.source != LOCAL:
            codes.append(own)
        for code in codes:
            coding = {"system": system_of(code.source).fhir, "code": code.code}
            coding["display"] = name if code == own else ""
            yield {key: value for key, value in coding.items() if value}


def _extensions(row: Mapping[str, Any], answer: Answer) -> Iterator[dict[str, Any]]:
    for key in ("doc_id", "mention_id"):
        if row.get(key) not in (None, ""):
            yield {"url": EXTENSIONS + key.replace("_", "-"), "valueString": str(row[key])}
    if answer.cui is not None:
        name = "uncalibrated-score" if answer.tier is None else "score"
        yield {"url": EXTENSIONS + name, "valueDecimal": round(answer.score, 6)}
    if answer.tier is not None:
        yield {"url": f"{EXTENSIONS}tier", "valueCode": answer.tier}
