"""Publishing a run's model folder, or another one, on the Hub."""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..evaluation.comparison import compare
from ..evaluation.outcomes import Outcomes
from ..hub.publish import find_outcomes, publish
from ..models.hub_calls import SIGN_IN
from .recipe import Recipe


def publish_model(recipe: Recipe, options: Any) -> None:
    """Publish a model folder and say what was sent.

    Args:
        recipe: the recipe, whose publishing section names the repo.
        options: the options of the command that are no recipe keys.

    Raises:
        UserError: there is no such folder, or as for `publish`.
    """
    repo_id = str(recipe.publish.repo_id)
    tag = recipe.publish.tag or None
    if tag is None and not options.create_pr:
        tag = f"v{date.today():%Y.%m.%d}"
    folder = Path(options.model_folder) if options.model_folder else recipe.run.run_dir / "model"
    if options.model_folder and not folder.is_dir():
        raise UserError(f"{folder} is neither a recipe nor a model folder")
    if options.against:
        former = Outcomes.load(find_outcomes(f"{repo_id}@{options.against}"))
        present = Outcomes.load(find_outcomes(str(folder)))
        comparison = compare(present, former)
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
