"""`CandidateLists`: mentions and their candidates in flat columns, from any source.

They are made from rows as users write them, Python objects or an Arrow table. Missing values are
null, NaN, or -1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ..core.arrays import (
    RepeatedTexts,
    list_offsets,
    list_owner,
    lists_with_any,
    number_distinct,
)
from ..vocab.type_sets import TypeSets
from ..vocab.types import TypeHierarchy
from .candidate_columns import CandidateColumns, are_scored
from .columns import (
    FIELDS,
    FOUND,
    SUFFIX,
    encoded_texts,
)
from .index_scores import INDEX_SCORES
from .list_scores import highest_of_concept, lowest_of_list
from .mention_columns import MentionColumns
from .table import row_table

if TYPE_CHECKING:
    from typing_extensions import Self

    from ..vocab.concept_table import ConceptTable


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
            are `index_scores.INDEX_SCORES` or those of a pipeline.
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
        columns = MentionColumns(table)
        columns.refuse_unreadable()
        entities = columns.entities()
        types, unknown_types = TypeSets.of_lists(columns.types()).resolved(hierarchy)
        candidates = CandidateColumns(columns.candidates(scores or ()))
        texts = {key: candidates.texts(key) for key in ("name", "cui", *FIELDS)}
        candidates.require_names(texts["name"])
        candidate_types, _ = TypeSets.of_lists(candidates.types()).resolved(hierarchy)
        lists_with_scores = candidates.lists_with_scores()
        read_keys = lists_with_scores if scores is None else [name + SUFFIX for name in scores]
        scores_by_key = {key: candidates.numbers(key) for key in read_keys}
        return cls(
            mentions=columns.mention_texts(entities),
            lefts=columns.texts("left"),
            rights=columns.texts("right"),
            types=types,
            offsets=candidates.offsets,
            names=encoded_texts(texts["name"]),
            cuis=encoded_texts(texts["cui"]),
            preferred_names=texts["preferred_name"],
            definitions=texts["definition"],
            candidate_types=candidate_types,
            scores={key.removesuffix(SUFFIX): column for key, column in scores_by_key.items()},
            hierarchy=hierarchy,
            are_scored=are_scored(lists_with_scores, len(table)),
            index_keys=columns.texts("index_key"),
            unknown_types=unknown_types,
            unread_scores={
                key: has_score
                for key, has_score in lists_with_scores.items()
                if key not in scores_by_key
            },
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
            cui_of_candidate = RepeatedTexts(ids, codes).to_list()
            cuis_and_names = zip(cui_of_candidate, self.names.to_list(), strict=True)
            ids, codes = number_distinct([cui or name for cui, name in cuis_and_names])
        return self.owner * (len(ids) + 1) + codes

    @cached_property
    def ids(self) -> list[str]:
        """`cuis` without outer blanks, as in counts and dictionaries; "" if missing."""
        return [(text or "").strip() for text in self.cuis.texts]

    def among(self, alternatives: np.ndarray) -> np.ndarray:
        """Whether each candidate is one of several alternatives (n,) of its mention, (m,) bool."""
        is_among = np.zeros(len(self.owner), bool)
        for row, ids in enumerate(alternatives):
            if len(ids) > 1:
                candidates = slice(self.offsets[row], self.offsets[row + 1])
                is_among[candidates] = [cui in ids for cui in self.cuis[candidates].to_list()]
        return is_among

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
                otherwise = lowest.get(name, np.nan)
                of_list = lowest_of_list(numbers, self.owner, len(self), otherwise)
                of_concept = highest_of_concept(numbers, self.concepts)
                inferred = np.maximum(of_concept, of_list)
                changed[name] = np.where(is_found, numbers, inferred)
                is_found = np.isfinite(of_concept)
            if name in lowest and name + FOUND not in self.scores:
                changed[name + FOUND] = is_found.astype(np.float64)
        return self.with_columns(scores={**self.scores, **changed})

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
