"""Publish the run's model folder to the Hub as one commit with a new tag.

    umls-reranker publish quickstart --repo_id ORG/NAME --tag v1.0.0
    umls-reranker publish quickstart --repo_id ORG/NAME --tag v1.0.0 --dry_run --against v0.9.0
    umls-reranker publish quickstart --repo_id ORG/NAME --create_pr
    umls-reranker publish my_model --repo_id ORG/NAME --tag v1.0.0

The last form publishes a model folder, such as the output of umls-reranker calibrate --lists.
Without --tag, the tag is the date. --against prints a comparison and prevents nothing:
umls-reranker validate tells by its exit code. Needs a token with write access: HF_TOKEN, or
`hf auth login`. A dry run checks everything and sends nothing.
"""

from dataclasses import dataclass

from umls_reranker.core.errors import UserError
from umls_reranker.core.keys import recipe_key
from umls_reranker.hub.arguments import PublishArguments
from umls_reranker.pipeline.recipe import parse_recipe
from umls_reranker.training.arguments import RunArguments


@dataclass
class WhatToPublish:
    """What is published: options of this script only."""

    model_folder: str | None = recipe_key(
        None, "model folder instead of the run's; may also replace the recipe"
    )
    branch: str = recipe_key("main", "branch to publish to; a new one begins at main")
    create_pr: bool = recipe_key(
        False, "open a pull request to main instead; make the tag after the merge"
    )
    gated: str | None = recipe_key(
        None, "who wants to download must request access", ("auto", "manual")
    )
    commit_message: str | None = recipe_key(None, "title of the commit (default: Publish TAG)")
    against: str | None = recipe_key(
        None, "tag of the repo to compare with on the same test mentions"
    )


def main() -> None:
    sections = (RunArguments, PublishArguments)
    recipe, options = parse_recipe(__doc__, sections, extra=WhatToPublish, or_model="model_folder")
    if not recipe.publish.repo_id:
        raise UserError("publishing requires repo_id; set it in the recipe or with --repo_id")
    from umls_reranker.pipeline.publication import publish_model

    publish_model(recipe, options)
