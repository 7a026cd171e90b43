"""Read concepts and mentions into Arrow tables, and split the mentions by document.

    umls-reranker prepare_data quickstart

Writes concepts/ and mentions/ into the run folder.
"""

from pathlib import Path

from umls_reranker.core.run_arguments import RunArguments
from umls_reranker.corpora.arguments import ConceptArguments, MentionArguments
from umls_reranker.corpora.formats import describe_formats
from umls_reranker.pipeline.recipe import parse_recipe
from umls_reranker.pipeline.stages import RunFolder, planned_stages, should_run


def main() -> None:
    recipe = parse_recipe(
        __doc__,
        (RunArguments, ConceptArguments, MentionArguments),
        notes={"corpus": describe_formats()},
    )
    from umls_reranker.pipeline.sources import fingerprints, input_files

    run = RunFolder(recipe.run.run_dir)
    files = input_files(recipe)
    hashes = fingerprints(files, Path(recipe.run.cache_dir), printed=recipe.run.dry_run)
    stages = planned_stages(recipe, run.path, hashes, "prepare_data")
    with run.locked(dry_run=recipe.run.dry_run):
        due = [name for name, stage in stages.items() if should_run(stage, recipe.run)]
        if due:
            from umls_reranker.pipeline.data import make_data, show_counts

            make_data(recipe, run, files, stages, due)
            show_counts(run)
