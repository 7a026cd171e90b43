"""PubTator: lines of text and of tab-separated annotations."""

import re
from collections.abc import Iterator
from functools import partial
from itertools import groupby
from pathlib import Path

from ..core.errors import Malformed
from ..core.text_files import decode, excerpt, read_lines
from .annotated_text import Annotation, Document
from .annotation_fields import annotated_concepts, annotated_types
from .corpus import CorpusReader
from .faults import Faults

TEXT_LINE = re.compile(r"([^|\t]+)\|([ta])\|(.*)", re.DOTALL)
TITLE_OR_ABSTRACT = re.compile(rb"^[^|\t\r\n]+\|[ta]\|", re.MULTILINE)
OFFSET = re.compile(r"[0-9]{1,9}")
# A relation between concepts of a document, as BC5CDR has them between its annotations.
RELATION = re.compile(rb"[^\t]+\t[A-Za-z]\w*\t[^\t]+\t[^\t]+")


class PubTator(CorpusReader):
    """Lines of text and of tab-separated annotations."""

    name = "PubTator"
    layout = "lines `PMID|t|title` and `PMID|a|abstract`"

    def recognizes(self, start: bytes) -> bool:
        return TITLE_OR_ABSTRACT.search(start) is not None

    def documents(self, path: Path, faults: Faults) -> Iterator[Document]:
        for block in _blocks(path):
            start, line = block[0]
            where = start
            try:
                doc_id, title = _parse_text(line, "t", "title")
                if len(block) < 2:
                    raise Malformed(
                        "document without the line PMID|a|abstract", f": {excerpt(doc_id)}"
                    )
                where, line = block[1]
                abstract_id, abstract = _parse_text(line, "a", "abstract")
                if abstract_id != doc_id:
                    raise Malformed(
                        "abstract of another document",
                        f": {excerpt(abstract_id)} after {excerpt(doc_id)}",
                    )
            except Malformed as problem:
                faults.add(where, problem)
                continue
            lines = ((where, line) for where, line in block[2:] if not RELATION.fullmatch(line))
            parse = partial(_parse_annotation, doc_id, faults.requires_ids)
            yield Document(start, doc_id, f"{title} {abstract}", faults.parsed(lines, parse))


def _blocks(path: Path) -> Iterator[list[tuple[str, bytes]]]:
    """Runs of lines between blank lines, each with file and number."""
    for is_blank, lines in groupby(read_lines(path), lambda numbered: not numbered[1].strip()):
        if not is_blank:
            yield [(f"{path}:{number}", line) for number, line in lines]


def _parse_text(line: bytes, kind: str, noun: str) -> tuple[str, str]:
    """The document id and the text of a line.

    Args:
        line: the line.
        kind: what it has to be: "t" or "a".
        noun: its name in messages: title or abstract.

    Raises:
        Malformed: it is another line.
    """
    text = decode(line)
    match = TEXT_LINE.fullmatch(text)
    if match and match[2] == kind:
        return match[1], match[3]
    if match is None and text.count("\t") >= 3:
        raise Malformed(f"annotation before its document's {noun}", f": {excerpt(text)}")
    raise Malformed(f"expected the line PMID|{kind}|{noun}", f", found {excerpt(text)}")


def _parse_annotation(document: str, requires_id: bool, line: bytes) -> Annotation:
    """The annotation in a line.

    Args:
        document: id of the document.
        requires_id: whether the field of the concept must be there (`Faults.requires_ids`).
        line: the line.

    Raises:
        Malformed: it is no line of an annotation of this document.
    """
    row = decode(line)
    fields = row.split("\t")
    if len(fields) == 5 and not requires_id:
        fields.append("")
    # A seventh field repeats the texts of a composite's parts.
    if len(fields) not in (6, 7):
        if TEXT_LINE.fullmatch(row):
            raise Malformed("no blank line before the next document", f": {excerpt(row)}")
        raise Malformed(
            "expected 6 or 7 tab-separated fields", f", found {len(fields)}: {excerpt(row)}"
        )
    doc_id, start, end, text, types_field, identifier = fields[:6]
    if doc_id != document:
        raise Malformed(
            "annotation of another document", f": {excerpt(doc_id)} inside {excerpt(document)}"
        )
    if not (OFFSET.fullmatch(start) and OFFSET.fullmatch(end)):
        raise Malformed("offsets are not integers", f": {excerpt(start)}, {excerpt(end)}")
    if not all(types_field.split(",")):
        raise Malformed("empty semantic type", f": {excerpt(types_field)}")
    return Annotation(
        spans=((int(start), int(end)),),
        text=text,
        cuis=annotated_concepts(identifier),
        types=annotated_types(types_field),
    )
