"""Corpora in BigBIO's schema for knowledge bases, ``bigbio_kb``: Parquet files, as the Hub holds them.

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
from ..core.lines import Malformed, excerpt
from .corpus import Annotation, CorpusReader, Document, Faults, as_cui, join_passages, type_ids

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
                annotations = list(_joined(faults.parsed(entities, _annotation)))
                yield Document(where, str(row["document_id"] or ""), text, annotations)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise UserError(f"{path} is not Parquet in the schema bigbio_kb ({error!r}); choose another") from None


def _annotation(entity: Mapping[str, Any]) -> Annotation:
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
