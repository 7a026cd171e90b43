"""Corpora in BigBIO's schema for knowledge bases, ``bigbio_kb``: Parquet files, or a dataset saved by `datasets`.

Format (Fries et al. 2022; github.com/bigscience-workshop/biomedical, task_schemas.md): a row is a document with
``document_id``, ``passages`` (``text`` and ``offsets``) and ``entities`` (``type``, ``text``, ``offsets``,
``normalized`` with ``db_name`` and ``db_id``). ``text`` and ``offsets`` are lists, with several items for what is
discontinuous. The concept of an entity is its first UMLS id. An entity that is repeated for each type, as in
MedMentions, is one mention with all of its types.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.lines import Faults, Malformed, each_parsed, excerpt, start_of
from .corpus import Annotation, CorpusReader, Document, as_cui, join_passages, type_ids
from .json_stream import as_list, as_object, as_offset, as_text

COLUMNS = ("document_id", "passages", "entities")
ROWS_PER_BATCH = 64
PARQUET = b"PAR1"
# An Arrow file, and an Arrow stream, as `datasets` writes it.
ARROW = (b"ARROW1", b"\xff\xff\xff\xff")


class BigBio(CorpusReader):
    """Rows of Parquet or Arrow; entities without a UMLS id are counted."""

    name = "BigBIO"
    layout = f"Parquet, or a dataset saved to disk, with the columns {', '.join(COLUMNS)} of the schema bigbio_kb"

    def recognizes(self, start: bytes) -> bool:
        return start.startswith((PARQUET, *ARROW))

    def files(self, folder: Path) -> tuple[Path, ...]:
        """Parquet files at any depth, or those of a saved `Dataset` or `DatasetDict`, in the order of their names."""
        return tuple(sorted(folder.rglob("*.parquet")) or sorted(folder.rglob("data-*.arrow")))

    def documents(self, path: Path, faults: Faults) -> Iterator[Document]:
        for number, row in enumerate(_rows(path), start=1):
            where = f"row {number}"
            try:
                yield _document(where, row, faults)
            except Malformed as problem:
                faults.add(where, problem)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    start = start_of(path)
    file: Any
    try:
        with pa.memory_map(str(path)) as source:
            if start.startswith(PARQUET):
                file = pq.ParquetFile(source)
                columns = file.schema_arrow.names
                batches = file.iter_batches(ROWS_PER_BATCH, columns=list(COLUMNS))
            else:
                file = (pa.ipc.open_file if start.startswith(ARROW[0]) else pa.ipc.open_stream)(source).read_all()
                columns = file.column_names
                batches = file.to_batches(ROWS_PER_BATCH)
            if missing := [name for name in COLUMNS if name not in columns]:
                lacking, present = ", ".join(missing), ", ".join(columns)
                raise UserError(f"{path} lacks the columns {lacking} of the schema bigbio_kb; it has {present}")
            for batch in batches:
                yield from batch.select(COLUMNS).to_pylist()
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); download it again") from None


def _document(where: str, row: Mapping[str, Any], faults: Faults) -> Document:
    identifier = row["document_id"]
    doc_id = "" if identifier is None else str(identifier)
    where = f"{where}, document {excerpt(doc_id)}"
    passages = [
        (span[0], text)
        for passage in as_list(row, "passages")
        for span, text in zip(*_pieces(as_object(passage, "passage")), strict=True)
    ]
    entities = [(f"{where}, entity {number}", entity) for number, entity in enumerate(as_list(row, "entities"), 1)]
    annotations = _joined(each_parsed(entities, _annotation, faults))
    return Document(where, doc_id, join_passages(passages), annotations)


def _annotation(content: Any) -> Annotation:
    entity = as_object(content, "entity")
    ids = [as_object(item, "normalized") for item in as_list(entity, "normalized")]
    cuis = dict.fromkeys(as_cui(str(item.get("db_id"))) for item in ids if _is_umls(item))
    cuis.pop("", None)
    spans, texts = _pieces(entity)
    types = type_ids(as_text(entity.get("type") or "", "type"))
    identifier = " ".join(f"{item.get('db_name')}:{item.get('db_id')}" for item in ids) or "no identifier"
    return Annotation(tuple(spans), " ".join(texts), tuple(cuis), types, identifier)


def _is_umls(item: Mapping[str, Any]) -> bool:
    """Whether an id is a UMLS id; other vocabularies have ids of the same form."""
    return "umls" in (item.get("db_name") or "umls").lower() or str(item.get("db_id")).startswith("UMLS:")


def _pieces(owner: Mapping[str, Any]) -> tuple[list[tuple[int, int]], list[str]]:
    """Spans and texts of a passage or an entity."""
    texts = [as_text(text, "text") for text in as_list(owner, "text")]
    spans = []
    for span in as_list(owner, "offsets"):
        if not isinstance(span, list) or len(span) != 2:
            raise Malformed("offsets are not pairs of integers", f": {excerpt(repr(span))}")
        spans.append((as_offset(span[0]), as_offset(span[1])))
    if not spans or len(spans) != len(texts):
        raise Malformed("numbers of texts and offsets differ", f": {len(texts)} and {len(spans)}")
    return spans, texts


def _joined(annotations: Iterable[tuple[int | str, Annotation]]) -> Iterator[tuple[int | str, Annotation]]:
    """Annotations that differ only in their types, joined to one."""
    joined: dict[tuple, tuple[int | str, Annotation]] = {}
    for where, annotation in annotations:
        key = (annotation.spans, annotation.text, annotation.identifier)
        if key in joined:
            where, former = joined[key]
            types = dict.fromkeys((*former.semantic_types, *annotation.semantic_types))
            annotation = replace(former, semantic_types=tuple(types))
        joined[key] = where, annotation
    yield from joined.values()
