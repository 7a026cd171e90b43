#!/usr/bin/env python
"""Publish the run's model folder to the Hub as one commit and a tag; an existing tag is never overwritten.

    umls-reranker publish quickstart --repo_id org/my-reranker --tag v1.0.0
    umls-reranker publish quickstart --repo_id org/my-reranker --tag v1.0.0 --dry_run --against v0.9.0
    umls-reranker publish quickstart --repo_id org/my-reranker --create_pr
    umls-reranker publish my_model --repo_id org/my-reranker --tag v1.0.0

The last form publishes a model folder, such as the output of umls-reranker calibrate --lists. Without --tag, the tag
is the date. --against prints a comparison and prevents nothing: umls-reranker validate tells by its exit code.
Needs a token with write access: HF_TOKEN, or `hf auth login`. A dry run checks everything and sends nothing.
"""

import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from umls_reranker.core.errors import UserError
from umls_reranker.core.keys import recipe_key
from umls_reranker.hub.arguments import PublishArguments
from umls_reranker.models.arguments import RunArguments
from umls_reranker.pipeline.command import run_script
from umls_reranker.pipeline.recipe import parse_recipe


@dataclass
class WhatToPublish:
    """What is published: options of this script only."""

    model_folder: str | None = recipe_key(None, "model folder instead of the run's; may also replace the recipe")
    branch: str = recipe_key("main", "branch to publish to; a new one begins at main")
    create_pr: bool = recipe_key(False, "open a pull request to main instead; make the tag after the merge")
    gated: str | None = recipe_key(None, "who wants to download must request access", ("auto", "manual"))
    commit_message: str | None = recipe_key(None, "title of the commit (default: Publish TAG)")
    against: str | None = recipe_key(None, "tag of the repo to compare with on the same test mentions")


def main() -> None:
    sections = (RunArguments, PublishArguments)
    recipe, given = parse_recipe(__doc__, sections, extra=WhatToPublish, or_model="model_folder")
    options = recipe.publish
    if not options.repo_id:
        raise UserError("publishing requires repo_id; set it in the recipe or with --repo_id")
    tag = options.tag or (None if given.create_pr else f"v{date.today():%Y.%m.%d}")

    from umls_reranker.evaluation.comparison import compare
    from umls_reranker.evaluation.outcomes import Outcomes
    from umls_reranker.hub.model_folder import CARD, model_files
    from umls_reranker.hub.publish import find_outcomes, publish

    folder = Path(given.model_folder) if given.model_folder else recipe.run.run_dir / "model"
    if given.model_folder and not folder.is_dir():
        raise UserError(f"{folder} is neither a recipe nor a model folder")
    if given.against:
        former = Outcomes.load(find_outcomes(f"{options.repo_id}@{given.against}"))
        comparison = compare(Outcomes.load(find_outcomes(str(folder))), former, margin=recipe.evaluation.margin)
        print(f"{comparison.text(given.against)}\n")
    further = {key: getattr(given, key) for key in ("branch", "create_pr", "gated", "commit_message")}
    url = publish(folder, options.repo_id, tag, private=options.private, dry_run=recipe.run.dry_run, **further)
    for file in model_files(folder):
        if file.name != CARD:
            print(f"{file.stat().st_size:>13,} bytes  {file.name}", file=sys.stderr)
    print(f"{CARD} (the card) is written for {options.repo_id} at {tag or 'main'}", file=sys.stderr)
    named = f" with tag {tag}" if tag and not given.create_pr else ""
    print(f"{'would be published' if recipe.run.dry_run else 'published'}{named}: {url}")


if __name__ == "__main__":
    run_script(main)
