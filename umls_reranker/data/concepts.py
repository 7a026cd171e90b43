"""The dictionary: `ConceptTable`, a memory-mapped Arrow table of concepts sorted by CUI, their names, and its types.

A concept is found by name with a sorted file of keys, one for each normalized name. A key is one 64-bit number: the
upper 28 bits of `hash_names` of the name, the concept's row in 28 bits, and the name's position among the concept's
names in 8. The same concepts give the same file on every machine. Different names may have the same hash, so the names
themselves are compared; among eight million names, one search in 34 finds a wrong match.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..core.arrays import expand_ranges, list_offsets
from ..core.cores import map_in_order
from ..core.errors import UserError
from ..core.files import read_json, write_json
from .arrow import arrow_writer, map_numbers, open_arrow, write_numbers
from .columns import CONCEPT_SCHEMA, Concept, ConceptColumns
from .cuis import CUI_BYTES, cui_numbers, cui_strings, cui_text, rows_of
from .normalization import hash_names, normalize_names
from .semantic_types import TypeHierarchy

CONCEPTS_FILE = "concepts.arrow"
CUIS_FILE = "cui_numbers.npy"
HIERARCHY_FILE = "semantic_types.json"
ROWS_PER_BATCH = 10_000
KEYS_FILE = "name_keys_xxh3.npy"
POSITION_BITS, ROW_BITS = 8, 28
HASH_SHIFT = np.uint64(ROW_BITS + POSITION_BITS)
LOWER_BITS = np.uint64((1 << (ROW_BITS + POSITION_BITS)) - 1)
LAST_POSITION = (1 << POSITION_BITS) - 1
"""Represents itself and all later positions."""


def write_concepts(concepts: Iterable[Concept], hierarchy: TypeHierarchy, path: Path) -> int:
    """Write a concept folder: Arrow rows sorted by CUI, the keys of their names, and the types' hierarchy.

    Concepts may come in any order, and are held in memory as Arrow columns. `ConceptColumns` are written without
    creating objects.

    Returns:
        The number of concepts.

    Raises:
        UserError: a CUI is repeated or longer than 8 bytes, or there is no concept.
    """
    numbers = [np.empty(0, np.uint64)]
    with arrow_writer(path / CONCEPTS_FILE, CONCEPT_SCHEMA) as writer:
        for batch in _batches(concepts):
            numbers.append(_numbers(batch["cui"]))
            writer.write(batch)
    by_row = np.concatenate(numbers)
    if not len(by_row):
        raise UserError("no concepts are left; check the filters of the concept source")
    repeated = by_row[1:][by_row[1:] == by_row[:-1]]
    if len(repeated):
        raise UserError(f"concept {cui_text(repeated[0])} is duplicated; merge its names into one concept")
    write_numbers(path / CUIS_FILE, by_row)
    _write_name_keys(open_arrow(path / CONCEPTS_FILE), path)
    write_json(path / HIERARCHY_FILE, hierarchy.to_dict())
    return len(by_row)


def _batches(concepts: Iterable[Concept]) -> Iterator[pa.RecordBatch]:
    """Batches of `CONCEPT_SCHEMA`, sorted by CUI."""
    if isinstance(concepts, ConceptColumns):
        yield from concepts.batches(ROWS_PER_BATCH)
        return
    iterator = iter(concepts)
    batches = []
    while batch := list(islice(iterator, ROWS_PER_BATCH)):
        columns = {name: [getattr(concept, name) for concept in batch] for name in CONCEPT_SCHEMA.names}
        batches.append(pa.RecordBatch.from_pydict(columns, CONCEPT_SCHEMA))
    table = pa.Table.from_batches(batches, CONCEPT_SCHEMA)
    yield from table.take(pc.sort_indices(table["cui"])).to_batches(ROWS_PER_BATCH)


def _numbers(cuis: pa.Array) -> np.ndarray:
    """`cui_numbers` of a column."""
    numbers = cui_numbers(cuis.cast(pa.large_string()))
    if not numbers.all():
        cui = cuis[int(np.flatnonzero(numbers == 0)[0])]
        raise UserError(f"concept id {str(cui)!r} is empty or longer than {CUI_BYTES} bytes; use the concept's CUI")
    return numbers


def _write_name_keys(concepts: pa.Table, folder: Path) -> None:
    """Write the keys of all names of a concept table into its folder."""
    batches = concepts.to_batches()
    first_rows = list_offsets([batch.num_rows for batch in batches])

    def keys_of(number: int) -> np.ndarray:
        preferred, synonyms = batches[number]["name"], batches[number]["synonyms"]
        owners = pc.list_parent_indices(synonyms).to_numpy()
        rows = first_rows[number] + np.concatenate([np.arange(len(preferred)), owners])
        positions = np.concatenate(
            [np.zeros(len(preferred), np.int64), 1 + np.arange(len(owners)) - synonyms.offsets.to_numpy()[owners]]
        )
        low = rows << POSITION_BITS | np.minimum(positions, LAST_POSITION)
        names = pa.concat_arrays([preferred, pc.list_flatten(synonyms)])
        return (hash_names(normalize_names(names)) >> HASH_SHIFT << HASH_SHIFT) | low.astype(np.uint64)

    keys = np.concatenate([np.empty(0, dtype=np.uint64), *map_in_order(keys_of, range(len(batches)))])
    keys.sort()
    write_numbers(folder / KEYS_FILE, keys)


class ConceptTable:
    """The concepts of an index by row number, sorted by CUI: names, semantic types, definitions.

    The table is memory-mapped: `ConceptTable.load` reads no names. Row -1, which
    `ConceptTable.rows` returns for an unknown CUI, has no names, types or definition.

    Attributes:
        hierarchy: the semantic types and their parents.
        cui_numbers (np.ndarray): (n,) uint64, the CUIs as numbers, ascending.
    """

    def __init__(
        self, table: pa.Table, hierarchy: TypeHierarchy, cui_numbers: np.ndarray, name_keys: np.memmap
    ) -> None:
        self.hierarchy = hierarchy
        self.cui_numbers = cui_numbers
        self._table = table
        self._name_keys = name_keys
        self._name, self._synonyms = table["name"], table["synonyms"]
        self._types, self._definition = table["semantic_types"], table["definition"]

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
            table = open_arrow(path / CONCEPTS_FILE)
        except (OSError, ValueError) as error:
            raise UserError(f"{path} is not a concept folder ({error}); run umls-reranker prepare_data") from None
        names = table.column_names
        if names != CONCEPT_SCHEMA.names:
            raise UserError(f"{path} has the columns {', '.join(names)}, not those of a concept folder")
        cui_numbers = map_numbers(path / CUIS_FILE)
        if len(cui_numbers) != table.num_rows:
            raise UserError(f"{path / CUIS_FILE} belongs to other concepts; run umls-reranker prepare_data again")
        hierarchy = TypeHierarchy.from_dict(read_json(path / HIERARCHY_FILE))
        return cls(table, hierarchy, cui_numbers, map_numbers(path / KEYS_FILE))

    def __len__(self) -> int:
        return self._table.num_rows

    @cached_property
    def name_counts(self) -> np.ndarray:
        """Number of names of each concept, the preferred one included, (n,), int64."""
        return 1 + pc.list_value_length(self._synonyms).to_numpy().astype(np.int64)

    @property
    def typed(self) -> int:
        """Number of concepts with a semantic type."""
        return int(pc.sum(pc.greater(pc.list_value_length(self._types), 0)).as_py())

    def rows(self, cuis: Sequence[str] | np.ndarray | pa.StringArray) -> np.ndarray:
        """Rows of n CUIs, (n,) int64; -1 for unknown CUIs."""
        return rows_of(self.cui_numbers, cui_numbers(_texts("CUIs", cuis, pa.large_string())))

    def cuis_of(self, rows: np.ndarray) -> pa.StringArray:
        """CUIs of n rows, (n,)."""
        return cui_strings(self.cui_numbers[rows])

    def rows_named(self, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Find the concepts that have each of n names, up to case, punctuation and spaces.

        Names are compared in normalized form: NFKC, case folded, other characters than letters and digits as spaces.

        Returns:
            Rows and offsets: the concepts of name i are ``rows[offsets[i] : offsets[i + 1]]``, ascending, int64.
        """
        forms = normalize_names(_texts("names", names, pa.string()))
        indices, rows, positions = self._search(forms)
        # Names with the same hash may differ, so compare the names themselves: the one at its position, or all from
        # the last position on that a key can hold.
        names_of_hits, offsets = self.names_of(rows)
        starts = offsets[:-1] + positions
        owners, name_ids = expand_ranges(starts, np.where(positions < LAST_POSITION, starts + 1, offsets[1:]))
        texts = normalize_names(names_of_hits.take(pa.array(name_ids)))
        is_equal = pc.equal(texts, forms.take(pa.array(indices[owners])))
        is_named = np.bincount(owners, weights=is_equal.to_numpy(zero_copy_only=False), minlength=len(rows)) > 0
        indices, rows = indices[is_named], rows[is_named]
        # Several spellings of a concept's name match separately.
        is_new = np.ones(len(rows), dtype=bool)
        is_new[1:] = (indices[1:] != indices[:-1]) | (rows[1:] != rows[:-1])
        return rows[is_new], list_offsets(np.bincount(indices[is_new], minlength=len(forms)))

    def _search(self, forms: pa.StringArray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Find the concepts that may have a name of each normalized form.

        Args:
            forms: (n,) string, `normalize_names` of the names looked for.

        Returns:
            For each match the index of the form, the concept's row and the name's position, all (m,) int64; sorted by
            index, then by row, with repetitions.
        """
        hashes = hash_names(forms) >> HASH_SHIFT << HASH_SHIFT
        starts = np.searchsorted(self._name_keys, hashes)
        ends = np.searchsorted(self._name_keys, hashes | LOWER_BITS, side="right")
        index, hits = expand_ranges(starts, ends)
        low = (self._name_keys[hits] & LOWER_BITS).astype(np.int64)
        return index, low >> POSITION_BITS, low & LAST_POSITION

    def column(self, name: str, rows: np.ndarray) -> pa.Array:
        """One column at n rows, (n,), null at row -1.

        Args:
            name: ``cui``, ``name``, ``synonyms``, ``semantic_types`` or ``definition``.
            rows: row numbers.
        """
        return self._table[name].take(pa.array(rows, mask=rows < 0)).combine_chunks()

    def names_of(self, rows: np.ndarray) -> tuple[pa.StringArray, np.ndarray]:
        """All names of n rows, the preferred name of each first.

        Returns:
            Names and offsets: the names of ``rows[i]`` are ``names[offsets[i] : offsets[i + 1]]``, offsets int64.
        """
        synonyms = self.column("synonyms", rows)
        counts = pc.fill_null(pc.add(pc.list_value_length(synonyms), 1), 0).to_numpy()
        offsets = list_offsets(counts)
        preferred = self.column("name", rows[rows >= 0])
        is_preferred = np.zeros(offsets[-1], dtype=bool)
        is_preferred[offsets[:-1][counts > 0]] = True
        positions = [np.flatnonzero(is_preferred), np.flatnonzero(~is_preferred)]
        return _in_order([preferred, pc.list_flatten(synonyms)], positions), offsets

    def names_at(self, rows: np.ndarray, positions: np.ndarray) -> pa.StringArray:
        """One name of each of n rows, (n,); position 0 is the preferred name, 1 the first synonym."""
        names, offsets = self.names_of(rows)
        return names.take(pa.array(offsets[:-1] + positions))

    def names(self, row: int) -> list[str]:
        """All names of a row, the preferred name first."""
        return [self._name[row].as_py(), *self._synonyms[row].as_py()] if row >= 0 else []

    def semantic_types(self, row: int) -> list[str]:
        """Type ids of a row; may be empty."""
        return self._types[row].as_py() if row >= 0 else []

    def definition(self, row: int) -> str:
        """Definition of a row, or ""."""
        return self._definition[row].as_py() if row >= 0 else ""

    def iter_names(self) -> Iterator[tuple[np.ndarray, list[str]]]:
        """Yield all names in row order, the preferred name first, in batches: rows, (n,) int64, and n names."""
        for start in range(0, len(self), ROWS_PER_BATCH):
            rows = np.arange(start, min(start + ROWS_PER_BATCH, len(self)))
            names, offsets = self.names_of(rows)
            yield np.repeat(rows, np.diff(offsets)), names.to_pylist()

    def type_rows(self, type_id: str) -> np.ndarray:
        """Rows of the concepts with exactly this type (not its descendants), (n,), int64, ascending."""
        return self._rows_by_type.get(type_id, np.empty(0, dtype=np.int64))

    @cached_property
    def _rows_by_type(self) -> dict[str, np.ndarray]:
        lists = self._types.combine_chunks()
        types = pc.list_flatten(lists).dictionary_encode()
        codes = types.indices.to_numpy()
        rows = pc.list_parent_indices(lists).to_numpy()[np.argsort(codes, kind="stable")].astype(np.int64)
        ends = np.cumsum(np.bincount(codes, minlength=len(types.dictionary)))
        return dict(zip(types.dictionary.to_pylist(), np.split(rows, ends), strict=False))


def _in_order(pieces: list[pa.Array], indices: list[np.ndarray]) -> pa.Array:
    """The values of all pieces, each moved to its index."""
    order = np.empty(sum(map(len, indices)), dtype=np.int64)
    order[np.concatenate(indices)] = np.arange(len(order))
    return pa.concat_arrays(pieces).take(pa.array(order))


def _texts(name: str, values: Any, kind: pa.DataType) -> pa.Array:
    """The values in Arrow; raises TypeError unless they are a list of texts."""
    if isinstance(values, str):
        raise TypeError(f"{name} must be a list of strings, not one string")
    texts = values.cast(kind) if isinstance(values, pa.Array) else pa.array(values, kind)
    if texts.null_count:
        raise TypeError(f"{name} must be a list of strings, but some are missing")
    return texts
