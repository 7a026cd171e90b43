"""Concepts as objects, as Arrow tables for millions of them, and dictionaries as one file of names.

Tables of a file (CSV, TSV, JSON Lines, Parquet) have the columns ``id`` and ``name``, and may have
``preferred`` (true for the preferred name; else it is the first) and ``semantic_type``. In BioSyn's
form a line is ``id|id||name|name``. ``|`` in an id separates alternates of one concept, whose id is
the first; in ``semantic_type`` it separates types.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..core.arrays import expand_ranges, hash_texts, list_offsets
from ..core.arrow_files import arrow_writer, one_chunk, open_arrow
from ..core.errors import UserError
from ..core.json_files import read_json, write_json
from ..core.parallel import map_in_order
from ..core.text_files import open_binary, read_lines, read_table, start_of
from .normalization import normalize_names
from .types import SEPARATOR, TypeHierarchy, TypeSets

CONCEPT_SCHEMA = pa.schema(
    {
        "cui": pa.string(),
        "name": pa.string(),
        "synonyms": pa.list_(pa.string()),
        "semantic_types": pa.list_(pa.string()),
        "definition": pa.string(),
        "alternates": pa.list_(pa.string()),
    }
)
ROWS_PER_BATCH = 10_000
# Of a file of names, which is read into memory; a whole UMLS release has 17 million names.
MOST_NAME_ROWS = 30_000_000
# An arbitrary odd number, which spreads row numbers over 64 bits.
ROW_FACTOR = np.uint64(0x9E3779B97F4A7C15)

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Concept:
    """A concept of a vocabulary.

    Attributes:
        cui: UMLS concept id, or another non-empty one.
        name: the preferred name.
        synonyms: other names, each once, without the preferred one.
        semantic_types: type ids; empty if the vocabulary has none.
        definition: one definition, or "".
        alternates: further ids, none of which is the id of another concept.
    """

    cui: str
    name: str
    synonyms: tuple[str, ...] = ()
    semantic_types: tuple[str, ...] = ()
    definition: str = ""
    alternates: tuple[str, ...] = ()


class NameLists(NamedTuple):
    """Names and further ids of n concepts.

    Attributes:
        ids: the concept ids, ascending.
        names: the distinct names of each, the preferred one first.
        types: semantic types of each; None: not read.
        alternates: further ids of each; None: there are none.
    """

    ids: pa.StringArray
    names: pa.ListArray
    types: pa.ListArray = None
    alternates: pa.ListArray = None


def concept_table(concepts: Iterable[Concept]) -> pa.Table:
    """The concepts as a table of `CONCEPT_SCHEMA`, in their order."""
    rows = list(concepts)
    columns = {name: [getattr(concept, name) for concept in rows] for name in CONCEPT_SCHEMA.names}
    return pa.table(columns, CONCEPT_SCHEMA)


def table_of_lists(lists: NameLists, definitions: pa.StringArray | None = None) -> pa.Table:
    """The table of `CONCEPT_SCHEMA` for n concepts with these names and definitions."""
    no_lists = pa.array([[]] * len(lists.ids), pa.list_(pa.string()))
    columns = {
        "cui": lists.ids,
        "name": pc.list_element(lists.names, 0),
        "synonyms": pc.list_slice(lists.names, 1),
        "semantic_types": lists.types or no_lists,
        "definition": definitions or pa.repeat("", len(lists.ids)),
        "alternates": lists.alternates or no_lists,
    }
    return pa.table(columns, CONCEPT_SCHEMA)


def iter_concepts(table: pa.Table) -> Iterator[Concept]:
    """Yield the rows of a table of `CONCEPT_SCHEMA`."""
    for batch in table.to_batches(ROWS_PER_BATCH):
        for row in batch.to_pylist():
            yield Concept(
                cui=row["cui"],
                name=row["name"],
                synonyms=tuple(row["synonyms"]),
                semantic_types=tuple(row["semantic_types"]),
                definition=row["definition"],
                alternates=tuple(row["alternates"]),
            )


def count_typed(concepts: pa.Table) -> int:
    """Number of concepts with a semantic type."""
    return pc.sum(pc.greater(pc.list_value_length(concepts["semantic_types"]), 0)).as_py() or 0


def distinct_lists(
    rows: np.ndarray, values: pa.ChunkedArray, size: int, ranks: np.ndarray | None = None
) -> pa.ListArray:
    """The distinct values of each row, by rank, then in their order; they are compared by hash.

    Args:
        rows: (n,) int64, the row of each value.
        values: (n,) strings.
        size: number of rows.
        ranks: (n,) numbers, the least first; None: all are equal.
    """
    hashes = np.concatenate([np.empty(0, np.uint64), *map(_hashes, values.chunks)])
    order = np.argsort(rows, kind="stable") if ranks is None else np.lexsort((ranks, rows))
    in_row = (hashes ^ rows.astype(np.uint64) * ROW_FACTOR)[order]
    retained = order[np.sort(np.unique(in_row, return_index=True)[1])]
    offsets = list_offsets(np.bincount(rows[retained], minlength=size))
    return pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), values.take(pa.array(retained)).combine_chunks()
    )


CONCEPTS_FILE = "concepts.arrow"
CUIS_FILE = "rows_by_cui.arrow"
NAMES_FILE = "rows_by_name.arrow"
HIERARCHY_FILE = "semantic_types.json"


class StringRows:
    """The rows that have a string, found by its 64-bit hash.

    Strings are not compared: among ten million, one look-up of an unknown string in 10^12 hits.

    Args:
        table: columns ``blake2b`` (uint64, ascending) and ``row`` (int32, ascending where hashes
            are equal).
    """

    SCHEMA = pa.schema({"blake2b": pa.uint64(), "row": pa.int32()})

    def __init__(self, table: pa.Table) -> None:
        self._hashes = table["blake2b"].to_numpy()
        self._rows = table["row"].to_numpy()

    @classmethod
    def table_of(cls, hashes: np.ndarray, rows: np.ndarray) -> pa.Table:
        """The table for n strings with these hashes and rows."""
        order = np.lexsort((rows, hashes))
        hashes = hashes[order]
        rows = rows[order]
        is_new = (np.diff(hashes, prepend=hashes[:1]) != 0) | (np.diff(rows, prepend=-1) != 0)
        return pa.table([hashes[is_new], rows[is_new].astype(np.int32)], schema=cls.SCHEMA)

    @classmethod
    def table_of_ids(cls, ids: pa.StringArray, alternates: pa.ListArray) -> pa.Table:
        """The table for n ids by their position, and the alternates of each."""
        rows = np.concatenate([np.arange(len(ids)), pc.list_parent_indices(alternates).to_numpy()])
        return cls.table_of(_hashes(pa.concat_arrays([ids, pc.list_flatten(alternates)])), rows)

    @classmethod
    def of(cls, strings: pa.StringArray) -> StringRows:
        """Number n distinct strings by their position."""
        return cls(cls.table_of(_hashes(strings), np.arange(len(strings))))

    def find(self, strings: pa.StringArray) -> tuple[np.ndarray, np.ndarray]:
        """Find the rows of n strings.

        Returns:
            Rows and offsets, int64: the rows of string i are ``rows[offsets[i] : offsets[i + 1]]``,
            ascending.
        """
        hashes = _hashes(strings)
        starts = np.searchsorted(self._hashes, hashes, "left")
        stops = np.searchsorted(self._hashes, hashes, "right")
        _, positions = expand_ranges(starts, stops)
        return self._rows[positions].astype(np.int64), list_offsets(stops - starts)


def _hashes(strings: pa.StringArray) -> np.ndarray:
    return hash_texts(strings.to_pylist())


def write_concepts(concepts: pa.Table, hierarchy: TypeHierarchy, path: Path) -> int:
    """Write a concept folder: concepts sorted by CUI, their rows by CUI and by name, and the types.

    Args:
        concepts: of `CONCEPT_SCHEMA`, in any order.
        hierarchy: the hierarchy of their types.
        path: the folder.

    Returns:
        The number of concepts.

    Raises:
        UserError: a concept id is repeated or empty, or there is no concept.
    """
    if not len(concepts):
        raise UserError("no concepts are left; check the filters of the concept source")
    order = pc.sort_indices(concepts["cui"])
    if pc.any(pc.less(order.slice(1), order.slice(0, len(order) - 1))).as_py():
        concepts = concepts.take(order)
    concepts = concepts.combine_chunks()
    cuis = concepts["cui"].combine_chunks()
    is_repeated = pc.equal(cuis.slice(1), cuis.slice(0, len(cuis) - 1))
    invalid = pa.concat_arrays([cuis.filter(pc.equal(cuis, "")), cuis.slice(1).filter(is_repeated)])
    if len(invalid):
        raise UserError(
            f"the concept id {invalid[0].as_py()!r} is empty or repeated; "
            "give each concept an id of its own"
        )
    alternates = concepts["alternates"].combine_chunks()
    tables = {
        CONCEPTS_FILE: concepts,
        CUIS_FILE: StringRows.table_of_ids(cuis, alternates),
        NAMES_FILE: rows_by_name(concepts),
    }
    for name, table in tables.items():
        with arrow_writer(path / name, table.schema) as writer:
            writer.write_table(table)
    write_json(path / HIERARCHY_FILE, hierarchy.to_dict())
    return len(concepts)


def rows_by_name(
    concepts: pa.Table, forms: Callable[[pa.StringArray], pa.StringArray] = normalize_names
) -> pa.Table:
    """The table for `StringRows` of the names of concepts in a form, by default normalized."""

    def hashed(start: int) -> tuple[np.ndarray, np.ndarray]:
        batch = concepts.slice(start, ROWS_PER_BATCH)
        preferred = batch["name"].combine_chunks()
        synonyms = batch["synonyms"].combine_chunks()
        names = forms(pa.concat_arrays([preferred, pc.list_flatten(synonyms)]))
        rows = np.concatenate(
            [np.arange(len(preferred)), pc.list_parent_indices(synonyms).to_numpy()]
        )
        return _hashes(names), start + rows

    hashes, rows = zip(*map_in_order(hashed, range(0, len(concepts), ROWS_PER_BATCH)), strict=True)
    return StringRows.table_of(np.concatenate(hashes), np.concatenate(rows))


class ConceptColumns:
    """Names, types and definitions of concepts by row number, and their rows by id.

    Row -1, which `rows` returns for an unknown id, has no names, types or definition.

    Args:
        table: of `CONCEPT_SCHEMA`.
        by_cui: the rows of ids and alternates; None makes them.

    Attributes:
        cuis (pa.StringArray): (n,) the concept ids.
    """

    def __init__(self, table: pa.Table, by_cui: StringRows | None = None) -> None:
        self._columns = {name: one_chunk(table[name]) for name in table.column_names}
        self.cuis: pa.StringArray = self._columns["cui"]
        self._by_cui = by_cui or StringRows(
            StringRows.table_of_ids(self.cuis, self._columns["alternates"])
        )

    def __len__(self) -> int:
        return len(self.cuis)

    def rows(self, cuis: Sequence[str] | np.ndarray | pa.StringArray) -> np.ndarray:
        """Rows of n CUIs or alternates of them, (n,) int64; -1 for unknown ones."""
        rows, offsets = self._by_cui.find(_texts("CUIs", cuis))
        is_found = np.diff(offsets) > 0
        first = np.append(rows, -1)[offsets[:-1]]
        return np.where(is_found, first, -1)

    def has(self, cuis: Sequence[str]) -> np.ndarray:
        """Whether there is a concept with each of n ids, (n,) bool."""
        return self.rows(cuis) >= 0

    def column(self, name: str, rows: np.ndarray) -> pa.Array:
        """One column at n rows, (n,), null at row -1.

        Args:
            name: ``cui``, ``name``, ``synonyms``, ``semantic_types``, ``definition`` or
                ``alternates``.
            rows: row numbers.
        """
        return self._columns[name].take(pa.array(rows, mask=rows < 0))

    def names_of(self, rows: np.ndarray) -> tuple[pa.StringArray, np.ndarray]:
        """All names of n rows, the preferred name of each first.

        Returns:
            Names and offsets: the names of ``rows[i]`` are ``names[offsets[i] : offsets[i + 1]]``,
            offsets int64.
        """
        known = np.flatnonzero(rows >= 0)
        synonyms = self.column("synonyms", rows)
        names = pa.concat_arrays([self.column("name", rows[known]), pc.list_flatten(synonyms)])
        owner = np.concatenate([known, pc.list_parent_indices(synonyms).to_numpy()])
        order = np.argsort(owner, kind="stable")
        return names.take(pa.array(order)), list_offsets(np.bincount(owner, minlength=len(rows)))


def join_concepts(tables: Sequence[pa.Table]) -> tuple[pa.Table, dict[str, int]]:
    """The concepts of several dictionaries, joined where one has an id or alternate of another.

    A concept has the names of all, each once. Its preferred name, types and definition are those of
    the first dictionary that has any.

    Args:
        tables: of `CONCEPT_SCHEMA`; an id is not repeated within one.

    Returns:
        The concepts in `CONCEPT_SCHEMA`; and the numbers of ``joined_concepts``, which others have
        taken in, and of ``repeated_names``, which are given once.
    """
    whole = pa.concat_tables(tables).combine_chunks()
    columns = ConceptColumns(whole)
    everything = np.arange(len(whole))
    starts = np.repeat(list_offsets(list(map(len, tables)))[:-1], list(map(len, tables)))
    first = columns.rows(columns.cuis)
    alternates = whole["alternates"].combine_chunks()
    owners = pc.list_parent_indices(alternates).to_numpy()
    found = columns.rows(pc.list_flatten(alternates))
    # An id counts before alternates. One that concepts of one dictionary share does not join them.
    is_earlier = (found < starts[owners]) & (first[owners] == owners)
    np.minimum.at(first, owners[is_earlier], found[is_earlier])
    while (first[first] != first).any():
        first = first[first]
    heads, concept_of = np.unique(first, return_inverse=True)

    def filled(name: str) -> pa.Array:
        """The column of each concept's first row where it is not empty."""
        length_of = pc.binary_length if name == "definition" else pc.list_value_length
        lengths = length_of(whole[name])
        has_value = np.flatnonzero(lengths.to_numpy() > 0)
        concepts, positions = np.unique(concept_of[has_value], return_index=True)
        rows = heads.copy()
        rows[concepts] = has_value[positions]
        return columns.column(name, rows)

    texts, offsets = columns.names_of(everything)
    owner = np.repeat(concept_of, np.diff(offsets))
    names = distinct_lists(owner, pa.chunked_array([texts]), len(heads))
    ids = columns.column("cui", heads)
    others = pa.concat_arrays([pc.list_flatten(alternates), columns.cuis])
    is_other = pc.invert(pc.is_in(others, ids))
    of_others = np.concatenate([concept_of[owners], concept_of])[is_other.to_numpy(False)]
    lists = distinct_lists(of_others, pa.chunked_array([others.filter(is_other)]), len(heads))
    joined = NameLists(ids, names, filled("semantic_types"), lists)
    report = {
        "joined_concepts": len(whole) - len(heads),
        "repeated_names": len(texts) - len(names.values),
    }
    return table_of_lists(joined, filled("definition")), report


# The folder of an index or a run that holds its concepts.
CONCEPTS = "concepts"


def is_index(folder: Path) -> bool:
    """Whether a folder is an index or a run, with concepts, and no folder META of a release."""
    return (folder / CONCEPTS).is_dir() and not any(folder.glob("MR*.RRF*"))


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
            by_cui = open_arrow(path / CUIS_FILE)
            by_name = open_arrow(path / NAMES_FILE)
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
        return cls(concepts, hierarchy, StringRows(by_cui), StringRows(by_name))

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
        return self._by_name.find(normalize_names(_texts("names", names)))

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


def _texts(name: str, values: Any) -> pa.StringArray:
    """The values in Arrow; raises TypeError unless they are a list of texts."""
    if isinstance(values, str):
        raise TypeError(f"{name} must be a list of strings, not one string")
    texts = pa.array(values, pa.string())
    if texts.null_count:
        raise TypeError(f"{name} must be a list of strings, but some are missing")
    return texts


REQUIRED = ("id", "name")
COLUMNS = (*REQUIRED, "preferred", "semantic_type")
TRUE = pa.array(["1", "1.0", "true", "yes"])
EMPTY = pa.array([""])
# A text of one line.
LINE = r"^[^\r\n]+$"
QUOTED = r'^"([^"]|"")*"$'
BIOSYN = r"(?P<id>.*?)\|\|(?P<name>.*)"


class NameRows(NamedTuple):
    """n rows of a file of names.

    Attributes:
        ids: the concept id of each, the first in its cell.
        columns: the cells of each of `COLUMNS`, stripped; empty where there is no such column.
        lines: (n,) int64, the line of each; of Parquet its number, from 1.
        separator: what separates names in a cell.
    """

    ids: pa.StringArray
    columns: dict[str, pa.StringArray]
    lines: np.ndarray
    separator: str


def read_name_lists(path: Path) -> NameLists:
    """Read a file of names, plain or gzip, in a form recognized by its content, into memory.

    Returns:
        Ids and distinct names of n concepts, the ids or names of their semantic types, as in the
        file, and their alternate ids, without those that are another concept's own.

    Raises:
        UserError: as for `read_name_rows`.
    """
    first, columns, _, names_separator = read_name_rows(path)
    ids = first.unique()
    ids = ids.take(pc.sort_indices(ids))
    rows = pc.index_in(first, ids).to_numpy().astype(np.int64)
    is_preferred = pc.is_in(pc.utf8_lower(columns["preferred"]), TRUE).to_numpy(
        zero_copy_only=False
    )

    def lists(name: str, left_out: pa.StringArray, separator: str = "|") -> pa.ListArray:
        parts = pc.split_pattern(columns[name], separator)
        texts = pc.utf8_trim_whitespace(pc.list_flatten(parts))
        is_retained = pc.invert(pc.is_in(texts, left_out))
        owner = pc.list_parent_indices(parts).filter(is_retained).to_numpy()
        retained = pa.chunked_array([texts.filter(is_retained)])
        return distinct_lists(rows[owner], retained, len(ids), ~is_preferred[owner])

    return NameLists(
        ids=ids,
        names=lists("name", EMPTY, names_separator),
        types=lists("semantic_type", EMPTY),
        alternates=lists("id", pa.concat_arrays([ids, EMPTY])),
    )


def read_name_concepts(path: Path, hierarchy: TypeHierarchy) -> tuple[pa.Table, dict[str, Any]]:
    """Read a file of names as concepts in `CONCEPT_SCHEMA`, sorted by id.

    Returns:
        The concepts; and a report with their number of ``names``, and the first ``unknown_types``,
        which `hierarchy` lacks.
    """
    lists = read_name_lists(path)
    resolved, unknown = TypeSets.of_lists(lists.types).resolved(hierarchy)
    sets = pa.array(map(list, resolved.sets), pa.list_(pa.string()))
    report = {"names": len(lists.names.values), "unknown_types": unknown[:12]}
    return table_of_lists(lists._replace(types=sets.take(pa.array(resolved.codes)))), report


def read_name_rows(path: Path) -> NameRows:
    """Read the rows of a file of names, plain or gzip, in a form recognized by its content.

    Raises:
        UserError: the file is missing, empty, damaged or without the columns; or a row is malformed
            or without an id and a name of one line (names the line).
    """
    start = start_of(path)
    header = start.split(b"\n", 1)[0]
    separator = SEPARATOR
    try:
        if start.startswith(b"PAR1"):
            from pyarrow import parquet

            table = parquet.read_table(path)
            lines = np.arange(1, len(table) + 1)
        elif header.startswith(b"{"):
            table, lines = _table_of_rows(COLUMNS, _bounded_rows(path, _json_rows(path)))
        elif b"||" in header:
            separator = "|"
            table, lines = _biosyn_table(path)
        else:
            delimiter = "\t" if b"\t" in header else ","
            table, lines = _text_table(path, delimiter)
        if "id" not in table.column_names:
            table = table.rename_columns({"ids": "id"})
        columns = {}
        for name in COLUMNS:
            has_column = name in {*REQUIRED, *table.column_names}
            column = table[name] if has_column else pa.nulls(len(table))
            texts = pa.chunked_array(column.cast(pa.string())).combine_chunks()
            columns[name] = pc.utf8_trim_whitespace(pc.fill_null(texts, ""))
    except (pa.ArrowException, KeyError, UnicodeError) as error:
        raise UserError(
            f"{path} cannot be read as a table with the columns id and name ({error})"
        ) from None
    first = pc.utf8_trim_whitespace(pc.list_element(pc.split_pattern(columns["id"], "|"), 0))
    is_right = pc.and_(*(pc.match_substring_regex(text, LINE) for text in (first, columns["name"])))
    wrong = lines[~is_right.to_numpy(zero_copy_only=False)]
    if len(wrong) or not len(lines):
        line = wrong[0] if len(wrong) else 1
        raise UserError(f"{path}:{line}: a row needs an id and a name, each of one line; add them")
    return NameRows(first, columns, lines, separator)


def _biosyn_table(path: Path) -> tuple[pa.Table, np.ndarray]:
    lines = _bounded_rows(path, read_lines(path))
    texts = pa.array([line.decode() for _, line in lines], pa.string())
    has_text = pc.not_equal(texts, "")
    fields = pc.extract_regex(texts.filter(has_text), BIOSYN)
    return pa.Table.from_struct_array(fields), np.flatnonzero(has_text) + 1


def _text_table(path: Path, delimiter: str) -> tuple[pa.Table, np.ndarray]:
    """CSV; or TSV, each line of which is a row: quotes are such only around a whole cell."""
    is_csv = delimiter == ","
    with open_binary(path) as stream:
        text = io.TextIOWrapper(stream, "utf-8-sig", newline="")
        rows = read_table(path, text, delimiter, is_csv)
        _, header = next(rows, (1, [""]))
        repeated = [name for name in header if header.count(name) > 1]
        if repeated:
            raise UserError(
                f"{path}:1: the column {repeated[0]!r} is named more than once; remove one of them"
            )
        table, lines = _table_of_rows(header, _bounded_rows(path, rows))
    if not is_csv:
        table = pa.table(list(map(_unquoted, table.columns)), header)
    return table, lines


def _unquoted(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The cells of TSV without the quotes around them, which doubled those inside."""
    inner = pc.replace_substring(pc.utf8_slice_codeunits(column, 1, -1), '""', '"')
    return pc.if_else(pc.match_substring_regex(column, QUOTED), inner, column)


def _json_rows(path: Path) -> Iterator[tuple[int, list[Any]]]:
    """The cells of `COLUMNS` by line; Arrow's reader does not survive an object nested deeply."""
    for number, line in read_lines(path):
        if line.strip():
            try:
                row = json.loads(line, parse_int=str, parse_float="{:.17g}".format)
                row["preferred"] = str(row.get("preferred"))
                row.setdefault("id", row.get("ids"))
                cells = [row.get(name) for name in COLUMNS]
                # Fails for what is not text.
                "".join(filter(None, cells)).encode()
            except (ValueError, TypeError, AttributeError, RecursionError) as error:
                raise UserError(f"{path}:{number}: not a JSON object of texts ({error})") from None
            yield number, cells


def _bounded_rows(
    path: Path, rows: Iterable[tuple[int, Row]], most: int = MOST_NAME_ROWS
) -> Iterator[tuple[int, Row]]:
    """The rows of a file of names, each with its line, which are all kept in memory.

    Raises:
        UserError: there are more than `most`.
    """
    for count, (number, row) in enumerate(rows, start=1):
        if count > most:
            raise UserError(
                f"{path}:{number}: a file of names has at most {most:,} rows; divide it, and give "
                "index several dictionaries"
            )
        yield number, row


def _table_of_rows(
    names: Sequence[str], rows: Iterator[tuple[int, list[Any]]]
) -> tuple[pa.Table, np.ndarray]:
    """The table of cells, and the line of each row."""
    schema = pa.schema(dict.fromkeys(names, pa.string()))
    tables = [schema.empty_table()]
    lines: list[int] = []
    while block := list(islice(rows, ROWS_PER_BATCH)):
        numbers, cells = zip(*block, strict=True)
        lines += numbers
        tables.append(pa.table(list(zip(*cells, strict=True)), schema=schema))
    return pa.concat_tables(tables), np.array(lines, np.int64)
