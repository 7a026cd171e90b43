"""A study: documents in a drawn order, the looks at them, and what came of each.

It is written before the first label, as `NAME.study.json` beside a sheet, and a model folder keeps
those of its certificates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import UserError
from ..core.hashes import json_sha256
from ..core.json_files import read_json, require_format, write_json
from .looks import Look, at_attempt, planned_looks
from .precision_test import PrecisionTest

if TYPE_CHECKING:
    from ..lists.annotated_lists import Annotations

STUDY_SCHEMA = 1
STUDY_ENDING = ".study.json"
# A study's id is so many hexadecimal digits of a hash.
ID_LENGTH = 16


@dataclass(frozen=True)
class LookResult:
    """What came of a look.

    Attributes:
        is_certified: whether the tier of all inputs was certified.
        content: hash of what was fitted and tested; "" if it is not known.
        summary: the result in words, such as ``2 errors of 135``.
    """

    is_certified: bool
    content: str = ""
    summary: str = ""


@dataclass(frozen=True)
class Study:
    """A plan of looks at documents in a drawn order, and its results.

    Attributes:
        documents: hashes of the documents, in the order in which they were drawn.
        mentions: number of mentions of each, all of which are to be labelled; empty: unknown.
        target: precision to certify.
        confidence: 1 minus the error probability of all looks together.
        looks: the looks, by increasing number of documents.
        system: what decides the scores, by name; names that it lacks may be added once.
        attempt: 1 for the first study of a model or of documents, 2 for the next, and so on.
        results: number of a look, from 0 -> its result.
    """

    documents: tuple[str, ...]
    mentions: tuple[int, ...] = ()
    target: float = 0.95
    confidence: float = 0.95
    looks: tuple[Look, ...] = ()
    system: Mapping[str, Any] = field(default_factory=dict)
    attempt: int = 1
    results: Mapping[int, LookResult] = field(default_factory=dict)

    @classmethod
    def draw(
        cls,
        documents: Sequence[Hashable],
        target_precision: float = 0.95,
        confidence: float = 0.95,
        *,
        seed: int = 13,
        looks: int | None = None,
        tier_coverage: float = 1.0,
    ) -> tuple[Study, list[Any]]:
        """Draw the order in which to label documents, before the first label.

        >>> from umls_reranker import Study
        >>> study, order = Study.draw([f"note {number}" for number in range(500)])
        >>> [look.documents for look in study.looks], len(order)
        ([95, 135, 180, 360], 500)

        Args:
            documents: id of the document of each mention of the pool.
            target_precision: precision to certify, between 0 and 1.
            confidence: that of all looks together, between 0 and 1.
            seed: seed of the order.
            looks: number of documents of one look with the whole error probability; None: a plan of
                four looks.
            tier_coverage: expected share of the documents that have any answer in the tier, by a
                model that has seen none of their labels.

        Returns:
            The study, with the looks that the pool has enough documents for, and the ids of all its
            documents in the order in which to label them.

        Raises:
            UserError: target or confidence is not between 0 and 1, or there are fewer documents
                than `looks`.
        """
        sizes = Counter(documents)
        ids = list(sizes)
        order = [ids[number] for number in np.random.default_rng(seed).permutation(len(ids))]
        if looks is None:
            planned = planned_looks(
                target_precision,
                confidence,
                sizes=list(sizes.values()),
                tier_coverage=tier_coverage,
            )
        else:
            PrecisionTest(target_precision, confidence)
            planned = (Look(looks, 1.0),)
            if not 0 < looks <= len(ids):
                raise UserError(f"looks: {looks!r} must be 1 to {len(ids):,}, all documents")
        possible = tuple(look for look in planned if look.documents <= len(ids))
        studied = order[: possible[-1].documents] if possible else []
        study = cls(
            documents=tuple(map(document_hash, studied)),
            mentions=tuple(sizes[document] for document in studied),
            target=target_precision,
            confidence=confidence,
            looks=possible,
        )
        return study, order

    @classmethod
    def of_all(
        cls, hashes: Iterable[str], target: float, confidence: float, attempt: int = 1
    ) -> Study:
        """A study of one look at all documents with these hashes, whose mentions have labels."""
        documents = tuple(dict.fromkeys(hashes))
        return cls(
            documents=documents,
            target=target,
            confidence=confidence,
            looks=(Look(len(documents), 1.0),),
            attempt=attempt,
        )

    @property
    def id(self) -> str:
        """Hash of what was fixed before the first label."""
        looks = [list(vars(look).values()) for look in self.looks]
        fixed = [self.documents, self.mentions, self.target, self.confidence, looks]
        return json_sha256(fixed)[:ID_LENGTH]

    def test(self, number: int) -> PrecisionTest:
        """The test of a look."""
        share = at_attempt(self.looks[number], self.attempt).share
        return PrecisionTest(self.target, self.confidence, share=share)

    def answered(self, labelled_mentions: Mapping[str, int]) -> int:
        """How many of the first documents have all mentions labelled.

        Args:
            labelled_mentions: hash of a document -> its number of labelled mentions.
        """
        # Where the numbers of mentions are unknown, one labelled mention completes a document.
        needed_mentions = self.mentions or (1,) * len(self.documents)
        complete = 0
        for document, needed in zip(self.documents, needed_mentions, strict=True):
            if labelled_mentions.get(document, 0) < needed:
                break
            complete += 1
        return complete

    def look_at(self, labelled_documents: int) -> int | None:
        """The number of the last look that so many labelled documents allow; None for too few."""
        last = None
        for number, look in enumerate(self.looks):
            if look.documents <= labelled_documents:
                last = number
        return last

    def with_result(self, number: int, result: LookResult) -> Study:
        """The study with the result of a look; a result that the look has already stays."""
        return replace(self, results={number: result, **self.results})

    def with_system(self, system: Mapping[str, Any]) -> Study:
        """The study with what decides the scores; names that it has already keep their values."""
        return replace(self, system={**system, **self.system})

    def changes(self, system: Mapping[str, Any]) -> list[str]:
        """Names of `system` whose values differ from those that the study has for them."""
        return [name for name, value in system.items() if self.system.get(name, value) != value]

    def joined(self, other: Study) -> Study:
        """The study with system and results of another copy of it; its own come first."""
        return replace(
            self,
            system={**other.system, **self.system},
            attempt=max(self.attempt, other.attempt),
            results={**other.results, **self.results},
        )

    def to_dict(self) -> dict[str, Any]:
        """The form for JSON."""
        return {
            "schema_version": STUDY_SCHEMA,
            "target": self.target,
            "confidence": self.confidence,
            "looks": [vars(look) for look in self.looks],
            "attempt": self.attempt,
            "system": dict(self.system),
            "results": {str(number): vars(result) for number, result in self.results.items()},
            "mentions": list(self.mentions),
            "documents": list(self.documents),
        }

    @classmethod
    def from_dict(cls, state: Any, place: Path) -> Study:
        """Inverse of `to_dict`.

        Raises:
            UserError: the study is damaged, or of another version; names `place`.
        """
        require_format(place, state, STUDY_SCHEMA, "candidates --sample")
        try:
            results = {
                int(number): LookResult(**result) for number, result in state["results"].items()
            }
            study = cls(
                documents=tuple(map(str, state["documents"])),
                mentions=tuple(map(int, state["mentions"])),
                target=state["target"],
                confidence=state["confidence"],
                looks=tuple(Look(**look) for look in state["looks"]),
                system=dict(state["system"]),
                attempt=int(state["attempt"]),
                results=results,
            )
            if len(study.mentions) not in (0, len(study.documents)):
                raise ValueError("documents and mentions differ in number")
            for number in (*range(len(study.looks)), *study.results):
                study.test(number)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, UserError) as error:
            raise UserError(
                f"{place}: the study is damaged ({error!r}); restore the file from a copy"
            ) from None
        return study

    def save(self, path: str | Path) -> None:
        """Write the study as JSON."""
        write_json(Path(path), self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> Study:
        """Read a study that `save` wrote.

        Raises:
            UserError: the file is missing, damaged, or of another version.
        """
        return cls.from_dict(read_json(Path(path)), Path(path))


@dataclass(frozen=True)
class StudyHistory:
    """What a model was calibrated on, and the studies of its certificates.

    Attributes:
        documents: hashes of the ids of the documents.
        studies: the studies, the oldest first.
    """

    documents: frozenset[str] = frozenset()
    studies: tuple[Study, ...] = ()

    def is_new(self, documents: Iterable[Hashable]) -> np.ndarray:
        """Whether the model was not calibrated on each of n documents, (n,) bool."""
        return np.array([document_hash(name) not in self.documents for name in documents], bool)

    def are_of_new_documents(self, annotations: Annotations) -> np.ndarray:
        """Whether it was calibrated on neither a mention's document nor an alike one, (n,)."""
        # In `documents`, nearly equal documents all have the first one's id.
        used = {*annotations.documents[~self.is_new(annotations.doc_ids)]}
        return np.array([document not in used for document in annotations.documents], bool)

    def after(self, documents: Iterable[Hashable]) -> StudyHistory:
        """The history with further documents."""
        return replace(self, documents=self.documents | {*map(document_hash, documents)})

    def with_study(self, study: Study) -> StudyHistory:
        """The history with a study as the last; it takes the place of a former copy of it."""
        others = tuple(other for other in self.studies if other.id != study.id)
        return replace(self, studies=(*others, study))

    def to_dict(self) -> dict[str, Any]:
        """The form for JSON."""
        return {
            "documents": sorted(self.documents),
            "studies": [study.to_dict() for study in self.studies],
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any], place: Path) -> StudyHistory:
        """Inverse of `to_dict`; also of models that listed their certificates' documents.

        Raises:
            UserError: the history is damaged; names `place`.
        """
        if "certificates" in state:
            return _of_certificates(state["certificates"], place)
        documents = state.get("documents")
        studies = state.get("studies")
        if not isinstance(documents, list) or not isinstance(studies, list):
            raise UserError(
                f"{place}: the record of documents and studies is missing or damaged; "
                "run umls-reranker calibrate again"
            )
        return cls(
            frozenset(map(str, documents)),
            tuple(Study.from_dict(study, place) for study in studies),
        )


def _of_certificates(certificates: Any, place: Path) -> StudyHistory:
    """The history of a model before studies: each certificate was one look, which is spent."""
    if not isinstance(certificates, list) or not all(
        isinstance(documents, list) for documents in certificates
    ):
        raise UserError(
            f"{place}: the record of earlier certificates is damaged; "
            "run umls-reranker calibrate again"
        )
    history = StudyHistory()
    for attempt, documents in enumerate(certificates, start=1):
        hashes = tuple(map(str, documents))
        history = replace(history, documents=history.documents | {*hashes})
        if hashes:
            study = Study(
                documents=hashes,
                looks=(Look(len(hashes), 1.0),),
                attempt=attempt,
                results={0: LookResult(is_certified=False)},
            )
            history = history.with_study(study)
    return history


NO_HISTORY = StudyHistory()


def document_hash(document: Hashable) -> str:
    """The hash of a document's id; the id itself is not kept."""
    # Sixteen digits: two of a million documents share a hash with probability 3e-8.
    return blake2b(str(document).encode(), digest_size=8).hexdigest()
