"""What a retriever is: how its index is built and loaded, and how it searches and scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from .index_sources import IndexSources
from .queries import Queries

if TYPE_CHECKING:
    import numpy as np

    from ..models.bi_encoder import BiEncoder
    from ..vocab.concept_table import ConceptTable
    from .concept_index import ConceptIndex


class RetrievalMethod(ABC):
    """A retriever: what its index is built from, and how it is built, loaded and searched.

    Attributes:
        name: its name in the recipe key `retrievers` and in figures of recall.
        help: one line about it.
        folder: folder of its index in a run, and name of the stage that builds it; None: it has no
            index of its own.
        inputs: what the index is built from, and rebuilt with if it changes: ``concepts`` (the
            dictionary), ``mentions`` (of the training split), ``encoder`` (the bi-encoder),
            ``vectors`` (of the names).
        keys: recipe keys that decide the index.
        values: further values that decide it, such as the version of its files; for JSON.
        reads_context: whether it searches for the mention in its text.
        score_name: NAME of the key ``NAME_score`` of candidates and of the feature; None: it gives
            no scores.
        leaves_out_documents: whether it leaves out what is known from `Queries.documents`.
    """

    name: ClassVar[str]
    help: ClassVar[str]
    folder: ClassVar[str | None] = None
    inputs: ClassVar[tuple[str, ...]] = ("concepts",)
    keys: ClassVar[tuple[str, ...]] = ()
    values: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    reads_context: bool = False
    score_name: ClassVar[str | None] = None
    leaves_out_documents: ClassVar[bool] = False

    @classmethod
    def build(cls, sources: IndexSources, path: Path) -> dict[str, int]:
        """Build the index, if it has a `folder`.

        Args:
            sources: what it is built from.
            path: existing folder to write into.

        Returns:
            Counts of its content, such as ``{"names": 107_379}``.
        """
        raise NotImplementedError

    @classmethod
    @abstractmethod
    def load(cls, sources: IndexSources, path: Path) -> RetrievalMethod:
        """Open the index.

        Args:
            sources: what it loads from.
            path: its folder; `sources.folder` if it has none of its own.

        Raises:
            UserError: a file is missing or cannot be read.
        """

    def require(  # noqa: B027
        self, concepts: ConceptTable, encoder: BiEncoder | None
    ) -> None:
        """Refuse concepts or an encoder other than those of the index, if it can tell.

        Raises:
            UserError: they differ; names them.
        """

    @abstractmethod
    def search(self, queries: Queries, k: int) -> np.ndarray:
        """The k concepts nearest to each of n queries, the nearest first.

        Returns:
            (n, k) concept rows, distinct within a query, padded with -1; fewer columns if there are
            fewer concepts.
        """

    def score(self, queries: Queries, rows: np.ndarray, owners: np.ndarray) -> np.ndarray:
        """Scores of given concepts, if it has a `score_name`; higher is better.

        Args:
            queries: the queries.
            rows: (m, k) concept rows, padded with -1.
            owners: (m,) query of each list of rows.

        Returns:
            (m, k) float32, padded with -inf.
        """
        raise NotImplementedError


class IndexRetriever(RetrievalMethod):
    """A retriever that searches an index, which knows what it was built from."""

    def __init__(self, index: ConceptIndex) -> None:
        self.index: Any = index

    def vectors_of(self, queries: Queries) -> Any:
        """What the index is searched with."""
        return queries.vectors

    def require(self, concepts: ConceptTable, encoder: BiEncoder | None) -> None:
        self.index.require(concepts, encoder)

    def search(self, queries: Queries, k: int) -> np.ndarray:
        return self.index.search(self.vectors_of(queries), k, **self._options(queries)).rows

    def score(self, queries: Queries, rows: np.ndarray, owners: np.ndarray) -> np.ndarray:
        vectors = self.vectors_of(queries)
        return self.index.best_names(vectors, rows, owners, **self._options(queries))[1]

    def _options(self, queries: Queries) -> dict[str, Any]:
        return {"documents": queries.documents} if self.leaves_out_documents else {}
