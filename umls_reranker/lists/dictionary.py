"""`Dictionary` adds to candidates by id what it knows: names, semantic types, a synonym score."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..core.arrays import expand_ranges, number_distinct
from ..core.errors import UserError
from ..vocab.concept_columns import ConceptColumns
from ..vocab.concept_folder import CONCEPTS_FOLDER, is_index
from ..vocab.concept_table import ConceptTable
from ..vocab.concepts import NameLists, table_of_lists
from ..vocab.name_files import read_name_lists
from ..vocab.normal_form import normal_forms
from ..vocab.normalization import normalize_texts
from ..vocab.release import release_files
from ..vocab.rrf import read_names, read_types
from ..vocab.trigrams import shared_trigrams
from .candidates import concept_id
from .columns import SYNONYM_SCORE
from .foreign_candidates import standard_candidate
from .gold import bare_id
from .table import mapping_rows

TEXT_LISTS = pa.list_(pa.string())


class Dictionary:
    """Names and semantic types of concepts: of an index, a UMLS release or a file of names."""

    def __init__(self, concepts: ConceptColumns, columns: Mapping[str, str], name: str) -> None:
        #: The name of its file or folder.
        self.name = name
        # A concept without a name has the name "".
        self._concepts = concepts
        # What was read -> its column of the concepts.
        self._columns = columns

    @classmethod
    def load(cls, path: str | Path, cuis: Iterable[str] | None = None) -> Dictionary:
        """Open an index, read a release as `from_umls_dir` does, or all of a file of names.

        Args:
            path: an index or run folder; folder META of a release; or a file, plain or gzip: a
                table (CSV, TSV, JSON Lines, Parquet) with a name per row, with ``id`` and ``name``
                and optionally ``preferred`` (true or not) and ``semantic_type``; or lines
                ``id|id||name|name``. ``|`` in an id
                separates alternates, all of which find the concept, with the prefix of their
                vocabulary or without.
            cuis: the concepts to read of a release; None reads all.

        Raises:
            UserError: the file is missing, empty, damaged or without the columns; or an id or a
                name is empty (names the row).
        """
        if is_index(Path(path)):
            return cls._of_index(Path(path))
        if Path(path).is_dir():
            return cls.from_umls_dir(path, cuis)
        lists = read_name_lists(Path(path))
        columns = {"names": "name"}
        if len(lists.types.values):
            columns["semantic types"] = "semantic_types"
        all_ids = zip(lists.ids.to_pylist(), lists.alternates.to_pylist(), strict=True)
        further = [[*others, *map(bare_id, [cui, *others])] for cui, others in all_ids]
        lists = lists._replace(alternates=pa.array(further, TEXT_LISTS))
        return cls(ConceptColumns(table_of_lists(lists)), columns, Path(path).name)

    @classmethod
    def _of_index(cls, folder: Path) -> Dictionary:
        """The concepts of an index, of which nothing is read before it is used."""
        concepts = ConceptTable.load(folder / CONCEPTS_FOLDER)
        columns = {"names": "name"}
        types = concepts.column("semantic_types", np.arange(len(concepts)))
        if len(types.flatten()):
            columns["semantic types"] = "semantic_types"
        return cls(concepts, columns, folder.name)

    @classmethod
    def from_umls_dir(
        cls,
        umls_dir: str | Path,
        cuis: Iterable[str] | None = None,
        *,
        languages: Sequence[str] = ("ENG",),
    ) -> Dictionary:
        """Read ``MRCONSO.RRF`` (names that are not suppressed) and ``MRSTY.RRF``, or one of them.

        Args:
            umls_dir: folder META of a release; files may be ``.gz``. Join files that are in several
                parts with ``cat``.
            cuis: read only these concepts; None: all, which takes gigabytes for a full release.
            languages: LAT values of the names; empty keeps all.

        Raises:
            UserError: neither file exists, or one is malformed; the message names file and line.
        """
        folder = Path(umls_dir)
        files = release_files(folder, required=())
        if "MRCONSO" not in files and "MRSTY" not in files:
            raise UserError(
                f"{folder} contains neither MRCONSO.RRF nor MRSTY.RRF; "
                "give the folder META of a release"
            )
        wanted = (
            None if cuis is None else pa.array(sorted({cui.strip() for cui in cuis}), pa.string())
        )
        columns: dict[str, str] = {}
        lists = NameLists(pa.array([], pa.string()), pa.array([], TEXT_LISTS))
        typed, types = lists[:2]
        if "MRCONSO" in files:
            columns["names"] = "name"
            lists, _ = read_names(files["MRCONSO"], languages, wanted=wanted)
        if "MRSTY" in files:
            columns["semantic types"] = "semantic_types"
            typed, types = read_types(files["MRSTY"], wanted)
        ids = pa.concat_arrays([lists.ids, typed]).unique()
        names = lists.names.take(pc.index_in(ids, lists.ids))
        names = pc.coalesce(names, pa.scalar([""], TEXT_LISTS))
        types = types.take(pc.index_in(ids, typed))
        concepts = ConceptColumns(table_of_lists(NameLists(ids, names, types)))
        return cls(concepts, columns, folder.name)

    def add_to(self, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return rows whose candidates with a CUI have these keys added, unless they have them.

        * ``name`` and ``preferred_name``: the concept's preferred name.
        * ``synonym_score``: similarity from 0 to 1 of the mention with the most similar of the
          concept's names and the candidate's own (Dice coefficient of the character trigrams of the
          normalized texts, or of their normal forms if these are more similar; 1 if either are
          equal).
        * ``semantic_types``: the concept's TUIs.

        The first two need ``MRCONSO.RRF``, the last ``MRSTY.RRF``. A concept that the dictionary
        lacks has no types, and its name is the candidate's name or else its CUI.

        >>> from umls_reranker import Dictionary
        >>> dictionary = Dictionary.from_umls_dir("META", cuis=["C9000004"])
        >>> rows = [{"entity": "cold in the head", "candidates": [{"cui": "C9000004"}]}]
        >>> (candidate,) = dictionary.add_to(rows)[0]["candidates"]
        >>> candidate["name"], candidate["semantic_types"], round(candidate["synonym_score"], 2)
        ('common cold', ['T047'], 1.0)

        Args:
            rows: mappings or a DataFrame with ``entity`` (or ``mention``) and ``candidates``, as in
                files; candidates that are not mappings with a ``cui`` stay as they are.

        Raises:
            UserError: a row is no mapping (it is named).
        """
        new_rows = mapping_rows(rows)
        # The candidates with a CUI, and the mention of each.
        items: list[dict[str, Any]] = []
        mentions: list[str] = []
        for row in new_rows:
            if isinstance(row.get("candidates"), list | tuple):
                row["candidates"] = list(map(_own_candidate, row["candidates"]))
                with_cui = [item for item in row["candidates"] if _cui(item)]
                items += with_cui
                mentions += [_text(row.get("entity", row.get("mention")))] * len(with_cui)
        concept_rows = self._rows(list(map(_cui, items)))
        columns: dict[str, Sequence[Any]] = {}
        if "names" in self._columns:
            names = self._concepts.column("name", concept_rows).to_pylist()
            preferred = [
                name or _text(item.get("name")) or _cui(item)
                for name, item in zip(names, items, strict=True)
            ]
            columns = {
                "name": preferred,
                "preferred_name": preferred,
                SYNONYM_SCORE: self._similarities(mentions, items, concept_rows).tolist(),
            }
        if "semantic types" in self._columns:
            types = self._concepts.column("semantic_types", concept_rows)
            columns["semantic_types"] = [each or [] for each in types.to_pylist()]
        for key, values in columns.items():
            for item, value in zip(items, values, strict=True):
                if _is_missing(item.get(key)):
                    item[key] = value
        return new_rows

    def has(self, cuis: Sequence[str]) -> np.ndarray:
        """Whether it has names, or if it read none types, of each of m CUIs, (m,) bool."""
        column, *_ = self._columns.values()
        return self._has(column, cuis)

    def known(self, cuis: Sequence[str]) -> dict[str, int]:
        """How many of m CUIs have ``names`` here, and how many have ``semantic types``."""
        return {name: int(self._has(column, cuis).sum()) for name, column in self._columns.items()}

    def _has(self, column: str, cuis: Sequence[str]) -> np.ndarray:
        return np.array(
            [*map(bool, self._concepts.column(column, self._rows(cuis)).to_pylist())], bool
        )

    def _rows(self, cuis: Sequence[str]) -> np.ndarray:
        """Rows of m ids, with or without the prefix of their vocabulary, (m,); -1 if unknown."""
        rows = self._concepts.rows(cuis)
        return np.where(rows < 0, self._concepts.rows(list(map(bare_id, cuis))), rows)

    def _similarities(
        self, mentions: Sequence[str], items: Sequence[Mapping[str, Any]], concept_rows: np.ndarray
    ) -> np.ndarray:
        """Similarity of mentions and the most similar of the candidate's and its concept's names.

        Args:
            mentions: (m,) texts.
            items: (m,) candidates.
            concept_rows: (m,) rows of their concepts; -1 for unknown ones.

        Returns:
            (m,) float64, from 0 to 1.
        """
        used, number = np.unique(concept_rows, return_inverse=True)
        names, offsets = self._concepts.names_of(used)
        pair_item, pair_name = expand_ranges(offsets[number], offsets[number + 1])
        texts, codes = number_distinct(
            [*(_text(item.get("name")) for item in items), *names.to_pylist()]
        )
        distinct_mentions, mention_codes = number_distinct(mentions)
        owner = np.concatenate([np.arange(len(items)), pair_item])
        name_codes = np.concatenate([codes[: len(items)], codes[len(items) + pair_name]])
        similarities = np.zeros(len(items))
        for forms in (normalize_texts, normal_forms):
            mention_share, name_share = shared_trigrams(
                forms(distinct_mentions), forms(texts), mention_codes[owner], name_codes
            )
            total = mention_share + name_share
            dice = 2 * mention_share * name_share / np.where(total > 0, total, 1)
            np.maximum.at(similarities, owner, dice)
        return similarities


def _own_candidate(item: Any) -> Any:
    """A candidate in our form; a mapping is copied, since it will be changed."""
    standard = standard_candidate(item)
    return dict(standard) if isinstance(standard, Mapping) else standard


def _cui(item: Any) -> str:
    """The CUI of a candidate that is a mapping, else ""."""
    return _text(concept_id(item)).strip() if isinstance(item, dict) else ""


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())
