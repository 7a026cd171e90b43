"""Ranked mentions in FHIR R4, a CodeableConcept a line."""

from collections.abc import Iterator, Mapping
from typing import Any

from ..lists.answers import term_of
from ..vocab.code_systems import LOCAL, OWN_URN, Code, code_of, code_system_of
from .mapping_formats import Mappings
from .output_format import LinesFormat, json_line
from .rows import RankedRows
from .source_codes import source_codes_of


class Fhir(Mappings, LinesFormat):
    """CodeableConcepts with a coding for each code of an accepted concept, and for its own id.

    One that is not accepted has only its text and the source's coding, which is the last of each.
    Extensions hold the score, the tier, and the ids of mention and document, but never the text
    around the mention.
    """

    name = "fhir"
    help = "FHIR: NDJSON, a CodeableConcept for each mention"

    def lines(self, rows: RankedRows) -> Iterator[bytes]:
        for row, answers in zip(rows.mappings(), rows.concepts(1), strict=True):
            answer = answers[0] if answers else {}
            yield json_line(self._concept(row, answer)) + b"\n"

    def _concept(self, row: Mapping[str, Any], answer: Mapping[str, Any]) -> dict[str, Any]:
        score = "uncalibrated-score" if answer.get("tier") is None else "score"
        values = (
            ("doc-id", "valueString", row.get("doc_id")),
            ("mention-id", "valueString", row.get("mention_id")),
            (score, "valueDecimal", answer.get("score")),
            ("tier", "valueCode", answer.get("tier")),
        )
        extensions = [
            _extension(name, kind, value) for name, kind, value in values if value not in (None, "")
        ]
        term = term_of(row)
        codings = self._codings(answer["cui"], answer["name"]) if self.is_used(answer) else []
        codings += [_coding(code, term.text) for code in source_codes_of(term)]
        concept = {"extension": extensions, "coding": codings, "text": _fhir_text(term.text)}
        return {key: value for key, value in concept.items() if value}

    def _codings(self, cui: str, name: str | None) -> list[dict[str, str]]:
        own = code_of(cui, self.settings.codes.sources)
        others = [own] if own.source != LOCAL else []
        codes = dict.fromkeys([*self.settings.codes.of(cui), *others])
        # Other vocabularies may call the concept otherwise.
        displays = {own: name or ""}
        return [_coding(code, displays.get(code, "")) for code in codes]


def _extension(name: str, kind: str, value: Any) -> dict[str, Any]:
    """An extension with a value of one of FHIR's kinds."""
    if kind == "valueDecimal":
        return {"url": OWN_URN + name, kind: round(value, 6)}
    return {"url": OWN_URN + name, kind: _fhir_text(str(value))}


def _coding(code: Code, display: str) -> dict[str, str]:
    """A coding; the type code of FHIR has no other white space than single spaces."""
    coding = {
        "system": code_system_of(code.source).fhir,
        "code": " ".join(_fhir_text(code.code).split()),
        "display": _fhir_text(display),
    }
    return {key: value for key, value in coding.items() if value}


def _fhir_text(text: str) -> str:
    """The text without what no string of FHIR has."""
    return "".join(character for character in text if character >= " " or character in "\t\r\n")
