#!/usr/bin/env python
"""Publish the run's model folder to the Hub as one commit and a tag; an existing tag is never overwritten.

    umls-reranker publish quickstart --repo_id org/my-reranker --tag v1.0.0
    umls-reranker publish quickstart --repo_id org/my-reranker --tag v1.0.0 --dry_run
    umls-reranker publish my_model --repo_id org/my-reranker --tag v1.0.0

The last form publishes a model folder, such as the output of umls-reranker calibrate --lists.
Needs a token with write access: HF_TOKEN, or `hf auth login`. A dry run checks everything and sends nothing.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from umls_reranker.core.recipe import parse_recipe
from umls_reranker.core.script import run_script
from umls_reranker.core.settings import PublishArguments, RunArguments, recipe_key
from umls_reranker.core.text_files import UserError


@dataclass
class WhatToPublish:
    """What is published: options of this script only."""

    model_folder: str | None = recipe_key(None, "model folder instead of the run's; may also replace the recipe")


def main() -> None:
    sections = (RunArguments, PublishArguments)
    recipe, given = parse_recipe(__doc__, sections, extra=WhatToPublish, or_model="model_folder")
    options = recipe.publish
    for key in ("repo_id", "tag"):
        if not getattr(options, key):
            raise UserError(f"publishing requires {key}; set it in the recipe or with --{key}")

    from umls_reranker.hub.model_folder import CARD, model_files
    from umls_reranker.hub.publish import publish

    folder = Path(given.model_folder) if given.model_folder else recipe.run.run_dir / "model"
    if given.model_folder and not folder.is_dir():
        raise UserError(f"{folder} is neither a recipe nor a model folder")
    url = publish(folder, options.repo_id, options.tag, private=options.private, dry_run=recipe.run.dry_run)
    for file in model_files(folder):
        if file.name != CARD:
            print(f"{file.stat().st_size:>13,} bytes  {file.name}", file=sys.stderr)
    print(f"{CARD} (the card) is written for {options.repo_id} at {options.tag}", file=sys.stderr)
    print(f"{'would be published' if recipe.run.dry_run else 'published'} with tag {options.tag}: {url}")


if __name__ == "__main__":
    run_script(main)
