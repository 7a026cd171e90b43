#!/usr/bin/env python
"""Read concepts and annotated mentions into memory-mapped Arrow tables, and cut the mentions into four splits.

    python scripts/prepare_data.py recipes/quickstart/config.yaml

Writes concepts/ and mentions/ into the run folder.
"""

import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

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
    if recipe.run.dry_run:
        for name, path in each_file(files):
            print(f"[{name}] {path}, {path.stat().st_size:,} bytes", file=sys.stderr)
    settings = {"concepts": asdict(recipe.concepts), "mentions": asdict(recipe.mentions), "seed": recipe.run.seed}
    inputs = {name: fingerprint_path(path) for name, path in each_file(files)}
    concepts = run.stage("concepts", settings, inputs)
    mentions = run.stage("mentions", settings, inputs)
    flags = {"overwrite": recipe.run.overwrite, "dry_run": recipe.run.dry_run}
    with run.locked(dry_run=recipe.run.dry_run):
        # Held-out synonyms leave the dictionary for the mentions, so the two are made together.
        if should_run(concepts, **flags) | should_run(mentions, **flags):
            make(recipe, files, concepts, mentions)


def input_files(recipe: Recipe) -> dict[str, tuple[Path, ...]]:
    """The files that the recipe names, each with its parts, fetched when they are URLs."""
    from umls_reranker.data.sources import release_files
    from umls_reranker.resources import fetch

    cache = Path(recipe.run.cache_dir)
    concepts, mentions = recipe.concepts, recipe.mentions
    from_corpus = mentions.mention_source == "pubtator"
    files: dict[str, tuple[Path, ...]] = {}
    if concepts.concept_source == "obo":
        locators = required(concepts.obo, "obo")
        files["obo"] = tuple(fetch(one, cache) for one in ([locators] if isinstance(locators, str) else locators))
    else:
        used = {"MRREL": bool(concepts.relations), "MRCUI": from_corpus and mentions.map_retired_cuis}
        files |= release_files(
            Path(required(concepts.umls_dir, "umls_dir")),
            concepts.semantic_network_dir and Path(concepts.semantic_network_dir),
            unused=[name for name, is_used in used.items() if not is_used],
        )
    if from_corpus:
        names = ("corpus", "train_documents", "dev_documents", "test_documents")
        for name in names if mentions.test_documents else names[:-1]:
            files[name] = (fetch(required(getattr(mentions, name), name), cache),)
    if mentions.feedback:
        files["feedback"] = (Path(mentions.feedback),)
    return files


def required(value: Any, key: str) -> Any:
    if not value:
        raise UserError(f"the recipe needs the key {key}; run with --help to see what it takes")
    return value


def each_file(files: dict[str, tuple[Path, ...]]) -> Iterator[tuple[str, Path]]:
    """Every file by name; several under one name are numbered."""
    for name, paths in files.items():
        for place, path in enumerate(paths, start=1):
            yield name if len(paths) == 1 else f"{name} {place}", path


def make(recipe: Recipe, files: dict[str, tuple[Path, ...]], concepts: Stage, mentions: Stage) -> None:
    from rich.console import Console

    from umls_reranker.data.concepts import ConceptTable, write_concepts
    from umls_reranker.data.mentions import hold_out_synonyms, write_mentions
    from umls_reranker.data.reading_report import known_mentions, reading_table
    from umls_reranker.data.relations import write_relations
    from umls_reranker.data.retired import RetiredCuis, map_retired
    from umls_reranker.data.sources import corpus_mentions, read_concepts, split_shares
    from umls_reranker.feedback import load_feedback, training_mentions

    on_error = recipe.mentions.on_error
    with concepts.writing() as (concept_folder, concept_summary), mentions.writing() as (folder, summary):
        rows, hierarchy, relations = read_concepts(recipe.concepts, files, on_error, concept_summary)
        if recipe.mentions.mention_source == "held_out_synonyms":
            shares = split_shares(recipe.mentions)
            rows, found = hold_out_synonyms(
                list(rows), shares=shares, seed=recipe.run.seed, max_mentions=recipe.mentions.max_mentions
            )
        else:
            found = corpus_mentions(recipe.mentions, files, recipe.run.seed, summary)
        if "feedback" in files:
            found = training_mentions(found, load_feedback(*files["feedback"]), hierarchy, summary)
        concept_summary["concepts"] = write_concepts(rows, hierarchy, concept_folder, concepts.key)
        table = ConceptTable.load(concept_folder)
        concept_summary["relations"] = write_relations(relations, table.cui_numbers, concept_folder)
        if "MRCUI" in files:
            reading = summary["retired_cuis"] = {}
            retired = RetiredCuis.read(files["MRCUI"], on_error=on_error, report=reading)
            found = map_retired(found, retired, table, reading)
        summary["mentions"] = write_mentions(found, folder, mentions.key)
        summary["in_dictionary"] = known_mentions(folder, table)
        write_json(concept_folder / "read_report.json", concept_summary)
        write_json(folder / "read_report.json", summary)
    Console(width=None if Console().is_terminal else 120).print(reading_table(concept_summary, summary))


if __name__ == "__main__":
    run_script(main)
