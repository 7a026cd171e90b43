"""Collect in one folder what a deployment needs besides the model: concepts, indexes, encoder.

    umls-reranker export_index quickstart --index_folder /srv/index-2026-01

`ConceptLinker`, the spaCy component and umls-reranker serve open it. Files are hard-linked to the
run's on the same file system, and copied otherwise. The folder contains names of the UMLS release
it was built from: store it where the license of that release allows, never on the Hub.
"""

from dataclasses import dataclass
from pathlib import Path

from umls_reranker.core.errors import UserError
from umls_reranker.core.keys import recipe_key
from umls_reranker.pipeline.command import would_make
from umls_reranker.pipeline.options import parse_recipe
from umls_reranker.pipeline.run_folder import RunFolder, tell_other_settings
from umls_reranker.pipeline.stages import index_stages


@dataclass
class ExportArguments:
    """Export: the target folder."""

    index_folder: str | None = recipe_key(None, "folder to write")


def main() -> None:
    recipe, options = parse_recipe(__doc__, ("run_name", "output_dir", "dry_run"), ExportArguments)
    if options.index_folder is None:
        raise UserError("--index_folder is required: the folder to write")
    from umls_reranker.retrieval.deployment import export_index

    target = Path(options.index_folder)
    run = RunFolder(recipe.run.run_dir)
    tell_other_settings(recipe, run, index_stages(recipe).keys() - {"lists"})
    export_index(run.path, target, dry_run=recipe.run.dry_run)
    if recipe.run.dry_run:
        would_make("index folder", target)
        return
    size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    print(f"{target}: {', '.join(sorted(path.name for path in target.iterdir()))}; {size:,} bytes")
