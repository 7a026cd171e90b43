"""BioC corpora in XML or JSON, as BioCreative and PubTator Central publish them, through the package `bioc`.

Format (Comeau et al. 2013; bioc.sourceforge.net): a collection of documents, of passages, of annotations. A passage
may hold sentences with text and annotations of their own.

The concept of an annotation is the first CUI in its infon ``identifier``, or else in another infon. Its types are the
ids, such as T047, in the infon ``type``, or else in another infon.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.lines import Malformed, excerpt, open_binary
from .corpus import SEPARATORS, Annotation, CorpusReader, Document, Faults, as_cui, join_passages, type_ids

XML_START = re.compile(rb"<collection[\s>]")
JSON_START = re.compile(rb'\s*\{.*"documents"', re.DOTALL)


class BioC(CorpusReader):
    """Collections; annotations without a CUI are counted."""

    name = "BioC"
    layout = "a collection of documents with passages, in XML or JSON"

    def recognizes(self, start: bytes) -> bool:
        return bool(XML_START.search(start) or JSON_START.match(start))

    def documents(self, path: Path, faults: Faults) -> Iterator[Document]:
        for document in _load(path).documents:
            where = f"{path}: document {excerpt(str(document.id))}"
            sentences = [sentence for passage in document.passages for sentence in passage.sentences]
            texts: list[Any] = []
            for passage in document.passages:
                # Sentences repeat the text of a passage that has one.
                texts += [passage] if passage.text else passage.sentences
            try:
                text = join_passages((int(part.offset), str(part.text or "")) for part in texts)
            except (TypeError, ValueError):
                faults.add(where, Malformed("passage without offset"))
                continue
            except Malformed as problem:
                faults.add(where, problem)
                continue
            parts = [document, *document.passages, *sentences]
            annotations = ((where, annotation) for part in parts for annotation in part.annotations)
            yield Document(where, str(document.id or ""), text, faults.parsed(annotations, _annotation))


def _load(path: Path) -> Any:
    try:
        from bioc import biocjson, biocxml
    except ImportError:
        raise UserError(f"{path} is BioC; run pip install 'umls-reranker[bioc]' to read it") from None
    with open_binary(path) as stream:
        content = stream.read()
    # Entities can expand to gigabytes, or read other files; another encoding could hide them.
    if b"<!ENTITY" in content or b"\0" in content:
        raise UserError(f"{path} declares XML entities, or is not UTF-8; replace the entities by their text")
    try:
        return (biocxml if content.lstrip().startswith(b"<") else biocjson).loads(content.decode("utf-8-sig"))
    # A SyntaxError is what lxml raises.
    except (SyntaxError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is not a BioC collection ({error!r}); download the file again") from None


def _annotation(content: Any) -> Annotation:
    infons = content.infons if isinstance(content.infons, dict) else {}
    cuis: list[str] = []
    for value in (infons.get("identifier"), *infons.values()):
        cuis = cuis or list(dict.fromkeys(filter(None, map(as_cui, _words(value)))))
    try:
        spans = tuple((int(place.offset), int(place.offset) + int(place.length)) for place in content.locations)
    except (TypeError, ValueError):
        spans = ()
    if cuis and not spans:
        raise Malformed("annotation without location")
    texts = [value for value in (infons.get("type"), *infons.values()) if isinstance(value, str)]
    types = next(filter(None, map(type_ids, texts)), ())
    return Annotation(spans, str(content.text or ""), tuple(cuis), types)


def _words(value: Any) -> list[str]:
    """The identifiers in an infon: a text, or in JSON also a list of texts."""
    texts = value if isinstance(value, list) else [value]
    return [word for text in texts if isinstance(text, str) for word in SEPARATORS.split(text) if word]
