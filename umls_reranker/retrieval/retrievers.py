"""Retrievers: their interface, what they are built from, and those of the package.

To add one, write its own module and a line in `OWN_RETRIEVERS`. Heavy libraries are imported where they are used,
because every command reads the declarations of retrievers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from ..core.settings import RetrieverDeclaration
from ..core.text_files import UserError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from ..core.recipe import Recipe
    from ..models.bi_encoder import BiEncoder
    from ..vocab.concepts import ConceptTable
    from .concept_index import ConceptIndex
    from .deployment import IndexSettings
    from .name_index import MentionIndex, NameIndex


class Queries(NamedTuple):
    """n distinct mentions to search for: strings, or mentions in their text if the retriever reads context.

    Attributes:
        texts: n strings.
        contexts: n left and n right texts, if it reads context.
        vectors: (n, dimension) float32, L2-normalized, by the bi-encoder.
        documents: n documents, whose own mentions are not to be found; None: indexes have no mentions of them.
    """

    texts: Sequence[str]
    contexts: tuple[Sequence[str], Sequence[str]] | None
    vectors: np.ndarray
    documents: Sequence[str] | None = None


class IndexSources:
    """What retrievers are built from or load, in a run or index folder; each is opened when first used.

    Args:
        folder: the run or index folder.
        settings: how its names are encoded and indexed.
        device: of the encoder, as for `BiEncoder.from_pretrained`.
    """

    def __init__(self, folder: Path, settings: IndexSettings, device: str) -> None:
        self.folder = folder
        self.settings = settings
        self.device = device

    @cached_property
    def concepts(self) -> ConceptTable:
        """The dictionary."""
        from ..vocab.concepts import ConceptTable

        return ConceptTable.load(self.folder / "concepts")

    @cached_property
    def known_mentions(self) -> pa.Table:
        """Mentions of all splits but test, with the columns that indexes read; only in a run folder.

        Those of a document are not found for its own mentions, so that lists of all splits are as those of test.
        """
        import pyarrow as pa

        from ..core.arrays import open_arrow

        files = sorted((self.folder / "mentions").glob("*.arrow"))
        columns = ["mention", "left", "right", "cui", "doc_id"]
        known = [open_arrow(file).select(columns) for file in files if file.stem != "test"]
        return pa.concat_tables(known)

    @cached_property
    def encoder(self) -> BiEncoder:
        """The bi-encoder, on its device."""
        return self.settings.load_encoder(self.folder, self.device)

    @cached_property
    def names(self) -> NameIndex:
        """The dense index; an approximate one is read once from start to end, as searches use its pages in any order.

        Raises:
            UserError: the index is missing, or cannot be read.
        """
        from ..core.stages import EXACT_INDEX
        from .faiss_index import read_ahead
        from .name_index import FAISS_FILE, NameIndex

        names = NameIndex.load(self.folder / "index", self.settings.index_parameters)
        if self.settings.index_factory != EXACT_INDEX:
            read_ahead(self.folder / "index" / FAISS_FILE)
        return names


class RetrievalMethod(RetrieverDeclaration, ABC):
    """A retriever: its declaration, and how its index is built, loaded and searched.

    Attributes:
        leaves_out_documents: whether it leaves out what is known from `Queries.documents`.
    """

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

    def require(self, concepts: ConceptTable, encoder: BiEncoder) -> None:
        """Refuse concepts or an encoder other than those of the index, if it can tell.

        Raises:
            UserError: they differ; names them.
        """

    @abstractmethod
    def search(self, queries: Queries, k: int) -> np.ndarray:
        """The k concepts nearest to each of n queries, the nearest first.

        Returns:
            (n, k) concept rows, distinct within a query, padded with -1; fewer columns if there are fewer concepts.
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


class OfIndex(RetrievalMethod):
    """A retriever that searches an index, which knows what it was built from.

    Attributes:
        queried: the field of `Queries` that the index is searched with.
    """

    queried: ClassVar[str] = "vectors"

    def __init__(self, index: ConceptIndex) -> None:
        self.index: Any = index

    def require(self, concepts: ConceptTable, encoder: BiEncoder) -> None:
        self.index.require(concepts, encoder)

    def search(self, queries: Queries, k: int) -> np.ndarray:
        return self.index.search(getattr(queries, self.queried), k, *self._left_out(queries)).rows

    def score(self, queries: Queries, rows: np.ndarray, owners: np.ndarray) -> np.ndarray:
        return self.index.best_names(getattr(queries, self.queried), rows, owners, *self._left_out(queries))[1]

    def _left_out(self, queries: Queries) -> list[Sequence[str] | None]:
        return [queries.documents] if self.leaves_out_documents else []


class Dense(OfIndex):
    """Searches by the vector of the mention. Every candidate's name and cosine come from its index."""

    name = "dense"
    help = "nearest neighbors of the mention's embedding"
    folder: ClassVar[str | None] = "index"
    inputs = ("concepts", "encoder", "vectors")
    score_name = "retrieval"
    score_help = "cosine of mention and name in the dense index"

    @staticmethod
    def settings(recipe: Recipe) -> dict[str, Any]:
        return {"index_factory": recipe.index.index_factory}

    @classmethod
    def build(cls, sources: IndexSources, path: Path) -> dict[str, int]:
        from .name_index import NameIndex
        from .name_vectors import NameVectors

        vectors = NameVectors(sources.folder / "vectors")
        settings = sources.settings
        index = NameIndex.build(vectors, path, settings.index_factory, settings.index_parameters)
        return {"names": len(index), "concepts": vectors.concepts, "dimension": vectors.dimension}

    @classmethod
    def load(cls, sources: IndexSources, path: Path) -> Dense:
        return cls(sources.names)


class Context(Dense):
    """Searches by the vector of the mention in its text, in the same index."""

    name = "context"
    help = "nearest neighbors of the mention in context, by an encoder trained for it"
    folder = None
    reads_context = True
    score_name = "context"
    score_help = "cosine of mention in context and name in the dense index"

    def require(self, concepts: ConceptTable, encoder: BiEncoder) -> None:
        super().require(concepts, encoder)
        if not encoder.queries.context_tokens:
            raise UserError(
                "retrievers: context needs an encoder that reads context; set encoder_training_steps and run "
                "umls-reranker train_encoder"
            )


class Lexical(OfIndex):
    """Searches by character trigrams."""

    name = "lexical"
    help = "most similar names by character trigrams"
    folder = "lexical"
    queried = "texts"
    score_name = "lexical"
    score_help = "cosine of mention and name by character n-grams"

    @staticmethod
    def settings(recipe: Recipe) -> dict[str, Any]:
        return {"schema_version": 3}

    @classmethod
    def build(cls, sources: IndexSources, path: Path) -> dict[str, int]:
        from .lexical_index import LexicalIndex

        return {"names": len(LexicalIndex.build(sources.concepts, path))}

    @classmethod
    def load(cls, sources: IndexSources, path: Path) -> Lexical:
        from .lexical_index import LexicalIndex

        return cls(LexicalIndex.load(path))


class Forms(OfIndex):
    """Searches by character trigrams of normal forms, among names and known mentions."""

    name = "forms"
    leaves_out_documents = True
    queried = "texts"
    help = "most similar names and known mentions by normal form: words in any order"
    folder = "forms"
    inputs = ("concepts", "mentions")
    score_name = "forms"
    score_help = "cosine of mention and name or known mention by character n-grams of their normal forms"

    @classmethod
    def build(cls, sources: IndexSources, path: Path) -> dict[str, int]:
        from .lexical_index import FormIndex

        return {"names": len(FormIndex.build(sources.concepts, path, sources.known_mentions))}

    @classmethod
    def load(cls, sources: IndexSources, path: Path) -> Forms:
        from .lexical_index import FormIndex

        return cls(FormIndex.load(path))


class NearestMentions(OfIndex):
    """Searches by the vectors of known mentions, in their texts if the encoder reads context."""

    name = "nearest_mentions"
    leaves_out_documents = True
    help = "concepts of the most similar known mentions"
    folder = "mention_index"
    inputs = ("concepts", "encoder", "mentions")

    def __init__(self, index: MentionIndex) -> None:
        super().__init__(index)
        self.reads_context = index.reads_context

    @classmethod
    def build(cls, sources: IndexSources, path: Path) -> dict[str, int]:
        from .name_index import MentionIndex

        index = MentionIndex.build(sources.known_mentions, sources.concepts, sources.encoder, path)
        return {"mentions": len(index)}

    @classmethod
    def load(cls, sources: IndexSources, path: Path) -> NearestMentions:
        from .name_index import MentionIndex

        return cls(MentionIndex.load(path))


# In the order of their lists in a union: ties go to the concept in an earlier list.
OWN_RETRIEVERS = (Dense, Context, Lexical, Forms, NearestMentions)
