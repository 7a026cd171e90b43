"""The files that a recipe names: dictionary, corpus, and lists of documents."""

import sys
from collections.abc import Callable, Collection, Mapping
from os.path import expanduser
from pathlib import Path
from typing import Any

from ..core.errors import CollectedErrors, UserError
from ..core.hashes import fingerprint_path, remembered
from ..corpora.arguments import ConceptArguments, MentionArguments
from ..corpora.formats import corpus_files, read_document_ids, reader_of
from ..corpora.mention_files import assign_split
from ..linking.dictionary_index import DictionarySource
from ..vocab.name_files import read_name_lists
from ..vocab.obo_files import read_ontology
from ..vocab.release import REQUIRED_TABLES, release_files
from .downloads import fetch
from .recipe import Recipe
from .stages import held_out_shares

Files = Mapping[str, tuple[Path, ...]]

# Recipe key -> check that rejects a wrong download (`fetch`).
CONTENT_CHECKS: dict[str, Callable[[Path], object]] = {
    "obo": read_ontology,
    "names": read_name_lists,
    "add_names": read_name_lists,
    "corpus": lambda path: reader_of([path]),
    "train_documents": read_document_ids,
    "dev_documents": read_document_ids,
    "test_documents": read_document_ids,
}


def input_files(recipe: Recipe) -> dict[str, tuple[Path, ...]]:
    """Name -> paths of each input file; URLs are fetched.

    Raises:
        UserError: the recipe lacks a key, has keys that exclude each other, or a file is missing.
    """
    concepts = recipe.concepts
    mentions = recipe.mentions
    from_corpus = mentions.mention_source == "corpus"
    source = concepts.concept_source
    for key in ("obo", "names"):
        if getattr(concepts, key) and source != key:
            raise UserError(
                f"{key}: is read only with concept_source: {key}; set that too, or remove {key}"
            )

    cache = Path(recipe.run.cache_dir)

    def corpus() -> tuple[Path, ...]:
        folders = _fetched("corpus", mentions.corpus, cache, folder=True)
        paths = tuple(file for folder in folders for file in corpus_files(folder))
        # Reported before hours of reading concepts.
        reader_of(paths)
        return paths

    files: dict[str, tuple[Path, ...]] = {}
    faults = CollectedErrors()
    left_out = () if from_corpus else ("MRCUI",)
    with faults.collecting():
        files |= dictionary_files(concepts, cache, left_out)
    if from_corpus:
        with faults.collecting():
            files["corpus"] = corpus()
        for key in ("train_documents", "dev_documents", "test_documents"):
            locator = getattr(mentions, key)
            if locator or key != "test_documents":
                with faults.collecting():
                    files[key] = _fetched(key, locator, cache)
    faults.raise_any()
    return files


def dictionary_files(
    concepts: ConceptArguments,
    cache: Path,
    unused: Collection[str] = (),
    required: Collection[str] = REQUIRED_TABLES,
) -> dict[str, tuple[Path, ...]]:
    """Name -> paths of each file of the dictionary; URLs are fetched.

    Args:
        concepts: the recipe's section.
        cache: folder for downloads.
        unused: tables of a release to skip, as for `release_files`.
        required: tables of a release that must exist.

    Raises:
        UserError: the section lacks a key, or a file is missing.
    """
    source = concepts.concept_source
    files: dict[str, tuple[Path, ...]] = {}
    if source == "rrf":
        paths = release_files(Path(_required("umls_dir", concepts.umls_dir)), unused, required)
        files |= {name: (path,) for name, path in paths.items()}
    else:
        files = {source: _fetched(source, getattr(concepts, source), cache)}
    if concepts.add_names:
        files["add_names"] = _fetched("add_names", concepts.add_names, cache)
    return files


def _fetched(
    key: str, locators: str | list[str] | None, cache: Path, *, folder: bool = False
) -> tuple[Path, ...]:
    required = _required(key, locators)
    if isinstance(required, str):
        required = [required]
    return tuple(fetch(locator, cache, CONTENT_CHECKS[key], folder=folder) for locator in required)


def _required(key: str, value: Any) -> Any:
    if not value:
        raise UserError(f"the recipe needs the key {key}; --help explains it")
    return value


def fingerprints(files: Files, cache: Path, printed: bool) -> dict[str, str]:
    """Name, numbered if there are several files, -> fingerprint.

    Args:
        files: what `input_files` returns.
        cache: folder in which the hashes of unchanged files are remembered.
        printed: print the names and sizes to standard error.
    """
    known: dict[str, str] = {}
    for name, paths in files.items():
        for number, path in enumerate(paths, start=1):
            numbered = name if len(paths) == 1 else f"{name} {number}"
            if printed:
                print(f"[{numbered}] {path}, {path.stat().st_size:,} bytes", file=sys.stderr)
            known[numbered] = remembered(fingerprint_path, path, cache)
    return known


def named_dictionary(name: str, reading: Mapping[str, Any], cache: Path) -> DictionarySource:
    """A dictionary by its path or URL: a folder, an OBO file, or else a file of names.

    Args:
        name: as the user wrote it.
        reading: further fields of its `ConceptArguments`.
        cache: folder for downloads and the hashes of files, whose names and sizes are printed.

    Raises:
        UserError: the file or a table of the release is missing.
    """
    path = Path(expanduser(name))
    if path.name.startswith("MRCONSO.RRF"):
        path = path.parent
    source: dict[str, Any] = {"concept_source": "names", "names": name}
    if path.is_dir():
        source = {"concept_source": "rrf", "umls_dir": str(path)}
    elif ".obo" in path.suffixes[-2:]:
        source = {"concept_source": "obo", "obo": [name]}
    settings = ConceptArguments(**source, **reading)
    files = dictionary_files(settings, cache, ("MRCUI", "MRREL"), ("MRCONSO",))
    return DictionarySource(name, settings, files, fingerprints(files, cache, printed=True))


def listed_documents(mentions: MentionArguments, files: Files, seed: int) -> dict[str, str]:
    """Document -> split, by the recipe's lists of documents.

    Raises:
        UserError: shares leave nothing for test, or a document is in two lists.
    """
    moved = mentions.train_calibration_share
    shares_of = {
        "train_documents": {"calibration": moved, "train": 1.0 - moved},
        "dev_documents": held_out_shares(mentions),
        "test_documents": {"test": 1.0},
    }
    split_of: dict[str, str] = {}
    for name, shares in shares_of.items():
        if name not in files:
            continue
        for doc_id in read_document_ids(files[name][0]):
            if doc_id in split_of:
                raise UserError(
                    f"document {doc_id} is in two document lists; splits must not share documents"
                )
            split_of[doc_id] = assign_split(doc_id, shares, seed)
    return split_of


def check_documents(recipe: Recipe, files: Files) -> None:
    """Refuse lists of documents that making the mentions would refuse."""
    if recipe.mentions.mention_source == "corpus":
        listed_documents(recipe.mentions, files, recipe.run.seed)
