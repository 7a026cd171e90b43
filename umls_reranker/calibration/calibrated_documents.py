"""The documents that a model was fitted on: which may certify it, and which never may again."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import UserError

if TYPE_CHECKING:
    from ..lists.annotated_lists import Annotations


@dataclass(frozen=True)
class CalibratedDocuments:
    """The documents that a model was fitted on, by hashes of their ids.

    Attributes:
        latest: those of its own calibration. Where they are given again, its counts of them are
            taken out, so that they may certify.
        earlier: those of versions before it, and of the training of a run. What they taught cannot
            be taken out, so they never certify.
    """

    latest: frozenset[str] = frozenset()
    earlier: frozenset[str] = frozenset()

    def are_new(self, documents: Iterable[Hashable]) -> np.ndarray:
        """Whether the model was not fitted on each of n documents, (n,) bool."""
        hashes = map(document_hash, documents)
        return np.array(
            [not (each in self.latest or each in self.earlier) for each in hashes], bool
        )

    def are_of_new_documents(self, annotations: Annotations) -> np.ndarray:
        """Whether it was fitted on neither a mention's document nor an alike one, (n,)."""
        # In `documents`, nearly equal documents all have the first one's id.
        used = {*annotations.documents[~self.are_new(annotations.doc_ids)]}
        return np.array([document not in used for document in annotations.documents], bool)

    def all_earlier(self) -> CalibratedDocuments:
        """The same documents, none of which may certify again."""
        return CalibratedDocuments(earlier=self.latest | self.earlier)

    def without_latest(self) -> CalibratedDocuments:
        """The documents after the counts of the latest were taken out."""
        return replace(self, latest=frozenset())

    def with_latest(self, documents: Iterable[Hashable]) -> CalibratedDocuments:
        """The documents after a calibration on some."""
        return replace(self, latest=document_hashes(documents))

    def to_dict(self) -> dict[str, Any]:
        """The form for JSON."""
        return {"documents": sorted(self.latest), "earlier_documents": sorted(self.earlier)}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any], place: Path) -> CalibratedDocuments:
        """Inverse of `to_dict`.

        Raises:
            UserError: a list is missing; names `place`.
        """
        latest = state.get("documents")
        earlier = state.get("earlier_documents")
        if not isinstance(latest, list) or not isinstance(earlier, list):
            raise UserError(
                f"{place}: the record of documents is missing or damaged; "
                "run umls-reranker calibrate again"
            )
        return cls(frozenset(map(str, latest)), frozenset(map(str, earlier)))


NO_DOCUMENTS = CalibratedDocuments()


def document_hashes(documents: Iterable[Hashable]) -> frozenset[str]:
    """The hashes of documents."""
    return frozenset(map(document_hash, documents))


def document_hash(document: Hashable) -> str:
    """The hash of a document's id; the id itself is not kept."""
    # Sixteen digits: two of a million documents share a hash with probability 3e-8.
    return blake2b(str(document).encode(), digest_size=8).hexdigest()
