"""BioC corpora: JSON and XML, as PubTator Central, PubTator 3 and BioCreative publish them.

Format (Comeau et al. 2013; bioc.sourceforge.net): a collection of documents, of passages (``offset``, ``text``), of
annotations (``infons``, ``locations`` with ``offset`` and ``length``, ``text``). A passage may hold sentences with
text and annotations of their own. JSON is a collection, a list of documents, or documents one after another.

The concept of an annotation is the first CUI in its infon ``identifier``, or else in another infon. Its types are the
ids, such as T047, in the infon ``type``, or else in another infon.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from ..core.errors import UserError
from ..core.lines import Faults, Malformed, each_parsed, excerpt, open_binary, start_of
from .corpus import SEPARATORS, Annotation, CorpusReader, Document, as_cui, join_passages, type_ids
from .json_stream import as_list, as_object, as_offset, as_text, stream_objects

CHUNK_BYTES = 1 << 16
XML_START = re.compile(rb"<collection[\s>]")
JSON_START = re.compile(rb'[\[{].*"(?:documents|passages|PubTator3)"', re.DOTALL)
# Keys of a collection that hold its documents.
DOCUMENTS = ("documents", "PubTator3")
# Elements of XML that lists under their plural hold in JSON.
LISTED = ("passage", "sentence", "annotation", "location")


class BioC(CorpusReader):
    """Documents in JSON or XML; annotations without a CUI are counted."""

    name = "BioC"
    layout = "a collection of documents with passages, in JSON or XML"

    def recognizes(self, start: bytes) -> bool:
        return bool(XML_START.search(start) or JSON_START.match(start.lstrip()))

    def documents(self, path: Path, faults: Faults) -> Iterator[Document]:
        is_xml = start_of(path).lstrip().startswith(b"<")
        for line, content in _xml_documents(path) if is_xml else stream_objects(path, DOCUMENTS):
            try:
                yield _document(line, as_object(content, "document"), faults)
            except Malformed as problem:
                faults.add(line, problem)


def _document(line: int, content: Mapping[str, Any], faults: Faults) -> Document:
    identifier = content.get("id")
    doc_id = str(identifier) if type(identifier) is int else as_text(identifier or "", "id of a document").strip()
    where = f"{line}, document {excerpt(doc_id)}"
    passages: list[tuple[int, str]] = []
    annotations: list[tuple[str, Any]] = []
    if "passages" not in content:
        raise Malformed("document without passages", f": {excerpt(doc_id)}")
    for passage in as_list(content, "passages"):
        passage = as_object(passage, "passage")
        sentences = [as_object(sentence, "sentence") for sentence in as_list(passage, "sentences")]
        for holder in (passage, *sentences):
            # Sentences repeat the text of a passage that has one.
            if holder.get("text") and (holder is passage or not passage.get("text")):
                passages.append((as_offset(holder.get("offset")), as_text(holder["text"], "text")))
            for annotation in as_list(holder, "annotations"):
                annotations.append((f"{where}, annotation {len(annotations) + 1}", annotation))
    return Document(where, doc_id, join_passages(passages), each_parsed(annotations, _annotation, faults))


def _annotation(content: Any) -> Annotation:
    content = as_object(content, "annotation")
    infons = as_object(content.get("infons"), "infons", optional=True)
    identifiers = _words(infons.get("identifier"))
    cuis: list[str] = []
    for value in (identifiers, *map(_words, infons.values())):
        cuis = cuis or list(dict.fromkeys(filter(None, map(as_cui, value))))
    if not cuis:
        return Annotation((), "", (), identifier=" ".join(identifiers) or "no identifier")
    spans = []
    for location in as_list(content, "locations"):
        location = as_object(location, "location")
        start = as_offset(location.get("offset"))
        spans.append((start, start + as_offset(location.get("length"))))
    if not spans:
        raise Malformed("annotation without location")
    values = (infons.get("type"), *infons.values())
    types = next(filter(None, (type_ids(value) for value in values if isinstance(value, str))), ())
    return Annotation(tuple(spans), as_text(content.get("text"), "text"), tuple(cuis), types)


def _words(value: Any) -> list[str]:
    """The identifiers in an infon: a text, or in JSON also a list of texts."""
    texts = value if isinstance(value, list) else [value]
    return [word for text in texts if isinstance(text, str) for word in SEPARATORS.split(text) if word]


def _xml_documents(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line and content of each document in the form that JSON has; memory holds a few documents.

    A DOCTYPE may name the DTD, which is not fetched; one that declares anything itself is refused, and so is a
    reference to an entity: entities can expand to gigabytes, or read other files.
    """
    parser = expat.ParserCreate()
    parser.buffer_text = True
    builder = TreeBuilder()
    collection: list[Element] = []
    lines: list[int] = []
    whole: list[tuple[int, dict[str, Any]]] = []

    def refuse(*_: Any) -> None:
        raise UserError(
            f"{path}:{parser.CurrentLineNumber}: uses custom XML entities, whose expansion is unbounded; replace them "
            "by their text and remove the [ ] of the DOCTYPE"
        )

    def start_doctype(name: str, system: str | None, public: str | None, has_declarations: bool) -> None:
        if has_declarations:
            refuse()

    def start(name: str, attributes: dict[str, str]) -> None:
        element = builder.start(name, attributes)
        if not collection:
            collection.append(element)
        if name == "document":
            lines.append(parser.CurrentLineNumber)

    def end(name: str) -> None:
        element = builder.end(name)
        if name == "document":
            whole.append((lines.pop(), {"passages": []} | _as_json(element)))
            collection[0].clear()

    parser.StartDoctypeDeclHandler = start_doctype
    parser.EntityDeclHandler = parser.SkippedEntityHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    try:
        with open_binary(path) as stream:
            for chunk in iter(partial(stream.read, CHUNK_BYTES), b""):
                parser.Parse(chunk)
                yield from whole
                whole.clear()
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise UserError(
            f"{path}:{error.lineno}: not well-formed XML ({expat.ErrorString(error.code)}); download the file again"
        ) from None
    except (LookupError, ValueError, RecursionError) as error:
        # Caused by the declared encoding, or by unlimited nesting.
        raise UserError(f"{path}:{parser.CurrentLineNumber}: unreadable XML ({error}); use UTF-8") from None


def _as_json(element: Element) -> dict[str, Any]:
    """An element in the form that JSON has."""
    content: dict[str, Any] = {**element.attrib, "infons": {}}
    for child in element:
        text = child.text or ""
        if child.tag in LISTED:
            content.setdefault(f"{child.tag}s", []).append(_as_json(child))
        elif child.tag == "infon":
            content["infons"][child.get("key", "")] = text
        else:
            content[child.tag] = text.strip() if child.tag == "offset" else text
    return content
