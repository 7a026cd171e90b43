"""Which look at labelled lists is due, what it may fit on, and what is said about it.

All is decided before anything is scored, by ids and by whether mentions have labels.

A study is a fixed order of documents, and looks at the first so many of them. `plan_look` finds the
study that the labelled documents belong to (`_FormerStudies`), and `_Planner` says for this study
which look is due.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..calibration.certificate import Certificate
from ..calibration.ledger import Ledger
from ..calibration.study import LookResult, Study, StudyHistory, document_hash
from ..core.errors import UserError
from ..core.hashes import json_sha256
from ..lists.annotated_lists import AnnotatedLists

NEW_STUDY = "--new_study trains on them and certifies with new documents alone"
HOW_A_STUDY_IS_WRITTEN = (
    "umls-reranker candidates --sample writes a study, which looks up to four times at the same "
    "documents; --no_look tests nothing"
)


@dataclass(frozen=True)
class LookOptions:
    """What a user says about looks.

    Attributes:
        written: the study of a file beside the sheets; None without one.
        may_look: whether a look that is due is taken.
        is_new_study: whether documents of former studies only train, and new ones are a study of
            their own.
    """

    written: Study | None = None
    may_look: bool = True
    is_new_study: bool = False


@dataclass(frozen=True)
class LookPlan:
    """What a calibration on n labelled mentions tests.

    Attributes:
        study: the study that the documents belong to; None without one.
        number: the look that is taken, from 0; None: nothing is tested.
        is_fitted: (n,) bool, the mentions to fit on.
        trains_only: hashes of documents that do not certify.
        content: hash of what is fitted at a look; "" without one.
        is_continued: whether documents may have been labelled for the study before.
        line: what is said before anything is scored.
    """

    study: Study | None
    number: int | None
    is_fitted: np.ndarray
    trains_only: frozenset[str] = frozenset()
    content: str = ""
    is_continued: bool = False
    line: str = ""

    @property
    def share(self) -> float:
        """The share of the error probability that is used; 0: nothing is tested."""
        if self.study is None or self.number is None:
            return 0.0
        return self.study.test(self.number).share

    def looked(self, certificate: Certificate | None) -> tuple[Study | None, str]:
        """The study after the look, and what came of it in words; "" if nothing was tested."""
        if self.study is None or self.number is None:
            return self.study, ""
        if certificate is not None and not certificate.is_tested:
            return self.study, "nothing was tested, nothing spent"
        is_certified = certificate is not None and certificate.threshold is not None
        summary = _summary(certificate)
        study = self.study.with_result(self.number, LookResult(is_certified, self.content, summary))
        named = f"{_named(study, self.number)}, at {_percent(study.test(self.number).level)}"
        return study, f"{named}: {summary}; spent{_next(study, self.number)}"


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


def system_of(lists: AnnotatedLists, settings: Any, model: str, **further: Any) -> dict[str, Any]:
    """What decides scores, by name; a change of any is a new study.

    Args:
        lists: the lists.
        settings: `CalibrationArguments`.
        model: hash of the model that is calibrated.
        further: other settings.
    """
    dictionary = None
    if lists.dictionary is not None:
        dictionary = lists.dictionary.name
    return {
        "index": lists.index_keys[0],
        "scores": sorted(lists.scores),
        "model": model,
        "features": settings.features,
        "calibrator": settings.calibrator,
        "accept_precision": settings.accept_precision,
        "dictionary": dictionary,
        **further,
    }


def plan_look(
    lists: AnnotatedLists,
    target: float,
    confidence: float,
    system: Mapping[str, Any],
    history: StudyHistory,
    ledger: Ledger,
    options: LookOptions = LookOptions(),
) -> LookPlan:
    """Decide which look at labelled lists is due.

    Args:
        lists: the lists.
        target: precision to certify.
        confidence: of all looks of a study.
        system: what decides (`system_of`).
        history: of the model that is calibrated, on user-provided lists.
        ledger: the studies of this machine.
        options: what the user says.

    Raises:
        UserError: a new study is asked for, and there is no former one.
    """
    documents = _sampled_documents(lists)
    former = _FormerStudies.of(lists, history, ledger)
    if options.is_new_study:
        if not former.labelled:
            raise UserError(
                "--new_study: no study knows these documents, so there is none to follow; leave it "
                "out"
            )
        new_documents = [document for document in documents if document not in former.labelled]
        # Without any, the former study goes on.
        if new_documents:
            study = Study.of_all(new_documents, target, confidence, former.next_attempt)
            planner = former.planner(lists, study, former.labelled, system, options)
            return planner.plan(target, confidence)
    if options.written is not None:
        study = former.current(options.written)
        planner = former.planner(lists, study, frozenset(), system, options)
        labelled_elsewhere = former.labelled_elsewhere(study) & {*study.documents}
        if labelled_elsewhere:
            return planner.nothing(
                f"{len(labelled_elsewhere):,} of these documents were labelled for another study",
                NEW_STUDY,
            )
        return planner.plan(target, confidence)
    if former.labelled & {*documents}:
        latest = max(former.studies, key=lambda study: (study.attempt, len(study.documents)))
        of_earlier_studies = former.labelled - {*latest.documents}
        planner = former.planner(lists, latest, of_earlier_studies, system, options)
        return planner.plan(target, confidence)
    study = Study.of_all(documents, target, confidence, former.next_attempt)
    planner = former.planner(lists, study, frozenset(), system, options)
    return planner.plan(target, confidence)


def _sampled_documents(lists: AnnotatedLists) -> list[str]:
    """Hashes of the documents of mentions drawn at random, in their order, one for each mention."""
    annotations = lists.annotations
    return [document_hash(name) for name in annotations.doc_ids[annotations.is_random_sample]]


@dataclass(frozen=True)
class _FormerStudies:
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
    def of(cls, lists: AnnotatedLists, history: StudyHistory, ledger: Ledger) -> _FormerStudies:
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
    ) -> _Planner:
        """The planner of a study; a model that it made began as the study says."""
        if study.id in self.of_model and "model" in study.system:
            system = {**system, "model": study.system["model"]}
        return _Planner(lists, study, trains_only, system, options)


@dataclass(frozen=True)
class _Planner:
    """Says for one study what is tested.

    Attributes:
        lists: the lists.
        study: the study.
        trains_only: hashes of documents of earlier studies, which do not certify.
        system: what decides (`system_of`).
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
        mentions_of_document = Counter(_sampled_documents(self.lists))
        answered = study.answered(mentions_of_document)
        number = study.look_at(answered)
        if number is None:
            return self._wait_for_first(answered)
        is_spent = number in study.results
        if is_spent and not study.results[number].is_certified:
            return self._wait_after(number, answered)
        if not self.options.may_look:
            return self._not_taken(f"{_named(study, number)} is due, and not taken")
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
            f"{_named(self.study, 0)}: {answered:,} of {first:,} documents, "
            f"{first - answered:,} to go"
        )

    def _wait_after(self, number: int, answered: int) -> LookPlan:
        """The plan after a look that did not certify: the next one, if there is one, is not due."""
        study = self.study
        result = f"{_named(study, number)}: {study.results[number].summary or 'spent'}"
        if number + 1 == len(study.looks):
            new = len({*_sampled_documents(self.lists)} - {*study.documents})
            advice = f"{NEW_STUDY}, {new:,} here" if new else NEW_STUDY
            return self.nothing(f"{result}; it was the last look", advice)
        following = study.looks[number + 1].documents
        return self.nothing(
            f"{result}; {_named(study, number + 1)}: {answered:,} of {following:,} documents, "
            f"{following - answered:,} to go"
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
                f"{_named(study, number)} certified a model, which stays as it is; rows or labels "
                "have changed since, so this one has no certificate",
                NEW_STUDY,
            )
        waiting = {*_sampled_documents(self.lists)} - first_documents - self.trains_only
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
        named = _named(study, number)
        documents = study.looks[number].documents
        if former is not None:
            words = [f"{named} again: the same documents, the same result"]
        else:
            words = [f"{named}, at {_percent(test.level)}: it tests {documents:,} documents, once"]
            is_only_look = len(study.looks) == 1
            # So few certify only if hardly any answer is wrong.
            if is_only_look and documents < 2 * test.needed:
                words.append(f"at least {test.needed:,} without an error certify, more with errors")
                words.append(HOW_A_STUDY_IS_WRITTEN)
        if waiting:
            words.append(f"{waiting:,} further documents with labels wait")
        return "; ".join(words)


def _named(study: Study, number: int) -> str:
    """The look with this number, from 0, as it is called in messages."""
    return f"look {number + 1} of {len(study.looks)}"


def _percent(level: float) -> str:
    return f"{100 * level:.3g}%"


def _next(study: Study, number: int) -> str:
    """When the study looks next."""
    if number in study.results and study.results[number].is_certified:
        return ""
    if number + 1 < len(study.looks):
        return f"; next at {study.looks[number + 1].documents:,} documents"
    return f"; it was the last look: {NEW_STUDY}"


def _summary(certificate: Certificate | None) -> str:
    """The result of a look in a few words."""
    if certificate is None:
        return "not certified, too few documents to fit without a part of them"
    if certificate.threshold is not None:
        return f"certified from a score of {certificate.threshold:.3f}"
    if not certificate.answers:
        return (
            f"not certified, the tier is too small: its documents are worth "
            f"{int(certificate.documents):,} in the tier, of at least "
            f"{certificate.documents_needed:,}"
        )
    return f"not certified, {certificate.errors:,} errors of {certificate.answers:,}"


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
