"""The retrievers of the package, and those that recipes can name.

To add one, write its own module and a line in `OWN_RETRIEVERS`. Heavy libraries are imported where
they are used, because every command reads the declarations of retrievers.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from ..calibration.features import register_feature, score_feature
from ..core.errors import UserError
from ..lists.index_scores import INDEX_SCORES, IndexScore
from .index_sources import INDEX_INPUTS, IndexSources
from .queries import Queries
from .retrieval_method import IndexRetriever, RetrievalMethod

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from ..models.bi_encoder import BiEncoder
    from ..vocab.concept_table import ConceptTable
    from .lexical_index import LexicalIndex
    from .mention_index import MentionIndex


class Dense(IndexRetriever):
    """Searches by the mention's vector."""

    name = "dense"
    help = "nearest neighbors of the mention's embedding"
    folder: ClassVar[str | None] = "index"
    inputs = ("concepts", "encoder", "vectors")
    keys = ("index_factory",)
    score_name = "retrieval"

    @classmethod
    def build(cls, sources: IndexSources, path: Path) -> dict[str, int]:
        from .name_index import NameIndex
        from .name_vectors import NameVectors

        vectors = NameVectors(sources.folder / "vectors")
        parameters = sources.settings.index_parameters or ""
        index = NameIndex.build(vectors, path, sources.settings.index_factory, parameters)
        return {"names": len(index), "concepts": vectors.concepts, "dimension": vectors.dimension}

    @classmethod
    def load(cls, sources: IndexSources, path: Path) -> Dense:
        return cls(sources.names)


class DenseInContext(Dense):
    """Searches by the vector of the mention in its text, in the same index."""

    name = "context"
    help = "nearest neighbors of the mention in context, by an encoder trained for it"
    folder = None
    reads_context = True
    score_name = "context"

    def require(self, concepts: ConceptTable, encoder: BiEncoder | None) -> None:
        super().require(concepts, encoder)
        if encoder is None or not encoder.queries.context_tokens:
            raise UserError(
                "retrievers: context needs an encoder that reads context; set "
                "encoder_training_steps and run umls-reranker train_encoder"
            )


class TrigramRetriever(IndexRetriever):
    """Searches by character trigrams.

    Attributes:
        index_class: name of the class of its index, in `lexical_index`.
    """

    index_class: ClassVar[str]

    @classmethod
    def _class(cls) -> type[LexicalIndex]:
        from . import lexical_index

        return getattr(lexical_index, cls.index_class)

    @classmethod
    def build(cls, sources: IndexSources, path: Path) -> dict[str, int]:
        mentions = sources.known_mentions if "mentions" in cls.inputs else None
        return {"names": len(cls._class().build(sources.concepts, path, mentions))}

    @classmethod
    def load(cls, sources: IndexSources, path: Path) -> TrigramRetriever:
        return cls(cls._class().load(path))

    def vectors_of(self, queries: Queries) -> csr_array:
        return queries.weighed(self.index)


class Lexical(TrigramRetriever):
    """Searches among names."""

    name = "lexical"
    help = "most similar names by character trigrams"
    folder = "lexical"
    score_name = "lexical"
    values = MappingProxyType({"schema_version": 3})
    index_class = "LexicalIndex"


class Forms(TrigramRetriever):
    """Searches among normal forms of names and known mentions."""

    name = "forms"
    leaves_out_documents = True
    help = "most similar names and known mentions by normal form: words in any order"
    folder = "forms"
    inputs = ("concepts", "mentions")
    score_name = "forms"
    index_class = "FormIndex"


class NearestMentions(IndexRetriever):
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
        from .mention_index import MentionIndex

        index = MentionIndex.build(sources.known_mentions, sources.concepts, sources.encoder, path)
        return {"mentions": len(index)}

    @classmethod
    def load(cls, sources: IndexSources, path: Path) -> NearestMentions:
        from .mention_index import MentionIndex

        return cls(MentionIndex.load(path))


# In the order of their lists in a union: ties go to the concept in an earlier list.
OWN_RETRIEVERS: tuple[type[RetrievalMethod], ...] = (
    Dense,
    DenseInContext,
    Lexical,
    Forms,
    NearestMentions,
)
# Name -> retriever.
RETRIEVERS = {retriever.name: retriever for retriever in OWN_RETRIEVERS}
# Those that can order candidates and choose the names shown, the best first.
ORDERING = ("dense", "forms", "lexical")


def register_retriever(retriever: type[RetrievalMethod], score: IndexScore | None = None) -> None:
    """Add a retriever to those that recipes can name.

    Args:
        retriever: the retriever.
        score: the score under its `score_name`; not needed for those of `INDEX_SCORES`.

    Raises:
        ValueError: its name, folder or score is taken, or its index has an unknown input.
    """
    for former in RETRIEVERS.values():
        for key in ("name", "folder", "score_name"):
            value = getattr(retriever, key)
            if value is not None and value == getattr(former, key):
                raise ValueError(f"the retriever {former.name} already has the {key} {value!r}")
    if unknown := {*retriever.inputs} - {*INDEX_INPUTS}:
        raise ValueError(
            f"{retriever.name}: unknown inputs {sorted(unknown)}; choose from "
            f"{', '.join(INDEX_INPUTS)}"
        )
    if score is not None:
        register_feature(score_feature(str(retriever.score_name), score))
        INDEX_SCORES[str(retriever.score_name)] = score
    RETRIEVERS[retriever.name] = retriever


def chosen_retrievers(names: Collection[str]) -> list[type[RetrievalMethod]]:
    """The retrievers of a recipe, in the order of `RETRIEVERS`."""
    return [retriever for name, retriever in RETRIEVERS.items() if name in names]


def index_folders(names: Collection[str]) -> list[str]:
    """Folders of the indexes that a recipe's retrievers need."""
    return [
        retriever.folder for retriever in chosen_retrievers(names) if retriever.folder is not None
    ]


def needs_encoder(names: Collection[str]) -> bool:
    """Whether one of the retrievers reads the vectors of a bi-encoder."""
    return any("encoder" in retriever.inputs for retriever in chosen_retrievers(names))


def require_ordering(names: Sequence[str]) -> None:
    """Refuse retrievers that cannot order candidates, or that search an index without its owner.

    Raises:
        UserError: names those that are missing.
    """
    if not {*ORDERING} & {*names}:
        raise UserError(
            f"retrievers: {[*names]} has none that orders candidates; add one of "
            f"{', '.join(ORDERING)}"
        )
    if "context" in names and "dense" not in names:
        raise UserError("retrievers: context searches the index of dense; add dense")
