"""Retrievers: their interface, what they are built from, and those of the package.

To add one, write its own module and a line in `OWN_RETRIEVERS`. Heavy libraries are imported where
they are used, because every command reads the declarations of retrievers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from ..calibration.features import register_feature, score_feature
from ..core.errors import UserError
from ..lists.index_scores import INDEX_SCORES, IndexScore

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from scipy.sparse import csr_array

    from ..models.bi_encoder import BiEncoder
    from ..vocab.concept_table import ConceptTable
    from .concept_index import ConceptIndex
    from .deployment import IndexSettings
    from .lexical_index import LexicalIndex
    from .mention_index import MentionIndex
    from .name_index import NameIndex

# What an index can be built from.
INDEX_INPUTS = ("concepts", "mentions", "encoder", "vectors")


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


class IndexSources:
    """What retrievers of a run or index folder are built from or load; opened when first used.

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
        from ..vocab.concept_table import ConceptTable

        return ConceptTable.load(self.folder / "concepts")

    @cached_property
    def known_mentions(self) -> pa.Table | None:
        """Mentions of all splits but test, in the columns that indexes read; None if it has none.

        Those of a document are not found for its own mentions, so that lists of all splits are as
        those of test.
        """
        import pyarrow as pa

        from ..core.arrow_files import open_arrow

        files = sorted((self.folder / "mentions").glob("*.arrow"))
        columns = ["mention", "left", "right", "cui", "doc_id"]
        known = [open_arrow(file).select(columns) for file in files if file.stem != "test"]
        return pa.concat_tables(known) if known else None

    @cached_property
    def encoder(self) -> BiEncoder:
        """The bi-encoder, on its device."""
        return self.settings.load_encoder(self.folder, self.device)

    @cached_property
    def names(self) -> NameIndex:
        """The dense index."""
        from .name_index import NameIndex

        return NameIndex.load(self.folder / "index", self.settings.index_parameters or "")


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


class Context(Dense):
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
    Context,
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
