"""BigBIO: rows of Parquet in the schema bigbio_kb."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from ..core.errors import Malformed, UserError
from ..core.text_files import excerpt
from .annotated_text import Annotation, Document
from .annotation_fields import annotated_concepts, annotated_types, join_passages
from .corpus import CorpusReader
from .faults import Faults

# A row is a document.
ROWS_AT_ONCE = 64
BIGBIO_COLUMNS = ("document_id", "passages", "entities")


class BigBio(CorpusReader):
    """Rows of Parquet."""

    name = "BigBIO"
    layout = f"Parquet with the columns {', '.join(BIGBIO_COLUMNS)} of the schema bigbio_kb"

    def recognizes(self, start: bytes) -> bool:
        return start.startswith(b"PAR1")

    def files(self, folder: Path) -> tuple[Path, ...]:
        """Parquet files at any depth, in the order of their names."""
        return tuple(sorted(folder.rglob("*.parquet")))

    def documents(self, path: Path, faults: Faults) -> Iterator[Document]:
        import pyarrow.parquet as pq

        try:
            batches = pq.ParquetFile(path).iter_batches(ROWS_AT_ONCE, columns=list(BIGBIO_COLUMNS))
            for row in chain.from_iterable(batch.to_pylist() for batch in batches):
                where = f"{path}: document {excerpt(str(row['document_id']))}"
                try:
                    text = _text_of(row["passages"] or ())
                except Malformed as problem:
                    faults.add(where, problem)
                    continue
                entities = ((where, entity) for entity in row["entities"] or ())
                parsed = faults.parsed(entities, _bigbio_annotation)
                annotations = list(_with_all_types(parsed))
                yield Document(where, str(row["document_id"] or ""), text, annotations)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path} is not Parquet in the schema bigbio_kb ({error!r}); choose another"
            ) from None


def _text_of(passages: Iterable[Mapping[str, Any]]) -> str:
    """The text of a document from its passages, each in one or several pieces.

    Raises:
        Malformed: texts and offsets of a passage do not fit, or passages overlap or are far apart.
    """
    pieces = [piece for passage in passages for piece in _spans_with_text(passage)]
    return join_passages((start, text) for (start, _), text in pieces)


def _bigbio_annotation(entity: Mapping[str, Any]) -> Annotation:
    """The annotation of an entity; ids of the UMLS go before those of other vocabularies.

    Raises:
        Malformed: its texts and offsets do not fit.
    """
    ids = [(item["db_name"] or "UMLS", str(item["db_id"])) for item in entity["normalized"] or ()]
    umls_ids = [id for name, id in ids if "umls" in name.lower() or id.startswith("UMLS:")]
    spans, texts = zip(*_spans_with_text(entity), strict=True)
    all_ids = [id for _, id in ids]
    return Annotation(
        spans=spans,
        text=" ".join(texts),
        cuis=annotated_concepts("|".join(umls_ids or all_ids)),
        types=annotated_types(entity["type"] or ""),
    )


def _spans_with_text(owner: Mapping[str, Any]) -> list[tuple[tuple[int, int], str]]:
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
            all_types = dict.fromkeys((*former.types, *annotation.types))
            annotation = replace(former, types=tuple(all_types))
        distinct[key] = where, annotation
    yield from distinct.values()
