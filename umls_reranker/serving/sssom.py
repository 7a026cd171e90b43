"""Ranked mentions in SSSOM, https://mapping-commons.github.io/sssom, version 1.0."""

import json
from collections.abc import Iterator
from uuid import NAMESPACE_URL, uuid5

from ..core.version import __version__
from ..lists.answers import Term
from ..vocab.code_systems import Code, code_system_of
from .mapping_formats import TOOL, FormatByString, table_line
from .source_codes import source_codes_of
from .term_tallies import StringTally

# A tier says how sure the model is; `mappingRelation` claims no more than that there is one.
PREDICATES: dict[str | None, str] = {
    "high": "skos:exactMatch",
    "medium": "skos:closeMatch",
}
SSSOM_NAMESPACES = {
    "skos": "http://www.w3.org/2004/02/skos/core#",
    "semapv": "https://w3id.org/semapv/vocab/",
}
SSSOM_COLUMNS = (
    "subject_id",
    "subject_label",
    "subject_type",
    "predicate_id",
    "object_id",
    "object_label",
    "mapping_justification",
    "author_label",
    "mapping_date",
    "mapping_tool",
    "mapping_tool_version",
    "confidence",
    "similarity_score",
    "similarity_measure",
    "comment",
)


class Sssom(FormatByString):
    """A row for each term and code of its concept; a literal mapping if the term has no code.

    The confidence is the mean probability of the string's mentions, the predicate that of their
    lowest tier. A score that is not calibrated is a similarity.
    """

    name = "sssom"
    help = "SSSOM: TSV, a row for each string and source code"
    has_further = True

    def lines(self) -> Iterator[str]:
        namespaces: dict[str, str] = {}
        lines = [table_line(SSSOM_COLUMNS, "\t")]
        for term, tally in self.strings.items():
            for concept in tally.ranked[: self.settings.top or 1]:
                for code in self.settings.codes.of(concept):
                    row = self._row(term, tally, concept, code)
                    lines.append(
                        table_line([row.get(column, "") for column in SSSOM_COLUMNS], "\t")
                    )
                    systems = (
                        code_system_of(each.source) for each in (code, *source_codes_of(term))
                    )
                    namespaces |= {system.prefix: system.namespace for system in systems}
        description = f"Answers of the model {self.settings.model} for mentions in text"
        yield (
            f"#mapping_set_id: urn:uuid:{uuid5(NAMESPACE_URL, ''.join(lines))}\n"
            "#license: https://w3id.org/sssom/license/unspecified\n"
            f"#mapping_set_description: {json.dumps(description)}\n"
            "#curie_map:\n"
        )
        for prefix, namespace in (SSSOM_NAMESPACES | dict(sorted(namespaces.items()))).items():
            yield f"#  {prefix}: {json.dumps(namespace)}\n"
        yield from lines

    def _row(self, term: Term, tally: StringTally, cui: str, code: Code) -> dict[str, object]:
        concept = tally.concepts[cui]
        sources = source_codes_of(term)
        subject_id = sources[0].curie if sources else ""
        subject_type = "" if term.code else "rdfs literal"
        values = {
            "subject_id": subject_id,
            "subject_label": term.text,
            "subject_type": subject_type,
            "object_id": code.curie,
            "object_label": concept.name,
            "comment": tally.comment_on(cui),
        }
        if tally.reviewed:
            return values | {
                "predicate_id": PREDICATES["high"],
                "mapping_justification": "semapv:ManualMappingCuration",
                "author_label": tally.reviewed["reviewer"],
                "mapping_date": tally.reviewed["reviewed_on"],
            }
        score: dict[str, object] = {"confidence": concept.score}
        if concept.tier is None:
            score = {
                "similarity_score": concept.score,
                "similarity_measure": f"score of {TOOL}, not calibrated",
            }
        about_model = {
            "predicate_id": PREDICATES.get(concept.tier, "skos:mappingRelation"),
            "mapping_justification": "semapv:CompositeMatching",
            "mapping_tool": TOOL,
            "mapping_tool_version": __version__,
        }
        return values | about_model | score
