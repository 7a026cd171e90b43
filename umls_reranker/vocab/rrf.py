r"""The tables of a UMLS release in Rich Release Format, read as columns.

Columns are those of the UMLS Reference Manual, chapter 3 (National Library of Medicine): fields end
in ``|``, there is no quoting, a line ends in ``\n``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from ..core.arrow_files import arrow_writer, open_arrow
from ..core.errors import Malformed, UserError
from ..core.parallel import progress
from ..core.text_files import MOST_LINES, decode, open_binary, read_lines
from .concepts import NameLists, table_of_lists
from .distinct_lists import distinct_lists

# The last pipe closes the line, so a CSV reader finds one more column.
CLOSING = "closing"
PIPES = csv.ParseOptions(delimiter="|", quote_char=False, escape_char=False)


class RrfTable(NamedTuple):
    """Form of a table's lines.

    Attributes:
        fields: names of all fields, as in MRFILES.RRF; a line has as many, each closed by a pipe.
        required: fields that must not be empty.
    """

    fields: list[str]
    required: list[str]


TABLES = {
    name: RrfTable(fields.split(","), required.split(","))
    for name, fields, required in (
        (
            "MRCONSO",
            "CUI,LAT,TS,LUI,STT,SUI,ISPREF,AUI,SAUI,SCUI,SDUI,SAB,TTY,CODE,STR,SRL,SUPPRESS,CVF",
            "CUI,STR",
        ),
        ("MRSTY", "CUI,TUI,STN,STY,ATUI,CVF", "CUI,TUI"),
        ("MRDEF", "CUI,AUI,ATUI,SATUI,SAB,DEF,SUPPRESS,CVF", "CUI,DEF"),
        (
            "MRREL",
            "CUI1,AUI1,STYPE1,REL,CUI2,AUI2,STYPE2,RELA,RUI,SRUI,SAB,SL,RG,DIR,SUPPRESS,CVF",
            "CUI1,REL,CUI2",
        ),
        ("MRCUI", "CUI1,VER,REL,RELA,MAPREASON,CUI2,MAPIN", "CUI1,REL"),
    )
}


def read_table(
    name: str, path: Path, used: Sequence[str], block_bytes: int = 4 << 20
) -> Iterator[pa.RecordBatch]:
    """Yield record batches of the columns `used` (string), in file order, a few in memory.

    Args:
        name: a table of `TABLES`.
        path: the file, plain or gzip.
        used: fields to return, in this order.
        block_bytes: bytes read at a time; a line must not be longer.

    Raises:
        UserError: the file is missing, empty or damaged, or a line is malformed (names file and
            line).
    """
    table = TABLES[name]
    columns = [*dict.fromkeys([*used, *table.required]), CLOSING]
    convert = csv.ConvertOptions(
        include_columns=columns,
        column_types=dict.fromkeys(columns, pa.string()),
        strings_can_be_null=False,
    )
    reading = csv.ReadOptions(column_names=[*table.fields, CLOSING], block_size=block_bytes)
    with open_binary(path) as stream, progress(desc=f"reading {path.name}", unit=" lines") as bar:
        lines = 0
        try:
            for batch in csv.open_csv(stream, reading, PIPES, convert):
                is_sound = all(
                    pc.all(pc.not_equal(batch[field], "")).as_py() for field in table.required
                )
                if not is_sound or pc.any(pc.not_equal(batch[CLOSING], "")).as_py():
                    raise pa.ArrowInvalid("a field is missing")
                yield batch.select(used)
                lines += len(batch)
                if lines > MOST_LINES:
                    raise UserError(
                        f"{path}:{lines}: the file has more than {MOST_LINES:,} lines; download it "
                        "again"
                    )
                bar.update(len(batch))
        except pa.ArrowInvalid as error:
            raise _malformed(path, table, str(error).splitlines()[0]) from None


def filtered_lines(
    name: str,
    path: Path,
    fields: Sequence[str],
    filters: Mapping[str, Sequence[str]] = MappingProxyType({}),
    preferences: Mapping[str, Sequence[str]] = MappingProxyType({}),
    wanted: pa.Array | None = None,
) -> tuple[pa.Table, Counter[str]]:
    """Read some fields of the lines that pass filters into memory.

    Args:
        name: a table of `TABLES`.
        path: the file, plain or gzip.
        fields: fields to return.
        filters: field -> values of which a line has one; without any, all pass.
        preferences: fields and their values, best first, that decide the rank.
        wanted: CUIs of the lines; None: any.

    Returns:
        The fields, and ``rank`` (int16), the best first; and the number of ``lines`` in the file,
        and of those that each filter left out, by its field.

    Raises:
        UserError: as `read_table`.
    """
    schema = pa.schema({**dict.fromkeys(fields, pa.string()), "rank": pa.int16()})
    counts: Counter[str] = Counter()
    blocks = []
    for block in read_table(name, path, [*dict.fromkeys([*fields, *filters, *preferences])]):
        counts["lines"] += len(block)
        if wanted is not None:
            block = block.filter(pc.is_in(block["CUI"], wanted))
        for field, values in filters.items():
            retained = passing(block, field, values)
            counts[field] += len(block) - len(retained)
            block = retained
        columns = [*(block[field] for field in fields), _ranks(block, preferences)]
        blocks.append(pa.record_batch(columns, schema=schema))
    return pa.Table.from_batches(blocks, schema), counts


def passing(block: pa.RecordBatch, field: str, values: Sequence[str]) -> pa.RecordBatch:
    """The lines whose field has one of the values; all if there are none."""
    return block.filter(pc.is_in(block[field], pa.array(values, pa.string()))) if values else block


def _malformed(path: Path, table: RrfTable, reason: str) -> UserError:
    """The error for a file, which names its first malformed line."""
    required = [table.fields.index(field) for field in table.required]
    for number, line in read_lines(path):
        try:
            *row, closing = decode(line).split("|")
        except Malformed as problem:
            return UserError(f"{path}:{number}: {problem}; fix the line or download the file again")
        is_closed = len(row) == len(table.fields) and not closing
        if line and not (is_closed and all(row[position] for position in required)):
            return UserError(
                f"{path}:{number}: expected {len(table.fields)} fields, "
                f"each closed by |, of which {', '.join(table.required)} are not empty; "
                "fix the line or download the file again"
            )
    return UserError(f"{path} cannot be read ({reason}); download it again")


# What makes a name preferred, after its language: field, and its values from best to worst.
PREFERENCES = {"TS": ("P", "S", "p", "s"), "STT": ("PF",), "ISPREF": ("Y",)}
# The names that a source itself prefers; several CUIs may have one of its codes.
CODE_PREFERENCES = {"TTY": ("MH", "NM", "PT")} | PREFERENCES


def read_rrf_concepts(
    files: Mapping[str, Path],
    *,
    languages: Sequence[str] = ("ENG",),
    sources: Sequence[str] = (),
    identifiers: str | None = None,
) -> tuple[pa.Table, dict[str, Any]]:
    """Read a release's concepts, sorted by id whatever the order of the files.

    The preferred name is the release's own choice: by language (in the order of `languages`), term
    status TS (P, S, then the suppressible p, s), string type STT (PF first), ISPREF (Y first), then
    order of file. Equal names of a concept are given once. Suppressed names and definitions are
    left out. The definition is the first one that passes `sources`. Memory holds the names that
    pass the filters, twice while they are sorted.

    Args:
        files: ``MRCONSO`` and, when wanted, ``MRSTY`` and ``MRDEF``, as `release_files` gives them.
        languages: LAT values kept; empty keeps all.
        sources: SAB values kept; empty keeps all.
        identifiers: source (SAB) whose codes are the concept ids, with the CUIs of each as its
            alternates; only its names and definitions are kept. None: ids are CUIs.

    Returns:
        The concepts in `CONCEPT_SCHEMA`, and a report of what was read: ``names_read``,
        ``names_kept`` and ``dropped`` (names by filter).

    Raises:
        UserError: a file is missing, empty or damaged; a line is malformed (names file and line);
            or no name passes the filters (names the filter).
    """
    sources = [identifiers] if identifiers else sources
    lists, report = read_names(files["MRCONSO"], languages, sources, by_code=bool(identifiers))
    alternates = lists.alternates
    cuis = alternates.values.unique() if alternates else lists.ids
    definitions = None
    if "MRDEF" in files:
        filters = {"SUPPRESS": ["N"], "SAB": sources}
        lines, _ = filtered_lines("MRDEF", files["MRDEF"], ["CUI", "DEF"], filters)
        _, texts = by_cui(lines, "DEF", cuis)
        definitions = pc.binary_join(
            pc.list_slice(_lists_of_codes(texts, cuis, alternates), 0, 1), ""
        )
    if "MRSTY" in files:
        _, types = read_types(files["MRSTY"], cuis)
        lists = lists._replace(types=_lists_of_codes(types, cuis, alternates))
    return table_of_lists(lists, definitions), report


def _lists_of_codes(
    lists: pa.ListArray, cuis: pa.Array, alternates: pa.ListArray | None
) -> pa.ListArray:
    """The lists of CUIs as lists of the concepts with these alternates; None: CUIs are concepts."""
    if alternates is None:
        return lists
    value_lists = lists.take(pc.index_in(pc.list_flatten(alternates), cuis))
    rows = pc.list_parent_indices(alternates).take(pc.list_parent_indices(value_lists)).to_numpy()
    return distinct_lists(rows, pa.chunked_array([pc.list_flatten(value_lists)]), len(alternates))


def read_names(
    path: Path,
    languages: Sequence[str] = ("ENG",),
    sources: Sequence[str] = (),
    wanted: pa.Array | None = None,
    by_code: bool = False,
) -> tuple[NameLists, dict[str, Any]]:
    """Read the names of MRCONSO that pass the filters.

    Args:
        path: the file.
        languages: LAT values kept, in order of preference; empty keeps all.
        sources: SAB values kept; empty keeps all.
        wanted: read only these CUIs, of which the file may have none; None reads all.
        by_code: whether ids are the codes of the source, not CUIs.

    Returns:
        Ids and names, and with `by_code` the CUIs of each code as its alternates; and the counts of
        the report.

    Raises:
        UserError: as `read_rrf_concepts`.
    """
    filters = {"LAT": languages, "SAB": sources, "SUPPRESS": ["N"]}
    further_preferences = CODE_PREFERENCES if by_code else PREFERENCES
    preferences = {"LAT": languages} | further_preferences
    used = ["CODE", "STR", "CUI"] if by_code else ["CUI", "STR"]
    names, counts = filtered_lines("MRCONSO", path, used, filters, preferences, wanted)
    dropped = {field: counts[field] for field in filters}
    if not len(names) and wanted is None:
        raise UserError(
            f"{path}: none of {counts['lines']:,} names passes the filters {filters}, "
            f"which leave out {dropped}; change languages or sources"
        )
    report = {"names_read": counts["lines"], "names_kept": len(names), "dropped": dropped}
    ids = names[0].unique()
    ids = ids.take(pc.sort_indices(ids))
    rows = pc.index_in(names[0], ids).to_numpy().astype(np.int64)
    cuis = distinct_lists(rows, names["CUI"], len(ids)) if by_code else None
    texts = names["STR"]
    ranks = names["rank"].to_numpy()
    # Frees the other columns of millions of rows.
    del names
    return NameLists(ids, distinct_lists(rows, texts, len(ids), ranks), alternates=cuis), report


def read_types(path: Path, cuis: pa.Array | None = None) -> tuple[pa.Array, pa.ListArray]:
    """CUIs, and the semantic types (TUI) of each from MRSTY; None reads all.

    Raises:
        UserError: as `read_table`.
    """
    lines, _ = filtered_lines("MRSTY", path, ["CUI", "TUI"])
    return by_cui(lines, "TUI", cuis)


def by_cui(
    lines: pa.Table, column: str, cuis: pa.Array | None = None
) -> tuple[pa.Array, pa.ListArray]:
    """CUIs, by default those of `filtered_lines`, and the distinct values of each, by rank."""
    if cuis is None:
        cuis = lines["CUI"].unique()
    rows = pc.index_in(lines["CUI"], cuis)
    lines = lines.filter(pc.is_valid(rows))
    rows = rows.drop_null().to_numpy().astype(np.int64)
    return cuis, distinct_lists(rows, lines[column], len(cuis), lines["rank"].to_numpy())


def _ranks(block: pa.RecordBatch, preferences: Mapping[str, Sequence[str]]) -> np.ndarray:
    """Rank of each line, (n,) int16, the best first, by fields and their values, best first."""
    rank = np.zeros(len(block), np.int64)
    for field, values in preferences.items():
        positions = pc.index_in(block[field], pa.array(values, pa.string()))
        rank = rank * (len(values) + 1) + positions.fill_null(len(values)).to_numpy()
    return rank.astype(np.int16)


REQUIRED_TABLES = ("MRCONSO", "MRSTY")


def release_files(
    umls_dir: Path, unused: Collection[str] = (), required: Collection[str] = REQUIRED_TABLES
) -> dict[str, Path]:
    """The files to read from a UMLS release, by name; plain ones come before ``.gz``.

    Args:
        umls_dir: folder META of the release.
        unused: tables to skip, e.g. ``MRREL``.
        required: tables that must exist; the others are left out if they do not, and so is
            ``release.dat``, which MetamorphoSys writes next to META or into it.

    Raises:
        UserError: a required file is missing.
    """
    names = {name: (f"{name}.RRF", f"{name}.RRF.gz") for name in TABLES if name not in unused}
    paths = {name: [umls_dir / file for file in files] for name, files in names.items()}
    paths["release.dat"] = [
        folder / "release.dat" for folder in (umls_dir, umls_dir.absolute().parent)
    ]
    files = {name: next(filter(Path.is_file, some), None) for name, some in paths.items()}
    for name in required:
        if files[name] is None:
            inner_folders = (umls_dir / "META", umls_dir / "umls/META")
            meta = next(filter(Path.is_dir, inner_folders), None)
            hint = f"did you mean {meta}?" if meta else "give the folder META of a release"
            raise UserError(f"{umls_dir / name}.RRF does not exist; {hint}")
    return {name: path for name, path in files.items() if path is not None}


def read_release(files: Mapping[str, Path]) -> dict[str, str]:
    """``name``, such as 2017AA, and ``date`` of the release, as far as they are stated."""
    release: dict[str, str] = {}
    if "release.dat" not in files:
        return release
    for _, line in read_lines(files["release.dat"]):
        key, _, value = line.decode("utf-8", errors="replace").partition("=")
        if value and key.strip() in ("umls.release.name", "umls.release.date"):
            release[key.strip().rpartition(".")[2]] = value.strip()
    return release


RELATIONS_FILE = "relations.arrow"
# REL of two concepts that a vocabulary calls synonyms; broader, narrower and sibling concepts are
# often good negatives.
SYNONYM = "SY"
PAIRS = pa.schema({"CUI1": pa.string(), "CUI2": pa.string()})
# The lowest bits are 0 for synonyms; files of earlier versions have parents and children, too.
KIND_BITS = 2
ROW_BITS = 30


class RelationTable:
    """The synonymous concepts of a concept folder, seen from both; memory-mapped.

    Rows are those of the `ConceptTable` in the same folder.
    """

    def __init__(self, pairs: np.ndarray) -> None:
        # (n,) int64, ascending: from the upper bits, a row, a related row, 0.
        self._pairs = pairs

    @classmethod
    def load(cls, folder: str | Path) -> RelationTable:
        """Open the relations of a concept folder.

        Raises:
            OSError, pa.ArrowInvalid: the file is missing or damaged.
        """
        return cls(open_arrow(Path(folder) / RELATIONS_FILE)["relation"].to_numpy())

    def __len__(self) -> int:
        """Number of ordered pairs of related concepts."""
        return len(self._pairs)

    def related(self, gold: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Whether each of `rows` is a synonym of its gold concept; row -1 is none.

        Args:
            gold: (n, 1) int, rows of gold concepts, or another shape that broadcasts with `rows`.
            rows: (n, k) int, rows of concepts.

        Returns:
            Bool, of the common shape.
        """
        gold, rows = np.broadcast_arrays(np.asarray(gold, np.int64), np.asarray(rows, np.int64))
        wanted = _row_pairs(gold, rows)
        if not len(self._pairs):
            return np.zeros(wanted.shape, bool)
        positions = np.searchsorted(self._pairs, wanted).clip(max=len(self._pairs) - 1)
        # A row of -1 makes the number negative, unlike any pair.
        return self._pairs[positions] == wanted


def read_relations(path: Path, pairs: int = 4_000_000) -> Iterator[pa.Table]:
    """Yield MRREL's synonymous CUIs in blocks, of all sources; suppressed lines are left out.

    Args:
        path: ``MRREL.RRF``, plain or gzip.
        pairs: number of pairs of a block, at least.

    Raises:
        UserError: the file is missing, empty or damaged, or a line is malformed (names file and
            line).
    """
    waiting: list[pa.RecordBatch] = []
    for block in read_table("MRREL", path, ["CUI1", "REL", "CUI2", "SUPPRESS"]):
        is_synonym = pc.equal(block["REL"], SYNONYM)
        retained = pc.and_(is_synonym, pc.equal(block["SUPPRESS"], "N"))
        waiting.append(block.filter(retained).select(PAIRS.names))
        if sum(map(len, waiting)) > pairs:
            yield pa.Table.from_batches(waiting)
            waiting = []
    yield pa.Table.from_batches(waiting, PAIRS)


def write_relations(relations: Iterable[pa.Table], cuis: pa.Array, folder: Path) -> int:
    """Write the related concepts of the dictionary: a pair once, seen from both.

    Memory holds 8 bytes per ordered pair, and three times as much while sorting.

    Args:
        relations: tables of `PAIRS`.
        cuis: the concept ids by row.
        folder: the concept folder.

    Returns:
        The number of ordered pairs.
    """
    pairs = np.empty(0, np.int64)
    for block in relations:
        first = _rows_in(block["CUI1"], cuis)
        second = _rows_in(block["CUI2"], cuis)
        inside = (first >= 0) & (second >= 0) & (first != second)
        forward = _row_pairs(first[inside], second[inside])
        backward = _row_pairs(second[inside], first[inside])
        pairs = np.unique(np.concatenate([pairs, forward, backward]))
    schema = pa.schema({"relation": pa.int64()})
    with arrow_writer(folder / RELATIONS_FILE, schema) as writer:
        writer.write_table(pa.table([pairs], schema=schema))
    return len(pairs)


def _rows_in(ids: pa.ChunkedArray, cuis: pa.Array) -> np.ndarray:
    """The row of each id among the CUIs, (n,) int64; -1 where it is not one of them."""
    return pc.fill_null(pc.index_in(ids, cuis), -1).to_numpy().astype(np.int64)


def _row_pairs(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Each two rows as one number; a negative row keeps it negative."""
    return ((first << ROW_BITS) | second) << KIND_BITS
