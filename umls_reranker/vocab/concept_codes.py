"""The codes of concepts in chosen vocabularies, looked up by concept and by code."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from ..core.arrow_files import one_chunk, open_arrow
from ..core.errors import UserError
from .code_systems import UMLS, Code, code_of
from .codes import CODE_SEPARATOR, CODES_FILE, CODES_FOLDER, USUAL_SOURCES, read_codes
from .concept_columns import ConceptColumns
from .concept_folder import CONCEPTS_FOLDER, is_index
from .concept_table import ConceptTable
from .concepts import CONCEPT_SCHEMA, NameLists, table_of_lists
from .name_files import read_name_lists
from .release import release_files


class ConceptCodes:
    """The codes of concepts in chosen vocabularies.

    Args:
        sources: the vocabularies (SAB), in the order in which their codes are wanted; without any,
            the code of a concept is its id.
        concepts: concepts whose codes are known.
        lists: (n,) lists of their codes, each ``SOURCE:CODE``; None: the codes of a concept are its
            id and alternates (`code_of`).
    """

    def __init__(
        self,
        sources: Sequence[str] = (),
        concepts: ConceptColumns | None = None,
        lists: pa.Array | None = None,
    ) -> None:
        self.sources = tuple(sources)
        self._concepts = concepts or ConceptColumns(CONCEPT_SCHEMA.empty_table())
        self._lists = lists
        self._remembered: dict[str, tuple[Code, ...]] = {}

    @classmethod
    def load(cls, folder: Path, sources: Sequence[str] | None = None) -> ConceptCodes:
        """Open the codes in an index or run folder; by default all that it has.

        Raises:
            UserError: it lacks those of a vocabulary.
        """
        concepts = ConceptTable.load(folder / CONCEPTS_FOLDER)
        path = folder / CODES_FOLDER / CODES_FILE
        if not path.is_file():
            return cls._of_ids(folder, concepts, sources or ())
        table = open_arrow(path)
        stored_sources = table.schema.metadata[b"sources"].decode().split()
        for source in sources or ():
            if source not in stored_sources:
                raise UserError(
                    f"{folder} has no codes of {source}, only of {', '.join(stored_sources)}; "
                    "make it again with umls-reranker index --codes"
                )
        return cls(sources or stored_sources, concepts, one_chunk(table["codes"]))

    @classmethod
    def _of_ids(cls, folder: Path, concepts: ConceptTable, sources: Sequence[str]) -> ConceptCodes:
        """The codes that ids and alternates of concepts are, of an index without a file of codes.

        Args:
            folder: the index, for messages.
            concepts: its concepts.
            sources: vocabularies, of each of which some id must be a code.
        """
        if sources and code_of(concepts.cuis[0].as_py()).source == UMLS:
            raise UserError(
                f"{folder} has no codes of its concepts; "
                "make it again with umls-reranker index --codes"
            )
        codes = cls(sources, concepts)
        for source in codes.sources:
            sources_of_ids = (
                code.source for cui in concepts.cuis for code in codes.of(cui.as_py())
            )
            if source not in sources_of_ids:
                raise UserError(f"{folder}: no id is a code of {source}; check --codes")
        return codes

    @classmethod
    def read(cls, dictionary: Path, sources: Sequence[str] | None = None) -> ConceptCodes:
        """Read the codes in a dictionary: an index, folder META of a release, or a file of names.

        Raises:
            UserError: as `load`, `read_codes` and `name_files.read_name_lists`.
        """
        if is_index(dictionary):
            return cls.load(dictionary, sources)
        if not dictionary.is_dir():
            concepts = ConceptColumns(table_of_lists(read_name_lists(dictionary)))
            return cls(sources or (), concepts)
        path = release_files(dictionary, required=["MRCONSO"])["MRCONSO"]
        sources = sources or USUAL_SOURCES
        cuis, lists = read_codes(path, sources)
        # Only the ids are looked up; the codes stand in place of names.
        concepts = ConceptColumns(table_of_lists(NameLists(cuis, lists)))
        return cls(sources, concepts, lists)

    def of(self, concept_id: str) -> tuple[Code, ...]:
        """The codes of a concept, best first; its own id if it has none in these vocabularies."""
        if concept_id not in self._remembered:
            own = code_of(concept_id, self.sources)
            all_codes = (own, *self._stored(concept_id))
            codes = [code for code in all_codes if code.source in self.sources]
            codes.sort(key=lambda code: self.sources.index(code.source))
            self._remembered[concept_id] = tuple(dict.fromkeys(codes)) or (own,)
        return self._remembered[concept_id]

    def concepts_with(self, codes: Collection[Code]) -> dict[Code, list[str]]:
        """Code -> the ids of the concepts that have it or are it; without codes that none has."""
        concepts: dict[Code, list[str]] = {}
        if self._lists is None:
            for code in codes:
                ids = [code.code, code.curie, CODE_SEPARATOR.join(code)]
                row = self._concepts.rows(ids).max()
                if row >= 0:
                    concepts[code] = [self._concepts.cuis[row].as_py()]
            return concepts
        code_of_text = {CODE_SEPARATOR.join(code): code for code in codes}
        texts = pc.list_flatten(self._lists)
        is_wanted = pc.is_in(texts, pa.array(code_of_text, pa.string()))
        rows = pc.list_parent_indices(self._lists).filter(is_wanted)
        cuis = self._concepts.cuis.take(rows).to_pylist()
        wanted_texts = texts.filter(is_wanted).to_pylist()
        for cui, text in zip(cuis, wanted_texts, strict=True):
            concepts.setdefault(code_of_text[text], []).append(cui)
        return concepts

    def _stored(self, concept_id: str) -> list[Code]:
        """The codes of a concept other than its id: those of the file, or its alternates."""
        rows = self._concepts.rows([concept_id])
        if rows[0] < 0:
            return []
        if self._lists is None:
            alternates = self._concepts.column("alternates", rows)[0].as_py()
            return [code_of(alternate, self.sources) for alternate in alternates]
        return [Code(*text.split(CODE_SEPARATOR, 1)) for text in self._lists[rows[0]].as_py()]
