"""Declarations of retrievers, and the registry of all retrievers.

Choices and help of the recipe key `retrievers`, stages and keys of the indexes, folders of a deployment, scores of
candidates and their features follow from the declarations. The package's own retrievers are listed in
`retrieval.retrievers`, two rooms above; ``umls_reranker/__init__.py`` registers them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from .sockets import Feature, register_feature

# What an index can be built from.
INPUTS = ("concepts", "mentions", "encoder", "vectors")


class RetrieverDeclaration:
    """A retriever's name, what its index is built from, and the score that it gives.

    Attributes:
        name: its name in the recipe key `retrievers` and in figures of recall.
        help: one line about it.
        folder: folder of its index in a run, and name of the stage that builds it; None: it has no index of its own.
        inputs: what the index is built from, and rebuilt with if it changes: ``concepts`` (the dictionary),
            ``mentions`` (of the training split), ``encoder`` (the bi-encoder), ``vectors`` (of the names).
        reads_context: whether it searches for the mention in its text.
        score_name: NAME of the key ``NAME_score`` of candidates and of the feature; None: it gives no scores.
        score_help: one line about this feature.
    """

    name: ClassVar[str]
    help: ClassVar[str]
    folder: ClassVar[str | None] = None
    inputs: ClassVar[tuple[str, ...]] = ("concepts",)
    reads_context: bool = False
    score_name: ClassVar[str | None] = None
    score_help: ClassVar[str] = ""

    @staticmethod
    def settings(recipe: Any) -> dict[str, Any]:
        """Further values that decide the index, of a `Recipe` and the version of its files; for JSON."""
        return {}

    @classmethod
    def score_inputs(cls) -> tuple[str, ...]:
        """Inputs of the feature, as `calibration.inputs` names them."""
        return (*(("context",) if cls.reads_context else ()), f"{cls.score_name}_score")


# Name -> retriever, in the order of their lists in a union.
RETRIEVERS: dict[str, type[RetrieverDeclaration]] = {}
# Name of the score -> the retriever that gives it. Such scores count only with the index key.
SCORES: dict[str, type[RetrieverDeclaration]] = {}


def register(retriever: type[RetrieverDeclaration]) -> None:
    """Add a retriever to those that recipes can name.

    Raises:
        ValueError: its name, folder or score is taken, or its index has an unknown input.
    """
    for former in RETRIEVERS.values():
        for key in ("name", "folder", "score_name"):
            value = getattr(retriever, key)
            if value is not None and value == getattr(former, key):
                raise ValueError(f"the retriever {former.name} already has the {key} {value!r}")
    if unknown := {*retriever.inputs} - {*INPUTS}:
        raise ValueError(f"{retriever.name}: unknown inputs {sorted(unknown)}; choose from {', '.join(INPUTS)}")
    if retriever.score_name is not None:
        register_feature(Feature(retriever.score_name, retriever.score_help, inputs=retriever.score_inputs()))
        SCORES[retriever.score_name] = retriever
    RETRIEVERS[retriever.name] = retriever


def chosen_retrievers(names: Iterable[str]) -> list[type[RetrieverDeclaration]]:
    """The retrievers of a recipe, in the order of `RETRIEVERS`."""
    chosen = {*names}
    return [retriever for name, retriever in RETRIEVERS.items() if name in chosen]


def index_folders(names: Iterable[str]) -> list[str]:
    """Folders of the indexes that a recipe's retrievers need."""
    return [retriever.folder for retriever in chosen_retrievers(names) if retriever.folder is not None]
