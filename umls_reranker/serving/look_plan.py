"""Which look at labelled lists is due, what it may fit on, and what is said about it.

All is decided before anything is scored, by ids and by whether mentions have labels.
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
from ..lists.candidate_lists import AnnotatedLists

NEW_STUDY = "--new_study trains on them and certifies with new documents alone"
HOW_A_STUDY_IS_WRITTEN = (
    "umls-reranker candidates --sample writes a study, which looks up to four times at the same "
    "documents; --no_look tests nothing"
)


@dataclass(frozen=True)
class LookOptions:
    """What a user says about looks.

    Attributes:
        written: the study beside the sheets; None without one.
        may_look: whether a look that is due is taken.
        is_new_study: whether known documents only train, and new ones are a study of their own.
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
    return {
        "index": lists.index_keys[0],
        "scores": sorted(lists.scores),
        "model": model,
        "features": settings.features,
        "calibrator": settings.calibrator,
        "accept_precision": settings.accept_precision,
        "dictionary": lists.dictionary and lists.dictionary.name,
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
    documents = _documents(lists)
    known = _Known.of(lists, history, ledger)
    if options.is_new_study:
        new = [name for name in documents if name not in known.labelled]
        if not known.labelled:
            raise UserError(
                "--new_study: no study knows these documents, so there is none to follow; leave it "
                "out"
            )
        if new:
            study = Study.of_all(new, target, confidence, known.next_attempt)
            planner = known.planner(lists, study, known.labelled, system, options)
            return planner.plan(target, confidence)
    if options.written is not None:
        written = known.current(options.written)
        planner = known.planner(lists, written, frozenset(), system, options)
        others = known.labelled_elsewhere(written) & {*written.documents}
        if others:
            return planner.nothing(
                f"{len(others):,} of these documents were labelled for another study", NEW_STUDY
            )
        return planner.plan(target, confidence)
    if known.labelled & {*documents}:
        latest = max(known.studies, key=lambda each: (each.attempt, len(each.documents)))
        earlier = known.labelled - {*latest.documents}
        planner = known.planner(lists, latest, earlier, system, options)
        return planner.plan(target, confidence)
    study = Study.of_all(documents, target, confidence, known.next_attempt)
    planner = known.planner(lists, study, frozenset(), system, options)
    return planner.plan(target, confidence)


def _documents(lists: AnnotatedLists) -> list[str]:
    """Hashes of the documents of mentions drawn at random, in their order, one for each mention."""
    annotations = lists.annotations
    return [document_hash(name) for name in annotations.doc_ids[annotations.is_random_sample]]


@dataclass(frozen=True)
class _Known:
    """Studies that a model's history and the ledger know about labelled lists.

    Attributes:
        studies: the studies, each once.
        documents: id of a study -> those of its documents that were labelled.
        of_model: ids of those of the model's history.
    """

    studies: Sequence[Study]
    documents: Mapping[str, frozenset[str]]
    of_model: frozenset[str]

    @classmethod
    def of(cls, lists: AnnotatedLists, history: StudyHistory, ledger: Ledger) -> _Known:
        studies: dict[str, Study] = {}
        documents: dict[str, frozenset[str]] = {}
        for study in history.studies:
            studies[study.id] = study
            documents[study.id] = history.documents & {*study.documents}
        for known in ledger.studies_of(mention_hashes(lists)):
            study = known.study
            if study.id in studies:
                study = studies[study.id].joined(study)
            studies[study.id] = study
            documents[study.id] = documents.get(study.id, frozenset()) | known.documents
        of_model = frozenset(study.id for study in history.studies)
        return cls([*studies.values()], documents, of_model)

    @property
    def labelled(self) -> frozenset[str]:
        """Hashes of documents that were labelled for any study."""
        return frozenset().union(*self.documents.values())

    def labelled_elsewhere(self, study: Study) -> frozenset[str]:
        """Hashes of documents that were labelled for other studies."""
        others = [labelled for key, labelled in self.documents.items() if key != study.id]
        return frozenset().union(*others)

    @property
    def next_attempt(self) -> int:
        """The number of a new study."""
        return 1 + max((study.attempt for study in self.studies), default=0)

    def current(self, written: Study) -> Study:
        """A study of a file, with what other copies of it know."""
        for study in self.studies:
            if study.id == written.id:
                return study.joined(written)
        return replace(written, attempt=max(written.attempt, self.next_attempt))

    def planner(
        self,
        lists: AnnotatedLists,
        study: Study,
        earlier: frozenset[str],
        system: Mapping[str, Any],
        options: LookOptions,
    ) -> _Planner:
        """The planner of a study; a model that it made began as the study says."""
        if study.id in self.of_model and "model" in study.system:
            system = {**system, "model": study.system["model"]}
        return _Planner(lists, study, earlier, system, options)


@dataclass(frozen=True)
class _Planner:
    """Says for one study what is tested.

    Attributes:
        lists: the lists.
        study: the study.
        earlier: hashes of documents of earlier studies, which do not certify.
        system: what decides.
        options: what the user says.
    """

    lists: AnnotatedLists
    study: Study
    earlier: frozenset[str]
    system: Mapping[str, Any]
    options: LookOptions

    @property
    def is_continued(self) -> bool:
        """Whether the study was there before; else it is forgotten unless its look is taken."""
        is_known = bool(self.study.system or self.study.results)
        return is_known or self.options.written is not None or self.options.is_new_study

    def nothing(self, reason: str, advice: str = "") -> LookPlan:
        """Nothing is tested; all that has labels is fitted on."""
        words = [reason, "nothing is tested, nothing spent", advice]
        return LookPlan(
            study=self.study.with_system(self.system),
            number=None,
            is_fitted=np.ones(len(self.lists), bool),
            trains_only=self.earlier,
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
        answered = study.answered(Counter(_documents(self.lists)))
        number = study.look_at(answered)
        if number is None:
            return self._before_first(answered)
        is_spent = number in study.results
        if is_spent and not study.results[number].is_certified:
            return self._after(number, answered)
        if not self.options.may_look:
            plan = self.nothing(f"{_named(study, number)} is due, and not taken")
            return plan if self.is_continued else replace(plan, study=None)
        return self._at(number, answered)

    def _before_first(self, answered: int) -> LookPlan:
        """Not even the first look is due."""
        if not self.study.looks:
            return self.nothing(
                "the study has no look: there were too few documents to draw from", NEW_STUDY
            )
        first = self.study.looks[0].documents
        return self.nothing(
            f"{_named(self.study, 0)}: {answered:,} of {first:,} documents, "
            f"{first - answered:,} to go"
        )

    def _after(self, number: int, answered: int) -> LookPlan:
        """The last look that was due did not certify."""
        study = self.study
        result = f"{_named(study, number)}: {study.results[number].summary or 'spent'}"
        if number + 1 == len(study.looks):
            new = len({*_documents(self.lists)} - {*study.documents})
            advice = NEW_STUDY if not new else f"{NEW_STUDY}, {new:,} here"
            return self.nothing(f"{result}; it was the last look", advice)
        following = study.looks[number + 1].documents
        return self.nothing(
            f"{result}; {_named(study, number + 1)}: {answered:,} of {following:,} documents, "
            f"{following - answered:,} to go"
        )

    def _at(self, number: int, answered: int) -> LookPlan:
        """A look is due, or is repeated."""
        study = self.study
        look = study.looks[number]
        first = {*study.documents[: look.documents]}
        annotations = self.lists.annotations
        hashes = np.array([document_hash(name) for name in annotations.doc_ids], object)
        is_first = np.array([name in first for name in hashes], bool)
        is_earlier = np.array([name in self.earlier for name in hashes], bool)
        is_fitted = is_first | is_earlier | ~annotations.is_random_sample
        test = study.test(number)
        # Copies of a document are one.
        certifying = is_first & ~is_earlier & annotations.is_random_sample
        count = len({*annotations.documents[certifying]})
        if count < test.needed:
            plan = self.nothing(
                f"{count:,} documents are fewer than {test.needed:,}, the least number that can "
                "certify"
            )
            return plan if self.is_continued else replace(plan, study=None)
        content = _content_hash(self.lists.take(is_fitted))
        former = study.results.get(number)
        if former is not None and former.content != content:
            return self.nothing(
                f"{_named(study, number)} certified a model, which stays as it is; rows or labels "
                "have changed since, so this one has no certificate",
                NEW_STUDY,
            )
        waiting = len({*_documents(self.lists)} - first - self.earlier)
        return LookPlan(
            study=study.with_system(self.system),
            number=number,
            is_fitted=is_fitted,
            trains_only=self.earlier,
            content=content,
            is_continued=self.is_continued,
            line=self._due(number, waiting, former),
        )

    def _due(self, number: int, waiting: int, former: LookResult | None) -> str:
        """What is said of a look that is taken."""
        study = self.study
        test = study.test(number)
        words = [
            f"{_named(study, number)}, at {_percent(test.level)}: it tests "
            f"{study.looks[number].documents:,} documents, once"
        ]
        if former is not None:
            words[0] = f"{_named(study, number)} again: the same documents, the same result"
        elif len(study.looks) == 1 and study.looks[0].documents < 2 * test.needed:
            words.append(f"at least {test.needed:,} without an error certify, more with errors")
            words.append(HOW_A_STUDY_IS_WRITTEN)
        if waiting:
            words.append(f"{waiting:,} further documents with labels wait")
        return "; ".join(words)


def _named(study: Study, number: int) -> str:
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
