"""BRAT: standoff annotations in a file beside each text."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from ..core.errors import Malformed
from ..core.text_files import decode, excerpt, read_lines, read_whole
from .annotated_text import Annotation, Document
from .annotation_fields import annotated_concepts, annotated_types
from .corpus import CorpusReader
from .faults import Faults

# T1<tab>Disease 0 6;11 17<tab>text, and N1<tab>Reference T1 UMLS:C0009443<tab>name.
SPAN_LINE = re.compile(r"(T\d+)\t(\S+) (\d+ \d+(?:;\d+ \d+)*)\t(.*)")
CONCEPT_LINE = re.compile(r"N\d+\t\S+ (T\d+) (\S+)")


class Brat(CorpusReader):
    """Standoff annotations beside their text; notes, attributes and relations are not read."""

    name = "BRAT"
    layout = "files .ann with lines `T1<tab>TYPE START END<tab>TEXT`, each beside its text, a .txt"

    def recognizes(self, start: bytes) -> bool:
        return any(map(SPAN_LINE.match, start.decode(errors="replace").splitlines()[:100]))

    def documents(self, path: Path, faults: Faults) -> Iterator[Document]:
        content = read_whole(path.with_suffix(".txt"))
        lines = [(f"{path}:{number}", line) for number, line in read_lines(path)]
        try:
            text = decode(content)
            rows = [(where, decode(line)) for where, line in lines]
        except Malformed as problem:
            faults.add(str(path), problem)
            return
        parse = partial(_brat_annotation, _ids_by_annotation(row for _, row in rows))
        spans = ((where, row) for where, row in rows if row.startswith("T"))
        yield Document(str(path), path.stem, text, faults.parsed(spans, parse))


def _ids_by_annotation(rows: Iterable[str]) -> dict[str, list[str]]:
    """The number of an annotation, such as T1 -> the ids of its concepts."""
    ids: dict[str, list[str]] = {}
    for row in rows:
        match = CONCEPT_LINE.match(row)
        if match:
            annotation, concept_id = match.groups()
            ids.setdefault(annotation, []).append(concept_id)
    return ids


def _brat_annotation(ids: Mapping[str, Sequence[str]], row: str) -> Annotation:
    """The annotation in a line.

    Args:
        ids: as of `_ids_by_annotation`.
        row: the line.

    Raises:
        Malformed: it is no line of an annotation.
    """
    match = SPAN_LINE.fullmatch(row)
    if match is None:
        raise Malformed(
            "expected the line T1<tab>TYPE START END<tab>TEXT", f", found {excerpt(row)}"
        )
    number, types, offsets, text = match.groups()
    spans = [piece.split() for piece in offsets.split(";")]
    return Annotation(
        spans=tuple((int(start), int(end)) for start, end in spans),
        text=text,
        cuis=annotated_concepts("|".join(ids.get(number, ()))),
        types=annotated_types(types),
    )
