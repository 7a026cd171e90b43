"""Publish the run's model folder to the Hub as one commit with a new tag.

    umls-reranker publish quickstart --repo_id ORG/NAME --tag v1.0.0
    umls-reranker publish quickstart --repo_id ORG/NAME --tag v1.0.0 --dry_run --against v0.9.0
    umls-reranker publish quickstart --repo_id ORG/NAME --create_pr
    umls-reranker publish my_model --repo_id ORG/NAME --tag v1.0.0
    umls-reranker publish built-in --repo_id ORG/NAME --dry_run

The last form publishes a model folder, such as the output of umls-reranker calibrate --lists.
Without --tag, the tag is the date. --against prints a comparison and prevents nothing:
umls-reranker validate tells by its exit code. Needs a token with write access: HF_TOKEN, or
`hf auth login`. A dry run checks everything and sends nothing.
"""

import sys
from dataclasses import dataclass
from datetime import date

from umls_reranker.core.errors import UserError
from umls_reranker.core.keys import recipe_key
from umls_reranker.pipeline.recipe import parse_recipe


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
    recipe, options = parse_recipe(
        __doc__, ("run", "publish"), WhatToPublish, or_model="model_folder"
    )
    if not recipe.publish.repo_id:
        raise UserError("publishing requires repo_id; set it in the recipe or with --repo_id")
    from umls_reranker.hub.model_folder import local_folder
    from umls_reranker.hub.publish import compare_versions, publish
    from umls_reranker.models.model_files import SIGN_IN

    repo_id = recipe.publish.repo_id
    tag = recipe.publish.tag or None
    if tag is None and not options.create_pr:
        tag = f"v{date.today():%Y.%m.%d}"
    folder = local_folder(options.model_folder or recipe.run.run_dir / "model")
    if options.model_folder and not folder.is_dir():
        raise UserError(f"{folder} is neither a recipe nor a model folder")
    if options.against:
        comparison = compare_versions(folder, f"{repo_id}@{options.against}")
        print(f"{comparison.text(options.against)}\n")
    publication = publish(
        folder,
        repo_id,
        tag,
        private=recipe.publish.private,
        dry_run=recipe.run.dry_run,
        branch=options.branch,
        create_pr=options.create_pr,
        gated=options.gated,
        commit_message=options.commit_message,
    )
    for name, size in publication.sizes.items():
        print(f"{size:>13,} bytes  {name}", file=sys.stderr)
    if not publication.is_checked:
        print(
            f"without a token, {repo_id} was not asked if it takes this version; {SIGN_IN}",
            file=sys.stderr,
        )
    with_tag = f" with tag {tag}" if tag and not options.create_pr else ""
    outcome = "would be published" if recipe.run.dry_run else "published"
    print(f"{outcome}{with_tag}: {publication.url}")
