"""Which documents the certificates of a model rested on, so that none certifies twice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from ..core.errors import UserError

__all__ = ["NO_CERTIFICATES", "CertificateHistory", "note_on_certificate"]


@dataclass(frozen=True)
class CertificateHistory:
    """The certificates of a model and of the versions that it comes from, granted or not.

    Attributes:
        certificates: for each, the oldest first, hashes of the ids of the documents that it rested on.
    """

    certificates: tuple[frozenset[str], ...] = ()

    def is_new(self, documents: Iterable[str]) -> np.ndarray:
        """(n,) bool, which of n documents are in no certificate so far."""
        used = frozenset[str]().union(*self.certificates)
        return np.array([_hash(name) not in used for name in documents], bool)

    def after(self, documents: Iterable[str]) -> CertificateHistory:
        """With one more certificate, which rests on these documents."""
        return CertificateHistory((*self.certificates, frozenset(map(_hash, documents))))

    def before(self) -> CertificateHistory:
        """Without the last certificate."""
        return CertificateHistory(self.certificates[:-1])

    def to_list(self) -> list[list[str]]:
        """For JSON."""
        return [sorted(documents) for documents in self.certificates]

    @classmethod
    def from_list(cls, state: Any) -> CertificateHistory:
        """Inverse of `to_list`.

        Raises:
            UserError: it is damaged.
        """
        if not isinstance(state, list) or not all(isinstance(documents, list) for documents in state):
            raise UserError(
                "calibrator.json: certificates, which documents certified before, is missing or damaged; run "
                "umls-reranker calibrate again"
            )
        return cls(tuple(frozenset(map(str, documents)) for documents in state))


NO_CERTIFICATES = CertificateHistory()


def note_on_certificate(certified_by: Mapping[str, int]) -> str:
    """What a later certificate rested on, in words; empty for a first one.

    Args:
        certified_by: ``attempt`` and ``documents``, as in ``calibrator.json``.
    """
    if certified_by["attempt"] == 1:
        return ""
    attempt, documents = certified_by["attempt"], certified_by["documents"]
    return (
        f"certificate {attempt} of this model: it rests on {documents:,} documents that are new and drawn at random; "
        "those of earlier certificates do not certify again, and what they certified is no longer served"
    )


def _hash(document: str) -> str:
    # Sixteen digits: two of a million documents share a hash with probability 3e-8.
    return blake2b(str(document).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
