"""The stages that read concepts and mentions, and write them as tables."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from ..core.errors import UserError
from ..core.hashes import file_sha256
from ..core.json_files import read_json, write_json
from ..core.stage import Stage
from ..corpora.annotated_text import Mention
from ..corpora.arguments import MentionArguments
from ..corpora.concept_ids import RetiredCuis, map_ids, with_concepts_of_mentions
from ..corpora.corpus import name_files
from ..corpora.dictionaries import ConceptSource, read_concepts
from ..corpora.formats import read_corpus
from ..corpora.mention_files import hold_out_synonyms, known_mentions, write_mentions
from ..corpora.reading_report import reading_table
from ..vocab.concept_table import ConceptTable
from ..vocab.concepts import concept_table, iter_concepts
from ..vocab.relations import write_relations
from .recipe import Recipe
from .run_folder import MENTION_FILES, RunFolder, planned_stages, should_run
from .sources import Files, check_documents, fingerprints, input_files, listed_documents
from .stages import held_out_shares


def corpus_mentions(
    mentions: MentionArguments,
    paths: Sequence[Path],
    split_of: Mapping[str, str],
    report: dict[str, Any],
) -> Iterator[tuple[str, Mention]]:
    """Stream ``(split, mention)`` from an annotated corpus.

    Args:
        mentions: the recipe's section.
        paths: the files of the corpus.
        split_of: document -> split (`listed_documents`).
        report: filled at the end with that of `CorpusReader.read`, ``mentions_in_no_list`` and
            ``listed_documents_without_mentions``.

    Raises:
        UserError: the corpus is damaged, or does not have the expected number of mentions.
    """
    unlisted = 0
    seen: set[str] = set()
    for mention in read_corpus(
        paths,
        report,
        types=mentions.annotation_types,
        expand_abbreviations=mentions.expand_abbreviations,
        split_composites=mentions.split_composites,
    ):
        split = split_of.get(mention.doc_id)
        if split is None:
            unlisted += 1
            continue
        seen.add(mention.doc_id)
        yield split, mention
    count = report["mentions"]
    expected = mentions.expected_mentions
    if expected is not None and count != expected:
        raise UserError(
            f"{name_files(paths)} contains {count:,} mentions, but expected_mentions "
            f"is {expected:,}; the download is incomplete or of another version, download it again"
        )
    report |= {
        "mentions_in_no_list": unlisted,
        "listed_documents_without_mentions": len(split_of) - len(seen),
    }


def prepare_data(recipe: Recipe) -> None:
    """Make the stages that read concepts and mentions, those that are due."""
    run = RunFolder(recipe.run.run_dir)
    files = input_files(recipe)
    hashes = fingerprints(files, Path(recipe.run.cache_dir), printed=recipe.run.dry_run)
    stages = planned_stages(recipe, run.path, hashes, "prepare_data")
    if recipe.run.dry_run:
        check_documents(recipe, files)
    with run.locked(dry_run=recipe.run.dry_run):
        due = {name: stage for name, stage in stages.items() if should_run(stage, recipe.run)}
        if due:
            make_data(recipe, run, files, due)
            show_counts(run)


def make_data(recipe: Recipe, run: RunFolder, files: Files, due: Mapping[str, Stage]) -> None:
    """Read concepts and mentions, which are those of annotated text or synonyms set aside."""
    report: dict[str, Any] = {}
    mentions: Iterable[tuple[str, Mention]]
    if recipe.mentions.mention_source == "held_out_synonyms":
        share = recipe.mentions.train_share
        held_out = held_out_shares(recipe.mentions)
        shares = {split: (1.0 - share) * part for split, part in held_out.items()}
        shares = {"train": share} | shares
        source = read_concepts(recipe.concepts, files)
        concepts = list(iter_concepts(source.concepts))
        rows, mentions = hold_out_synonyms(concepts, shares=shares, seed=recipe.run.seed)
        source = source._replace(concepts=concept_table(rows))
    else:
        # Lists of documents are checked before hours of reading.
        splits = listed_documents(recipe.mentions, files, recipe.run.seed)
        mentions = corpus_mentions(recipe.mentions, files["corpus"], splits, report)
        if "concepts" in due:
            source = read_concepts(recipe.concepts, files)
            if recipe.mentions.concepts_of_mentions:
                mentions = list(mentions)
                source = source._replace(
                    concepts=with_concepts_of_mentions(source.concepts, mentions)
                )
    if "concepts" in due:
        make_concepts(due["concepts"], source)
    if "mentions" in due:
        make_mentions(run, files, due["mentions"], mentions, report)


def make_concepts(stage: Stage, source: ConceptSource) -> None:
    """Write the dictionary."""
    with stage.writing() as (folder, summary):
        summary |= source.write(folder)
        summary["relations"] = write_relations(
            source.relations, ConceptTable.load(folder).cuis, folder
        )
        write_json(folder / "read_report.json", summary)


def make_mentions(
    run: RunFolder,
    files: Files,
    stage: Stage,
    mentions: Iterable[tuple[str, Mention]],
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
        summary["sha256"] = {}
        for name, paths in files.items():
            if name not in MENTION_FILES:
                continue
            for path in paths:
                summary["sha256"][f"{name} {path.name}"] = file_sha256(path)
        summary["in_dictionary"] = known_mentions(folder, table)
        write_json(folder / "read_report.json", summary)


def show_counts(run: RunFolder) -> None:
    """Print what was read and what was left out."""
    reports = [read_json(run.path / name / "read_report.json") for name in ("concepts", "mentions")]
    # As wide as the terminal, and wide enough in a log.
    width = None if Console().is_terminal else 120
    Console(width=width).print(reading_table(*reports))
    for name, sha256 in reports[1].get("sha256", {}).items():
        print(f"{name}: SHA-256 {sha256}", file=sys.stderr)
