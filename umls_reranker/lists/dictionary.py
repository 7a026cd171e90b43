"""`Dictionary` adds to candidates by id what a dictionary knows: names, semantic types, and a synonym score."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..core.arrays import expand_ranges, list_offsets, number_distinct
from ..core.errors import UserError
from ..vocab.concepts import StringRows
from ..vocab.names import read_name_lists
from ..vocab.rrf import read_names, read_types, release_files
from ..vocab.text import normal_forms, normalize_texts, shared_trigrams
from .candidate_forms import bare_id, concept_id, standard_candidate
from .columns import SYNONYM_SCORE


class _Candidate(NamedTuple):
    """A candidate with a CUI: its row and its position there, its own name or "", and its CUI."""

    row: int
    position: int
    name: str
    cui: str


class _Column(NamedTuple):
    """A list of strings for each concept that has any; `rows` finds it by CUI."""

    rows: StringRows
    lists: pa.ListArray

    @classmethod
    def of(cls, cuis: pa.StringArray, lists: pa.ListArray) -> _Column:
        return cls(StringRows.of(cuis), lists)

    def lists_of(self, cuis: Sequence[str]) -> pa.ListArray:
        """The lists of m concepts, null for an unknown one."""
        rows = self.rows.find_one(pa.array(cuis, pa.string()))
        rows = np.where(rows < 0, self.rows.find_one(pa.array(map(bare_id, cuis), pa.string())), rows)
        return self.lists.take(pa.array(rows, mask=rows < 0))


class Dictionary:
    """Names and semantic types of concepts, which `Dictionary.load` reads from a UMLS release or a file of names."""

    def __init__(self, names: _Column | None, types: _Column | None) -> None:
        # Of names, the preferred one comes first; None was not read.
        self._names, self._types = names, types

    @classmethod
    def load(cls, path: str | Path, cuis: Iterable[str] | None = None) -> Dictionary:
        """Read a release as `from_umls_dir` does, or all of a file of names.

        Args:
            path: folder META of a release; or a file, plain or gzip: a table (CSV, TSV, JSON Lines, Parquet) with a
                name per row, with ``id`` and ``name`` and optionally ``preferred`` (true or not) and
                ``semantic_type``; or lines ``id|id||name|name``. ``|`` in an id separates alternates, all of which
                find the concept, with the prefix of their vocabulary or without.
            cuis: the concepts to read of a release; None reads all.

        Raises:
            UserError: the file is missing, empty, damaged or without the columns; or an id or a name is empty (names
                the row).
        """
        if Path(path).is_dir():
            return cls.from_umls_dir(path, cuis)
        ids, names, types, alternates = read_name_lists(Path(path))
        all_ids = zip(ids.to_pylist(), alternates.to_pylist(), strict=True)
        further = [[*others, *map(bare_id, [cui, *others])] for cui, others in all_ids]
        rows = StringRows(StringRows.table_of_ids(ids, pa.array(further, pa.list_(pa.string()))))
        return cls(_Column(rows, names), _Column(rows, types) if len(types.values) else None)

    @classmethod
    def from_umls_dir(
        cls, umls_dir: str | Path, cuis: Iterable[str] | None = None, *, languages: Sequence[str] = ("ENG",)
    ) -> Dictionary:
        """Read ``MRCONSO.RRF`` (names that are not suppressed) and ``MRSTY.RRF``, or whichever of them exists.

        Args:
            umls_dir: folder META of a release; files may be ``.gz``, or in the parts that NLM ships.
            cuis: read only these concepts; None reads all, which takes gigabytes for a full release.
            languages: LAT values of the names; empty keeps all.

        Raises:
            UserError: neither file exists, or one is malformed; the message names file and line.
        """
        folder = Path(umls_dir)
        files = release_files(folder, required=())
        wanted = None if cuis is None else pa.array(sorted({cui.strip() for cui in cuis}), pa.string())
        if "MRCONSO" not in files and "MRSTY" not in files:
            raise UserError(f"{folder} contains neither MRCONSO.RRF nor MRSTY.RRF; give the folder META of a release")
        names = types = None
        if "MRCONSO" in files:
            names = _Column.of(*read_names(files["MRCONSO"], languages, wanted=wanted)[:2])
        if "MRSTY" in files:
            types = _Column.of(*read_types(files["MRSTY"], wanted))
        return cls(names, types)

    def add_to(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return rows whose candidates with a CUI have these keys added, unless they have them already.

        * ``name`` and ``preferred_name``: the concept's preferred name.
        * ``synonym_score``: similarity from 0 to 1 of the mention with the most similar of the concept's names and the
          candidate's own (Dice coefficient of the character trigrams of the normalized texts, or of their normal
          forms if these are more similar; 1 if either are equal).
        * ``semantic_types``: the concept's TUIs.

        The first two need ``MRCONSO.RRF``, the last ``MRSTY.RRF``. A concept that the dictionary lacks has no types,
        and its name is the candidate's name or else its CUI.

        >>> from umls_reranker import Dictionary
        >>> dictionary = Dictionary.from_umls_dir("META", cuis=["C9000004"])
        >>> (row,) = dictionary.add_to([{"entity": "cold in the head", "candidates": [{"cui": "C9000004"}]}])
        >>> (candidate,) = row["candidates"]
        >>> candidate["name"], candidate["semantic_types"], round(candidate["synonym_score"], 2)
        ('common cold', ['T047'], 1.0)

        Args:
            rows: mappings with ``entity`` (or ``mention``) and ``candidates``, as in files; candidates that are not
                mappings with a ``cui`` stay as they are.
        """
        new_rows = [dict(row) for row in rows]
        known: list[_Candidate] = []
        for number, row in enumerate(new_rows):
            if isinstance(row.get("candidates"), list | tuple):
                row["candidates"] = list(map(standard_candidate, row["candidates"]))
                known += _with_cui(number, row["candidates"])
        cuis = [candidate.cui for candidate in known]
        columns: dict[str, Sequence[Any]] = {}
        if self._names is not None:
            pairs = zip(self._names.lists_of(cuis).to_pylist(), known, strict=True)
            preferred = [names[0] if names else candidate.name or candidate.cui for names, candidate in pairs]
            mentions = [_text(row.get("entity", row.get("mention"))) for row in new_rows]
            scores = _similarities(mentions, known, self._names).tolist()
            columns = {"name": preferred, "preferred_name": preferred, SYNONYM_SCORE: scores}
        if self._types is not None:
            columns["semantic_types"] = [types or [] for types in self._types.lists_of(cuis).to_pylist()]
        for index, candidate in enumerate(known):
            item = new_rows[candidate.row]["candidates"][candidate.position]
            added = {key: values[index] for key, values in columns.items() if _is_missing(item.get(key))}
            new_rows[candidate.row]["candidates"][candidate.position] = {**item, **added}
        return new_rows

    def has(self, cuis: Sequence[str]) -> np.ndarray:
        """Whether it has names, or if it read none types, of each of m CUIs, (m,) bool."""
        column = self._names or self._types
        return column.lists_of(cuis).is_valid().to_numpy(zero_copy_only=False) if column else np.zeros(len(cuis), bool)

    def known(self, cuis: Sequence[str]) -> dict[str, int]:
        """How many of m CUIs have names here, and how many have types; keys ``names`` and ``semantic types``."""
        columns = {"names": self._names, "semantic types": self._types}
        return {name: sum(map(bool, column.lists_of(cuis).to_pylist())) for name, column in columns.items() if column}


def _with_cui(row: int, candidates: Sequence[Any]) -> Iterator[_Candidate]:
    """The candidates that are mappings with a CUI."""
    for position, item in enumerate(candidates):
        if isinstance(item, Mapping) and (cui := _text(concept_id(item)).strip()):
            yield _Candidate(row, position, _text(item.get("name")), cui)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _similarities(mentions: Sequence[str], candidates: Sequence[_Candidate], names: _Column) -> np.ndarray:
    """Similarity of each candidate's mention and the most similar of its own name and its concept's names.

    Args:
        mentions: text of the mention of each row.
        candidates: (m,) candidates with a CUI.
        names: names of the concepts.

    Returns:
        (m,) float64, from 0 to 1.
    """
    used, number = number_distinct([candidate.cui for candidate in candidates])
    lists = names.lists_of(used)
    offsets = list_offsets(pc.fill_null(pc.list_value_length(lists), 0).to_numpy())
    texts = pc.list_flatten(lists).to_pylist()
    pair_candidate, pair_text = expand_ranges(offsets[number], offsets[number + 1])
    everyone = np.arange(len(candidates))
    distinct, codes = number_distinct([*(candidate.name for candidate in candidates), *texts])
    owner = np.concatenate([everyone, pair_candidate])
    name_codes = codes[np.concatenate([everyone, len(candidates) + pair_text])]
    mention_of = np.array([candidate.row for candidate in candidates], np.int64)
    similarities = np.zeros(len(candidates))
    for forms in (normalize_texts, normal_forms):
        of_mention, of_name = shared_trigrams(forms(mentions), forms(distinct), mention_of[owner], name_codes)
        total = of_mention + of_name
        np.maximum.at(similarities, owner, 2 * of_mention * of_name / np.where(total > 0, total, 1))
    return similarities
