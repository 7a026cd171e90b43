"""The retrievers of the package. To add one, write its own module and a line in `OWN_RETRIEVERS`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..core.errors import UserError
from .retrieval_method import IndexSources, Queries, RetrievalMethod

if TYPE_CHECKING:
    import numpy as np

    from ..core.recipe import Recipe
    from ..data.concepts import ConceptTable
    from ..models.bi_encoder import BiEncoder
    from .concept_index import ConceptIndex
    from .mention_index import MentionIndex


class _OfIndex(RetrievalMethod):
    """A retriever whose index knows what it was built from."""

    def __init__(self, index: ConceptIndex) -> None:
        self.index: Any = index

    def require(self, concepts: ConceptTable, encoder: BiEncoder) -> None:
        self.index.require(concepts, encoder)


class Dense(_OfIndex):
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

        vectors, settings = NameVectors(sources.folder / "vectors"), sources.index
        index = NameIndex.build(vectors, path, settings.index_factory, settings.index_parameters or "")
        return {"names": len(index), "concepts": vectors.concepts, "dimension": vectors.dimension}

    @classmethod
    def load(cls, sources: IndexSources, path: Path) -> Dense:
        return cls(sources.names)

    def search(self, queries: Queries, k: int) -> np.ndarray:
        return self.index.search(queries.vectors, k).rows

    def score(self, queries: Queries, rows: np.ndarray, owners: np.ndarray) -> np.ndarray:
        return self.index.best_names(queries.vectors, rows, owners)[1]


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


class Lexical(_OfIndex):
    """Searches by character trigrams."""

    name = "lexical"
    help = "most similar names by character trigrams"
    folder = "lexical"
    score_name = "lexical"
    score_help = "cosine of mention and name by character n-grams"

    @staticmethod
    def settings(recipe: Recipe) -> dict[str, Any]:
        return {"schema_version": 2}

    @classmethod
    def build(cls, sources: IndexSources, path: Path) -> dict[str, int]:
        from .lexical_index import LexicalIndex

        return {"names": len(LexicalIndex.build(sources.concepts, path))}

    @classmethod
    def load(cls, sources: IndexSources, path: Path) -> Lexical:
        from .lexical_index import LexicalIndex

        return cls(LexicalIndex.load(path))

    def search(self, queries: Queries, k: int) -> np.ndarray:
        return self.index.search(queries.texts, k).rows

    def score(self, queries: Queries, rows: np.ndarray, owners: np.ndarray) -> np.ndarray:
        return self.index.score(queries.texts, rows, owners)


class NearestMentions(_OfIndex):
    """Searches by the vectors of training mentions, in their texts if the encoder reads context."""

    name = "nearest_mentions"
    help = "concepts of the most similar training mentions"
    folder = "mention_index"
    inputs = ("concepts", "encoder", "mentions")

    def __init__(self, index: MentionIndex) -> None:
        super().__init__(index)
        self.reads_context = index.reads_context

    @classmethod
    def build(cls, sources: IndexSources, path: Path) -> dict[str, int]:
        from .mention_index import MentionIndex

        index = MentionIndex.build(sources.training_mentions, sources.concepts, sources.encoder, path)
        return {"mentions": len(index)}

    @classmethod
    def load(cls, sources: IndexSources, path: Path) -> NearestMentions:
        from .mention_index import MentionIndex

        return cls(MentionIndex.load(path))

    def search(self, queries: Queries, k: int) -> np.ndarray:
        return self.index.search(queries.vectors, k).rows


# In the order of their lists in a union: ties go to the concept in an earlier list.
OWN_RETRIEVERS = (Dense, Context, Lexical, NearestMentions)
