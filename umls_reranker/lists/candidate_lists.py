"""`CandidateLists`: mentions and their candidates in flat columns, from any source.

They are made from rows as users write them, Python objects or an Arrow table. Missing values are
null, NaN, or -1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..core.arrays import (
    RepeatedTexts,
    list_offsets,
    list_owner,
    lists_with_any,
    number_distinct,
    values_at,
)
from ..core.arrow_files import one_chunk
from ..vocab.type_sets import TypeSets
from ..vocab.types import TypeHierarchy
from .candidates import are_structs, candidate_structs, fields_of, keys_found, refuse_name
from .columns import (
    FIELDS,
    FOUND,
    NUMBER,
    SUFFIX,
    SYNONYM_SCORE,
    TEXT,
    TYPES,
    ColumnChecker,
    InvalidRow,
    encoded_texts,
    python_values,
)
from .gold import trainable
from .index_scores import INDEX_SCORES
from .table import CANDIDATES, ERROR, mappings_of, row_table

if TYPE_CHECKING:
    from typing_extensions import Self

    from ..vocab.concept_table import ConceptTable
    from .dictionary import Dictionary

# The columns of a table that are read.
COLUMNS = ("entity", "mention", "entity_type", "left", "right", "index_key", CANDIDATES, ERROR)
# The end of the message about a mention without a list.
FINDS_CANDIDATES = "; umls-reranker link finds the candidates of mentions"


@dataclass(frozen=True)
class Annotations:
    """Annotations of n mentions.

    Attributes:
        cuis: (n,) the gold concept; several ids are joined by "|", and "" is none.
        alternatives: (n,) tuples of the ids of which any is a correct answer: one, several or none.
        composite: (n,) bool, whether the mention names several concepts, and its alternatives are
            their ids.
        documents: (n,) the document of the mention; of nearly equal ones, the first.
        doc_ids: (n,) the id of its document.
        starts: (n,) offset of the mention's start in its document.
        ends: (n,) offset of its end.
        gold: (n,) int64, position of the first correct candidate in its list, or -1.
        in_dictionary: (n,) bool, whether the dictionary has a gold concept; without a dictionary,
            whether there is one.
        is_random_sample: (n,) bool, whether the mention is from a random sample, so that it may
            count for a certificate.
        mention_ids: (n,) the id of the mention in its document, None without one.
        splits: (n,) the split that its row names, None without one.
        positions: (n,) file and row of the mention (`read.RowPosition`), for messages.
    """

    cuis: np.ndarray
    alternatives: np.ndarray
    composite: np.ndarray
    documents: np.ndarray
    doc_ids: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    gold: np.ndarray
    in_dictionary: np.ndarray
    is_random_sample: np.ndarray
    mention_ids: np.ndarray
    splits: np.ndarray
    positions: np.ndarray

    def take(self, rows: np.ndarray) -> Annotations:
        """The annotations of some mentions, given as indices or (n,) bool."""
        return Annotations(**{name: column[rows] for name, column in vars(self).items()})

    @property
    def trainable(self) -> np.ndarray:
        """(n,) the gold concept, or "" (`gold.trainable`)."""
        return np.where(self.composite, "", trainable([ids] for ids in self.alternatives))


@dataclass(frozen=True)
class CandidateLists:
    """n mentions with m candidates in all, by mention in retrieval order.

    Attributes:
        mentions: n texts.
        lefts: n texts before the mentions.
        rights: n texts after the mentions.
        types: types of n mentions, ids of `hierarchy`.
        offsets: (n + 1,) int64, where each mention's candidates start.
        names: m names.
        cuis: m concept ids, None if missing.
        preferred_names: m texts, null if missing.
        definitions: m texts, null if missing.
        candidate_types: types of m candidates, ids of `hierarchy`.
        scores: name of a retriever -> (m,) float64; NaN if a candidate lacks the score. The names
            are `lists.columns.INDEX_SCORES` or those of a pipeline.
        hierarchy: the types that the model knows; others are ignored.
        are_scored: (n,) bool, whether any candidate has a score of a retriever, read or not.
        index_keys: for n mentions the ``index_key`` (index.json) of the index that retrieved their
            candidates; "" if it is unknown, as for user-provided lists.
        unknown_types: types of mentions that the model does not know.
        unread_scores: key of each further score of candidates -> mentions with it, (n,) bool.
    """

    mentions: Sequence[str]
    lefts: Sequence[str]
    rights: Sequence[str]
    types: TypeSets
    offsets: np.ndarray
    names: RepeatedTexts
    cuis: RepeatedTexts
    preferred_names: pa.StringArray
    definitions: pa.StringArray
    candidate_types: TypeSets
    scores: Mapping[str, np.ndarray]
    hierarchy: TypeHierarchy
    are_scored: np.ndarray
    index_keys: Sequence[str]
    unknown_types: Sequence[str] = ()
    unread_scores: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def from_table(
        cls,
        hierarchy: TypeHierarchy,
        table: pa.Table,
        scores: Iterable[str] | None = INDEX_SCORES,
    ) -> CandidateLists:
        """Check n mentions and their candidates, and make lists of them.

        Args:
            hierarchy: the types that the model knows.
            table: the mentions: ``entity`` (or ``mention``) and ``candidates``. Optional columns
                are ``entity_type``, ``left``, ``right``, and ``index_key``, the key of the index
                whose scores the candidates have. Others are ignored.
            scores: retrievers whose scores to read: "bm25" for the key ``bm25_score``; None: all.

        Raises:
            InvalidRow: a value is missing or of the wrong type, a mention or a name is blank, a
                mention is too long, or a row could not be read (it has ``error``); names its
                position, and its mention if there are several.
        """
        count = len(table)
        checker = ColumnChecker(count)
        columns = _read_columns(table)
        if ERROR in columns:
            _refuse_unreadable(columns[ERROR])
        entities = _entities(table, columns, checker)
        types = TypeSets.of_lists(checker.column("entity_type", columns.get("entity_type"), TYPES))
        types, unknown_types = types.resolved(hierarchy)
        candidates = _structs(table, columns, scores)
        offsets = list_offsets(candidates.value_lengths().to_numpy())
        structs = candidates.flatten()
        fields = fields_of(structs)
        item_checker = ColumnChecker(count, offsets)
        texts = {
            key: item_checker.column(key, fields.get(key), TEXT) for key in ("name", "cui", *FIELDS)
        }
        names = encoded_texts(texts["name"])
        _require_names(names, structs, item_checker)
        kinds = item_checker.column("semantic_types", fields.get("semantic_types"), TYPES)
        with_score = _lists_with_scores(fields, offsets)
        read = with_score if scores is None else [name + SUFFIX for name in scores]
        numbers = {
            key: item_checker.column(key, fields.get(key), NUMBER).to_numpy(zero_copy_only=False)
            for key in read
        }
        return cls(
            mentions=checker.mention_texts("entity", entities),
            lefts=_texts_or_empty(checker.column("left", columns.get("left"), TEXT)),
            rights=_texts_or_empty(checker.column("right", columns.get("right"), TEXT)),
            types=types,
            offsets=offsets,
            names=names,
            cuis=encoded_texts(texts["cui"]),
            preferred_names=texts["preferred_name"],
            definitions=texts["definition"],
            candidate_types=TypeSets.of_lists(kinds).resolved(hierarchy)[0],
            scores={key.removesuffix(SUFFIX): column for key, column in numbers.items()},
            hierarchy=hierarchy,
            are_scored=_are_scored(with_score, count),
            index_keys=_texts_or_empty(checker.column("index_key", columns.get("index_key"), TEXT)),
            unknown_types=unknown_types,
            unread_scores={key: has for key, has in with_score.items() if key not in numbers},
        )

    @classmethod
    def from_rows(
        cls,
        hierarchy: TypeHierarchy,
        rows: Sequence[Mapping[str, Any]] | pa.Table,
        scores: Iterable[str] | None = INDEX_SCORES,
    ) -> CandidateLists:
        """Make lists from n rows as in files, in any form of `table.row_table`.

        Raises:
            InvalidRow: as for `from_table`.
            UserError: a row is no mapping (it is named).
        """
        return cls.from_table(hierarchy, row_table(rows, scores or ()), scores)

    def annotated(self, annotations: Annotations) -> AnnotatedLists:
        """The same lists with annotations."""
        return AnnotatedLists(
            **{column.name: getattr(self, column.name) for column in fields(CandidateLists)},
            annotations=annotations,
        )

    def __len__(self) -> int:
        return len(self.mentions)

    @cached_property
    def owner(self) -> np.ndarray:
        """The mention that each candidate belongs to, (m,)."""
        return list_owner(self.offsets)

    @cached_property
    def concepts(self) -> np.ndarray:
        """Equal numbers for candidates of a list with the same CUI, else name, (m,) int64."""
        ids, numbers = number_distinct(self.ids)
        codes = numbers[self.cuis.codes]
        if "" in ids:
            named = zip(RepeatedTexts(ids, codes).to_list(), self.names.to_list(), strict=True)
            ids, codes = number_distinct([cui or name for cui, name in named])
        return self.owner * (len(ids) + 1) + codes

    @cached_property
    def ids(self) -> list[str]:
        """`cuis` without outer blanks, as in counts and dictionaries; "" if missing."""
        return [(text or "").strip() for text in self.cuis.texts]

    def among(self, alternatives: np.ndarray) -> np.ndarray:
        """Whether each candidate is one of several alternatives (n,) of its mention, (m,) bool."""
        is_one = np.zeros(len(self.owner), bool)
        for row in np.flatnonzero([len(ids) > 1 for ids in alternatives]).tolist():
            candidates = slice(self.offsets[row], self.offsets[row + 1])
            is_one[candidates] = [
                cui in alternatives[row] for cui in self.cuis[candidates].to_list()
            ]
        return is_one

    def are_of(self, index_key: str) -> np.ndarray:
        """Whether the candidates of each mention were retrieved with this key, (n,) bool."""
        return np.array([key == index_key for key in self.index_keys], bool)

    def have_score(self, name: str) -> np.ndarray:
        """Whether any candidate of each mention has the score, (n,) bool."""
        column = self.scores.get(name)
        if column is None:
            return self.unread_scores.get(name + SUFFIX, np.zeros(len(self), bool))
        return lists_with_any(np.isfinite(column), self.offsets)

    @property
    def partial_scores(self) -> dict[str, float]:
        """The lowest of each score that is missing for candidates that a retriever did not find."""
        finite = {name: column[np.isfinite(column)] for name, column in self.scores.items()}
        return {
            name: float(numbers.min())
            for name, numbers in finite.items()
            if 0 < len(numbers) < len(self.owner)
        }

    def with_whole_scores(self, lowest: Mapping[str, float] = MappingProxyType({})) -> Self:
        """The same lists, of which all candidates of a mention have a score, or none.

        A candidate without a score has the highest of its concept, or else the lowest of its list.

        Args:
            lowest: name of a score -> what it is in lists of which no candidate has it. These
                scores are joined by NAME`FOUND`, 1 for candidates of concepts that have the score,
                else 0.
        """
        changed: dict[str, np.ndarray] = {}
        for name, numbers in self.scores.items():
            is_found = np.isfinite(numbers)
            if not is_found.all():
                lowest_of_list = self._lowest_of_list(numbers, lowest.get(name, np.nan))
                highest_of_concept = self._highest_of_concept(numbers)
                inferred = np.maximum(highest_of_concept, lowest_of_list)
                changed[name] = np.where(is_found, numbers, inferred)
                is_found = np.isfinite(highest_of_concept)
            if name in lowest and name + FOUND not in self.scores:
                changed[name + FOUND] = is_found.astype(np.float64)
        return self.with_columns(scores={**self.scores, **changed})

    def _highest_of_concept(self, numbers: np.ndarray) -> np.ndarray:
        """The highest score of each candidate's concept in its list, (m,); -inf if it has none."""
        has_number = np.isfinite(numbers)
        concepts, concept = np.unique(self.concepts, return_inverse=True)
        highest = np.full(len(concepts), -np.inf)
        np.maximum.at(highest, concept[has_number], numbers[has_number])
        return highest[concept]

    def _lowest_of_list(self, numbers: np.ndarray, otherwise: float) -> np.ndarray:
        """The lowest score of each candidate's list, (m,); another number if the list has none."""
        has_number = np.isfinite(numbers)
        lowest = np.full(len(self), np.inf)
        np.minimum.at(lowest, self.owner[has_number], numbers[has_number])
        return np.where(np.isinf(lowest), otherwise, lowest)[self.owner]

    def with_columns(self, **columns: Any) -> Self:
        """The same candidates with other columns; what follows from ids and names stays known."""
        if not columns.keys().isdisjoint(("cuis", "names")):
            return replace(self, **columns)
        changed = copy(self)
        vars(changed).update(columns)
        return changed

    def first_positions(self, is_wanted: np.ndarray) -> np.ndarray:
        """Position in each list of the first wanted candidate, (n,) int64; -1 where there is none.

        Args:
            is_wanted: (m,) bool.
        """
        wanted = np.flatnonzero(is_wanted)[::-1]
        positions = np.full(len(self), -1, np.int64)
        # The first one is assigned last.
        positions[self.owner[wanted]] = wanted - self.offsets[self.owner[wanted]]
        return positions

    def take(self, rows: np.ndarray) -> Self:
        """The lists of some mentions, given as ascending indices or (n,) bool."""
        rows = np.arange(len(self))[rows]
        numbers = rows.tolist()
        return replace(
            self.with_candidates(np.isin(self.owner, rows)),
            mentions=[self.mentions[row] for row in numbers],
            lefts=[self.lefts[row] for row in numbers],
            rights=[self.rights[row] for row in numbers],
            index_keys=[self.index_keys[row] for row in numbers],
            unread_scores={key: has[rows] for key, has in self.unread_scores.items()},
            types=self.types.take(rows),
            are_scored=self.are_scored[rows],
            offsets=list_offsets(np.diff(self.offsets)[rows]),
        )

    def with_candidates(self, retained: np.ndarray) -> Self:
        """The same mentions with some candidates: (m,) bool, or indices grouped by list."""
        positions = np.arange(len(self.owner))[retained]
        return replace(
            self,
            names=self.names[positions],
            cuis=self.cuis[positions],
            preferred_names=self.preferred_names.take(pa.array(positions)),
            definitions=self.definitions.take(pa.array(positions)),
            offsets=list_offsets(np.bincount(self.owner[positions], minlength=len(self))),
            candidate_types=self.candidate_types.take(positions),
            scores={name: column[positions] for name, column in self.scores.items()},
        )

    def completed(self, concepts: ConceptTable) -> Self:
        """The same lists with preferred names, definitions and types of a dictionary, by CUI.

        A concept that it lacks has neither name nor definition, and no types.
        """
        rows = concepts.rows(self.ids)
        types, _ = TypeSets.of_lists(concepts.column("semantic_types", rows)).resolved(
            concepts.hierarchy
        )
        codes = np.where(rows < 0, len(types.sets), types.codes)
        cui_codes = pa.array(self.cuis.codes)
        return replace(
            self,
            preferred_names=concepts.column("name", rows).take(cui_codes),
            definitions=concepts.column("definition", rows).take(cui_codes),
            candidate_types=TypeSets([*types.sets, ()], codes[self.cuis.codes]),
        )


@dataclass(frozen=True)
class AnnotatedLists(CandidateLists):
    """Lists with known gold concepts.

    Attributes:
        annotations: annotations of the n mentions.
        dictionary: the dictionary that completed the candidates of a user's file, if any did.
    """

    annotations: Annotations = field(kw_only=True)
    dictionary: Dictionary | None = field(default=None, kw_only=True)

    @property
    def not_in_list(self) -> int:
        """Number of mentions whose gold concept is not among their candidates."""
        return int((self.annotations.gold < 0).sum())

    @property
    def gold_rows(self) -> np.ndarray:
        """Flat index of the gold concept of each mention, (n,) int64; -1 if its list lacks it."""
        gold = self.annotations.gold
        return np.where(gold >= 0, self.offsets[:-1] + gold, -1)

    @property
    def labels(self) -> np.ndarray:
        """1 for gold concepts, else 0, (m,) int64."""
        return (np.arange(len(self.names)) == self.gold_rows[self.owner]).astype(np.int64)

    @cached_property
    def correct(self) -> np.ndarray:
        """Whether each candidate is correct, (m,) bool: the gold one, and of alternatives each."""
        return self.labels.astype(bool) | self.among(self.annotations.alternatives)

    def is_gold(self, positions: np.ndarray) -> np.ndarray:
        """Whether the candidate at each flat position (n,) is correct, (n,) bool; -1 is not."""
        return values_at(self.correct, positions, False)

    def take(self, rows: np.ndarray) -> Self:
        """The lists of some mentions, given as ascending indices or (n,) bool."""
        return replace(super().take(rows), annotations=self.annotations.take(rows))

    def with_candidates(self, retained: np.ndarray) -> Self:
        """The same mentions with some of their candidates; a gold concept may be dropped.

        If several candidates are correct, the first that remains is the gold one.
        """
        gold_concepts = np.append(self.concepts, -1)[self.gold_rows]
        lists = super().with_candidates(retained)
        is_gold = self.concepts[retained] == gold_concepts[lists.owner]
        first = lists.first_positions(is_gold | self.correct[retained])
        return replace(lists, annotations=replace(self.annotations, gold=first))


def _lists_with_scores(
    fields: Mapping[str, pa.Array], offsets: np.ndarray
) -> dict[str, np.ndarray]:
    """Key of each score -> whether any candidate of each mention has it, (n,) bool."""
    return {
        key: lists_with_any(values.is_valid().to_numpy(zero_copy_only=False), offsets)
        for key, values in fields.items()
        if key.endswith(SUFFIX)
    }


def _are_scored(with_score: Mapping[str, np.ndarray], mentions: int) -> np.ndarray:
    """Whether any candidate of each mention has a score of a retriever, (n,) bool."""
    are_scored = np.zeros(mentions, bool)
    for key, has_score in with_score.items():
        if key != SYNONYM_SCORE:
            are_scored |= has_score
    return are_scored


def _read_columns(table: pa.Table) -> dict[str, pa.Array]:
    """Those columns of a table that are read."""
    return {key: one_chunk(table[key]) for key in COLUMNS if key in table.column_names}


def _refuse_unreadable(errors: pa.Array) -> None:
    """Refuse a row that could not be read, which has ``error``."""
    for row, reason in enumerate(python_values(errors)):
        if reason:
            raise InvalidRow(row, str(reason), len(errors))


def _entities(
    table: pa.Table, columns: Mapping[str, pa.Array], checker: ColumnChecker
) -> pa.StringArray:
    """The text of each mention, under the first of its two keys."""
    entities = checker.column("entity", columns.get("entity"), TEXT)
    if entities.null_count and "mention" in columns:
        entities = pc.coalesce(entities, checker.column("mention", columns["mention"], TEXT))
    if entities.null_count:
        _refuse_missing(table, "entity", entities)
    return entities


def _structs(
    table: pa.Table, columns: Mapping[str, pa.Array], scores: Iterable[str] | None
) -> pa.ListArray:
    """The candidates of each mention, a list of structs."""
    candidates = columns.get(CANDIDATES, pa.nulls(len(table)))
    if are_structs(candidates):
        return candidates
    if candidates.null_count:
        _refuse_missing(table, CANDIDATES, candidates)
    return candidate_structs(python_values(candidates), scores or ())


def _refuse_missing(table: pa.Table, key: str, values: pa.Array) -> None:
    """Refuse the first row without a value under a key."""
    row = int(np.flatnonzero(values.is_null())[0])
    (given,) = mappings_of(table.slice(row, 1))
    lacks = "is null" if key in given else "missing from the row"
    way = FINDS_CANDIDATES if key == CANDIDATES else ""
    raise InvalidRow(row, f"{key} {lacks}{keys_found(given)}{way}", len(table))


def _texts_or_empty(texts: pa.StringArray) -> list[str]:
    """The texts, "" where they are missing."""
    return [text or "" for text in texts.to_pylist()]


def _require_names(names: RepeatedTexts, structs: pa.StructArray, checker: ColumnChecker) -> None:
    """Refuse a candidate whose name is missing or blank."""
    blank = [code for code, text in enumerate(names.texts) if not (text and text.strip())]
    if blank:
        position = int(np.isin(names.codes, blank).argmax())
        refuse_name(checker, position, structs[position].as_py())


def row_errors(
    read: Callable[[Any], Any], rows: Sequence[Mapping[str, Any]] | pa.Table
) -> list[str | None]:
    """Why a function that reads rows cannot read each of n, None if it can.

    Halves are read until one holds a single row: mostly, few rows have an error.
    """
    try:
        read(rows)
        return [None] * len(rows)
    except (TypeError, ValueError) as error:
        if len(rows) < 2:
            return [str(error)] * len(rows)
    middle = len(rows) // 2
    return row_errors(read, rows[:middle]) + row_errors(read, rows[middle:])
