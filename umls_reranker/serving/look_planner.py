"""Which look of one study is due by the labels that there are, and what it tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..calibration.study import LookResult, Study, document_hash
from ..core.hashes import json_sha256
from ..lists.annotated_lists import AnnotatedLists
from .look_plan import LookOptions, LookPlan
from .look_words import HOW_A_STUDY_IS_WRITTEN, NEW_STUDY, name_of_look, percent_of


@dataclass(frozen=True)
class LookPlanner:
    """Says for one study what is tested.

    Attributes:
        lists: the lists.
        study: the study.
        trains_only: hashes of documents of earlier studies, which do not certify.
        system: what decides (`study_system`).
        options: what the user says.
    """

    lists: AnnotatedLists
    study: Study
    trains_only: frozenset[str]
    system: Mapping[str, Any]
    options: LookOptions

    @property
    def is_continued(self) -> bool:
        """Whether the study was there before; else it is forgotten unless its look is taken."""
        has_history = bool(self.study.system or self.study.results)
        return has_history or self.options.written is not None or self.options.is_new_study

    def nothing(self, reason: str, advice: str = "") -> LookPlan:
        """The plan to test nothing: all that has labels is fitted on.

        Args:
            reason: why.
            advice: what to do about it; "": nothing.
        """
        words = [reason, "nothing is tested, nothing spent", advice]
        return LookPlan(
            study=self.study.with_system(self.system),
            number=None,
            is_fitted=np.ones(len(self.lists), bool),
            trains_only=self.trains_only,
            is_continued=self.is_continued,
            line="; ".join(filter(None, words)),
        )

    def plan(self, target: float, confidence: float) -> LookPlan:
        """The look that the labels allow, if the study is about this target and system."""
        study = self.study
        asked = {"target_precision": target, "confidence": confidence}
        planned = {"target_precision": study.target, "confidence": study.confidence}
        changes = [name for name in asked if asked[name] != planned[name]]
        changes += study.changes(self.system)
        if changes:
            return self.nothing(
                f"the study of these documents was for another {', '.join(changes)}", NEW_STUDY
            )
        mentions_of_document = Counter(sampled_documents(self.lists))
        answered = study.answered(mentions_of_document)
        number = study.look_at(answered)
        if number is None:
            return self._wait_for_first(answered)
        is_spent = number in study.results
        if is_spent and not study.results[number].is_certified:
            return self._wait_after(number, answered)
        if not self.options.may_look:
            return self._not_taken(f"{name_of_look(study, number)} is due, and not taken")
        return self._take(number)

    def _not_taken(self, reason: str) -> LookPlan:
        """The plan to test nothing where a look is due; a study that only begins is forgotten."""
        plan = self.nothing(reason)
        return plan if self.is_continued else replace(plan, study=None)

    def _wait_for_first(self, answered: int) -> LookPlan:
        """The plan where not even the first look is due: so many documents are answered."""
        if not self.study.looks:
            return self.nothing(
                "the study has no look: there were too few documents to draw from", NEW_STUDY
            )
        first = self.study.looks[0].documents
        return self.nothing(
            f"{name_of_look(self.study, 0)}: {answered:,} of {first:,} documents, "
            f"{first - answered:,} to go"
        )

    def _wait_after(self, number: int, answered: int) -> LookPlan:
        """The plan after a look that did not certify: the next one, if there is one, is not due."""
        study = self.study
        result = f"{name_of_look(study, number)}: {study.results[number].summary or 'spent'}"
        if number + 1 == len(study.looks):
            new = len({*sampled_documents(self.lists)} - {*study.documents})
            advice = f"{NEW_STUDY}, {new:,} here" if new else NEW_STUDY
            return self.nothing(f"{result}; it was the last look", advice)
        next_look = name_of_look(study, number + 1)
        needed = study.looks[number + 1].documents
        return self.nothing(
            f"{result}; {next_look}: {answered:,} of {needed:,} documents, "
            f"{needed - answered:,} to go"
        )

    def _take(self, number: int) -> LookPlan:
        """The plan of a look that is due, or is repeated: it tests the first documents.

        Mentions of later documents wait: neither are they fitted on, nor do they certify.
        """
        study = self.study
        first_documents = {*study.documents[: study.looks[number].documents]}
        annotations = self.lists.annotations
        hashes = [document_hash(name) for name in annotations.doc_ids]
        # (n,) bool each, of the mentions.
        is_of_first = np.array([name in first_documents for name in hashes], bool)
        only_trains = np.array([name in self.trains_only for name in hashes], bool)
        is_fitted = is_of_first | only_trains | ~annotations.is_random_sample
        certifies = is_of_first & ~only_trains & annotations.is_random_sample
        test = study.test(number)
        # Copies of a document are one.
        count = len({*annotations.documents[certifies]})
        if count < test.needed:
            return self._not_taken(
                f"{count:,} documents are fewer than {test.needed:,}, the least number that can "
                "certify"
            )
        content = _content_hash(self.lists.take(is_fitted))
        former = study.results.get(number)
        if former is not None and former.content != content:
            return self.nothing(
                f"{name_of_look(study, number)} certified a model, which stays as it is; rows or "
                "labels have changed since, so this one has no certificate",
                NEW_STUDY,
            )
        waiting = {*sampled_documents(self.lists)} - first_documents - self.trains_only
        return LookPlan(
            study=study.with_system(self.system),
            number=number,
            is_fitted=is_fitted,
            trains_only=self.trains_only,
            content=content,
            is_continued=self.is_continued,
            line=self._line_of_look(number, len(waiting), former),
        )

    def _line_of_look(self, number: int, waiting: int, former: LookResult | None) -> str:
        """What is said of a look that is taken.

        Args:
            number: the look, from 0.
            waiting: documents with labels that it does not test.
            former: the result if the look was taken before.
        """
        study = self.study
        test = study.test(number)
        named = name_of_look(study, number)
        documents = study.looks[number].documents
        if former is not None:
            words = [f"{named} again: the same documents, the same result"]
        else:
            words = [
                f"{named}, at {percent_of(test.level)}: it tests {documents:,} documents, once"
            ]
            is_only_look = len(study.looks) == 1
            # So few certify only if hardly any answer is wrong.
            if is_only_look and documents < 2 * test.needed:
                words.append(f"at least {test.needed:,} without an error certify, more with errors")
                words.append(HOW_A_STUDY_IS_WRITTEN)
        if waiting:
            words.append(f"{waiting:,} further documents with labels wait")
        return "; ".join(words)


def sampled_documents(lists: AnnotatedLists) -> list[str]:
    """Hashes of the documents of mentions drawn at random, in their order, one for each mention."""
    annotations = lists.annotations
    return [document_hash(name) for name in annotations.doc_ids[annotations.is_random_sample]]


def _content_hash(lists: AnnotatedLists) -> str:
    """Hash of rows, labels, candidates and scores."""
    annotations = lists.annotations
    return json_sha256(
        [
            annotations.doc_ids.tolist(),
            list(lists.mentions),
            annotations.cuis.tolist(),
            lists.offsets.tolist(),
            lists.cuis.to_list(),
            {name: np.nan_to_num(column).tolist() for name, column in lists.scores.items()},
        ]
    )
