"""Formats of corpora: PubTator, BioC and BigBIO; the first that fits the content reads a file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from ..core.text_files import Malformed, UserError, decode, excerpt, open_binary, read_lines, start_of
from .corpus import SEPARATORS, Annotation, CorpusReader, Document, Faults, Mention, as_cui, join_passages, type_ids

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


COLUMNS = ("document_id", "passages", "entities")
ROWS_PER_BATCH = 64


class BigBio(CorpusReader):
    """Rows of Parquet; entities without a UMLS id are counted."""

    name = "BigBIO"
    layout = f"Parquet with the columns {', '.join(COLUMNS)} of the schema bigbio_kb"

    def recognizes(self, start: bytes) -> bool:
        return start.startswith(b"PAR1")

    def files(self, folder: Path) -> tuple[Path, ...]:
        """Parquet files at any depth, in the order of their names."""
        return tuple(sorted(folder.rglob("*.parquet")))

    def documents(self, path: Path, faults: Faults) -> Iterator[Document]:
        import pyarrow.parquet as pq

        try:
            batches = pq.ParquetFile(path).iter_batches(ROWS_PER_BATCH, columns=list(COLUMNS))
            for row in (row for batch in batches for row in batch.to_pylist()):
                where = f"{path}: document {excerpt(str(row['document_id']))}"
                try:
                    passages = [pieces for passage in row["passages"] or () for pieces in _pieces(passage)]
                    text = join_passages((start, text) for (start, _), text in passages)
                except Malformed as problem:
                    faults.add(where, problem)
                    continue
                entities = ((where, entity) for entity in row["entities"] or ())
                annotations = list(_joined(faults.parsed(entities, _bigbio_annotation)))
                yield Document(where, str(row["document_id"] or ""), text, annotations)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise UserError(f"{path} is not Parquet in the schema bigbio_kb ({error!r}); choose another") from None


def _bigbio_annotation(entity: Mapping[str, Any]) -> Annotation:
    ids = [(item["db_name"] or "UMLS", str(item["db_id"])) for item in entity["normalized"] or ()]
    # Other vocabularies have ids of the same form.
    cuis = dict.fromkeys(as_cui(id) for name, id in ids if "umls" in name.lower() or id.startswith("UMLS:"))
    cuis.pop("", None)
    spans, texts = zip(*_pieces(entity), strict=True)
    return Annotation(spans, " ".join(texts), tuple(cuis), type_ids(entity["type"] or ""))


def _pieces(owner: Mapping[str, Any]) -> list[tuple[tuple[int, int], str]]:
    """Spans and texts of a passage or an entity."""
    texts, spans = owner["text"] or (), owner["offsets"] or ()
    if not texts or len(spans) != len(texts) or {len(span) for span in spans} != {2}:
        raise Malformed("texts and offsets do not fit", f": {excerpt(repr(owner))}")
    return [((start, end), text) for (start, end), text in zip(spans, texts, strict=True)]


def _joined(annotations: Iterable[tuple[str, Annotation]]) -> Iterator[tuple[str, Annotation]]:
    """Annotations that differ only in their types, joined to one."""
    joined: dict[tuple, tuple[str, Annotation]] = {}
    for where, annotation in annotations:
        key = (annotation.spans, annotation.text, annotation.cuis)
        if key in joined:
            _, former = joined[key]
            types = dict.fromkeys((*former.semantic_types, *annotation.semantic_types))
            annotation = replace(former, semantic_types=tuple(types))
        joined[key] = where, annotation
    yield from joined.values()


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
            yield Document(where, str(document.id or ""), text, faults.parsed(annotations, _bioc_annotation))


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


def _bioc_annotation(content: Any) -> Annotation:
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


CORPUS_READERS: list[CorpusReader] = [PubTator(), BioC(), BigBio()]


def register(reader: CorpusReader) -> None:
    """Add a format of your own; it is tried after the others."""
    CORPUS_READERS.append(reader)


def describe_formats() -> str:
    """The known formats with their descriptions, for help and messages."""
    return "; ".join(f"{reader.name} ({reader.layout})" for reader in CORPUS_READERS)


def corpus_files(path: Path) -> tuple[Path, ...]:
    """The files of a corpus, which is a file or a folder.

    Raises:
        UserError: no reader knows such a folder.
    """
    if not path.is_dir():
        return (path,)
    for reader in CORPUS_READERS:
        if files := reader.files(path):
            return files
    names = ", ".join(sorted(file.name for file in path.iterdir())[:5]) or "nothing"
    raise UserError(f"{path} is a folder with {names}, not a corpus; give a file, or one of {describe_formats()}")


def reader_of(paths: Sequence[Path]) -> CorpusReader:
    """The reader of the format of all files.

    Raises:
        UserError: a file is missing, empty, broken, in no known format, or in another one than the first.
    """
    readers = list(map(_recognize, paths))
    reader = readers[0]
    for file, its_reader in zip(paths, readers, strict=True):
        if its_reader is not reader:
            raise UserError(f"{file} is {its_reader.name}, and {paths[0]} is {reader.name}; give files of one format")
    return reader


def _recognize(path: Path) -> CorpusReader:
    start = start_of(path)
    for reader in CORPUS_READERS:
        if reader.recognizes(start):
            return reader
    content = f"begins with {excerpt(start[:80].decode('utf-8', errors='replace'))}" if start else "is empty"
    raise UserError(f"{path} is not a corpus in a known format: {describe_formats()}; it {content}")


def read_corpus(
    paths: Sequence[Path], report: dict[str, Any] | None = None, *, expand_abbreviations: bool = False
) -> Iterator[Mention]:
    """Stream the mentions of a corpus in any of the formats, with `CorpusReader.read`.

    Raises:
        UserError: as for `reader_of`, or while reading as for `CorpusReader.read`.
    """
    report = {} if report is None else report
    return reader_of(paths).read(paths, report, expand_abbreviations=expand_abbreviations)
