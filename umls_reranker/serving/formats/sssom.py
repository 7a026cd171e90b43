"""SSSOM: strings mapped to concepts, as a TSV file with its metadata in YAML (literal mappings).

The format is that of https://mapping-commons.github.io/sssom, version 1.0.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from uuid import NAMESPACE_URL, uuid5

from ...core.version import __version__
from ...vocab.codes import Code, system_of
from .by_string import FormatByString, StringTally, cells

# A tier says how sure the model is; `mappingRelation` claims no more than that there is one.
PREDICATES = {
    "high": "skos:exactMatch",
    "medium": "skos:closeMatch",
}
UNCALIBRATED = "skos:mappingRelation"
NAMESPACES = {
    "skos": "http://www.w3.org/2004/02/skos/core#",
    "semapv": "https://w3id.org/semapv/vocab/",
}
COLUMNS = (
    "subject_label",
    "subject_type",
    "predicate_id",
    "object_id",
    "object_label",
    "mapping_justification",
    "mapping_tool",
    "mapping_tool_version",
    "confidence",
    "similarity_score",
    "similarity_measure",
    "comment",
)


class Sssom(FormatByString):
    """Literal mappings: a row for each string and code of its concept; a string has no id.

    The confidence is the mean probability of the string's mentions, the predicate that of their
    lowest tier. A score that is not calibrated is a similarity.
    """

    name = "sssom"
    help = "SSSOM: TSV, a row for each string"

    def lines(self) -> Iterator[str]:
        codes: set[Code] = set()
        lines = [cells(COLUMNS, "\t")]
        for string, tally in self.strings.items():
            if tally.concepts:
                codes_of_string = self.settings.codes.of(tally.best)
                codes.update(codes_of_string)
                lines += [cells(self._row(string, tally, code), "\t") for code in codes_of_string]
        yield from self._metadata(codes, "".join(lines))
        yield from lines

    def _metadata(self, codes: set[Code], content: str) -> Iterator[str]:
        yield f"#mapping_set_id: urn:uuid:{uuid5(NAMESPACE_URL, content)}\n"
        yield "#license: https://w3id.org/sssom/license/unspecified\n"
        description = f"Answers of the model {self.settings.model} for mentions in text"
        yield f"#mapping_set_description: {json.dumps(description)}\n"
        yield "#curie_map:\n"
        systems = sorted({system_of(code.source) for code in codes})
        namespaces = NAMESPACES | {system.prefix: system.namespace for system in systems}
        for prefix, namespace in namespaces.items():
            yield f"#  {prefix}: {json.dumps(namespace)}\n"

    def _row(self, string: str, tally: StringTally, code: Code) -> list[object]:
        concept = tally.concepts[tally.best]
        is_calibrated = concept.tier is not None
        values = {
            "subject_label": string,
            "subject_type": "rdfs literal",
            "predicate_id": PREDICATES.get(concept.tier or "", UNCALIBRATED),
            "object_id": code.curie,
            "object_label": concept.name,
            "mapping_justification": "semapv:CompositeMatching",
            "mapping_tool": "umls_reranker",
            "mapping_tool_version": __version__,
            "confidence" if is_calibrated else "similarity_score": concept.score,
            "comment": tally.comment,
        }
        if not is_calibrated:
            values["similarity_measure"] = "score of umls_reranker, not calibrated"
        return [values.get(column, "") for column in COLUMNS]
