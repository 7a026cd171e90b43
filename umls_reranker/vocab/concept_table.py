"""The concepts of a run or an index, opened from their folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..core.arrays import list_offsets
from ..core.arrow_files import open_arrow
from ..core.errors import UserError
from ..core.json_files import read_json
from .concept_columns import ConceptColumns, required_texts
from .concept_folder import CONCEPTS_FILE, HIERARCHY_FILE, ROWS_BY_CUI_FILE, ROWS_BY_NAME_FILE
from .concepts import CONCEPT_SCHEMA, ROWS_PER_BATCH
from .normalization import normalize_names
from .string_rows import StringRows
from .types import TypeHierarchy


class ConceptTable(ConceptColumns):
    """The concepts of an index by row number: names, semantic types, definitions.

    The table is memory-mapped: `ConceptTable.load` reads no names. Row -1, which
    `ConceptTable.rows` returns for an unknown CUI, has no names, types or definition.

    Attributes:
        hierarchy: the semantic types and their parents.
        cuis (pa.StringArray): (n,) the concept ids, ascending.
    """

    def __init__(
        self, table: pa.Table, hierarchy: TypeHierarchy, by_cui: StringRows, by_name: StringRows
    ) -> None:
        super().__init__(table, by_cui)
        self.hierarchy = hierarchy
        self._by_name = by_name

    @classmethod
    def load(cls, path: str | Path) -> ConceptTable:
        """Open the folder ``concepts`` of a run or of an index.

        Args:
            path: the folder.

        Raises:
            UserError: the folder or a file in it is missing or damaged.
        """
        path = Path(path)
        try:
            concepts = open_arrow(path / CONCEPTS_FILE)
            by_cui = open_arrow(path / ROWS_BY_CUI_FILE)
            by_name = open_arrow(path / ROWS_BY_NAME_FILE)
        except (OSError, ValueError) as error:
            raise UserError(
                f"{path} is not a concept folder ({error}); run umls-reranker prepare_data"
            ) from None
        if not concepts.schema.equals(CONCEPT_SCHEMA) or not by_cui.schema.equals(
            StringRows.SCHEMA
        ):
            raise UserError(
                f"{path} is not a concept folder of this version; "
                "delete it and run umls-reranker prepare_data"
            )
        hierarchy = TypeHierarchy.from_dict(read_json(path / HIERARCHY_FILE))
        tables = (StringRows(by_cui), StringRows(by_name))
        if not all(table.are_below(len(concepts)) for table in tables):
            raise UserError(
                f"{path} has rows of no concept; delete it and run umls-reranker prepare_data"
            )
        return cls(concepts, hierarchy, *tables)

    @cached_property
    def name_counts(self) -> np.ndarray:
        """Number of names of each concept, the preferred one included, (n,), int64."""
        return 1 + pc.list_value_length(self._columns["synonyms"]).to_numpy().astype(np.int64)

    @cached_property
    def name_offsets(self) -> np.ndarray:
        """(n + 1,) int64; the names of row r have the ids ``offsets[r]`` to ``offsets[r + 1] - 1``.

        The preferred name is the first.
        """
        return list_offsets(self.name_counts)

    def names_by_id(self, name_ids: np.ndarray) -> pa.StringArray:
        """The names with n ids (`name_offsets`), (n,)."""
        rows = np.searchsorted(self.name_offsets, name_ids, "right") - 1
        names, offsets = self.names_of(rows)
        return names.take(pa.array(offsets[:-1] + name_ids - self.name_offsets[rows]))

    def cuis_of(self, rows: np.ndarray) -> pa.StringArray:
        """CUIs of n rows, (n,)."""
        return self.cuis.take(pa.array(rows))

    def rows_named(self, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Find the concepts that have each of n names, up to case, punctuation and spaces.

        Names are compared in normalized form: NFKC, case folded, other characters than letters and
        digits as spaces.

        Returns:
            Rows and offsets: the concepts of name i are ``rows[offsets[i] : offsets[i + 1]]``,
            ascending, int64.
        """
        return self._by_name.find(normalize_names(required_texts("names", names)))

    def names(self, row: int) -> list[str]:
        """All names of a row, the preferred name first."""
        return (
            [self._columns["name"][row].as_py(), *self._columns["synonyms"][row].as_py()]
            if row >= 0
            else []
        )

    def semantic_types(self, row: int) -> list[str]:
        """Type ids of a row; may be empty."""
        return self._columns["semantic_types"][row].as_py() if row >= 0 else []

    def iter_names(self, batch: int = ROWS_PER_BATCH) -> Iterator[tuple[np.ndarray, list[str]]]:
        """Yield rows, (n,) int64, and n names of ``batch`` concepts at a time.

        All are in row order, the preferred name first.
        """
        for start in range(0, len(self), batch):
            rows = np.arange(start, min(start + batch, len(self)))
            names, offsets = self.names_of(rows)
            yield np.repeat(rows, np.diff(offsets)), names.to_pylist()

    def type_rows(self, type_id: str) -> np.ndarray:
        """Rows of the concepts with this very type, not its descendants, (n,) int64, ascending."""
        types = self._columns["semantic_types"]
        is_type = pc.equal(pc.list_flatten(types), type_id)
        return pc.list_parent_indices(types).filter(is_type).to_numpy().astype(np.int64)
