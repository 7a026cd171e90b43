"""The files of an OMOP vocabulary: the standard concepts that codes map to, and their codes.

Tables of the OMOP CDM 5.4 as Athena gives them: separated by tabs, without quoting. A table
separated by commas is read with quoting.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from ...core.errors import UserError
from ...core.progress import progress
from ...core.text_files import open_binary, start_of
from ...vocab.codes import SYSTEMS, Code, system_of
from ...vocab.rrf import passing

SOURCE_OF_VOCABULARY = {system.omop: source for source, system in SYSTEMS.items() if system.omop}


class OmopConcept(NamedTuple):
    """A concept, whose ``standard_concept`` is "S" if others are mapped to it."""

    concept_id: int
    concept_name: str
    domain_id: str
    vocabulary_id: str
    concept_code: str
    standard_concept: str = "S"

    @property
    def code(self) -> Code:
        """Its code, with the UMLS's name of its vocabulary."""
        return Code(
            SOURCE_OF_VOCABULARY.get(self.vocabulary_id, self.vocabulary_id), self.concept_code
        )


class OmopVocabulary:
    """CONCEPT.csv and CONCEPT_RELATIONSHIP.csv, which are read as streams at each question.

    Args:
        concepts: the first file.
        relationships: the second file.
    """

    def __init__(self, concepts: Path, relationships: Path) -> None:
        self._concepts = concepts
        self._relationships = relationships

    def targets(self, codes: Iterable[Code]) -> dict[Code, list[OmopConcept]]:
        """Code -> the standard concepts that it maps to ('Maps to'); it lacks codes without any.

        Raises:
            UserError: a file is missing or cannot be read, or lacks a column.
        """
        wanted = {f"{system_of(code.source).omop}\t{code.code}": code for code in codes}

        def keys(block: pa.RecordBatch) -> pa.Array:
            return pc.binary_join_element_wise(block["vocabulary_id"], block["concept_code"], "\t")

        concepts = self._concepts_with(keys, wanted)
        pairs = self._pairs("concept_id_1", concepts)
        standard = self._concepts_of({target for _, target in pairs})
        targets: dict[Code, list[OmopConcept]] = {}
        for source, target in pairs:
            if target in standard and standard[target].standard_concept == "S":
                targets.setdefault(concepts[source].code, []).append(standard[target])
        return targets

    def sources(self, targets: Iterable[str]) -> dict[str, list[Code]]:
        """Target -> its own code, and then the codes that map to it; errors are those of `targets`.

        It lacks what is no concept.
        """
        ids = {*targets}
        pairs = self._pairs("concept_id_2", ids)
        concepts = self._concepts_of(ids.union(source for source, _ in pairs))
        codes = {target: [concepts[target].code] for target in ids if target in concepts}
        for source, target in pairs:
            if source in concepts and target in codes:
                codes[target].append(concepts[source].code)
        return codes

    def _pairs(self, column: str, ids: Collection[str]) -> list[tuple[str, str]]:
        """Ids of concepts and of those that they map to, with one of `ids` in a column."""
        pairs: list[tuple[str, str]] = []
        columns = ["concept_id_1", "concept_id_2", "relationship_id", "invalid_reason"]
        for block in _read(self._relationships, columns):
            block = passing(passing(block, "relationship_id", ["Maps to"]), "invalid_reason", [""])
            block = block.filter(pc.is_in(block[column], pa.array([*ids], pa.string())))
            pairs += zip(
                block["concept_id_1"].to_pylist(), block["concept_id_2"].to_pylist(), strict=True
            )
        return pairs

    def _concepts_of(self, ids: Collection[str]) -> dict[str, OmopConcept]:
        return self._concepts_with(lambda block: block["concept_id"], ids)

    def _concepts_with(
        self, keys_of: Callable[[pa.RecordBatch], pa.Array], keys: Iterable[str]
    ) -> dict[str, OmopConcept]:
        """Id -> concept, of those with one of the keys."""
        wanted = pa.array([*keys], pa.string())
        concepts: dict[str, OmopConcept] = {}
        for block in _read(self._concepts, OmopConcept._fields):
            for row in block.filter(pc.is_in(keys_of(block), wanted)).to_pylist():
                concept = OmopConcept(**row | {"concept_id": int(row["concept_id"])})
                concepts[row["concept_id"]] = concept
        return concepts


def _read(path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield record batches of the columns (string), "" where a cell is empty."""
    parsing = csv.ParseOptions(delimiter=",")
    if b"\t" in start_of(path).split(b"\n", 1)[0]:
        parsing = csv.ParseOptions(delimiter="\t", quote_char=False)
    convert = csv.ConvertOptions(
        include_columns=columns, column_types=dict.fromkeys(columns, pa.string())
    )
    with open_binary(path) as stream, progress(desc=f"reading {path.name}", unit=" lines") as bar:
        try:
            for block in csv.open_csv(stream, parse_options=parsing, convert_options=convert):
                yield block
                bar.update(len(block))
        except (pa.ArrowInvalid, KeyError) as error:
            raise UserError(
                f"{path} is no table with the columns {', '.join(columns)} ({error}); "
                "give CONCEPT.csv and CONCEPT_RELATIONSHIP.csv of an OMOP vocabulary"
            ) from None
