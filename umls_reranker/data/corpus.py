"""Annotated text: mentions of concepts in documents, and what all readers of a corpus share.

A reader (`CorpusReader`) says how it recognizes its format and yields documents with their annotations. The checks,
the text around a mention, long forms of abbreviations, counts and messages are the same for all of them.
`corpus_formats` lists the readers.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.lines import Faults, Malformed, excerpt, read_lines, reading, skipped_lines
from .abbreviations import find_abbreviations

CUI = re.compile(r"(?:UMLS:)?(C[0-9]{7})")
# MedMentions writes UnknownType for a concept without a type.
TYPE = re.compile(r"T[0-9]{3}|UnknownType")
SEPARATORS = re.compile(r"[,;|\s]+")
# Maximum characters between two passages; more means a wrong offset.
LARGEST_GAP = 1_000_000
# What the report of a reading counts.
COUNTS = ("documents", "expanded_abbreviations", "mentions", "without_cui", "discontinuous", "further_cuis")


@dataclass(frozen=True, slots=True)
class Mention:
    """A piece of text annotated with a concept.

    Attributes:
        doc_id: id of the document, e.g. its PMID.
        start: offset in the document, in characters.
        end: offset of its end, exclusive.
        text: the mention as written, or the long form of its abbreviation.
        left: text before it, with inner white space.
        right: text after it, with inner white space.
        cui: UMLS concept id, e.g. ``C0037114``.
        semantic_types: type ids as annotated, e.g. ``("T103",)``.
    """

    doc_id: str
    start: int
    end: int
    text: str
    left: str
    right: str
    cui: str
    semantic_types: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Annotation:
    """An annotation of a corpus, not yet compared with the text.

    Attributes:
        spans: ``(start, end)`` of its pieces, characters, end exclusive; several if it is discontinuous.
        text: the annotated text as the annotation repeats it.
        cuis: UMLS concept ids; the first one counts. None: it is annotated with concepts of other vocabularies.
        semantic_types: type ids; may be empty.
        identifier: the concept as the file writes it, for messages.
    """

    spans: tuple[tuple[int, int], ...]
    text: str
    cuis: tuple[str, ...]
    semantic_types: tuple[str, ...] = ()
    identifier: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """A document of a corpus.

    Attributes:
        where: its place in the file, a line or words, for messages.
        doc_id: as in the lists of documents.
        text: its text, in which offsets count characters.
        annotations: its annotations, each with its place; read once.
        lines: number of lines that are skipped with it if it is malformed.
    """

    where: int | str
    doc_id: str
    text: str
    annotations: Iterable[tuple[int | str, Annotation]]
    lines: int = 1


class CorpusReader(ABC):
    """A format of annotated text.

    Attributes:
        name: name of the format.
        layout: description of its files, for help and messages.
    """

    name: str
    layout: str

    @abstractmethod
    def recognizes(self, start: bytes) -> bool:
        """Whether a file is in this format, by its first 64 KiB, unpacked."""

    @abstractmethod
    def documents(self, path: Path, faults: Faults) -> Iterator[Document]:
        """Stream the documents of a file, plain or gzip.

        Args:
            path: the file.
            faults: takes malformed lines and annotations, which are not yielded.

        Raises:
            UserError: the file is broken, or malformed and `faults` stops.
        """

    def files(self, folder: Path) -> tuple[Path, ...]:
        """The files of a corpus folder in order; none if the folder is not in this format."""
        return ()

    @reading
    def read(
        self,
        path: Path | Sequence[Path],
        *,
        context_chars: int = 128,
        expand_abbreviations: bool = False,
        on_error: str = "stop",
    ) -> Generator[Mention, None, dict[str, Any]]:
        """Stream the mentions of a corpus, in file order; memory holds one document.

        Args:
            path: the corpus, in one file or several.
            context_chars: maximum characters kept on each side of a mention; a partial word at the outer end is left
                out.
            expand_abbreviations: replace a mention that its document defines as an abbreviation by the long form;
                `start` and `end` do not change.
            on_error: ``"stop"`` at the first malformed document or annotation, or ``"skip"`` and count it. A document
                with malformed text is skipped completely.

        Returns:
            A `Reading`; its report has the ``format``, the numbers of ``documents`` and ``mentions``,
            ``expanded_abbreviations``, annotations ``without_cui`` and ``discontinuous`` ones, which are left out,
            ``further_cuis`` of annotations with several, which are not used, ``skipped`` lines and ``reasons``.

        Raises:
            UserError: a file is missing, empty or broken; a document or annotation is malformed (names the file and
                the place); there is no document, or none with a CUI.
        """
        paths = [path] if isinstance(path, Path) else path
        counts = dict.fromkeys(COUNTS, 0)
        all_faults = [Faults(one, on_error) for one in paths]
        seen: set[str] = set()
        foreign = ""
        for one, faults in zip(paths, all_faults, strict=True):
            for document in self.documents(one, faults):
                try:
                    _check(document, seen)
                except Malformed as problem:
                    faults.add(document.where, problem, lines=document.lines)
                    continue
                seen.add(document.doc_id)
                counts["documents"] += 1
                long_forms = find_abbreviations(document.text) if expand_abbreviations else {}
                for where, annotation in document.annotations:
                    if not annotation.cuis or len(annotation.spans) > 1:
                        foreign = foreign or (annotation.identifier if not annotation.cuis else "")
                        counts["discontinuous" if annotation.cuis else "without_cui"] += 1
                        continue
                    try:
                        mention = _mention(document, annotation, context_chars, long_forms)
                    except Malformed as problem:
                        faults.add(where, problem)
                        continue
                    counts["mentions"] += 1
                    counts["expanded_abbreviations"] += mention.text != annotation.text
                    counts["further_cuis"] += len(annotation.cuis) - 1
                    yield mention
        if not seen:
            raise UserError(f"{name_files(paths)} contains no documents; expected {self.layout}")
        if counts["without_cui"] and not counts["mentions"]:
            raise UserError(
                f"{name_files(paths)}: none of {counts['without_cui']:,} annotations has a UMLS CUI, such as C0009443 "
                f"(the first has {excerpt(foreign)}); map its concepts to CUIs first"
            )
        return {"format": self.name} | counts | skipped_lines(*all_faults)


def as_cui(identifier: str) -> str:
    """The CUI that an identifier names, with or without prefix; "" for concepts of other vocabularies.

    >>> as_cui("UMLS:C0009443"), as_cui("C0009443"), as_cui("MESH:D003924")
    ('C0009443', 'C0009443', '')
    """
    match = CUI.fullmatch(identifier)
    return match[1] if match else ""


def type_ids(text: str) -> tuple[str, ...]:
    """The type ids that a text consists of; none if it is something else.

    >>> type_ids("T047,T184"), type_ids("Disease")
    (('T047', 'T184'), ())
    """
    words = SEPARATORS.split(text.strip())
    return tuple(words) if all(map(TYPE.fullmatch, words)) else ()


def join_passages(passages: Iterable[tuple[int, str]]) -> str:
    """The text of a document from offset and text of its passages; blanks fill the gaps.

    Raises:
        Malformed: passages overlap, or are far apart.

    >>> join_passages([(0, "Cold"), (5, "A cold.")])
    'Cold A cold.'
    """
    pieces, length = [], 0
    for offset, text in passages:
        if not text:
            continue
        if not length <= offset <= length + LARGEST_GAP:
            problem = "passages overlap" if offset < length else "passages far apart"
            raise Malformed(problem, f": one starts at {offset}, and the text before it ends at {length}")
        pieces += [" " * (offset - length), text]
        length = offset + len(text)
    return "".join(pieces)


def text_around(text: str, start: int, end: int, size: int) -> tuple[str, str]:
    """At most `size` characters before `start` and after `end`, without partial words at the outer ends."""
    first = max(0, start - size)
    if first and not text[first - 1].isspace():
        while first < start and not text[first].isspace():
            first += 1
    last = min(len(text), end + size)
    if last < len(text) and not text[last].isspace():
        while last > end and not text[last - 1].isspace():
            last -= 1
    return text[first:start].lstrip(), text[end:last].rstrip()


def read_pmids(path: str | Path) -> list[str]:
    """Read a list of document ids, one per line; blank lines and repetitions are dropped, the order is kept.

    Raises:
        UserError: the file is missing or empty, or a line is not one id (names file and line).
    """
    path = Path(path)
    ids: dict[str, None] = {}
    for number, line in read_lines(path):
        words = line.decode("utf-8", errors="replace").split()
        if len(words) > 1:
            raise UserError(
                f"{path}:{number}: expected one document id per line, found {len(words)} words: {excerpt(words[0])} "
                "..."
            )
        ids.update(dict.fromkeys(words))
    if not ids:
        raise UserError(f"{path} contains no document ids; expected one per line")
    return list(ids)


def name_files(paths: Sequence[Path]) -> str:
    """The files of a corpus in messages."""
    return f"{paths[0]}" + (f" (and {len(paths) - 1} more)" if len(paths) > 1 else "")


def _check(document: Document, seen: set[str]) -> None:
    if not document.doc_id:
        raise Malformed("document without id")
    if document.doc_id in seen:
        raise Malformed("duplicate document", f": {excerpt(document.doc_id)}")


def _mention(document: Document, annotation: Annotation, size: int, long_forms: dict[str, str]) -> Mention:
    ((start, end),) = annotation.spans
    if not 0 <= start < end <= len(document.text):
        raise Malformed("offsets outside the document", f": {start}-{end} in {len(document.text)} characters")
    text = document.text[start:end]
    if text != annotation.text:
        raise Malformed(
            "offsets do not match the text", f": {start}-{end} is {excerpt(text)}, not {excerpt(annotation.text)}"
        )
    left, right = text_around(document.text, start, end, size)
    text = long_forms.get(text, text)
    return Mention(document.doc_id, start, end, text, left, right, annotation.cuis[0], annotation.semantic_types)
