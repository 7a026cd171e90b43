"""The files that a recipe names: fetched when they are URLs, and identified by their content."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..core.arguments import MentionArguments
from ..core.errors import UserError
from ..core.fetch import fetch
from ..core.files import fingerprint_path, remembered
from ..core.recipe import Recipe
from .corpus_formats import corpus_files, reader_of
from .release import release_files
from .sources import CONTENT_CHECKS

__all__ = ["fingerprints", "input_files"]


def input_files(recipe: Recipe) -> dict[str, tuple[Path, ...]]:
    """Name -> path of each file, in its parts; URLs are fetched.

    Raises:
        UserError: the recipe lacks a key, has one that does not go with another, or a file is missing.
    """
    cache = Path(recipe.run.cache_dir)
    concepts, mentions = recipe.concepts, recipe.mentions
    lists = mentions.candidate_lists
    from_corpus = mentions.mention_source == "corpus" and not lists
    if lists:
        _refuse_with_lists(mentions)
    if concepts.obo and not concepts.names_dictionary:
        raise UserError("obo: is read only with concept_source: obo; set that too, or leave obo out")
    files: dict[str, tuple[Path, ...]] = {}
    if concepts.concept_source == "obo":
        locators = _each_locator(_required(concepts.obo, "obo"))
        files["obo"] = tuple(fetch(one, cache, CONTENT_CHECKS["obo"]) for one in locators)
    elif concepts.names_dictionary or not lists:
        used = {"MRREL": bool(concepts.relations), "MRCUI": from_corpus}
        files |= release_files(
            Path(_required(concepts.umls_dir, "umls_dir")),
            Path(concepts.semantic_network_dir) if concepts.semantic_network_dir else None,
            unused=[name for name, is_used in used.items() if not is_used],
        )
    if from_corpus:
        locators = _each_locator(_required(mentions.corpus, "corpus"))
        corpora = [fetch(one, cache, CONTENT_CHECKS["corpus"], folder=True) for one in locators]
        files["corpus"] = tuple(file for corpus in corpora for file in corpus_files(corpus))
        # Refused before hours of reading concepts.
        reader_of(files["corpus"])
    by_documents = mentions.train_documents or mentions.dev_documents or mentions.test_documents
    if from_corpus or (lists and by_documents):
        names = ["train_documents", "dev_documents"]
        if mentions.test_documents:
            names.append("test_documents")
        for name in names:
            files[name] = (fetch(_required(getattr(mentions, name), name), cache, CONTENT_CHECKS[name]),)
    if mentions.feedback:
        files["feedback"] = (Path(mentions.feedback),)
    if lists:
        files["candidate_lists"] = (Path(lists),)
    return files


def _refuse_with_lists(mentions: MentionArguments) -> None:
    for key, remedy in (
        ("corpus", "the lists hold the mentions"),
        ("feedback", "write corrected mentions into the lists, in documents of the split train"),
    ):
        if getattr(mentions, key):
            raise UserError(f"{key}: does not go together with candidate_lists; leave it out, {remedy}")
    if mentions.mention_source != "corpus":
        raise UserError("mention_source: candidate_lists take its place; leave it out")


def _each_locator(locators: str | list[str]) -> list[str]:
    return [locators] if isinstance(locators, str) else locators


def _required(value: Any, key: str) -> Any:
    if not value:
        raise UserError(f"the recipe needs the key {key}; run with --help to see what it takes")
    return value


def fingerprints(files: Mapping[str, tuple[Path, ...]], cache: Path, shown: bool) -> dict[str, str]:
    """Name, numbered if a file comes in parts -> fingerprint.

    Args:
        files: from `input_files`.
        cache: folder in which the hashes of unchanged files are remembered.
        shown: print the names and sizes to standard error first.
    """
    parts = dict(_each(files))
    for name, path in parts.items():
        if shown:
            print(f"[{name}] {path}, {path.stat().st_size:,} bytes", file=sys.stderr)
    return {name: remembered(fingerprint_path, path, cache) for name, path in parts.items()}


def _each(files: Mapping[str, tuple[Path, ...]]) -> Iterator[tuple[str, Path]]:
    for name, paths in files.items():
        for place, path in enumerate(paths, start=1):
            yield name if len(paths) == 1 else f"{name} {place}", path
