"""Keys of a recipe that this layer reads: the Hub repo."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.keys import recipe_key


@dataclass
class PublishArguments:
    """Publishing: the Hub repo."""

    repo_id: str | None = recipe_key(None, "Hub repo, e.g. org/sapbert-umls-reranker")
    tag: str | None = recipe_key(
        None, "tag of this version, e.g. v1.0.0; an existing tag is never overwritten"
    )
    private: bool = recipe_key(
        True,
        "create a new repo as private (the Hub's default is public), "
        "and refuse an existing public one",
    )
