"""The formats of annotated text for a recipe's ``corpus``, recognized by content."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.lines import excerpt, start_of
from .bigbio import BigBio
from .bioc import BioC
from .corpus import CorpusReader, Mention
from .pubtator import PubTator

CORPUS_READERS: list[CorpusReader] = [PubTator(), BioC(), BigBio()]


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
    raise UserError(f"{path} is a folder with {names}, not a corpus; give a file, or one of {describe_formats()}")


def reader_of(paths: Sequence[Path]) -> CorpusReader:
    """The reader of the format of all files.

    Raises:
        UserError: a file is missing, empty, broken, in no known format, or in another one than the first.
    """
    readers = list(map(_recognize, paths))
    reader = readers[0]
    for file, its_reader in zip(paths, readers, strict=True):
        if its_reader is not reader:
            raise UserError(f"{file} is {its_reader.name}, and {paths[0]} is {reader.name}; give files of one format")
    return reader


def _recognize(path: Path) -> CorpusReader:
    start = start_of(path)
    for reader in CORPUS_READERS:
        if reader.recognizes(start):
            return reader
    content = f"begins with {excerpt(start[:80].decode('utf-8', errors='replace'))}" if start else "is empty"
    raise UserError(f"{path} is not a corpus in a known format: {describe_formats()}; it {content}")


def read_corpus(
    paths: Sequence[Path], report: dict[str, Any] | None = None, *, expand_abbreviations: bool = False
) -> Iterator[Mention]:
    """Stream the mentions of a corpus in any of the formats, with `CorpusReader.read`.

    Raises:
        UserError: as for `reader_of`, or while reading as for `CorpusReader.read`.
    """
    report = {} if report is None else report
    return reader_of(paths).read(paths, report, expand_abbreviations=expand_abbreviations)
