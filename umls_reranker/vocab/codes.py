"""The codes of concepts in other vocabularies, as a concept folder keeps them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..core.arrays import arrow_writer, open_arrow
from ..core.errors import UserError
from .code_systems import LOCAL, SYSTEMS, UMLS, Code, code_of
from .concepts import ConceptColumns, ConceptTable, distinct_lists
from .ontology import read_obo_codes
from .rrf import CODE_PREFERENCES, passing, preference_ranks, read_table

CODES_FILE = "codes.arrow"
# A list for each concept, of vocabulary and code with this between them.
SEPARATOR = ":"
CODES = pa.schema({"codes": pa.list_(pa.string())})
# Atoms that have no code in their vocabulary have this one.
NO_CODE = "NOCODE"
# The vocabularies whose codes are kept where none are named.
USUAL_SOURCES = tuple(source for source in SYSTEMS if source not in (UMLS, LOCAL))


def read_codes(path: Path, cuis: pa.Array, sources: Sequence[str]) -> pa.ListArray:
    """The codes of n concepts in MRCONSO, those of preferred atoms first, each once.

    Codes of suppressed atoms are left out; names in all languages count. Memory holds the atoms of
    `sources`.

    Args:
        path: the file.
        cuis: the concepts.
        sources: vocabularies (SAB) whose codes are read.

    Raises:
        UserError: as `rrf.read_table`.
    """
    schema = pa.schema({"CUI": pa.string(), "code": pa.string(), "rank": pa.int16()})
    used = ["CUI", "SAB", "CODE", "SUPPRESS", *CODE_PREFERENCES]
    blocks = []
    for block in read_table("MRCONSO", path, used):
        block = passing(passing(block, "SAB", sources), "SUPPRESS", ["N"])
        block = block.filter(pc.not_equal(block["CODE"], NO_CODE))
        codes = pc.binary_join_element_wise(block["SAB"], block["CODE"], SEPARATOR)
        columns = [block["CUI"], codes, preference_ranks(block, CODE_PREFERENCES)]
        blocks.append(pa.record_batch(columns, schema=schema))
    atoms = pa.Table.from_batches(blocks, schema)
    rows = pc.index_in(atoms["CUI"], cuis)
    atoms = atoms.filter(pc.is_valid(rows))
    rows = rows.drop_null().to_numpy().astype(np.int64)
    return distinct_lists(rows, atoms["code"], len(cuis), atoms["rank"].to_numpy())


def codes_of_ids(
    ids: pa.Array, alternates: pa.ListArray, sources: Sequence[str] = ()
) -> pa.ListArray:
    """The codes that the ids and alternates of n concepts are (`code_of`)."""
    lists = []
    for concept_id, others in zip(ids.to_pylist(), alternates.to_pylist(), strict=True):
        codes = [code_of(each, sources) for each in (concept_id, *others)]
        lists.append([SEPARATOR.join(code) for code in codes if code.source != LOCAL])
    return pa.array(lists, CODES.field("codes").type)


def make_codes(
    folder: Path,
    files: Mapping[str, Sequence[Path]],
    sources: Sequence[str] = (),
    identifiers: str | None = None,
) -> Counter[str]:
    """Write the codes of the concepts of a concept folder.

    Args:
        folder: the concept folder.
        files: the files that it was read from, by name, such as ``MRCONSO``, ``obo`` or ``names``.
        sources: vocabularies (SAB) whose codes are kept, or that ids without a prefix may be of; of
            a release by default `USUAL_SOURCES`.
        identifiers: the source whose codes are the ids of the concepts; None: they are CUIs.

    Returns:
        The number of codes of each vocabulary.
    """
    concepts = ConceptTable.load(folder)
    if "MRCONSO" in files and identifiers is None:
        lists = read_codes(files["MRCONSO"][0], concepts.cuis, sources or USUAL_SOURCES)
    elif "obo" in files:
        known = read_obo_codes(files["obo"])
        texts = [list(map(SEPARATOR.join, known.get(cui, ()))) for cui in concepts.cuis.to_pylist()]
        lists = pa.array(texts, CODES.field("codes").type)
    else:
        alternates = concepts.column("alternates", np.arange(len(concepts)))
        lists = codes_of_ids(concepts.cuis, alternates, [identifiers] if identifiers else sources)
    with arrow_writer(folder / CODES_FILE, CODES) as writer:
        writer.write_table(pa.table([lists], schema=CODES))
    vocabularies = pc.list_element(
        pc.split_pattern(pc.list_flatten(lists), SEPARATOR, max_splits=1), 0
    )
    counted = pc.value_counts(vocabularies).to_pylist()
    return Counter({item["values"]: item["counts"] for item in counted})


class ConceptCodes:
    """The codes of concepts in chosen vocabularies.

    Args:
        sources: the vocabularies (SAB), in the order in which their codes are wanted; without any,
            the code of a concept is its id.
        concepts: concepts whose codes are known.
        lists: their codes, as `read_codes` returns them.
    """

    def __init__(
        self,
        sources: Sequence[str] = (),
        concepts: ConceptColumns | None = None,
        lists: pa.Array | None = None,
    ) -> None:
        self.sources = tuple(sources)
        self._concepts = concepts
        self._lists = lists
        self._known: dict[str, tuple[Code, ...]] = {}

    @classmethod
    def load(cls, folder: Path, sources: Sequence[str]) -> ConceptCodes:
        """Open the codes of a concept folder.

        Raises:
            UserError: it has none.
        """
        if not (folder / CODES_FILE).is_file():
            raise UserError(
                f"{folder.parent} has no codes of its concepts; "
                "make it again with umls-reranker index --codes"
            )
        lists = open_arrow(folder / CODES_FILE)["codes"].combine_chunks()
        return cls(sources, ConceptTable.load(folder), lists)

    def of(self, concept_id: str) -> tuple[Code, ...]:
        """The codes of a concept, best first; its own id if it has none in these vocabularies."""
        if concept_id not in self._known:
            own = code_of(concept_id, self.sources)
            codes = [
                code for code in (own, *self._stored(concept_id)) if code.source in self.sources
            ]
            codes.sort(key=lambda code: self.sources.index(code.source))
            self._known[concept_id] = tuple(dict.fromkeys(codes)) or (own,)
        return self._known[concept_id]

    def _stored(self, concept_id: str) -> list[Code]:
        if self._concepts is None or self._lists is None:
            return []
        (row,) = self._concepts.rows([concept_id]).tolist()
        texts = self._lists[row].as_py() if row >= 0 else []
        return [Code(*text.split(SEPARATOR, 1)) for text in texts]
