"""PubTator corpora: MedMentions (full and ST21pv) and others that annotate text with UMLS CUIs.

Format (Wei et al. 2013; MedMentions, Mohan & Li 2019): documents separated by blank lines, each

    PMID|t|title
    PMID|a|abstract
    PMID<TAB>start<TAB>end<TAB>text<TAB>type[,type]<TAB>CUI

Offsets count characters of ``title + " " + abstract``. ST21pv writes ``UMLS:C0037114``, the full corpus a bare CUI,
several types, and ``UnknownType`` where a CUI has none.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.lines import Faults, Malformed, decode, read_lines, reading, shown, skipped_lines
from .abbreviations import find_abbreviations

__all__ = ["Mention", "read_pmids", "read_pubtator", "text_around"]

TEXT_LINE = re.compile(r"([^|\t]+)\|([ta])\|(.*)", re.DOTALL)
OFFSET = re.compile(r"[0-9]{1,9}")
CUI = re.compile(r"C[0-9]{7}")


@dataclass(frozen=True, slots=True)
class Mention:
    """A piece of text annotated with a concept.

    Attributes:
        doc_id: id of the document, e.g. its PMID.
        start, end: offsets in the document, characters, end exclusive.
        text: the mention as written, or the long form of its abbreviation.
        left, right: text before and after it, inner white space kept.
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


@reading
def read_pubtator(
    path: str | Path,
    *,
    context_chars: int = 128,
    expand_abbreviations: bool = False,
    on_error: str = "stop",
) -> Generator[Mention, None, dict[str, Any]]:
    """Stream the mentions of a corpus, in file order; memory holds one document.

    Args:
        path: the corpus, plain or gzip.
        context_chars: maximum characters kept on each side of a mention; a partial word at the outer end is left out.
        expand_abbreviations: replace a mention that its document defines as an abbreviation by the long form; `start`
            and `end` do not change.
        on_error: ``"stop"`` at the first malformed line, or ``"skip"`` and count it. A document with a malformed title
            or abstract is skipped completely.

    Returns:
        a `Reading`; its report has the numbers of ``documents`` and ``mentions``, ``expanded_abbreviations``,
        ``skipped`` lines and ``reasons``.

    Raises:
        UserError: the file is missing, empty or a broken gzip stream; or a line is malformed (names file and line).
    """
    path = Path(path)
    counts = {"documents": 0, "expanded_abbreviations": 0, "mentions": 0}
    faults = Faults(path, on_error)
    seen: set[str] = set()
    for block in _blocks(path):
        document = _read_document(block, seen, faults)
        if document is None:
            continue
        counts["documents"] += 1
        long_forms = find_abbreviations(document.text) if expand_abbreviations else {}
        for number, line in block[2:]:
            try:
                mention = _parse_mention(line, document, context_chars)
            except Malformed as problem:
                faults.add(number, problem)
            else:
                counts["mentions"] += 1
                if mention.text in long_forms:
                    counts["expanded_abbreviations"] += 1
                    mention = replace(mention, text=long_forms[mention.text])
                yield mention
    if not seen:
        raise UserError(f"{path} holds no document; expected lines `PMID|t|title` and `PMID|a|abstract`")
    return counts | skipped_lines(faults)


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
                f"{path}:{number}: expected one document id, found {len(words)} words: {shown(words[0])} ..."
            )
        ids.update(dict.fromkeys(words))
    if not ids:
        raise UserError(f"{path} holds no document id; expected one a line")
    return list(ids)


def _blocks(path: Path) -> Iterator[list[tuple[int, bytes]]]:
    """Runs of lines between blank lines, numbered."""
    block: list[tuple[int, bytes]] = []
    for number, line in read_lines(path):
        if line.strip():
            block.append((number, line))
        elif block:
            yield block
            block = []
    if block:
        yield block


@dataclass(frozen=True, slots=True)
class _Document:
    doc_id: str
    text: str


def _read_document(block: list[tuple[int, bytes]], seen: set[str], faults: Faults) -> _Document | None:
    """Title and abstract of a block, or None when they are malformed."""
    number, line = block[0]
    try:
        doc_id, title = _parse_text(line, "t", "title")
        if doc_id in seen:
            raise Malformed("document given twice", f": {shown(doc_id)}")
        if len(block) < 2:
            raise Malformed("document without the line PMID|a|abstract", f": {shown(doc_id)}")
        number, line = block[1]
        abstract_id, abstract = _parse_text(line, "a", "abstract")
        if abstract_id != doc_id:
            raise Malformed("abstract of another document", f": {shown(abstract_id)} after {shown(doc_id)}")
    except Malformed as problem:
        faults.add(number, problem, lines=len(block))
        return None
    seen.add(doc_id)
    return _Document(doc_id, f"{title} {abstract}")


def _parse_text(line: bytes, kind: str, noun: str) -> tuple[str, str]:
    text = decode(line)
    match = TEXT_LINE.fullmatch(text)
    if match and match[2] == kind:
        return match[1], match[3]
    if match is None and text.count("\t") >= 3:
        raise Malformed(f"annotation before its document's {noun}", f": {shown(text)}")
    raise Malformed(f"expected the line PMID|{kind}|{noun}", f", found {shown(text)}")


def _parse_mention(line: bytes, document: _Document, context_chars: int) -> Mention:
    row = decode(line)
    fields = row.split("\t")
    if len(fields) != 6:
        if TEXT_LINE.fullmatch(row):
            raise Malformed("no blank line before the next document", f": {shown(row)}")
        raise Malformed("expected 6 tab-separated fields", f", found {len(fields)}: {shown(row)}")
    doc_id, start_field, end_field, text, types_field, cui_field = fields
    if doc_id != document.doc_id:
        raise Malformed("annotation of another document", f": {shown(doc_id)} inside {shown(document.doc_id)}")
    if not (OFFSET.fullmatch(start_field) and OFFSET.fullmatch(end_field)):
        raise Malformed("offsets are not numbers", f": {shown(start_field)}, {shown(end_field)}")
    start, end = int(start_field), int(end_field)
    if not start < end <= len(document.text):
        raise Malformed("offsets outside the document", f": {start}-{end} in {len(document.text)} characters")
    found = document.text[start:end]
    if found != text:
        raise Malformed("offsets do not match the text", f": {start}-{end} is {shown(found)}, not {shown(text)}")
    cui = cui_field.removeprefix("UMLS:")
    if not CUI.fullmatch(cui):
        raise Malformed("not a CUI", f": {shown(cui_field)}")
    types = tuple(types_field.split(","))
    if not all(types):
        raise Malformed("empty semantic type", f": {shown(types_field)}")
    return Mention(doc_id, start, end, text, *text_around(document.text, start, end, context_chars), cui, types)


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
