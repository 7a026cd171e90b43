"""OMOP: the table source_to_concept_map, and sheets of Usagi in which people review mappings.

Columns are those of the OMOP CDM 5.4, and of Usagi 1.4 (`WriteCodeMappingsToFile`).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, ClassVar

from ...core.arrays import hash_texts
from ...core.errors import UserError
from ...vocab.codes import Code, system_of
from .by_string import FormatByString, StringTally, cells
from .omop_vocabulary import OmopConcept, OmopVocabulary

# Of source_code, in characters.
LONGEST_CODE = 50
TOOL = "umls_reranker"
NO_CONCEPT = OmopConcept(0, "No matching concept", "Metadata", "None", "No matching concept")


def source_code(string: str) -> str:
    """A code for a string: itself, or its beginning and a hash if it is too long for one."""
    if len(string) <= LONGEST_CODE:
        return string
    suffix = f"~{int(hash_texts([string])[0]):016x}"
    return string[: LONGEST_CODE - len(suffix)] + suffix


class Omop(FormatByString):
    """source_to_concept_map: a row for each string and standard concept, 0 where there is none.

    Of the codes of a string's concept the first one that maps to a standard concept counts.
    """

    name = "omop"
    help = "OMOP: CSV of source_to_concept_map; needs --omop_concepts"
    header: ClassVar[tuple[str, ...]] = (
        "source_code",
        "source_concept_id",
        "source_vocabulary_id",
        "source_code_description",
        "target_concept_id",
        "target_vocabulary_id",
        "valid_start_date",
        "valid_end_date",
        "invalid_reason",
    )

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        if not self.settings.omop_concepts:
            raise UserError(
                f"--format {self.name} needs --omop_concepts CONCEPT.csv CONCEPT_RELATIONSHIP.csv, "
                "files of an OMOP vocabulary, for the integers of its concepts"
            )
        self.vocabulary = OmopVocabulary(*self.settings.omop_concepts)

    def lines(self) -> Iterator[str]:
        codes_of = {tally.best: self._codes(tally.best) for tally in self.strings.values()}
        targets = self.vocabulary.targets(chain.from_iterable(codes_of.values()))
        yield cells(self.header)
        for string, tally in self.strings.items():
            mapped = next((targets[code] for code in codes_of[tally.best] if code in targets), [])
            self.counts["unmapped"] += not mapped
            for target in mapped or [NO_CONCEPT]:
                yield cells(self.row(string, tally, target, mapped))

    def _codes(self, cui: str) -> list[Code]:
        """The codes of a concept in vocabularies of OMOP; none of ""."""
        codes = self.settings.codes.of(cui) if cui else ()
        return [code for code in codes if system_of(code.source).omop]

    def row(
        self, string: str, tally: StringTally, target: OmopConcept, targets: list[OmopConcept]
    ) -> list[object]:
        """The cells for one of the targets of a string."""
        return [
            source_code(string),
            0,
            TOOL,
            string[:255],
            target.concept_id,
            target.vocabulary_id,
            "1970-01-01",
            "2099-12-31",
            "",
        ]


class Usagi(Omop):
    """A sheet of Usagi, unchecked, with what was not accepted, too: people decide."""

    name = "usagi"
    help = "Usagi: CSV to review; needs --omop_concepts"
    only_accepted = False
    header = (
        "sourceCode",
        "sourceName",
        "sourceFrequency",
        "sourceAutoAssignedConceptIds",
        "ADD_INFO:cui",
        "matchScore",
        "mappingStatus",
        "equivalence",
        "statusSetBy",
        "statusSetOn",
        "conceptId",
        "conceptName",
        "domainId",
        "mappingType",
        "comment",
        "createdBy",
        "createdOn",
        "assignedReviewer",
    )

    def row(
        self, string: str, tally: StringTally, target: OmopConcept, targets: list[OmopConcept]
    ) -> list[object]:
        """The cells for one of the targets of a string."""
        best = tally.best
        values = {
            "sourceCode": source_code(string),
            "sourceName": string,
            "sourceFrequency": tally.mentions,
            "sourceAutoAssignedConceptIds": ";".join(str(each.concept_id) for each in targets),
            "ADD_INFO:cui": best,
            "matchScore": tally.concepts[best].score if best else 0.0,
            "mappingStatus": "UNCHECKED",
            "equivalence": "UNREVIEWED",
            "statusSetOn": 0,
            "conceptId": target.concept_id,
            "conceptName": target.concept_name,
            "domainId": target.domain_id,
            "mappingType": "MAPS_TO",
            "comment": tally.comment if best else "",
            "createdBy": TOOL,
            "createdOn": 0,
        }
        return [values.get(column, "") for column in self.header]
