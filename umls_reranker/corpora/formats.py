"""Formats of corpora: PubTator, BRAT, BioC and BigBIO, told apart by the content of a file."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.text_files import excerpt, start_of
from .annotated_text import Mention
from .bigbio import BigBio
from .bioc import BioC
from .brat import Brat
from .corpus import CorpusReader
from .document_ids import read_pmids
from .faults import Faults
from .pubtator import PubTator

CORPUS_READERS: list[CorpusReader] = [PubTator(), Brat(), BioC(), BigBio()]


def register(reader: CorpusReader) -> None:
    """Add a format of your own; it is tried after the others."""
    CORPUS_READERS.append(reader)


def describe_formats() -> str:
    """The known formats with their descriptions, for help and messages."""
    return "; ".join(f"{reader.name} ({reader.layout})" for reader in CORPUS_READERS)


def corpus_files(path: Path) -> tuple[Path, ...]:
    """The files of a corpus, which is a file or a folder.

    Raises:
        UserError: no reader knows such a folder.
    """
    if not path.is_dir():
        return (path,)
    for reader in CORPUS_READERS:
        if files := reader.files(path):
            return files
    names = ", ".join(sorted(file.name for file in path.iterdir())[:5]) or "nothing"
    raise UserError(
        f"{path} is a folder with {names}, not a corpus; "
        f"give a file, or one of {describe_formats()}"
    )


def reader_of(paths: Sequence[Path]) -> CorpusReader:
    """The reader of the format of all files.

    Raises:
        UserError: a file is missing, empty, broken, in no known format, or in another one than the
            first.
    """
    readers: list[CorpusReader] = []
    for path in paths:
        reader = _recognized(path)
        if reader is None:
            start = start_of(path)[:80].decode("utf-8", errors="replace")
            content = f"begins with {excerpt(start)}" if start else "is empty"
            raise UserError(
                f"{path} is not a corpus in a known format: {describe_formats()}; it {content}"
            )
        readers.append(reader)
        if reader is not readers[0]:
            raise UserError(
                f"{path} is {reader.name}, and {paths[0]} is {readers[0].name}; "
                "give files of one format"
            )
    return readers[0]


def _recognized(path: Path) -> CorpusReader | None:
    """The first reader that recognizes a file, if any does."""
    start = start_of(path)
    return next((reader for reader in CORPUS_READERS if reader.recognizes(start)), None)


def read_document_ids(path: Path) -> list[str]:
    """The document ids that a list has (`read_pmids`), or those of a file of a corpus.

    Raises:
        UserError: a file is missing, empty or damaged, or no list.
    """
    reader = _recognized(path)
    if reader is None:
        return read_pmids(path)
    return list(dict.fromkeys(document.doc_id for document in reader.documents(path, Faults())))


def read_corpus(
    paths: Sequence[Path], report: dict[str, Any] | None = None, **options: Any
) -> Iterator[Mention]:
    """Stream the mentions of a corpus in any of the formats; options are of `CorpusReader.read`.

    Raises:
        UserError: as for `reader_of`, or while reading as for `CorpusReader.read`.
    """
    if report is None:
        report = {}
    return reader_of(paths).read(paths, report, **options)
