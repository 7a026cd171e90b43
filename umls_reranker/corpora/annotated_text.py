"""Annotated text: documents, their annotations, and the mentions that become of them."""

from collections.abc import Iterable
from dataclasses import dataclass


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
        cuis: of each part that it names, the ids of which any is correct, e.g.
            ``(("D001943",), ("D010051",))``; () without a concept.
        semantic_types: type ids as annotated, e.g. ``("T103",)``.
    """

    doc_id: str
    start: int
    end: int
    text: str
    left: str
    right: str
    cuis: tuple[tuple[str, ...], ...]
    semantic_types: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Annotation:
    """An annotation of a corpus, not yet compared with the text.

    Attributes:
        spans: ``(start, end)`` of its pieces, characters, end exclusive; several if discontinuous.
        text: the annotated text as the annotation repeats it.
        cuis: as for `Mention`.
        types: its types as annotated, type ids or others such as ``Disease``; may be empty.
    """

    spans: tuple[tuple[int, int], ...]
    text: str
    cuis: tuple[tuple[str, ...], ...]
    types: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Document:
    """A document of a corpus.

    Attributes:
        where: its file and place in it, for messages.
        doc_id: as in the lists of documents.
        text: its text, in which offsets count characters.
        annotations: its annotations, each with its place; read once.
    """

    where: str
    doc_id: str
    text: str
    annotations: Iterable[tuple[str, Annotation]]
