"""The stages that read concepts and mentions."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from ..core.files import file_sha256, read_json, write_json
from ..corpora.concept_sources import ConceptSource, read_concepts
from ..corpora.corpus import Mention
from ..corpora.mentions import (
    RetiredCuis,
    hold_out_synonyms,
    known_mentions,
    map_ids,
    reading_table,
    with_concepts_of_mentions,
    write_mentions,
)
from ..vocab.concepts import (
    ConceptTable,
    concept_table,
    count_typed,
    iter_concepts,
    write_concepts,
)
from ..vocab.rrf import write_relations
from .command import table_console
from .recipe import Recipe
from .sources import (
    corpus_mentions,
    listed_documents,
    split_shares,
)
from .stages import MENTION_FILES, RunFolder, Stage

Files = Mapping[str, tuple[Path, ...]]
# A split and a mention of it.
SplitMention = tuple[str, Mention]


def make_data(
    recipe: Recipe, run: RunFolder, files: Files, stages: Mapping[str, Stage], due: Collection[str]
) -> None:
    """Read concepts and mentions.

    Args:
        recipe: the recipe.
        run: the run folder.
        files: what `sources.input_files` returns.
        stages: name -> stage.
        due: names of those to make.
    """
    if recipe.mentions.mention_source == "held_out_synonyms":
        make_data_of_synonyms(recipe, run, files, stages, due)
    else:
        make_data_of_corpus(recipe, run, files, stages, due)


def make_data_of_corpus(
    recipe: Recipe, run: RunFolder, files: Files, stages: Mapping[str, Stage], due: Collection[str]
) -> None:
    """Read concepts, and the mentions of annotated text; arguments as for `make_data`."""
    report: dict[str, Any] = {}
    # Lists of documents are checked before hours of reading.
    splits = listed_documents(recipe.mentions, files, recipe.run.seed)
    mentions: Iterable[SplitMention] = corpus_mentions(
        recipe.mentions, files["corpus"], splits, report
    )
    if "concepts" in due:
        source = read_concepts(recipe.concepts, files)
        if recipe.mentions.concepts_of_mentions:
            mentions = list(mentions)
            source = source._replace(concepts=with_concepts_of_mentions(source.concepts, mentions))
        make_concepts(stages["concepts"], source)
    if "mentions" in due:
        make_mentions(run, files, stages["mentions"], mentions, report)


def make_data_of_synonyms(
    recipe: Recipe, run: RunFolder, files: Files, stages: Mapping[str, Stage], due: Collection[str]
) -> None:
    """Read concepts, and set synonyms aside as mentions; arguments as for `make_data`."""
    shares = split_shares(recipe.mentions)
    source = read_concepts(recipe.concepts, files)
    concepts = list(iter_concepts(source.concepts))
    rows, mentions = hold_out_synonyms(concepts, shares=shares, seed=recipe.run.seed)
    if "concepts" in due:
        make_concepts(stages["concepts"], source._replace(concepts=concept_table(rows)))
    if "mentions" in due:
        make_mentions(run, files, stages["mentions"], mentions, {})


def make_concepts(stage: Stage, source: ConceptSource) -> None:
    """Write the dictionary."""
    with stage.writing() as (folder, summary):
        summary |= source.report
        summary["concepts"] = write_concepts(source.concepts, source.hierarchy, folder)
        summary["typed"] = count_typed(source.concepts)
        summary["relations"] = write_relations(
            source.relations, ConceptTable.load(folder).cuis, folder
        )
        write_json(folder / "read_report.json", summary)


def make_mentions(
    run: RunFolder,
    files: Files,
    stage: Stage,
    mentions: Iterable[SplitMention],
    corpus_report: dict[str, Any],
) -> None:
    """Write the mentions of all splits; `corpus_report` gets the counts of reading them."""
    table = ConceptTable.load(run.path / "concepts")
    with stage.writing() as (folder, summary):
        retired = RetiredCuis.read(files["MRCUI"][0]) if "MRCUI" in files else None
        summary["mentions"] = write_mentions(
            map_ids(mentions, table, retired, corpus_report), folder
        )
        summary["corpus"] = corpus_report
        # A recipe may name files without their hashes.
        summary["sha256"] = {
            f"{name} {path.name}": file_sha256(path)
            for name, paths in files.items()
            if name in MENTION_FILES
            for path in paths
        }
        summary["in_dictionary"] = known_mentions(folder, table)
        write_json(folder / "read_report.json", summary)


def show_counts(run: RunFolder) -> None:
    """Print what was read and what was left out."""
    reports = [read_json(run.path / name / "read_report.json") for name in ("concepts", "mentions")]
    table_console().print(reading_table(*reports))
    for name, sha256 in reports[1].get("sha256", {}).items():
        print(f"{name}: SHA-256 {sha256}", file=sys.stderr)
