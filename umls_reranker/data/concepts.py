"""The dictionary: `ConceptTable`, a memory-mapped Arrow table of concepts sorted by CUI, and its types."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Features, List, Value

from ..errors import UserError
from .arrow import DATA_FILE, DatasetWriter, open_table
from .semantic_types import TypeHierarchy

__all__ = ["CONCEPT_FEATURES", "Concept", "ConceptTable", "normalize_name", "write_concepts"]

HIERARCHY_FILE = "semantic_types.json"
BATCH_ROWS = 10_000
NOT_ALPHANUMERIC = re.compile(r"[\W_]+")

CONCEPT_FEATURES = Features(
    {
        "cui": Value("string"),
        "name": Value("string"),
        "synonyms": List(Value("string")),
        "semantic_types": List(Value("string")),
        "definition": Value("string"),
    }
)


@dataclass(frozen=True, slots=True)
class Concept:
    """A concept of a vocabulary.

    Attributes:
        cui: UMLS concept id.
        name: the preferred name.
        synonyms: other names, each once, without the preferred one.
        semantic_types: type ids; empty where the vocabulary gives none.
        definition: one definition, or "".
    """

    cui: str
    name: str
    synonyms: tuple[str, ...] = ()
    semantic_types: tuple[str, ...] = ()
    definition: str = ""


def normalize_name(text: str) -> str:
    """The form in which two names count as the same: NFKC, case folded, other than letters and digits one space.

    A text without any letter or digit keeps its signs, so that the form is empty only for blank text.

    >>> normalize_name("Diabetes-Mellitus,  type II")
    'diabetes mellitus type ii'
    """
    if text.isascii():
        folded = text.lower()
    else:
        folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return NOT_ALPHANUMERIC.sub(" ", folded).strip() or " ".join(folded.split())


def write_concepts(concepts: Iterable[Concept], hierarchy: TypeHierarchy, path: Path, fingerprint: str) -> int:
    """Write a concept folder: Arrow rows sorted by CUI, and the types' hierarchy beside them.

    Concepts may come in any order; those that come sorted are not held in memory.

    Returns:
        the number of concepts.

    Raises:
        UserError: a CUI comes twice, or there is no concept.
    """
    path.mkdir(parents=True, exist_ok=True)
    is_sorted, former = True, ""
    with DatasetWriter(CONCEPT_FEATURES, path, fingerprint) as writer:
        iterator = iter(concepts)
        while batch := list(islice(iterator, BATCH_ROWS)):
            for concept in batch:
                is_sorted &= former < concept.cui
                former = concept.cui
            writer.write(_columns(batch))
    if not writer.rows:
        raise UserError("there is no concept to write; check the filters of the concept source")
    if not is_sorted:
        _sort(path, fingerprint)
    hierarchy.save(path / HIERARCHY_FILE)
    return writer.rows


def _columns(concepts: Sequence[Concept]) -> dict[str, list]:
    return {
        "cui": [concept.cui for concept in concepts],
        "name": [concept.name for concept in concepts],
        "synonyms": [list(concept.synonyms) for concept in concepts],
        "semantic_types": [list(concept.semantic_types) for concept in concepts],
        "definition": [concept.definition for concept in concepts],
    }


def _sort(path: Path, fingerprint: str) -> None:
    """Write the rows again, by CUI, from the memory-mapped first version."""
    unsorted = path / f".{DATA_FILE}.unsorted"
    (path / DATA_FILE).rename(unsorted)
    try:
        table = open_table(path, unsorted.name)
        order = pc.sort_indices(table["cui"])
        cuis = table["cui"].take(order)
        twice = pc.index(pc.equal(cuis.slice(1), cuis.slice(0, len(cuis) - 1)), True).as_py()
        if twice >= 0:
            raise UserError(f"concept {cuis[twice]} comes twice; merge its names into one concept")
        with DatasetWriter(CONCEPT_FEATURES, path, fingerprint) as writer:
            for start in range(0, len(order), BATCH_ROWS):
                batch = table.take(order.slice(start, BATCH_ROWS))
                writer.write({name: batch[name] for name in batch.column_names})
    finally:
        unsorted.unlink()


class ConceptTable:
    """Concepts by row number (sorted by CUI), memory-mapped: opening reads no names.

    Attributes:
        hierarchy: the semantic types' `TypeHierarchy`.
    """

    def __init__(self, table: pa.Table, hierarchy: TypeHierarchy) -> None:
        self.hierarchy = hierarchy
        self._table = table
        self._name, self._synonyms = table["name"], table["synonyms"]
        self._types, self._definition = table["semantic_types"], table["definition"]

    @classmethod
    def load(cls, path: str | Path) -> ConceptTable:
        """Open a folder that `write_concepts` made.

        Raises:
            UserError: the folder or a file in it is missing or broken.
        """
        path = Path(path)
        try:
            table = open_table(path)
        except (OSError, pa.ArrowInvalid) as error:
            raise UserError(f"{path} is not a concept folder ({error}); run scripts/prepare_data.py") from None
        if table.column_names != list(CONCEPT_FEATURES):
            raise UserError(f"{path} has columns {', '.join(table.column_names)}, not those of a concept folder")
        return cls(table, TypeHierarchy.load(path / HIERARCHY_FILE))

    def __len__(self) -> int:
        return self._table.num_rows

    @cached_property
    def name_count(self) -> int:
        """Number of names, preferred ones and synonyms together."""
        return len(self) + (pc.sum(pc.list_value_length(self._synonyms)).as_py() or 0)

    @cached_property
    def cuis(self) -> np.ndarray:
        """CUIs by row, (n,), unicode, ascending."""
        return np.array(self._table["cui"].to_pylist(), dtype=str)

    def rows(self, cuis: Sequence[str] | np.ndarray) -> np.ndarray:
        """Rows of `cuis`, (n,), int64; -1 for a CUI that is not in the table."""
        wanted = np.asarray(cuis, dtype=str)
        if not wanted.size:
            return np.empty(0, dtype=np.int64)
        # The cast spares searchsorted a widened copy of the whole table; what it cuts off is compared below.
        places = np.searchsorted(self.cuis, wanted.astype(self.cuis.dtype)).clip(max=len(self) - 1)
        return np.where(self.cuis[places] == wanted, places, -1)

    def name(self, row: int) -> str:
        """The preferred name."""
        return self._name[row].as_py()

    def names(self, row: int) -> list[str]:
        """All names, the preferred one first."""
        return [self._name[row].as_py(), *self._synonyms[row].as_py()]

    def semantic_types(self, row: int) -> list[str]:
        """Type ids; may be empty."""
        return self._types[row].as_py()

    def definition(self, row: int) -> str:
        """The definition, or ""."""
        return self._definition[row].as_py()

    def iter_names(self, batch_size: int = 10_000) -> Iterator[tuple[np.ndarray, list[str]]]:
        """Yield all names in row order, the preferred one first, as ``(rows (n,) int64, names)`` of `batch_size`."""
        rows: list[int] = []
        names: list[str] = []
        for start in range(0, len(self), BATCH_ROWS):
            preferred = self._name.slice(start, BATCH_ROWS).to_pylist()
            synonyms = self._synonyms.slice(start, BATCH_ROWS).to_pylist()
            for row, (name, others) in enumerate(zip(preferred, synonyms, strict=True), start=start):
                rows += [row] * (1 + len(others))
                names.append(name)
                names += others
            done = 0
            while len(names) - done >= batch_size:
                yield np.array(rows[done : done + batch_size], dtype=np.int64), names[done : done + batch_size]
                done += batch_size
            rows, names = rows[done:], names[done:]
        if names:
            yield np.array(rows, dtype=np.int64), names

    def type_rows(self, type_id: str) -> np.ndarray:
        """Rows of the concepts that have this very type (its descendants not included), (n,), int64, ascending."""
        code = self._type_codes.get(type_id)
        if code is None:
            return np.empty(0, dtype=np.int64)
        starts, rows = self._rows_by_type
        return rows[starts[code] : starts[code + 1]]

    @cached_property
    def _typed(self) -> tuple[np.ndarray, pa.DictionaryArray]:
        """Row and type of every (concept, type), in row order."""
        types = self._types.combine_chunks()
        rows = pc.list_parent_indices(types).to_numpy()
        return rows, pc.list_flatten(types).dictionary_encode()

    @cached_property
    def _type_codes(self) -> dict[str, int]:
        return {type_id: code for code, type_id in enumerate(self._typed[1].dictionary.to_pylist())}

    @cached_property
    def _rows_by_type(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows grouped by type code, and where each group starts (compressed sparse rows)."""
        rows, types = self._typed
        codes = types.indices.to_numpy()
        starts = np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=len(types.dictionary)))])
        return starts, rows[np.argsort(codes, kind="stable")].astype(np.int64)
