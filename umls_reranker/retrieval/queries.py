"""What retrievers search for: strings, with their contexts, vectors and documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from scipy.sparse import csr_array

    from .lexical_index import LexicalIndex


@dataclass(frozen=True)
class Queries:
    """n distinct mentions to search for: strings, with their context if the retriever reads it.

    Attributes:
        texts: n strings.
        contexts: n left and n right texts, if it reads context.
        vectors: (n, dimension) float32, L2-normalized, by the bi-encoder; None without one.
        documents: n documents, whose own mentions are not to be found; None: indexes have no
            mentions of them.
    """

    texts: Sequence[str]
    contexts: tuple[Sequence[str], Sequence[str]] | None = None
    vectors: np.ndarray | None = None
    documents: Sequence[str] | None = None
    _weighed: dict[str, csr_array] = field(default_factory=dict, init=False, repr=False)

    def weighed(self, index: LexicalIndex) -> csr_array:
        """The texts as `LexicalIndex.weigh` of an index gives them, which is done once."""
        if index.title not in self._weighed:
            self._weighed[index.title] = index.weigh(self.texts)
        return self._weighed[index.title]
