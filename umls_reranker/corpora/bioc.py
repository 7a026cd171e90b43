"""BioC: collections of documents in XML or JSON."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..core.errors import Malformed, UserError
from ..core.text_files import excerpt, read_whole
from ..vocab.cui import CUI
from .annotated_text import Annotation, Document
from .annotation_fields import annotated_concepts, annotated_types, join_passages, type_ids
from .corpus import CorpusReader
from .faults import Faults

XML_START = re.compile(rb"<collection[\s>]")
# Keys, in lower case, of what may hold ids of other vocabularies than the UMLS.
ID_INFONS = ("identifier", "identifiers", "mesh", "omim", "hpo")
JSON_START = re.compile(rb'\s*\{.*"documents"', re.DOTALL)


class BioC(CorpusReader):
    """Collections."""

    name = "BioC"
    layout = "a collection of documents with passages, in XML or JSON"

    def recognizes(self, start: bytes) -> bool:
        return bool(XML_START.search(start) or JSON_START.match(start))

    def documents(self, path: Path, faults: Faults) -> Iterator[Document]:
        for document in _collection(path).documents:
            where = f"{path}: document {excerpt(str(document.id))}"
            try:
                text = _text_of(document)
            except Malformed as problem:
                faults.add(where, problem)
                continue
            placed = ((where, content) for content in _annotations_of(document))
            annotations = faults.parsed(placed, _bioc_annotation)
            yield Document(where, str(document.id or ""), text, annotations)


def _collection(path: Path) -> Any:
    """The collection in a file, as the package bioc reads it."""
    try:
        from bioc import biocjson, biocxml
    except ImportError:
        raise UserError(f"{path} is BioC; install the extra bioc to read it") from None
    content = read_whole(path)
    # Entities can expand to gigabytes, or read other files; another encoding could hide them.
    if b"<!ENTITY" in content or b"\0" in content:
        raise UserError(
            f"{path} declares XML entities, or is not UTF-8; replace the entities by their text"
        )
    reader = biocxml if content.lstrip().startswith(b"<") else biocjson
    try:
        return reader.loads(content.decode("utf-8-sig"))
    # A SyntaxError is what lxml raises.
    except (
        SyntaxError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        raise UserError(
            f"{path} is not a BioC collection ({error!r}); download the file again"
        ) from None


def _text_of(document: Any) -> str:
    """The text of a BioC document.

    Raises:
        Malformed: a passage has no offset, overlaps another, or is far from it.
    """
    parts: list[Any] = []
    for passage in document.passages:
        # Sentences repeat the text of a passage that has one.
        if passage.text:
            parts.append(passage)
        else:
            parts += passage.sentences
    passages = ((int(part.offset), str(part.text or "")) for part in parts)
    try:
        return join_passages(passages)
    except (TypeError, ValueError):
        raise Malformed("passage without offset") from None


def _annotations_of(document: Any) -> Iterator[Any]:
    """The BioC annotations of a document, of its passages, and of their sentences."""
    yield from document.annotations
    for passage in document.passages:
        yield from passage.annotations
    for passage in document.passages:
        for sentence in passage.sentences:
            yield from sentence.annotations


def _bioc_annotation(content: Any) -> Annotation:
    """The annotation in one of BioC.

    Raises:
        Malformed: it has no location.
    """
    infons = content.infons if isinstance(content.infons, dict) else {}
    concepts = _concepts_in(infons)
    spans = _spans_of(content.locations)
    return Annotation(spans, str(content.text or ""), concepts, _types_in(infons))


def _concepts_in(infons: dict[str, Any]) -> tuple[tuple[str, ...], ...]:
    """The concepts that the infons of an annotation name, as for `Annotation`."""
    ids_by_infon = {
        key: annotated_concepts(_identifiers(infons.get(key))) for key in ("identifier", *infons)
    }
    umls_ids = []
    foreign_ids = []
    for key, parts in ids_by_infon.items():
        umls_ids.append(tuple(part for part in parts if part and CUI.fullmatch(part[0])))
        if key.lower() in ID_INFONS:
            foreign_ids.append(parts)
    # Ids of the UMLS go before those of other vocabularies.
    return next(filter(None, [*umls_ids, *foreign_ids]), ())


def _spans_of(locations: list[Any]) -> tuple[tuple[int, int], ...]:
    """Start and end of each location, in characters.

    Raises:
        Malformed: there is none, or one has no numbers.
    """
    spans = []
    try:
        for location in locations:
            start = int(location.offset)
            spans.append((start, start + int(location.length)))
    except (TypeError, ValueError):
        raise Malformed("annotation without location") from None
    if not spans:
        raise Malformed("annotation without location")
    return tuple(spans)


def _types_in(infons: dict[str, Any]) -> tuple[str, ...]:
    """The types that the infons of an annotation name, as for `Annotation`."""
    texts = [value for value in (infons.get("type"), *infons.values()) if isinstance(value, str)]
    types = list(map(annotated_types, texts))
    # Type ids go before other types.
    without_ids = types[0] if "type" in infons else ()
    return next(filter(type_ids, types), without_ids)


def _identifiers(value: Any) -> str:
    """The identifiers in an infon: a text, or in JSON also a list of texts."""
    values = value if isinstance(value, list) else [value]
    return "|".join(text for text in values if isinstance(text, str))
