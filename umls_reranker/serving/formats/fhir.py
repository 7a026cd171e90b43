"""FHIR: a CodeableConcept for each mention, in the order of the rows (NDJSON)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ...vocab.codes import LOCAL, code_of, system_of
from ..parts import LinesFormat, RankedRows
from .by_string import Answer, answers_of, is_used

EXTENSIONS = "urn:umls-reranker:"
IDS = ("doc_id", "mention_id")


class Fhir(LinesFormat):
    """CodeableConcepts with a coding for each code of an accepted concept, and for its own id.

    One that is not accepted has only its text. Extensions hold the score, the tier, and the ids
    of mention and document, but never the text around the mention.
    """

    name = "fhir"
    help = "FHIR: NDJSON, a CodeableConcept for each mention"

    def lines(self, rows: RankedRows) -> Iterator[bytes]:
        for concept in map(self._concept, rows.mappings(), answers_of(rows)):
            text = json.dumps(concept, ensure_ascii=False)
            yield text.encode(errors="backslashreplace") + b"\n"

    def _concept(self, row: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
        score = "uncalibrated-score" if answer["tier"] is None else "score"
        values = [(key.replace("_", "-"), "valueString", row.get(key)) for key in IDS]
        if answer["answer"] is not None:
            values.append((score, "valueDecimal", round(answer["answer_score"], 6)))
        values.append(("tier", "valueCode", answer["tier"]))
        extensions = [
            {"url": EXTENSIONS + name, kind: value if kind == "valueDecimal" else str(value)}
            for name, kind, value in values
            if value not in (None, "")
        ]
        codings = []
        if is_used(answer):
            codings = list(self._codings(answer["answer"], answer["answer_name"]))
        concept = {"extension": extensions, "coding": codings, "text": answer["mention"]}
        return {key: value for key, value in concept.items() if value}

    def _codings(self, cui: str, name: str) -> Iterator[dict[str, str]]:
        own = code_of(cui, self.settings.codes.sources)
        codes = [*self.settings.codes.of(cui)]
        if own not in codes and own.source != LOCAL:
            codes.append(own)
        for code in codes:
            coding = {"system": system_of(code.source).fhir, "code": code.code}
            coding["display"] = name if code == own else ""
            yield {key: value for key, value in coding.items() if value}
