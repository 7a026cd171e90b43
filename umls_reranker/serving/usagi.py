"""Ranked mentions as a sheet of Usagi 1.4 (`WriteCodeMappingsToFile`), to be reviewed."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..lists.answers import Term
from .mapping_formats import TOOL
from .omop import Omop, source_code
from .omop_vocabulary import OmopConcept
from .term_tallies import StringTally

# The status of a mapping that a person approved.
APPROVED = "APPROVED"
# The day of a status that nobody set.
NOT_REVIEWED = "1970-01-01"


class Usagi(Omop):
    """A sheet of Usagi, approved where reviewed; else unchecked, and all of it: people decide."""

    name = "usagi"
    help = "Usagi: CSV to review; needs --omop_concepts"
    beside = ""
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

    def is_used(self, answer: Mapping[str, Any]) -> bool:
        return bool(answer.get("cui"))

    def row(
        self, term: Term, tally: StringTally, target: OmopConcept, targets: list[OmopConcept]
    ) -> list[object]:
        """The cells for one of the targets of a term."""
        best = tally.best
        score = tally.concepts[best].score if best else 0.0
        status = APPROVED if tally.reviewed else "UNCHECKED"
        day = np.datetime64(tally.reviewed.get("reviewed_on") or NOT_REVIEWED, "ms")
        values = {
            "sourceCode": source_code(term),
            "sourceName": term.text,
            "sourceFrequency": tally.frequency,
            "sourceAutoAssignedConceptIds": ";".join(str(each.concept_id) for each in targets),
            "ADD_INFO:cui": best,
            "matchScore": score,
            "mappingStatus": status,
            "equivalence": "UNREVIEWED",
            "statusSetBy": tally.reviewed.get("reviewer"),
            "statusSetOn": int(day.astype(np.int64)),
            "conceptId": target.concept_id,
            "conceptName": target.concept_name,
            "domainId": target.domain_id,
            "mappingType": "MAPS_TO",
            "comment": tally.comment_on(best),
            "createdBy": TOOL,
            "createdOn": 0,
        }
        return [values.get(column, "") for column in self.header]
