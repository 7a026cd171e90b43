"""The files of an OMOP vocabulary: its concepts, and which are mapped to which.

They are tables of the CDM 5.4 as Athena gives them: separated by tabs, without quoting. A table
separated by commas is read with quoting.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from ..core.errors import UserError
from ..core.parallel import progress
from ..core.text_files import open_binary, start_of
from ..vocab.code_systems import Code, code_system_of
from ..vocab.rrf_lines import passing_lines
from .source_codes import SOURCE_OF_VOCABULARY

# An integer of 64 bits; those of local concepts have ten digits.
CONCEPT_ID = re.compile("[0-9]{1,18}")


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


@dataclass(frozen=True)
class OmopVocabulary:
    """CONCEPT.csv and CONCEPT_RELATIONSHIP.csv, which are read as streams at each question.

    Attributes:
        concepts: the first file.
        relationships: the second file.
    """

    concepts: Path
    relationships: Path

    def targets(self, codes: Iterable[Code]) -> dict[Code, list[OmopConcept]]:
        """Code -> the standard concepts that it maps to ('Maps to'); it lacks codes without any.

        Raises:
            UserError: a file is missing or cannot be read, or lacks a column.
        """
        wanted = {f"{code_system_of(code.source).omop}\t{code.code}": code for code in codes}
        concepts = self.concepts_of(
            wanted,
            lambda block: pc.binary_join_element_wise(
                block["vocabulary_id"], block["concept_code"], "\t"
            ),
        )
        pairs = self._pairs("concept_id_1", concepts)
        standard = self.concepts_of({target for _, target in pairs})
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
        concepts = self.concepts_of(ids.union(source for source, _ in pairs))
        codes = {target: [concepts[target].code] for target in ids if target in concepts}
        for source, target in pairs:
            if source in concepts and target in codes:
                codes[target].append(concepts[source].code)
        return codes

    def _pairs(self, column: str, ids: Collection[str]) -> list[tuple[str, str]]:
        """Ids of concepts and of those that they map to, with one of `ids` in a column."""
        pairs: list[tuple[str, str]] = []
        columns = ["concept_id_1", "concept_id_2", "relationship_id", "invalid_reason"]
        for block in _record_batches(self.relationships, columns):
            block = passing_lines(
                passing_lines(block, "relationship_id", ["Maps to"]), "invalid_reason", [""]
            )
            block = block.filter(pc.is_in(block[column], pa.array([*ids], pa.string())))
            pairs += zip(
                block["concept_id_1"].to_pylist(), block["concept_id_2"].to_pylist(), strict=True
            )
        return pairs

    def concepts_of(
        self,
        keys: Iterable[str],
        keys_of: Callable[[pa.RecordBatch], pa.Array] = itemgetter("concept_id"),
    ) -> dict[str, OmopConcept]:
        """Id -> concept, of those with one of the keys (ids); errors are those of `targets`."""
        wanted = pa.array([*keys], pa.string())
        concepts = {}
        for block in _record_batches(self.concepts, OmopConcept._fields):
            is_wanted = pc.is_in(keys_of(block), wanted)
            for row in block.filter(is_wanted).to_pylist():
                number = row["concept_id"]
                if not CONCEPT_ID.fullmatch(number):
                    raise UserError(
                        f"{self.concepts}: the concept_id {number!r} of {row['concept_name']!r} is "
                        "no integer of OMOP; give CONCEPT.csv as Athena gives it"
                    )
                concepts[number] = OmopConcept(**row | {"concept_id": int(number)})
        return concepts


def _record_batches(path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield record batches of the columns (string), "" where a cell is empty."""
    parsing = arrow_csv.ParseOptions()
    header = start_of(path).split(b"\n", 1)[0]
    if b"\t" in header:
        parsing = arrow_csv.ParseOptions(delimiter="\t", quote_char=False)
    convert = arrow_csv.ConvertOptions(
        include_columns=columns, column_types=dict.fromkeys(columns, pa.string())
    )
    with open_binary(path) as stream, progress(desc=f"reading {path.name}", unit=" lines") as bar:
        try:
            for block in arrow_csv.open_csv(stream, parse_options=parsing, convert_options=convert):
                yield block
                bar.update(len(block))
        except (pa.ArrowInvalid, KeyError) as error:
            raise UserError(
                f"{path} is no table with the columns {', '.join(columns)} ({error}); "
                "give CONCEPT.csv and CONCEPT_RELATIONSHIP.csv of an OMOP vocabulary"
            ) from None
