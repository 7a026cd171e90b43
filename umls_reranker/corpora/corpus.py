"""`CorpusReader`: what all formats of annotated text share.

A reader of a format says how it recognizes a file and yields documents with their annotations. The
checks, the text around a mention, long forms of abbreviations, counts and messages are the same for
all of them. `formats` lists the readers.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from ..core.errors import Malformed, UserError
from ..core.text_files import excerpt, start_of
from ..lists.columns import length_fault
from .abbreviations import find_abbreviations
from .annotated_text import Annotation, Document, Mention
from .annotation_fields import type_ids
from .coordinations import conjuncts
from .faults import Faults
from .surrounding_text import text_around


@dataclass
class CorpusCounts:
    """What the report of a reading counts, in its order.

    Attributes:
        documents: documents with an id of their own.
        repeated_documents: documents whose id an earlier one has; they are left out.
        expanded_abbreviations: mentions that became the long form of an abbreviation.
        mentions: mentions, of which composite ones count once.
        without_concept: mentions without an id of a concept.
        composite: mentions that name several concepts.
        discontinuous: annotations in several pieces, which are left out.
        of_other_types: annotations of other types than those asked for, which are left out.
    """

    documents: int = 0
    repeated_documents: int = 0
    expanded_abbreviations: int = 0
    mentions: int = 0
    without_concept: int = 0
    composite: int = 0
    discontinuous: int = 0
    of_other_types: int = 0

    @property
    def sound_annotations(self) -> int:
        """Number of annotations that are not malformed, whether they are left out or not."""
        return self.mentions + self.discontinuous + self.of_other_types

    def add_mention(self, mention: Mention, document: Document) -> None:
        """Count a mention, by its text in the document and its concepts."""
        self.mentions += 1
        if mention.text != document.text[mention.start : mention.end]:
            self.expanded_abbreviations += 1
        if not mention.cuis:
            self.without_concept += 1
        if len(mention.cuis) > 1:
            self.composite += 1


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
            faults: takes malformed documents and annotations, which are not yielded.

        Raises:
            UserError: the file is damaged.
        """

    def files(self, folder: Path) -> tuple[Path, ...]:
        """The files of a corpus folder that are in this format, in the order of their names."""
        files = (file for file in sorted(folder.iterdir()) if file.is_file())
        return tuple(file for file in files if self.recognizes(start_of(file)))

    def read(
        self,
        paths: Sequence[Path],
        report: dict[str, Any],
        *,
        expand_abbreviations: bool = False,
        split_composites: bool = False,
        types: Collection[str] = (),
    ) -> Iterator[Mention]:
        """Stream the mentions of a corpus, in file order; memory holds one document.

        Args:
            paths: the files of the corpus.
            report: filled at the end: the ``format``, the numbers of ``documents`` and
                ``mentions``, of these ``without_concept`` and ``composite`` ones,
                ``expanded_abbreviations``; and what is left out: ``repeated_documents``, of which
                the first counts, ``discontinuous`` annotations and those ``of_other_types``, and
                ``malformed`` documents and annotations, by reason, with the ``first_malformed``.
            expand_abbreviations: replace a mention that its document defines as an abbreviation by
                the long form; `start` and `end` do not change.
            split_composites: yield a composite mention of as many conjuncts (`conjuncts`) as
                concepts once for each, with the conjunct as its text.
            types: keep only annotations of these types; empty keeps all.

        Raises:
            UserError: a file is missing, empty or damaged; more than 2 % of the annotations are
                malformed; there is no document, or no annotation with a concept.
        """
        counts = CorpusCounts()
        faults = Faults()
        for document in self._sound_documents(paths, counts, faults):
            long_forms = find_abbreviations(document.text) if expand_abbreviations else {}
            annotations = _selected(document.annotations, types, counts)
            to_mention = partial(_mention_of, document, long_forms)
            for _, mention in faults.parsed(annotations, to_mention):
                counts.add_mention(mention, document)
                if split_composites:
                    yield from _mentions_of_conjuncts(mention)
                else:
                    yield mention
        faults.require_few(counts.sound_annotations)
        if counts.mentions == counts.without_concept:
            of_types = f" of the types {[*types]}" if types else ""
            raise UserError(
                f"{name_files(paths)} contains {counts.documents:,} documents with "
                f"{counts.mentions:,} annotations{of_types}, of which none has a concept; "
                f"expected {self.layout}"
            )
        report |= {"format": self.name} | asdict(counts)
        report["malformed"] = dict(faults.reasons.most_common())
        report["first_malformed"] = faults.first

    def _sound_documents(
        self, paths: Sequence[Path], counts: CorpusCounts, faults: Faults
    ) -> Iterator[Document]:
        """The documents with an id of their own; the others are counted."""
        seen_ids: set[str] = set()
        documents = chain.from_iterable(self.documents(path, faults) for path in paths)
        for document in documents:
            if not document.doc_id:
                faults.add(document.where, Malformed("document without an id"))
            elif document.doc_id in seen_ids:
                counts.repeated_documents += 1
            else:
                seen_ids.add(document.doc_id)
                counts.documents += 1
                yield document


def name_files(paths: Sequence[Path]) -> str:
    """The files of a corpus in messages."""
    further = f" (and {len(paths) - 1} more)" if len(paths) > 1 else ""
    return f"{paths[0]}{further}"


def _mention_of(document: Document, long_forms: dict[str, str], annotation: Annotation) -> Mention:
    """The mention of an annotation in one piece.

    Raises:
        Malformed: it does not fit the document, or is too long.
    """
    start, end = _checked_span(document.text, annotation)
    text = document.text[start:end]
    if fault := length_fault(len(text)):
        raise Malformed("mention too long", f": {start}-{end} {fault}")
    left, right = text_around(document.text, start, end)
    return Mention(
        doc_id=document.doc_id,
        start=start,
        end=end,
        text=long_forms.get(text, text),
        left=left,
        right=right,
        cuis=annotation.cuis,
        semantic_types=type_ids(annotation.types),
    )


def _checked_span(document_text: str, annotation: Annotation) -> tuple[int, int]:
    """Start and end of an annotation in the document, without blanks that its text lacks.

    Raises:
        Malformed: the span is not in the document, or has another text there.
    """
    ((start, end),) = annotation.spans
    if not 0 <= start < end <= len(document_text):
        raise Malformed(
            "offsets outside the document", f": {start}-{end} in {len(document_text)} characters"
        )
    text = document_text[start:end]
    if text == annotation.text:
        return start, end
    bare = text.strip()
    if not bare or bare != annotation.text.strip():
        raise Malformed(
            "offsets do not match the text",
            f": {start}-{end} is {excerpt(text)}, not {excerpt(annotation.text)}",
        )
    start += text.index(bare)
    return start, start + len(bare)


def _mentions_of_conjuncts(mention: Mention) -> Iterator[Mention]:
    """The mention once for each conjunct, if it has as many as concepts; else as it is."""
    texts = conjuncts(mention.text)
    if len(texts) != len(mention.cuis):
        yield mention
        return
    for text in texts:
        yield replace(mention, text=text)


def _selected(
    annotations: Iterable[tuple[str, Annotation]], types: Collection[str], counts: CorpusCounts
) -> Iterator[tuple[str, Annotation]]:
    """The annotations in one piece and of these types, or of any; the others are counted."""
    for where, annotation in annotations:
        if types and not {*types} & {*annotation.types}:
            counts.of_other_types += 1
        elif len(annotation.spans) > 1:
            counts.discontinuous += 1
        else:
            yield where, annotation
