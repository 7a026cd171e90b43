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
from collections.abc import Iterator
from functools import partial
from itertools import groupby
from pathlib import Path

from ..core.lines import Malformed, decode, excerpt, read_lines
from .corpus import Annotation, CorpusReader, Document, Faults, as_cui

TEXT_LINE = re.compile(r"([^|\t]+)\|([ta])\|(.*)", re.DOTALL)
START = re.compile(rb"^[^|\t\r\n]+\|[ta]\|", re.MULTILINE)
OFFSET = re.compile(r"[0-9]{1,9}")


class PubTator(CorpusReader):
    """Lines of text and of tab-separated annotations."""

    name = "PubTator"
    layout = "lines `PMID|t|title` and `PMID|a|abstract`"

    def recognizes(self, start: bytes) -> bool:
        return START.search(start) is not None

    def documents(self, path: Path, faults: Faults) -> Iterator[Document]:
        for block in _blocks(path):
            where, line = block[0]
            try:
                doc_id, title = _parse_text(line, "t", "title")
                if len(block) < 2:
                    raise Malformed("document without the line PMID|a|abstract", f": {excerpt(doc_id)}")
                where, line = block[1]
                abstract_id, abstract = _parse_text(line, "a", "abstract")
                if abstract_id != doc_id:
                    raise Malformed(
                        "abstract of another document", f": {excerpt(abstract_id)} after {excerpt(doc_id)}"
                    )
            except Malformed as problem:
                faults.add(where, problem)
                continue
            annotations = faults.parsed(block[2:], partial(_parse_annotation, doc_id))
            yield Document(block[0][0], doc_id, f"{title} {abstract}", annotations)


def _blocks(path: Path) -> Iterator[list[tuple[str, bytes]]]:
    """Runs of lines between blank lines, each with file and number."""
    for is_blank, lines in groupby(read_lines(path), lambda numbered: not numbered[1].strip()):
        if not is_blank:
            yield [(f"{path}:{number}", line) for number, line in lines]


def _parse_text(line: bytes, kind: str, noun: str) -> tuple[str, str]:
    text = decode(line)
    match = TEXT_LINE.fullmatch(text)
    if match and match[2] == kind:
        return match[1], match[3]
    if match is None and text.count("\t") >= 3:
        raise Malformed(f"annotation before its document's {noun}", f": {excerpt(text)}")
    raise Malformed(f"expected the line PMID|{kind}|{noun}", f", found {excerpt(text)}")


def _parse_annotation(document: str, line: bytes) -> Annotation:
    row = decode(line)
    fields = row.split("\t")
    if len(fields) != 6:
        if TEXT_LINE.fullmatch(row):
            raise Malformed("no blank line before the next document", f": {excerpt(row)}")
        raise Malformed("expected 6 tab-separated fields", f", found {len(fields)}: {excerpt(row)}")
    doc_id, start, end, text, types_field, identifier = fields
    if doc_id != document:
        raise Malformed("annotation of another document", f": {excerpt(doc_id)} inside {excerpt(document)}")
    if not (OFFSET.fullmatch(start) and OFFSET.fullmatch(end)):
        raise Malformed("offsets are not integers", f": {excerpt(start)}, {excerpt(end)}")
    cui = as_cui(identifier)
    if not cui:
        raise Malformed("not a CUI", f": {excerpt(identifier)}")
    types = tuple(types_field.split(","))
    if not all(types):
        raise Malformed("empty semantic type", f": {excerpt(types_field)}")
    return Annotation(((int(start), int(end)),), text, (cui,), types)
