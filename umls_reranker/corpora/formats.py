"""Formats of corpora: PubTator, BRAT, BioC and BigBIO, told apart by the content of a file."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, groupby
from pathlib import Path
from typing import Any

from ..core.errors import Malformed, UserError
from ..core.text_files import decode, excerpt, read_lines, read_whole, start_of
from ..vocab.cui import CUI
from .corpus import (
    Annotation,
    CorpusReader,
    Document,
    Faults,
    Mention,
    annotated_types,
    join_passages,
    parts_of,
    read_pmids,
    type_ids,
)

TEXT_LINE = re.compile(r"([^|\t]+)\|([ta])\|(.*)", re.DOTALL)
START = re.compile(rb"^[^|\t\r\n]+\|[ta]\|", re.MULTILINE)
OFFSET = re.compile(r"[0-9]{1,9}")
# A relation between concepts of a document, as BC5CDR has them between its annotations.
RELATION = re.compile(rb"[^\t]+\t[A-Za-z]\w*\t[^\t]+\t[^\t]+")


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
            yield Document(block[0][0], doc_id, f"{title} {abstract}", faults.parsed(lines, parse))


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


def _parse_annotation(document: str, requires_id: bool, line: bytes) -> Annotation:
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
        ((int(start), int(end)),), text, parts_of(identifier), annotated_types(types_field)
    )


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
        ids: dict[str, list[str]] = {}
        for match in filter(None, (CONCEPT_LINE.match(row) for _, row in rows)):
            ids.setdefault(match[1], []).append(match[2])
        spans = ((where, row) for where, row in rows if row.startswith("T"))
        yield Document(
            str(path), path.stem, text, faults.parsed(spans, partial(_brat_annotation, ids))
        )


def _brat_annotation(ids: Mapping[str, Sequence[str]], row: str) -> Annotation:
    match = SPAN_LINE.fullmatch(row)
    if match is None:
        raise Malformed(
            "expected the line T1<tab>TYPE START END<tab>TEXT", f", found {excerpt(row)}"
        )
    spans = [piece.split() for piece in match[3].split(";")]
    return Annotation(
        tuple((int(start), int(end)) for start, end in spans),
        match[4],
        parts_of("|".join(ids.get(match[1], ()))),
        annotated_types(match[2]),
    )


COLUMNS = ("document_id", "passages", "entities")


class BigBio(CorpusReader):
    """Rows of Parquet."""

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
            batches = pq.ParquetFile(path).iter_batches(64, columns=list(COLUMNS))
            for row in chain.from_iterable(batch.to_pylist() for batch in batches):
                where = f"{path}: document {excerpt(str(row['document_id']))}"
                try:
                    passages = list(chain.from_iterable(map(_pieces, row["passages"] or ())))
                    text = join_passages((start, text) for (start, _), text in passages)
                except Malformed as problem:
                    faults.add(where, problem)
                    continue
                entities = ((where, entity) for entity in row["entities"] or ())
                annotations = list(_with_all_types(faults.parsed(entities, _bigbio_annotation)))
                yield Document(where, str(row["document_id"] or ""), text, annotations)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path} is not Parquet in the schema bigbio_kb ({error!r}); choose another"
            ) from None


def _bigbio_annotation(entity: Mapping[str, Any]) -> Annotation:
    ids = [(item["db_name"] or "UMLS", str(item["db_id"])) for item in entity["normalized"] or ()]
    umls_ids = [id for name, id in ids if "umls" in name.lower() or id.startswith("UMLS:")]
    spans, texts = zip(*_pieces(entity), strict=True)
    return Annotation(
        spans,
        " ".join(texts),
        parts_of("|".join(umls_ids or (id for _, id in ids))),
        annotated_types(entity["type"] or ""),
    )


def _pieces(owner: Mapping[str, Any]) -> list[tuple[tuple[int, int], str]]:
    """Spans and texts of a passage or an entity."""
    texts = owner["text"] or ()
    spans = [tuple(span) for span in owner["offsets"] or ()]
    if not texts or len(spans) != len(texts) or {len(span) for span in spans} != {2}:
        raise Malformed("texts and offsets do not fit", f": {excerpt(repr(owner))}")
    return list(zip(spans, texts, strict=True))


def _with_all_types(
    annotations: Iterable[tuple[str, Annotation]],
) -> Iterator[tuple[str, Annotation]]:
    """Annotations that differ only in their types, joined to one."""
    distinct: dict[tuple, tuple[str, Annotation]] = {}
    for where, annotation in annotations:
        key = (annotation.spans, annotation.text, annotation.cuis)
        if key in distinct:
            _, former = distinct[key]
            annotation = replace(
                former, types=tuple(dict.fromkeys((*former.types, *annotation.types)))
            )
        distinct[key] = where, annotation
    yield from distinct.values()


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
            annotated: list[Any] = [document, *document.passages]
            texts: list[Any] = []
            for passage in document.passages:
                annotated += passage.sentences
                # Sentences repeat the text of a passage that has one.
                if passage.text:
                    texts.append(passage)
                else:
                    texts += passage.sentences
            try:
                text = join_passages((int(part.offset), str(part.text or "")) for part in texts)
            except (TypeError, ValueError):
                faults.add(where, Malformed("passage without offset"))
                continue
            except Malformed as problem:
                faults.add(where, problem)
                continue
            annotations = chain.from_iterable(part.annotations for part in annotated)
            placed = ((where, annotation) for annotation in annotations)
            yield Document(
                where, str(document.id or ""), text, faults.parsed(placed, _bioc_annotation)
            )


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


def _bioc_annotation(content: Any) -> Annotation:
    infons = content.infons if isinstance(content.infons, dict) else {}
    ids_by_infon = {key: parts_of(_identifiers(infons.get(key))) for key in ("identifier", *infons)}
    umls_ids = []
    foreign_ids = []
    for key, parts in ids_by_infon.items():
        umls_ids.append(tuple(part for part in parts if part and CUI.fullmatch(part[0])))
        if key.lower() in ID_INFONS:
            foreign_ids.append(parts)
    # Ids of the UMLS go before those of other vocabularies.
    cuis = next(filter(None, [*umls_ids, *foreign_ids]), ())
    try:
        spans = tuple(
            (int(place.offset), int(place.offset) + int(place.length))
            for place in content.locations
        )
    except (TypeError, ValueError):
        spans = ()
    if not spans:
        raise Malformed("annotation without location")
    texts = [value for value in (infons.get("type"), *infons.values()) if isinstance(value, str)]
    types = list(map(annotated_types, texts))
    # Type ids go before other types.
    without_ids = types[0] if "type" in infons else ()
    annotation_types = next(filter(type_ids, types), without_ids)
    return Annotation(spans, str(content.text or ""), cuis, annotation_types)


def _identifiers(value: Any) -> str:
    """The identifiers in an infon: a text, or in JSON also a list of texts."""
    values = value if isinstance(value, list) else [value]
    return "|".join(text for text in values if isinstance(text, str))


CORPUS_READERS: list[CorpusReader] = [PubTator(), Brat(), BioC(), BigBio()]


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
    raise UserError(
        f"{path} is a folder with {names}, not a corpus; "
        f"give a file, or one of {describe_formats()}"
    )


def reader_of(paths: Sequence[Path]) -> CorpusReader:
    """The reader of the format of all files.

    Raises:
        UserError: a file is missing, empty, broken, in no known format, or in another one than the
            first.
    """
    readers: list[CorpusReader] = []
    for path in paths:
        reader = _recognized(path)
        if reader is None:
            start = start_of(path)[:80].decode("utf-8", errors="replace")
            content = f"begins with {excerpt(start)}" if start else "is empty"
            raise UserError(
                f"{path} is not a corpus in a known format: {describe_formats()}; it {content}"
            )
        readers.append(reader)
        if reader is not readers[0]:
            raise UserError(
                f"{path} is {reader.name}, and {paths[0]} is {readers[0].name}; "
                "give files of one format"
            )
    return readers[0]


def _recognized(path: Path) -> CorpusReader | None:
    """The first reader that recognizes a file, if any does."""
    start = start_of(path)
    return next((reader for reader in CORPUS_READERS if reader.recognizes(start)), None)


def read_documents(path: Path) -> list[str]:
    """The document ids that a list has (`read_pmids`), or those of a file of a corpus.

    Raises:
        UserError: a file is missing, empty or damaged, or no list.
    """
    reader = _recognized(path)
    if reader is None:
        return read_pmids(path)
    return list(dict.fromkeys(document.doc_id for document in reader.documents(path, Faults())))


def read_corpus(
    paths: Sequence[Path], report: dict[str, Any] | None = None, **options: Any
) -> Iterator[Mention]:
    """Stream the mentions of a corpus in any of the formats; options are of `CorpusReader.read`.

    Raises:
        UserError: as for `reader_of`, or while reading as for `CorpusReader.read`.
    """
    if report is None:
        report = {}
    return reader_of(paths).read(paths, report, **options)
