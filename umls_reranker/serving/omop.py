"""Ranked mentions as source_to_concept_map, a table of the OMOP CDM 5.4."""

from collections.abc import Iterator
from itertools import chain
from typing import Any, ClassVar

from ..core.arrays import hash_texts
from ..core.errors import UserError
from ..lists.answers import Term
from ..vocab.code_systems import code_system_of
from .mapping_formats import TOOL, FormatByString, table_line
from .omop_vocabulary import OmopConcept, OmopVocabulary
from .term_tallies import StringTally

# The most characters of source_code, source_vocabulary_id and source_code_description.
LONGEST_CODE = 50
LONGEST_VOCABULARY = 20
LONGEST_SOURCE_DESCRIPTION = 255
# The first and the last day on which a mapping is valid.
FIRST_DAY = "1970-01-01"
LAST_DAY = "2099-12-31"
# The target of a term that is mapped to no concept.
NO_TARGET = OmopConcept(0, "No matching concept", "Metadata", "None", "No matching concept")


def source_code(term: Term) -> str:
    """The code of a term, or of one without the string."""
    return shortened(term.code or term.text, LONGEST_CODE)


def shortened(text: str, longest: int) -> str:
    """The text; a longer one becomes its beginning and a hash, so that no two become one."""
    if len(text) <= longest:
        return text
    suffix = f"~{int(hash_texts([text])[0]):016x}"
    return text[: longest - len(suffix)] + suffix


class Omop(FormatByString):
    """source_to_concept_map: a row for each term and standard concept, 0 where there is none.

    Of the codes of a term's concept the first one that maps to a standard concept counts. Targets
    that a reviewer approved in Usagi stay.
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
        codes_of = {}
        for best in {tally.best for tally in self.strings.values()}:
            codes = self.settings.codes.of(best)
            codes_of[best] = [code for code in codes if code_system_of(code.source).omop]
        targets = self.vocabulary.targets(chain.from_iterable(codes_of.values()))
        reviewed = [tally.reviewed.get("reviewed_targets", ()) for tally in self.strings.values()]
        reviewed_concepts = self.vocabulary.concepts_of({*chain.from_iterable(reviewed)})
        yield table_line(self.header)
        for (term, tally), approved in zip(self.strings.items(), reviewed, strict=True):
            mapped = [
                reviewed_concepts[target] for target in approved if target in reviewed_concepts
            ]
            if not mapped:
                targets_of_codes = map(targets.get, codes_of[tally.best])
                mapped = next(filter(None, targets_of_codes), [])
            self.counts["unmapped"] += not mapped
            for target in mapped or [NO_TARGET]:
                yield table_line(map(self.cell, self.row(term, tally, target, mapped)))

    def row(
        self, term: Term, tally: StringTally, target: OmopConcept, targets: list[OmopConcept]
    ) -> list[object]:
        """The cells for one of the targets of a term."""
        return [
            source_code(term),
            0,
            shortened(term.vocabulary or TOOL, LONGEST_VOCABULARY),
            term.text[:LONGEST_SOURCE_DESCRIPTION],
            target.concept_id,
            target.vocabulary_id,
            FIRST_DAY,
            LAST_DAY,
            "",
        ]
