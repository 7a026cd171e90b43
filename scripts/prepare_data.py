#!/usr/bin/env python
"""Read concepts and mentions into memory-mapped Arrow tables; split mentions into train, dev, calibration and test.

    umls-reranker prepare_data quickstart

Writes concepts/ and mentions/ into the run folder. A recipe with candidate_lists (user-provided candidate
lists) needs no index: its rows become lists/ too, and umls-reranker mine_negatives comes next.
"""

from pathlib import Path

from umls_reranker.core.errors import UserError
from umls_reranker.core.files import read_json, write_json
from umls_reranker.corpora.arguments import ConceptArguments, MentionArguments
from umls_reranker.models.arguments import RunArguments
from umls_reranker.pipeline.command import run_script, table_console
from umls_reranker.pipeline.recipe import parse_recipe
from umls_reranker.pipeline.stages import RunFolder, planned_stages, should_run


def main() -> None:
    from umls_reranker.corpora.formats import describe_formats

    sections, notes = (RunArguments, ConceptArguments, MentionArguments), {"corpus": describe_formats()}
    recipe = parse_recipe(__doc__, sections, notes=notes)
    from umls_reranker.corpora.mentions import reading_table
    from umls_reranker.pipeline.sources import fingerprints, input_files

    run = RunFolder(recipe.run.run_dir)
    files = input_files(recipe)
    hashes = fingerprints(files, Path(recipe.run.cache_dir), printed=recipe.run.dry_run)
    stages = planned_stages(recipe, run.path, hashes, "prepare_data")
    with run.locked(dry_run=recipe.run.dry_run):
        due = [name for name, stage in stages.items() if should_run(stage, recipe.run)]
        if not due:
            return
        if recipe.mentions.candidate_lists:
            make_of_lists(recipe, run, files, stages)
        else:
            make(recipe, run, files, stages, due)
        reports = [read_json(run.path / name / "read_report.json") for name in ("concepts", "mentions")]
        table_console().print(reading_table(*reports))


def make(recipe, run, files, stages, due) -> None:
    from umls_reranker.corpora.mentions import hold_out_synonyms, with_concepts_of_mentions
    from umls_reranker.pipeline.sources import (
        corpus_mentions,
        listed_documents,
        read_concepts,
        split_shares,
    )
    from umls_reranker.vocab.concepts import concept_table, iter_concepts

    settings, seed, corpus_report = recipe.mentions, recipe.run.seed, {}
    holds_out = settings.mention_source == "held_out_synonyms"
    # Shares and lists of documents are checked before hours of reading.
    splits = split_shares(settings) if holds_out else listed_documents(settings, files, seed)
    if not holds_out:
        mentions = corpus_mentions(settings, files["corpus"], splits, corpus_report)
    if "concepts" in due or holds_out:
        source = read_concepts(recipe.concepts, files)
        if holds_out:
            # Held-out synonyms are removed from the dictionary.
            rows, mentions = hold_out_synonyms(list(iter_concepts(source.concepts)), shares=splits, seed=seed)
            source = source._replace(concepts=concept_table(rows))
        if settings.concepts_of_mentions:
            mentions = list(mentions)
            source = source._replace(concepts=with_concepts_of_mentions(source.concepts, mentions))
        if "concepts" in due:
            make_concepts(stages["concepts"], source)
    if "mentions" in due:
        make_mentions(run, files, stages["mentions"], mentions, corpus_report)


def make_of_lists(recipe, run, files, stages) -> None:
    from umls_reranker.pipeline.sources import ConceptSource, read_concepts, user_splits
    from umls_reranker.pipeline.user_lists import write_user_lists
    from umls_reranker.vocab.concepts import CONCEPT_SCHEMA, concept_table, iter_concepts
    from umls_reranker.vocab.types import TypeHierarchy

    has_dictionary = recipe.concepts.names_dictionary
    source = ConceptSource(CONCEPT_SCHEMA.empty_table(), TypeHierarchy.built_in(), (), {})
    if has_dictionary:
        source = read_concepts(recipe.concepts, files)
    (path,) = files["candidate_lists"]
    split_of = user_splits(recipe.mentions, files, recipe.run.seed)
    mentions, lists = stages["mentions"], stages["lists"]
    with mentions.writing() as (folder, summary), lists.writing() as (lists_folder, counts):
        found, report = write_user_lists(path, source.hierarchy, split_of, folder, lists_folder)
        lacking = [field for field in recipe.model.candidate_fields if field not in found.fields]
        if lacking and not has_dictionary:
            raise UserError(
                f"candidate_fields: no candidate of {path} has a {lacking[0]}, and the recipe has no dictionary "
                f"(umls_dir, obo or names); add either of them, or remove {lacking[0]}"
            )
        joined = concept_table(found.joined(iter_concepts(source.concepts)))
        make_concepts(stages["concepts"], source._replace(concepts=joined))
        counts |= {"mentions": report["mentions"], "in_list": report["in_list"]}
        summary |= counts | {"lists": report}
        write_json(folder / "read_report.json", summary)


def make_concepts(stage, source) -> None:
    from umls_reranker.vocab.concepts import ConceptTable, count_typed, write_concepts
    from umls_reranker.vocab.rrf import write_relations

    with stage.writing() as (folder, summary):
        report = source.report
        report["concepts"] = write_concepts(source.concepts, source.hierarchy, folder)
        # Lists add concepts, and types to concepts that have none.
        report["typed"] = count_typed(source.concepts)
        report["relations"] = write_relations(source.relations, ConceptTable.load(folder).cuis, folder)
        write_json(folder / "read_report.json", report)
        summary |= report


def make_mentions(run, files, stage, mentions, corpus_report) -> None:
    from umls_reranker.corpora.mentions import RetiredCuis, known_mentions, map_ids, write_mentions
    from umls_reranker.vocab.concepts import ConceptTable

    table = ConceptTable.load(run.path / "concepts")
    with stage.writing() as (folder, summary):
        retired = RetiredCuis.read(files["MRCUI"][0]) if "MRCUI" in files else None
        summary["mentions"] = write_mentions(map_ids(mentions, table, retired, corpus_report), folder)
        summary["corpus"] = corpus_report
        summary["in_dictionary"] = known_mentions(folder, table)
        write_json(folder / "read_report.json", summary)


if __name__ == "__main__":
    run_script(main)
