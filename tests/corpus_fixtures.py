"""A corpus in PubTator format, written again as BioC and as BigBIO."""

import json
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from datasets import Dataset


def blocks(pubtator: Path) -> list[tuple[str, str, str, list[list[str]]]]:
    """Id, title, abstract and the fields of the annotations of each document."""
    found = []
    for block in pubtator.read_text(encoding="utf-8").strip().split("\n\n"):
        title, abstract, *rows = block.split("\n")
        doc_id, _, title = title.split("|", 2)
        found.append((doc_id, title, abstract.split("|", 2)[2], [row.split("\t") for row in rows]))
    return found


def as_bioc(pubtator: Path) -> list[dict[str, Any]]:
    """Documents as BioC has them in JSON."""
    documents = []
    for doc_id, title, abstract, rows in blocks(pubtator):
        second = len(title) + 1
        passages: list[dict[str, Any]] = [
            {"offset": 0, "text": title},
            {"offset": second, "text": abstract},
        ]
        for passage in passages:
            passage["annotations"] = []
        for number, (_, start, end, text, types, identifier) in enumerate(rows):
            location = {"offset": int(start), "length": int(end) - int(start)}
            annotation = {
                "id": str(number),
                "infons": {"type": types, "identifier": identifier},
                "text": text,
            }
            passages[int(start) >= second]["annotations"].append(
                annotation | {"locations": [location]}
            )
        documents.append(bioc_document(doc_id, *passages))
    return documents


def bioc_document(doc_id: str, *passages: dict[str, Any]) -> dict[str, Any]:
    """A document with all keys that BioC demands in JSON."""
    rest = {"infons": {}, "sentences": [], "annotations": [], "relations": []}
    content = {"infons": {}, "annotations": [], "relations": []}
    return {"id": doc_id, "passages": [rest | passage for passage in passages]} | content


def write_bioc_json(path: Path, documents: list[dict[str, Any]]) -> Path:
    collection = {"source": "PubTator", "date": "", "key": "", "infons": {}, "documents": documents}
    path.write_text(json.dumps(collection, ensure_ascii=False), encoding="utf-8")
    return path


def write_bioc_xml(path: Path, documents: list[dict[str, Any]]) -> Path:
    path.write_text(bioc_xml(documents), encoding="utf-8")
    return path


def bioc_xml(
    documents: list[dict[str, Any]], doctype: str = '<!DOCTYPE collection SYSTEM "BioC.dtd">'
) -> str:
    """A collection in XML, with the line that published files begin with."""
    content = "".join(
        f"<document><id>{one['id']}</id>{''.join(map(_passage, one['passages']))}</document>\n"
        for one in documents
    )
    return (
        "<?xml version='1.0' "
        f"encoding='UTF-8'?>{doctype}<collection><source>PubTator</source><date/><key/>"
        f"{content}</collection>"
    )


def _passage(passage: dict[str, Any]) -> str:
    content = f"<offset>{passage['offset']}</offset><text>{escape(passage['text'])}</text>"
    return f"<passage>{content}{''.join(map(_annotation, passage['annotations']))}</passage>"


def _annotation(annotation: dict[str, Any]) -> str:
    parts = [
        f"<infon key={quoteattr(key)}>{escape(value)}</infon>"
        for key, value in annotation["infons"].items()
    ]
    parts += [
        f'<location offset="{one["offset"]}" length="{one["length"]}"/>'
        for one in annotation["locations"]
    ]
    return (
        f"<annotation id='1'>{''.join(parts)}<text>{escape(annotation['text'])}</text></annotation>"
    )


def as_bigbio(pubtator: Path) -> list[dict[str, Any]]:
    """Rows of BigBIO's schema; an entity with several types is given once for each, as in its
    MedMentions.
    """
    rows = []
    for number, (doc_id, title, abstract, annotated) in enumerate(blocks(pubtator)):
        second = len(title) + 1
        passages = [
            {"id": "p1", "type": "title", "text": [title], "offsets": [[0, len(title)]]},
            {
                "id": "p2",
                "type": "abstract",
                "text": [abstract],
                "offsets": [[second, second + len(abstract)]],
            },
        ]
        entities = [
            {
                "id": f"e{place}",
                "type": kind,
                "text": [text],
                "offsets": [[int(start), int(end)]],
                "normalized": [{"db_name": "UMLS", "db_id": identifier}],
            }
            for place, (_, start, end, text, types, identifier) in enumerate(annotated)
            for kind in types.split(",")
        ]
        rows.append(
            {"id": str(number), "document_id": doc_id, "passages": passages, "entities": entities}
        )
    return rows


def write_bigbio(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A Parquet file."""
    Dataset.from_list(rows).to_parquet(path)
    return path
