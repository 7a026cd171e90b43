#!/usr/bin/env python
"""Read concepts and annotated mentions into memory-mapped Arrow tables, and cut the mentions into four splits.

    python scripts/prepare_data.py recipes/quickstart/config.yaml

Writes concepts/ and mentions/ into the run folder.
"""

from dataclasses import asdict
from pathlib import Path

from umls_reranker.arguments import ConceptArguments, MentionArguments, RunArguments
from umls_reranker.cli import run_script, should_run
from umls_reranker.errors import UserError
from umls_reranker.recipe import Recipe, parse_recipe
from umls_reranker.stages import RunFolder, Stage, fingerprint_path, write_json

SECTIONS = (RunArguments, ConceptArguments, MentionArguments)


def main() -> None:
    recipe = parse_recipe(__doc__, SECTIONS)
    run = RunFolder(recipe.run.run_dir)
    files = input_files(recipe)
    settings = {"concepts": asdict(recipe.concepts), "mentions": asdict(recipe.mentions), "seed": recipe.run.seed}
    inputs = {name: fingerprint_path(path) for name, path in files.items()}
    concepts = run.stage("concepts", settings, inputs)
    mentions = run.stage("mentions", settings, inputs)
    flags = {"overwrite": recipe.run.overwrite, "dry_run": recipe.run.dry_run}
    with run.locked(dry_run=recipe.run.dry_run):
        # Held-out synonyms leave the dictionary for the mentions, so the two are made together.
        if should_run(concepts, **flags) | should_run(mentions, **flags):
            make(recipe, files, concepts, mentions)


def input_files(recipe: Recipe) -> dict[str, Path]:
    """The files that the recipe names, fetched when they are URLs."""
    from umls_reranker.data.sources import release_files
    from umls_reranker.resources import fetch

    cache = Path(recipe.run.cache_dir)
    concepts, mentions = recipe.concepts, recipe.mentions
    files: dict[str, Path] = {}
    if concepts.concept_source == "obo":
        files["obo"] = fetch(required(concepts.obo, "obo"), cache)
    else:
        files |= release_files(
            Path(required(concepts.umls_dir, "umls_dir")),
            Path(required(concepts.semantic_network_dir, "semantic_network_dir")),
        )
    if mentions.mention_source == "pubtator":
        names = ("corpus", "train_documents", "dev_documents", "test_documents")
        for name in names if mentions.test_documents else names[:-1]:
            files[name] = fetch(required(getattr(mentions, name), name), cache)
    return files


def required(value: str | None, key: str) -> str:
    if not value:
        raise UserError(f"the recipe needs the key {key}; run with --help to see what it takes")
    return value


def make(recipe: Recipe, files: dict[str, Path], concepts: Stage, mentions: Stage) -> None:
    from umls_reranker.data.concepts import write_concepts
    from umls_reranker.data.mentions import hold_out_synonyms, write_mentions
    from umls_reranker.data.sources import corpus_mentions, read_concepts, split_shares

    with concepts.writing() as (concept_folder, concept_summary), mentions.writing() as (folder, summary):
        rows, hierarchy = read_concepts(recipe.concepts, files, recipe.mentions.on_error, concept_summary)
        if recipe.mentions.mention_source == "held_out_synonyms":
            shares = split_shares(recipe.mentions)
            rows, found = hold_out_synonyms(
                list(rows), shares=shares, seed=recipe.run.seed, max_mentions=recipe.mentions.max_mentions
            )
        else:
            found = corpus_mentions(recipe.mentions, files, recipe.run.seed, summary)
        concept_summary["concepts"] = write_concepts(rows, hierarchy, concept_folder, concepts.key)
        summary["mentions"] = write_mentions(found, folder, mentions.key)
        write_json(concept_folder / "read_report.json", concept_summary)
        write_json(folder / "read_report.json", summary)
    print(f"{concept_summary['concepts']:,} concepts; mentions by split: {summary['mentions']}")


if __name__ == "__main__":
    run_script(main)
