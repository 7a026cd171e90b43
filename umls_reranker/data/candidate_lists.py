"""`CandidateLists`: mentions and their candidates in flat columns, from any source.

They are made from Python objects, from an Arrow table, or from the rows of a dictionary, as in retrieval and run
folders. Missing values are null, NaN, or code -1.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ..core.arrays import RepeatedTexts, list_offsets, list_owner, number_distinct
from ..core.settings import SCORES
from .cuis import normalize_cui
from .list_columns import (
    FIELDS,
    MENTION_FIELDS,
    candidate_columns,
    encoded_texts,
    flat_candidates,
    mention_texts,
    mention_types,
    objects,
    require_lists,
    whole,
    with_entity,
)
from .semantic_types import TypeHierarchy
from .type_sets import TypeSets

if TYPE_CHECKING:
    from datasets import Dataset
    from typing_extensions import Self

    from .concepts import ConceptTable

# Suffix of the score columns of candidates in a run: a list of scores per mention.
SCORES_SUFFIX = "_scores"


class RetrievedList(list[Any]):
    """Candidates of one mention as an index retrieved them; a list that is made in another way knows no key.

    Attributes:
        index_key: `core.stages.index_key` of the index.
    """

    def __init__(self, candidates: Iterable[Any], index_key: str) -> None:
        super().__init__(candidates)
        self.index_key = index_key


@dataclass(frozen=True)
class Annotations:
    """Annotations of n mentions.

    Attributes:
        cuis: (n,) the gold concept.
        documents: (n,) the document of the mention.
        starts: (n,) offset of the mention's start in its document.
        ends: (n,) offset of its end.
        gold: (n,) int64, position of the gold concept in its list, or -1.
        in_dictionary: (n,) bool, whether the dictionary has the gold concept.
        certifies: (n,) bool, whether the mention may count for a certificate, because it is from a random sample.
    """

    cuis: np.ndarray
    documents: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    gold: np.ndarray
    in_dictionary: np.ndarray
    certifies: np.ndarray

    def take(self, rows: np.ndarray) -> Annotations:
        """The annotations of some mentions, given as indices or (n,) bool."""
        return Annotations(*(column[rows] for column in vars(self).values()))


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
        cuis: m CUIs, None if missing.
        preferred_names: m texts, null if missing.
        definitions: m texts, null if missing.
        candidate_types: types of m candidates, ids of `hierarchy`.
        scores: name of a retriever -> (m,) float64; NaN if a candidate lacks the score. The names are
            `core.settings.SCORES` or those of a pipeline.
        hierarchy: the types that the model knows; others are ignored.
        index_keys: for n mentions the `core.stages.index_key` of the index that retrieved their candidates; "" if
            it is unknown, as for user-provided lists.
        unknown_types: types of mentions that the model does not know.
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
    index_keys: Sequence[str]
    unknown_types: Sequence[str] = ()

    @classmethod
    def from_objects(
        cls,
        hierarchy: TypeHierarchy,
        mentions: Sequence[str],
        candidates: Sequence[Collection[Any]] | pa.Array,
        types: Sequence[str | Iterable[str] | None] | pa.Array | None = None,
        lefts: Sequence[str] | None = None,
        rights: Sequence[str] | None = None,
        fields: Sequence[str] = FIELDS,
        scores: Iterable[str] = SCORES,
    ) -> CandidateLists:
        """Make lists from n mentions; a candidate is a name, or a mapping or object as for `UMLSReranker.rerank`.

        Only a `RetrievedList` knows the key of its index. Candidates and types may be Arrow columns.

        Args:
            hierarchy: the types that the model knows.
            mentions: n texts.
            candidates: the candidates of each mention.
            types: types of n mentions, ids or names.
            lefts: n texts before the mentions.
            rights: n texts after the mentions.
            fields: fields of `FIELDS` to keep.
            scores: retrievers whose scores to read: "bm25" for the key ``bm25_score``.

        Raises:
            TypeError: a value is of the wrong type; names its position, and its mention if there are several.
            ValueError: a mention or a name is blank; names it likewise.
        """
        require_lists(entities=mentions, candidates=candidates, entity_types=types, lefts=lefts, rights=rights)
        count = len(mentions)
        types = [None] * count if types is None else types
        lefts, rights = ([""] * count if side is None else side for side in (lefts, rights))
        if any(len(column) != count for column in (candidates, types, lefts, rights)):
            raise ValueError(f"{count} entities need the same number of candidate lists, types and contexts")
        mentions = mention_texts("entity", mentions, may_be_blank=False)
        lefts, rights = mention_texts("left", lefts), mention_texts("right", rights)
        resolved_types, unknown_types = mention_types(types).resolved(hierarchy)
        offsets, items = flat_candidates(candidates)
        columns = candidate_columns(items, offsets, hierarchy, fields, scores)
        index_keys = [""] * count
        if not isinstance(candidates, pa.Array):
            index_keys = [items.index_key if isinstance(items, RetrievedList) else "" for items in candidates]
        return cls(mentions, lefts, rights, resolved_types, offsets, *columns, hierarchy, index_keys, unknown_types)

    @classmethod
    def from_rows(
        cls, hierarchy: TypeHierarchy, rows: Sequence[Mapping[str, Any]], scores: Iterable[str] = SCORES
    ) -> CandidateLists:
        """Make lists from n mappings: ``entity``, ``candidates``, and optionally ``entity_type``, ``left``, ``right``.

        Raises:
            TypeError: as for `from_objects`.
            ValueError: as for `from_objects`.
        """

        def values(key: str) -> list[Any]:
            return [row.get(key) for row in rows]

        lefts, rights = ([text or "" for text in values(side)] for side in ("left", "right"))
        candidates, types = values("candidates"), values("entity_type")
        return cls.from_objects(hierarchy, values("entity"), candidates, types, lefts, rights, scores=scores)

    @classmethod
    def from_table(cls, hierarchy: TypeHierarchy, table: pa.Table, scores: Iterable[str] = SCORES) -> CandidateLists:
        """Make lists from n rows with the columns of `from_rows` (or ``mention``); candidates are names or structs.

        Raises:
            TypeError: as for `from_objects`.
            ValueError: as for `from_objects`, or a text is not UTF-8.
        """
        table.validate(full=True)
        table = with_entity(table)
        columns = {name: whole(table[name]) for name in MENTION_FIELDS if name in table.column_names}
        mentions = objects("entity", columns["entity"])
        sides = [objects(side, columns[side]) if side in columns else [""] * len(table) for side in ("left", "right")]
        lefts, rights = ([text or "" for text in side] for side in sides)
        candidates, types = columns["candidates"], columns.get("entity_type")
        return cls.from_objects(hierarchy, mentions, candidates, types, lefts, rights, scores=scores)

    @classmethod
    def from_concepts(
        cls,
        concepts: ConceptTable,
        mentions: Sequence[str],
        offsets: np.ndarray,
        rows: np.ndarray,
        names: Sequence[str] | pa.StringArray | pa.ChunkedArray,
        scores: Mapping[str, np.ndarray],
        types: Sequence[Iterable[str] | None] | None = None,
        lefts: Sequence[str] | None = None,
        rights: Sequence[str] | None = None,
        *,
        cuis: pa.StringArray | None = None,
        fields: Sequence[str] = FIELDS,
        index_key: str = "",
    ) -> CandidateLists:
        """Make lists from rows of a dictionary.

        Args:
            concepts: the dictionary.
            mentions: n texts.
            offsets: (n + 1,) where each mention's candidates start.
            rows: (m,) rows of the candidates; -1 if the dictionary lacks the concept.
            names: m retrieved names.
            scores: name of a retriever -> (m,) scores.
            types: types of n mentions.
            lefts: n texts before the mentions.
            rights: n texts after the mentions.
            cuis: m texts; by default those of the rows.
            fields: fields of each concept to read besides its types (`PairTemplate.candidate_fields`).
            index_key: key of the index that retrieved all of them.
        """
        distinct, positions = np.unique(rows, return_inverse=True)
        sets, _ = TypeSets.of_lists(concepts.column("semantic_types", distinct)).resolved(concepts.hierarchy)
        # A missing concept has no types, like one without types in the dictionary.
        codes = np.where(distinct < 0, len(sets.sets), sets.codes)[positions]
        mention_types = TypeSets.missing(len(mentions)) if types is None else TypeSets.of(types)
        resolved_types, unknown_types = mention_types.resolved(concepts.hierarchy)

        def displayed(key: str, column: str) -> pa.StringArray:
            if key not in fields:
                return pa.nulls(len(rows), pa.string())
            return concepts.column(column, distinct).take(pa.array(positions))

        if cuis is None:
            repeated_cuis = RepeatedTexts(concepts.column("cui", distinct).to_pylist(), positions)
        else:
            repeated_cuis = encoded_texts(cuis)
        return cls(
            mentions,
            [""] * len(mentions) if lefts is None else lefts,
            [""] * len(mentions) if rights is None else rights,
            resolved_types,
            offsets,
            encoded_texts(names),
            repeated_cuis,
            displayed("preferred_name", "name"),
            displayed("definition", "definition"),
            TypeSets([*sets.sets, ()], codes),
            {name: np.asarray(column, np.float64) for name, column in scores.items()},
            concepts.hierarchy,
            [index_key] * len(mentions),
            unknown_types,
        )

    @classmethod
    def from_run(
        cls,
        candidates: Dataset,
        mentions: Dataset,
        concepts: ConceptTable,
        fields: Sequence[str] = (),
        index_key: str = "",
    ) -> AnnotatedLists:
        """Make lists from a split's mentions and candidates, which are in the same order.

        Args:
            candidates: their candidates.
            mentions: mentions of the split.
            concepts: the dictionary.
            fields: as for `from_concepts`.
            index_key: `core.stages.key_of_lists` of the run; needed wherever decisions are made.
        """
        table, about = candidates.with_format("arrow")[:], mentions.with_format("arrow")[:]
        cui_lists = whole(table["cuis"])
        cuis = cui_lists.flatten()
        scores = {
            column.removesuffix(SCORES_SUFFIX): whole(table[column]).flatten().to_numpy(zero_copy_only=False)
            for column in table.column_names
            if column.endswith(SCORES_SUFFIX)
        }
        lists = cls.from_concepts(
            concepts,
            about["mention"].to_pylist(),
            list_offsets(cui_lists.value_lengths().to_numpy()),
            concepts.rows(cuis),
            whole(table["names"]).flatten(),
            scores,
            about["semantic_types"].to_pylist(),
            about["left"].to_pylist(),
            about["right"].to_pylist(),
            cuis=cuis,
            fields=fields,
            index_key=index_key,
        )
        gold_cuis = about["cui"].to_pylist()
        # Lists without a dictionary say it themselves.
        if "in_dictionary" in table.column_names:
            in_dictionary = table["in_dictionary"].to_numpy()
        else:
            in_dictionary = concepts.rows(gold_cuis) >= 0
        annotations = Annotations(
            np.array(gold_cuis, object),
            np.array(about["doc_id"].to_pylist(), object),
            about["start"].to_numpy(),
            about["end"].to_numpy(),
            table["gold"].to_numpy().astype(np.int64),
            in_dictionary,
            np.ones(len(lists), bool),
        )
        return lists.annotated(annotations)

    def annotated(self, annotations: Annotations) -> AnnotatedLists:
        """The same lists with annotations."""
        columns = {column.name: getattr(self, column.name) for column in fields(CandidateLists)}
        return AnnotatedLists(**columns, annotations=annotations)

    def __len__(self) -> int:
        return len(self.mentions)

    @cached_property
    def owner(self) -> np.ndarray:
        """The mention that each candidate belongs to, (m,)."""
        return list_owner(self.offsets)

    @cached_property
    def concepts(self) -> np.ndarray:
        """Equal numbers for candidates of one list with the same CUI, or without CUIs the same name, (m,) int64."""
        ids, codes = self.ids, self.cuis.codes
        if not all(ids):
            named = zip(RepeatedTexts(ids, codes).to_list(), self.names.to_list(), strict=True)
            ids, codes = number_distinct([cui or name for cui, name in named])
        elif len(set(ids)) < len(ids):
            ids, numbers = number_distinct(ids)
            codes = numbers[codes]
        return self.owner * (len(ids) + 1) + codes

    @cached_property
    def ids(self) -> list[str]:
        """`cuis` in the form of `normalize_cui`, as in counts and dictionaries; "" if missing."""
        return [normalize_cui(text or "") for text in self.cuis.texts]

    def are_of(self, index_key: str) -> np.ndarray:
        """Whether the candidates of each mention were retrieved with this key, (n,) bool."""
        return np.array([key == index_key for key in self.index_keys], bool)

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
            types=self.types.take(rows),
            offsets=list_offsets(np.diff(self.offsets)[rows]),
        )

    def with_candidates(self, retained: np.ndarray) -> Self:
        """The same mentions with some of their candidates, given as (m,) bool or as indices grouped by list."""
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

    def with_types(self, types: Sequence[Iterable[str] | None]) -> Self:
        """The same lists with these semantic types of the mentions, n lists of ids or names."""
        resolved_types, unknown_types = TypeSets.of(types).resolved(self.hierarchy)
        return replace(self, types=resolved_types, unknown_types=unknown_types)


@dataclass(frozen=True)
class AnnotatedLists(CandidateLists):
    """Lists with known gold concepts.

    Attributes:
        annotations: annotations of the n mentions.
    """

    annotations: Annotations = field(kw_only=True)

    @property
    def labels(self) -> np.ndarray:
        """1 for gold concepts, else 0, (m,) int64."""
        labels, gold = np.zeros(len(self.names), np.int64), self.annotations.gold
        labels[(self.offsets[:-1] + gold)[gold >= 0]] = 1
        return labels

    def is_gold(self, positions: np.ndarray) -> np.ndarray:
        """Whether the candidate at each flat position (n,) is its mention's gold concept, (n,) bool; -1 is not."""
        gold = self.annotations.gold
        return (gold >= 0) & (positions == self.offsets[:-1] + gold)

    def take(self, rows: np.ndarray) -> Self:
        """The lists of some mentions, given as ascending indices or (n,) bool."""
        return replace(super().take(rows), annotations=self.annotations.take(rows))

    def with_candidates(self, retained: np.ndarray) -> Self:
        """The same mentions with some of their candidates, as for `CandidateLists`; a gold concept may be dropped.

        If a gold concept has several candidates, the first that remains is the gold one.
        """
        gold, starts = self.annotations.gold, self.offsets[:-1]
        concept = np.append(self.concepts, -1)[np.where(gold >= 0, starts + gold, -1)]
        lists = super().with_candidates(retained)
        is_gold = self.concepts[retained] == concept[lists.owner]
        # The first one is assigned last.
        of_gold, gold = np.flatnonzero(is_gold)[::-1], np.full(len(self), -1, np.int64)
        gold[lists.owner[of_gold]] = of_gold - lists.offsets[lists.owner[of_gold]]
        return replace(lists, annotations=replace(self.annotations, gold=gold))
