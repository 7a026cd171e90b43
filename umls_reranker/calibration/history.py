"""Which documents the certificates of a model rested on, so that none certifies twice."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from ..core.errors import UserError

__all__ = ["CertificateHistory"]


@dataclass(frozen=True)
class CertificateHistory:
    """The certificates of a model, granted or not.

    Attributes:
        attempts: their number, along the versions that came from one another.
        documents: hashes of the ids of the documents in them.
    """

    attempts: int = 0
    documents: frozenset[str] = frozenset()

    def is_new(self, documents: Iterable[str]) -> np.ndarray:
        """(n,) bool, which of n documents are in no certificate so far."""
        return np.array([_hash(name) not in self.documents for name in documents], bool)

    def after(self, documents: Iterable[str]) -> CertificateHistory:
        """With one more certificate, which rests on these documents."""
        return CertificateHistory(self.attempts + 1, self.documents | set(map(_hash, documents)))

    def to_dict(self) -> dict[str, Any]:
        """JSON numbers, texts and lists only."""
        return {"attempts": self.attempts, "documents": sorted(self.documents)}

    @classmethod
    def from_dict(cls, state: Any) -> CertificateHistory:
        """Inverse of `to_dict`.

        Raises:
            UserError: it is damaged.
        """
        try:
            attempts, documents = int(state["attempts"]), frozenset(map(str, state["documents"]))
            if attempts < 0:
                raise ValueError(f"{attempts} attempts")
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"calibrator.json: certificates is missing or damaged ({error!r}); run umls-reranker calibrate again"
            ) from None
        return cls(attempts, documents)


def _hash(document: str) -> str:
    # Sixteen digits: of a million documents two share a hash with probability 3e-8.
    return blake2b(str(document).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
