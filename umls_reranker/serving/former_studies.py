"""The studies that labelled documents belong to: those of a model's history, and of the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..calibration.ledger import Ledger
from ..calibration.study import Study, StudyHistory, document_hash
from ..lists.annotated_lists import AnnotatedLists
from .look_plan import LookOptions
from .look_planner import LookPlanner


@dataclass(frozen=True)
class FormerStudies:
    """Studies of labelled lists that are in a model's history or in the ledger.

    Attributes:
        studies: the studies, each once.
        labelled_of: id of a study -> hashes of those of its documents that were labelled.
        of_model: ids of those of the model's history.
    """

    studies: Sequence[Study]
    labelled_of: Mapping[str, frozenset[str]]
    of_model: frozenset[str]

    @classmethod
    def of(cls, lists: AnnotatedLists, history: StudyHistory, ledger: Ledger) -> FormerStudies:
        """Collect them; copies of one study are joined."""
        studies: dict[str, Study] = {}
        labelled_of: dict[str, frozenset[str]] = {}
        for study in history.studies:
            studies[study.id] = study
            labelled_of[study.id] = history.documents & {*study.documents}
        for entry in ledger.studies_of(mention_hashes(lists)):
            study = entry.study
            if study.id in studies:
                study = studies[study.id].joined(study)
            studies[study.id] = study
            labelled_of[study.id] = labelled_of.get(study.id, frozenset()) | entry.documents
        of_model = frozenset(study.id for study in history.studies)
        return cls([*studies.values()], labelled_of, of_model)

    @property
    def labelled(self) -> frozenset[str]:
        """Hashes of documents that were labelled for any study."""
        return frozenset().union(*self.labelled_of.values())

    def labelled_elsewhere(self, study: Study) -> frozenset[str]:
        """Hashes of documents that were labelled for other studies."""
        of_others = [labelled for key, labelled in self.labelled_of.items() if key != study.id]
        return frozenset().union(*of_others)

    @property
    def next_attempt(self) -> int:
        """The number of a new study."""
        return 1 + max((study.attempt for study in self.studies), default=0)

    def current(self, written: Study) -> Study:
        """The study of a file, joined with other copies of it."""
        for study in self.studies:
            if study.id == written.id:
                return study.joined(written)
        return replace(written, attempt=max(written.attempt, self.next_attempt))

    def planner(
        self,
        lists: AnnotatedLists,
        study: Study,
        trains_only: frozenset[str],
        system: Mapping[str, Any],
        options: LookOptions,
    ) -> LookPlanner:
        """The planner of a study; a model that it made began as the study says."""
        if study.id in self.of_model and "model" in study.system:
            system = {**system, "model": study.system["model"]}
        return LookPlanner(lists, study, trains_only, system, options)


def mention_hashes(lists: AnnotatedLists) -> dict[str, str]:
    """Hash of each mention drawn at random, with its context and document -> that of its document.

    They do not depend on candidates, so a changed index leaves them as they are.
    """
    hashes = {}
    annotations = lists.annotations
    for row in np.flatnonzero(annotations.is_random_sample).tolist():
        document = str(annotations.doc_ids[row])
        mention = [document, lists.lefts[row], lists.mentions[row], lists.rights[row]]
        hashes[document_hash("\0".join(mention))] = document_hash(document)
    return hashes
