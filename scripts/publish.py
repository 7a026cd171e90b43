"""Publish the run's model folder to the Hub as one commit with a new tag.

    umls-reranker publish quickstart --repo_id ORG/NAME --tag v1.0.0
    umls-reranker publish quickstart --repo_id ORG/NAME --tag v1.0.0 --dry_run
    umls-reranker publish quickstart --repo_id ORG/NAME --create_pr
    umls-reranker publish my_model --repo_id ORG/NAME --tag v1.0.0
    umls-reranker publish built-in --repo_id ORG/NAME --dry_run

The last form publishes a model folder, such as the output of umls-reranker calibrate --lists.
Without --tag, the tag is the date. To compare with the version before first: umls-reranker validate
RECIPE --against ORG/NAME@TAG. Needs a token with write access: HF_TOKEN, or
`hf auth login`. A dry run checks everything and sends nothing.
"""

import sys
from dataclasses import dataclass
from datetime import date

from umls_reranker.core.errors import UserError
from umls_reranker.core.keys import recipe_key
from umls_reranker.pipeline.options import parse_recipe


@dataclass
class PublishOptions:
    """Publishing: what goes to which Hub repo."""

    repo_id: str | None = recipe_key(None, "Hub repo, e.g. org/sapbert-umls-reranker")
    tag: str | None = recipe_key(
        None, "tag of this version, e.g. v1.0.0; an existing tag is never overwritten"
    )
    private: bool = recipe_key(
        True,
        "create a new repo as private (the Hub's default is public), "
        "and refuse an existing public one",
    )
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


def main() -> None:
    recipe, options = parse_recipe(
        __doc__, ("run_name", "output_dir", "dry_run"), PublishOptions, or_model="model_folder"
    )
    if not options.repo_id:
        raise UserError("--repo_id is required: the Hub repo, NAMESPACE/NAME")
    from umls_reranker.hub.model_download import local_folder
    from umls_reranker.hub.publish import publish
    from umls_reranker.models.hub_calls import SIGN_IN

    repo_id = options.repo_id
    tag = options.tag or None
    if tag is None and not options.create_pr:
        tag = f"v{date.today():%Y.%m.%d}"
    folder = local_folder(options.model_folder or recipe.run.run_dir / "model")
    if options.model_folder and not folder.is_dir():
        raise UserError(f"{folder} is neither a recipe nor a model folder")
    publication = publish(
        folder,
        repo_id,
        tag,
        private=options.private,
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
