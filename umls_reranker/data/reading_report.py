"""A table of what was read and skipped of a dictionary and a corpus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from .arrow import open_arrow
from .concepts import ConceptTable
from .mentions import SPLITS

# Reader counts that are shown if nonzero: key -> title.
CONCEPT_COUNTS = {
    "names_read": "names read",
    "names_kept": "  kept",
    "terms": "terms read",
    "obsolete": "  obsolete",
    "without_cui": "  without a UMLS CUI",
    "merged_terms": "  merged into a term with the same CUI",
    "dropped_synonyms": "  synonyms of other scopes, ignored",
}
CORPUS_COUNTS = {
    "documents": "documents read",
    "mentions": "mentions read",
    "mentions_in_no_list": "  in none of the document lists",
    "without_cui": "  left out: no UMLS CUI",
    "discontinuous": "  left out: discontinuous",
    "further_cuis": "  additional CUIs of a mention, ignored",
    "listed_documents_without_mentions": "listed documents that are missing or have no mentions",
}
LIST_COUNTS = {
    "documents": "documents of the lists",
    "mentions": "mentions",
    "not_in_list": "  gold concept not in the list",
    "mentions_in_no_list": "  in none of the document lists",
    "candidates": "candidates",
    "repeated_candidates": "  left out: concept repeated in its list",
}


def known_mentions(folder: Path, concepts: ConceptTable) -> dict[str, int]:
    """Split -> number of mentions whose gold concept is in the dictionary.

    Args:
        folder: folder that `mentions.write_mentions` wrote.
        concepts: the dictionary.
    """
    cuis = {split: open_arrow(folder / f"{split}.arrow")["cui"].to_pylist() for split in SPLITS}
    return {split: int((concepts.rows(of_split) >= 0).sum()) for split, of_split in cuis.items()}


def reading_table(concepts: Mapping[str, Any], mentions: Mapping[str, Any]) -> Table:
    """A table of the content of both stages' ``read_report.json``."""
    table = Table(title="Concepts and mentions", title_justify="left", show_header=False)
    table.add_column("what")
    table.add_column("how many", justify="right", overflow="fold")
    for section in (_origin(concepts), _concept_rows(concepts), _relation_rows(concepts), _mention_rows(mentions)):
        for title, value in section:
            table.add_row(title, value if isinstance(value, str) else f"{value:,}")
        table.add_section()
    return table


def _counts(report: Mapping[str, Any], titles: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    """The counts of a report that are not 0, with their titles."""
    return ((title, report[key]) for key, title in titles.items() if report.get(key))


def _origin(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for vocabulary in report.get("vocabularies", ()):
        about = [text for text in (vocabulary["version"], vocabulary["license"]) if text]
        yield vocabulary["file"], ", ".join(about) or "version and license not stated"
    if (release := report.get("release")) is not None:
        yield "UMLS release", release.get("name", "not stated")


def _concept_rows(report: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    yield from _counts(report, CONCEPT_COUNTS)
    dropped = report.get("dropped", {})
    yield from _counts(dropped, {name: f"names excluded by {name}" for name in dropped})
    yield "concepts", report["concepts"]
    yield "  with a semantic type", report["typed"]


def _relation_rows(report: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    yield "pairs of related concepts, counted in both directions", report["relations"]


def _mention_rows(report: Mapping[str, Any]) -> Iterator[tuple[str, str | int]]:
    if corpus := report.get("corpus"):
        yield "corpus format", corpus["format"]
        yield from _counts(corpus, CORPUS_COUNTS)
        yield from ((f"  left out, malformed: {reason}", count) for reason, count in corpus["malformed"].items())
        yield from (("  malformed", first) for first in corpus["first_malformed"])
    if lists := report.get("lists"):
        yield from _counts({**report, **lists}, LIST_COUNTS)
        yield "candidate scores", ", ".join(f"{name}_score" for name in lists["scores"]) or "none"
        if lists["unread_keys"]:
            yield "ignored fields of candidates (scores must be named NAME_score)", ", ".join(lists["unread_keys"])
        if lists["unknown_types"]:
            yield "mention types not in the vocabulary", ", ".join(lists["unknown_types"])
    where, counted = ("its list", "in_list") if "in_list" in report else ("the dictionary", "in_dictionary")
    for split, count in report["mentions"].items():
        known = report[counted][split]
        yield f"{split} mentions; with the gold concept in {where}", f"{count:,}; {known:,} ({known / count:.1%})"
