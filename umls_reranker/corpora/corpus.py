"""Annotated text: mentions of concepts in documents, and what all readers of a corpus share.

A reader (`CorpusReader`) says how it recognizes its format and yields documents with their
annotations. The checks, the text around a mention, long forms of abbreviations, counts and messages
are the same for all of them. `formats` lists the readers.
"""

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from ..core.errors import Malformed, UserError
from ..core.text_files import excerpt, read_lines, start_of
from ..lists.columns import MAX_MENTION_CHARS, length_fault

# MedMentions writes UnknownType for a concept without a type.
TYPE = re.compile(r"T[0-9]{3}|UnknownType")
SEPARATORS = re.compile(r"[,;|+\s]+")
# Maximum characters between two passages; more means a wrong offset.
LARGEST_GAP = 1_000_000
Item = TypeVar("Item")
Parsed = TypeVar("Parsed")
CONTEXT_CHARS = 128
"""Characters of text kept on each side of a mention."""

# A larger share of faulty annotations stops the reading.
MOST_FAULTY = 0.02
# What the report of a reading counts.
COUNTS = (
    "documents",
    "repeated_documents",
    "expanded_abbreviations",
    "mentions",
    "without_concept",
    "composite",
    "discontinuous",
    "of_other_types",
)
# What corpora write in place of an id.
NO_ID = ("", "-", "-1")


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


class Faults:
    """The documents and annotations of a corpus that are left out because they are malformed.

    Attributes:
        reasons: their number by reason.
        first: the first ten of them, with file and place.
        requires_ids: whether an annotation without the field of its concept is malformed.
    """

    requires_ids = True

    def __init__(self) -> None:
        self.reasons: Counter[str] = Counter()
        self.first: list[str] = []

    def add(self, where: str, problem: Malformed) -> None:
        """Count one, at this file and place."""
        self.reasons[problem.reason] += 1
        if len(self.first) < 10:
            self.first.append(f"{where}: {problem}")

    def parsed(
        self, items: Iterable[tuple[str, Item]], parse: Callable[[Item], Parsed]
    ) -> Iterator[tuple[str, Parsed]]:
        """Yield the parsed items with their places; those that are `Malformed` are counted."""
        for where, item in items:
            try:
                yield where, parse(item)
            except Malformed as problem:
                self.add(where, problem)

    def require_few(self, sound: int) -> None:
        """Raise a UserError with the first faults if they are too many for so many sound ones."""
        count = self.reasons.total()
        if count > MOST_FAULTY * (count + sound):
            raise UserError(
                f"{count:,} of {count + sound:,} annotations are malformed, "
                f"more than {MOST_FAULTY:.0%}; correct the file, or choose another. "
                f"The first are: {'; '.join(self.first)}"
            )


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
        counts = dict.fromkeys(COUNTS, 0)
        faults = Faults()
        for document in self._sound_documents(paths, counts, faults):
            long_forms = find_abbreviations(document.text) if expand_abbreviations else {}
            annotations = _selected(document.annotations, types, counts)
            parse = partial(_mention, document, long_forms)
            for _, mention in faults.parsed(annotations, parse):
                counts["mentions"] += 1
                counts["expanded_abbreviations"] += (
                    mention.text != document.text[mention.start : mention.end]
                )
                counts["without_concept"] += not mention.cuis
                counts["composite"] += len(mention.cuis) > 1
                texts = conjuncts(mention.text) if split_composites else [mention.text]
                if len(texts) != len(mention.cuis):
                    texts = [mention.text]
                yield from (replace(mention, text=text) for text in texts)
        faults.require_few(counts["mentions"] + counts["discontinuous"] + counts["of_other_types"])
        if counts["mentions"] == counts["without_concept"]:
            of_types = f" of the types {[*types]}" if types else ""
            raise UserError(
                f"{name_files(paths)} contains {counts['documents']:,} documents with "
                f"{counts['mentions']:,} annotations{of_types}, of which none has a concept; "
                f"expected {self.layout}"
            )
        report |= {"format": self.name} | counts
        report["malformed"] = dict(faults.reasons.most_common())
        report["first_malformed"] = faults.first

    def _sound_documents(
        self, paths: Sequence[Path], counts: dict[str, int], faults: Faults
    ) -> Iterator[Document]:
        """The documents with an id of their own; the others are counted."""
        seen: set[str] = set()
        documents = chain.from_iterable(self.documents(path, faults) for path in paths)
        for document in documents:
            if not document.doc_id:
                faults.add(document.where, Malformed("document without an id"))
            elif document.doc_id in seen:
                counts["repeated_documents"] += 1
            else:
                seen.add(document.doc_id)
                counts["documents"] += 1
                yield document


def parts_of(identifier: str) -> tuple[tuple[str, ...], ...]:
    """The concepts that an annotation names, without the prefix ``UMLS:``; a part may lack an id.

    >>> parts_of("UMLS:C0009443"), parts_of("D007153+D040181")
    ((('C0009443',),), (('D007153',), ('D040181',)))
    >>> parts_of("D007674|-1"), parts_of("-1")
    ((('D007674',), ()), ())
    """
    ids = dict.fromkeys(word.removeprefix("UMLS:") for word in SEPARATORS.split(identifier.strip()))
    parts = tuple(map(_part_of, ids))
    return parts if any(parts) else ()


def _part_of(word: str) -> tuple[str, ...]:
    """The concept that a word names; none if it is no id."""
    return () if word in NO_ID else (word,)


def type_ids(types: Sequence[str]) -> tuple[str, ...]:
    """Those of some types that are type ids."""
    return tuple(filter(TYPE.fullmatch, types))


def annotated_types(text: str) -> tuple[str, ...]:
    """The types in a text: all words if they are type ids, or else the whole text.

    >>> annotated_types("T047,T184"), annotated_types("Sequence Variant")
    (('T047', 'T184'), ('Sequence Variant',))
    """
    text = text.strip()
    words = SEPARATORS.split(text)
    ids = type_ids(words)
    if len(ids) == len(words):
        return ids
    return (text,) if text else ()


def join_passages(passages: Iterable[tuple[int, str]]) -> str:
    """The text of a document from offset and text of its passages; blanks fill the gaps.

    Raises:
        Malformed: passages overlap, or are far apart.

    >>> join_passages([(0, "Cold"), (5, "A cold.")])
    'Cold A cold.'
    """
    pieces = []
    length = 0
    for offset, text in passages:
        if not text:
            continue
        if not length <= offset <= length + LARGEST_GAP:
            problem = "passages overlap" if offset < length else "passages far apart"
            raise Malformed(
                problem, f": one starts at {offset}, and the text before it ends at {length}"
            )
        pieces += [" " * (offset - length), text]
        length = offset + len(text)
    return "".join(pieces)


def text_around(text: str, start: int, end: int, size: int = CONTEXT_CHARS) -> tuple[str, str]:
    """At most `size` characters before `start` and after `end`, without partial words outside."""
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
    """Read a list of document ids, one per line, without blank lines and repetitions.

    Raises:
        UserError: the file is missing or empty, or a line is not one id (names file and line).
    """
    path = Path(path)
    ids: dict[str, None] = {}
    for number, line in read_lines(path):
        words = line.decode("utf-8", errors="replace").split()
        if len(words) > 1:
            raise UserError(
                f"{path}:{number}: expected one document id per line, found {len(words)} words: "
                f"{excerpt(words[0])} ..."
            )
        ids.update(dict.fromkeys(words))
    if not ids:
        raise UserError(f"{path} contains no document ids; expected one per line")
    return list(ids)


def name_files(paths: Sequence[Path]) -> str:
    """The files of a corpus in messages."""
    further = f" (and {len(paths) - 1} more)" if len(paths) > 1 else ""
    return f"{paths[0]}{further}"


def _mention(document: Document, long_forms: dict[str, str], annotation: Annotation) -> Mention:
    ((start, end),) = annotation.spans
    if not 0 <= start < end <= len(document.text):
        raise Malformed(
            "offsets outside the document", f": {start}-{end} in {len(document.text)} characters"
        )
    text = document.text[start:end]
    if text != annotation.text:
        bare = text.strip()
        if not bare or bare != annotation.text.strip():
            raise Malformed(
                "offsets do not match the text",
                f": {start}-{end} is {excerpt(text)}, not {excerpt(annotation.text)}",
            )
        start += text.index(bare)
        end = start + len(bare)
        text = bare
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


def _selected(
    annotations: Iterable[tuple[str, Annotation]], types: Collection[str], counts: dict[str, int]
) -> Iterator[tuple[str, Annotation]]:
    """The annotations in one piece and of these types, or of any; the others are counted."""
    for where, annotation in annotations:
        if types and not {*types} & {*annotation.types}:
            counts["of_other_types"] += 1
        elif len(annotation.spans) > 1:
            counts["discontinuous"] += 1
        else:
            yield where, annotation


CONJUNCTIONS = re.compile(
    r",\s*(?:and/or|and|or)\s+|\s+(?:and/or|and|or|as well as)\s+|\s*/\s*|,\s+"
)
# "carcinoma of the breast and ovary": what stands before both.
SHARED_START = re.compile(r".*\b(?:of|in)\s+(?:the\s+)?(?=\S)")
# A conjunct that ends with one of these, in singular or plural, needs no other's last word.
HEAD = re.compile(
    r"(?:abnormalit|anomal|cancer|carcinoma|cyst|damage|defect|deficienc|disease|disorder|"
    r"dysfunction|dystroph|failure|infection|injur|insufficienc|lesion|leuk(?:a)?emia|lymphoma|"
    r"malformation|neoplasm|syndrome|toxicit|tumou?r)(?:y|ies|s)?$",
    re.IGNORECASE,
)


def conjuncts(text: str) -> list[str]:
    """The parts of a coordination, each with the words that they share (after D'Souza and Ng 2015).

    >>> conjuncts("brain, breast, and prostate cancer")
    ['brain cancer', 'breast cancer', 'prostate cancer']
    >>> conjuncts("cancer of the breast and ovary")
    ['cancer of the breast', 'cancer of the ovary']
    """
    parts = [part for part in CONJUNCTIONS.split(text) if part]
    if len(parts) < 2:
        return [text]
    last = parts[-1]
    shared = SHARED_START.match(parts[0])
    if shared and not SHARED_START.match(last):
        return [parts[0], *(shared[0] + part for part in parts[1:])]
    words = last.split()
    if len(words) == 1:
        return parts
    return [*(_with_head(part, words[-1]) for part in parts[:-1]), last]


def _with_head(part: str, head: str) -> str:
    """A part of a coordination with the head that all share, unless it has one of its own."""
    return part if HEAD.search(part) else f"{part} {head}"


PARENTHESES = re.compile(r"[(\[]([^()\[\]]{1,200})[)\]]")
# What ends a clause; no long form starts before it.
CLAUSE_END = re.compile(r"[.;:!?](?=\s)|[()\[\]]")
# Characters read before a parenthesis: a long form is a mention, and has at most 15 words.
WINDOW = MAX_MENTION_CHARS


def find_abbreviations(text: str) -> dict[str, str]:
    """Short forms of a document and their first definitions.

    >>> find_abbreviations("Acute myocardial infarction (AMI) and tumor necrosis factor (TNF).")
    {'AMI': 'Acute myocardial infarction', 'TNF': 'tumor necrosis factor'}
    >>> find_abbreviations("We used MRI (magnetic resonance imaging) and so on (see below).")
    {'MRI': 'magnetic resonance imaging'}
    """
    long_forms: dict[str, str] = {}
    ends = CLAUSE_END.finditer(text)
    for match in PARENTHESES.finditer(text):
        # A parenthesis itself ends a clause, so no character is read twice: time is linear.
        clause = 0
        for end in ends:
            if end.start() == match.start():
                break
            clause = end.end()
        inside = re.split(r"[;,]\s", match[1], maxsplit=1)[0].strip()
        before = text[max(clause, match.start() - WINDOW) : match.start()].rstrip()
        short, long = _definition(before, inside)
        if long is not None:
            long_forms.setdefault(short, long)
    return long_forms


def _definition(before: str, inside: str) -> tuple[str, str | None]:
    """A short form, and its long form or None, from the text before and inside a parenthesis."""
    if _is_short_form(inside):
        return inside, _long_form(inside, _last_words(before, inside))
    # "MRI (magnetic resonance imaging)": the short form comes first, in capitals or with a digit.
    short = before.rsplit(maxsplit=1)[-1] if before else ""
    if not re.search(r"[A-Z0-9]", short[1:]) or not _is_short_form(short):
        return short, None
    if _long_form(short, inside) != inside:
        return short, None
    return short, inside


def _is_short_form(text: str) -> bool:
    """Whether a text has 2 to 10 characters in at most two words, and begins like a name."""
    if not 2 <= len(text) <= 10 or len(text.split()) > 2:
        return False
    has_letter = any(character.isalpha() for character in text)
    return has_letter and text[0].isalnum()


def _last_words(text: str, short: str) -> str:
    """The last words of a clause, as many as a long form may have."""
    letters = sum(character.isalnum() for character in short)
    most = min(letters + 5, letters * 2)
    starts = [match.start() for match in re.finditer(r"\S+", text)]
    first = starts[-most] if len(starts) > most else 0
    return text[first:].strip()


def _is_letter_at(position: int, text: str, letter: str, *, is_first: bool) -> bool:
    """Whether a text has a letter of a short form there; the first letter begins a word."""
    if text[position].lower() != letter:
        return False
    return not is_first or position == 0 or not text[position - 1].isalnum()


def _long_form(short: str, text: str) -> str | None:
    """The shortest end of `text` that holds the letters of `short` in order, or None."""
    position = len(text)
    for number, letter in reversed([*enumerate(filter(str.isalnum, short.lower()))]):
        position -= 1
        while position >= 0 and not _is_letter_at(position, text, letter, is_first=number == 0):
            position -= 1
        if position < 0:
            return None
    # Hyphenated words are kept whole; a line may end between two words.
    while position and not text[position - 1].isspace():
        position -= 1
    long = text[position:]
    too_long = len(long.split()) > min(len(short) + 5, len(short) * 2)
    holds_itself = short.lower() in long.lower().split()
    return None if len(long) <= len(short) or too_long or holds_itself else long
