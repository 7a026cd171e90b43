"""Concepts of an index as entities of the Reconciliation Service API."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from html import escape
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from ...vocab.code_systems import code_of, code_system_of
from ...vocab.concept_codes import ConceptCodes

if TYPE_CHECKING:
    from ...vocab.concept_table import ConceptTable

# Of names that people read.
MOST_NAMES = 30
LONGEST_DESCRIPTION = 200
CODE = "code:"
PREVIEW_PAGE = (
    '<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
    "<style>body{{font:13px sans-serif;margin:8px}}h1{{font-size:16px;margin:0}}"
    "p{{margin:6px 0}}small{{font-weight:normal}}</style>{lines}</html>"
)


class Entities:
    """What is said about concepts.

    Args:
        concepts: the concepts of the index.
        codes: their codes in other vocabularies.
    """

    def __init__(self, concepts: ConceptTable, codes: ConceptCodes) -> None:
        self._concepts = concepts
        self._codes = codes

    @property
    def namespace(self) -> str:
        """What the ids are of: the namespace of the first."""
        first_id = self._concepts.cuis[0].as_py()
        return code_system_of(code_of(first_id).source).namespace

    @cached_property
    def types(self) -> list[dict[str, str]]:
        """The semantic types of the index, the most frequent first."""
        every_row = np.arange(len(self._concepts))
        types = pc.list_flatten(self._concepts.column("semantic_types", every_row))
        counts = pc.value_counts(types).to_pylist()
        counts.sort(key=lambda count: (-count["counts"], count["values"]))
        return [self.type_of(count["values"]) for count in counts]

    @cached_property
    def columns(self) -> dict[str, str]:
        """Id -> name of each column that can be added to reconciled cells."""
        codes = {f"{CODE}{source}": f"code in {source}" for source in self._codes.sources}
        return {
            "preferred_name": "preferred name",
            "semantic_types": "semantic types",
            "definition": "definition",
        } | codes

    def type_of(self, type_id: str) -> dict[str, str]:
        """A semantic type; OpenRefine shows the names of types as HTML."""
        name = self._concepts.hierarchy.name(type_id)
        return {"id": type_id, "name": escape(name, False)}

    def entity(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """A candidate of the index as an entity of the protocol."""
        concept = {
            "id": item["cui"],
            "name": item["preferred_name"],
            "type": list(map(self.type_of, item["semantic_types"])),
        }
        # The name that was found may be another, and tells why.
        parts = []
        if item["name"] != item["preferred_name"]:
            parts.append(item["name"])
        if item["definition"]:
            parts.append(item["definition"])
        if parts:
            concept["description"] = shorten("; ".join(parts), LONGEST_DESCRIPTION)
        return concept

    def texts(self, cui: str, column: str) -> list[str]:
        """What a column of `columns` says about a concept."""
        rows = self._concepts.rows([cui])
        row = int(rows[0])
        if row < 0:
            return []
        if column == "preferred_name":
            return self._concepts.names(row)[:1]
        if column == "semantic_types":
            return list(map(self._concepts.hierarchy.name, self._concepts.semantic_types(row)))
        if column == "definition":
            definition = self._concepts.column("definition", rows)[0].as_py()
            return [definition] if definition else []
        source = column.removeprefix(CODE)
        own_id = self._concepts.cuis[row].as_py()
        return [code.code for code in self._codes.of(own_id) if code.source == source]

    def page(self, cui: str) -> str | None:
        """The preview of a concept; None if the index has none with this id."""
        row = self._concepts.rows([cui])[0]
        if row < 0:
            return None
        own_id = self._concepts.cuis[row].as_py()
        name, *synonyms = self._concepts.names(row)
        also = synonyms[:MOST_NAMES]
        if len(also) < len(synonyms):
            also.append(f"and {len(synonyms) - len(also):,} more")
        facts = {
            "types": self.texts(cui, "semantic_types"),
            "also": also,
            "codes": [f"{code.source} {code.code}" for code in self._codes.of(own_id)],
        }
        lines = [f"<h1>{escape(name)} <small>{escape(own_id)}</small></h1>"]
        lines += [f"<p>{escape(text)}</p>" for text in self.texts(cui, "definition")]
        for title, texts in facts.items():
            if texts:
                lines.append(f"<p><b>{title}</b> {escape('; '.join(texts))}</p>")
        return PREVIEW_PAGE.format(title=escape(name), lines="".join(lines))
