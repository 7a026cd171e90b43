"""`CandidateLists`: mentions and their candidates in flat columns, from any source.

Created from Python objects, from an Arrow table, or from the rows of a dictionary, as in retrieval and run folders.
Missing values are null, NaN, or code -1.
"""

from __future__ import annotations

import reprlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import chain, count, repeat
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..core.arrays import RepeatedTexts, distinct_numbers, list_offsets, list_owner, number_distinct
from ..core.retrievers import SCORES
from .cuis import normalize_cui
from .semantic_types import UNKNOWN_TYPE, TypeHierarchy

if TYPE_CHECKING:
    from datasets import Dataset
    from typing_extensions import Self

    from .concepts import ConceptTable

__all__ = [
    "CANDIDATE_KEYS",
    "FIELDS",
    "MENTION_FIELDS",
    "SCORES_SUFFIX",
    "AnnotatedLists",
    "Annotations",
    "CandidateLists",
    "RetrievedList",
    "TypeSets",
    "as_arrow",
    "encoded_texts",
    "require_lists",
    "table_rows",
]

# Suffix of the score columns of candidates in a run: a list of scores per mention.
SCORES_SUFFIX = "_scores"
# Fields of a candidate that a template may show in addition to its name.
FIELDS = ("preferred_name", "definition")
# Of a mention, columns that a call of rerank takes.
MENTION_FIELDS = ("entity", "candidates", "entity_type", "left", "right")
# Keys of a candidate that are not scores.
CANDIDATE_KEYS = ("name", "cui", *FIELDS, "semantic_types")

# Up to this many are deduplicated faster in Python than in Arrow.
FEW_TEXTS = 256
# This many objects fit a core's cache while their keys are read one by one.
ITEMS_AT_ONCE = 128


class RetrievedList(list[Any]):
    """Candidates of one mention as an index gave them; a list of them made in any other way knows no key.

    Attributes:
        index_key: `core.stage_keys.index_key` of the index.
    """

    def __init__(self, candidates: Iterable[Any], index_key: str) -> None:
        super().__init__(candidates)
        self.index_key = index_key


@dataclass(frozen=True)
class TypeSets:
    """Semantic types of many rows; equal sets of types are stored once.

    Attributes:
        sets: k sets of types.
        codes: (n,) int64, the set of each row; -1 if not given.
    """

    sets: Sequence[tuple[str, ...]]
    codes: np.ndarray

    @classmethod
    def of(cls, values: Sequence[str | Iterable[str] | None] | TypeSets) -> TypeSets:
        """Of one type, several, or None for each row; `TypeSets` as they are.

        Raises:
            TypeError: a value is something else; its one argument is the row.
        """
        if isinstance(values, TypeSets):
            return values
        try:
            numbers: defaultdict[str | tuple[str, ...], int] = defaultdict(count().__next__)
            codes = [
                -1 if value is None else numbers[value if type(value) is str else tuple(value)] for value in values
            ]
            sets = [(key,) if isinstance(key, str) else key for key in numbers]
            is_fine = all(isinstance(name, str) for names in sets for name in names)
        except TypeError:
            is_fine = False
        if not is_fine:
            raise TypeError(next(row for row, value in enumerate(values) if not _are_types(value)))
        return cls(sets, np.array(codes, np.int64))

    @classmethod
    def of_lists(cls, lists: pa.ListArray) -> TypeSets:
        """Of lists of strings without null among them; a null list is not given."""
        sizes = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int64)
        encoded = lists.flatten().dictionary_encode()
        names, starts = encoded.indices.to_numpy(zero_copy_only=False), np.cumsum(sizes) - sizes
        codes = np.zeros(len(lists), np.int64)
        codes[sizes > 0] = 1 + names[starts[sizes > 0]]
        for place in range(1, int(sizes.max(initial=0))):
            # One type after the other makes of each list a number.
            longer = np.flatnonzero(sizes > place)
            codes[longer] = (
                1 + codes.max() + codes[longer] * (len(encoded.dictionary) + 1) + names[starts[longer] + place]
            )
            _, codes = distinct_numbers(codes, int(codes.max()) + 1)
        _, codes = distinct_numbers(codes, int(codes.max(initial=0)) + 1)
        first = np.empty(int(codes.max(initial=-1)) + 1, np.int64)
        first[codes[::-1]] = np.arange(len(codes))[::-1]
        kinds = encoded.dictionary.to_pylist()
        sets = [tuple(kinds[name] for name in names[starts[row] : starts[row] + sizes[row]]) for row in first.tolist()]
        return cls(sets, np.where(lists.is_null().to_numpy(zero_copy_only=False), -1, codes))

    @classmethod
    def missing(cls, rows: int) -> TypeSets:
        """Of rows that came without."""
        return cls([], np.full(rows, -1, np.int64))

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, row: int) -> tuple[str, ...]:
        return self.sets[self.codes[row]] if self.codes[row] >= 0 else ()

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        return (self.sets[code] if code >= 0 else () for code in self.codes.tolist())

    def take(self, rows: np.ndarray) -> TypeSets:
        """Those of some rows, given as indices or (n,) bool."""
        return replace(self, codes=self.codes[rows])

    def resolved(self, hierarchy: TypeHierarchy) -> tuple[TypeSets, list[str]]:
        """As ids of the hierarchy, each once, and the names that it does not know, which are left out."""
        # MedMentions' word for "no type" is not a mistake.
        ids = {name: hierarchy.resolve(name) for names in self.sets for name in names if name != UNKNOWN_TYPE}
        sets = [tuple(dict.fromkeys(filter(None, map(ids.get, names)))) for names in self.sets]
        return replace(self, sets=sets), [name for name, known in ids.items() if known is None]

    @property
    def is_known(self) -> np.ndarray:
        """(n,) bool, whether a row has any type."""
        return np.array([*map(bool, self.sets), False])[self.codes]


def _are_types(value: Any) -> bool:
    return (
        value is None
        or isinstance(value, str)
        or (isinstance(value, Iterable) and all(isinstance(name, str) for name in value))
    )


def require_lists(**columns: Any) -> None:
    """TypeError for a column, unless it is None, that is one text, or has no length.

    A text would be read as the list of its letters.
    """
    for name, values in columns.items():
        if isinstance(values, str | bytes) or not isinstance(values, Sized | None):
            raise TypeError(f"{name} must be a list, not {type(values).__name__}")


@dataclass(frozen=True)
class Annotations:
    """Annotations of n mentions.

    Attributes:
        cuis, documents: (n,) the right concept, and the document of the mention.
        starts, ends: (n,) offsets of the mention in it.
        gold: (n,) int64, position of the right concept in its list, or -1.
        in_dictionary: (n,) bool, whether the dictionary has it.
        certifies: (n,) bool, whether the mention may count for a certificate: it is of a random sample.
    """

    cuis: np.ndarray
    documents: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    gold: np.ndarray
    in_dictionary: np.ndarray
    certifies: np.ndarray

    def take(self, rows: np.ndarray) -> Annotations:
        """Those of some mentions, given as indices or (n,) bool."""
        return Annotations(*(column[rows] for column in vars(self).values()))


@dataclass(frozen=True)
class CandidateLists:
    """n mentions with m candidates in all, mention by mention in retrieval order.

    Attributes:
        mentions, lefts, rights: n texts, and the text around them.
        types: of n mentions, ids of `hierarchy`.
        offsets: (n + 1,) int64, where each mention's candidates start.
        names, cuis: m texts; a missing CUI is None.
        preferred_names, definitions: m texts, null if missing.
        candidate_types: of m candidates, ids of `hierarchy`.
        scores: (m,) float64 by the names of retrievers, `core.retrievers.SCORES` or a pipeline's own; NaN where a
            candidate came without.
        hierarchy: the types that the model knows; others are ignored.
        index_keys: of n mentions, the `core.stage_keys.index_key` of the index that gave their candidates; "" if that
            is not known, as of lists that a user gives.
        unknown_types: what was given as a mention's type and is not among them.
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
        candidates: Sequence[Collection[Any]],
        types: Sequence[str | Iterable[str] | None] | None = None,
        lefts: Sequence[str] | None = None,
        rights: Sequence[str] | None = None,
        fields: Sequence[str] = FIELDS,
        scores: Iterable[str] = SCORES,
    ) -> CandidateLists:
        """From n of each; a candidate is a name, or a mapping or an object with what `UMLSReranker.rerank` lists.

        Only a `RetrievedList` knows the key of its index.

        Args:
            fields: what to keep of `FIELDS`.
            scores: retrievers whose scores to read: "bm25" of the key ``bm25_score``.

        Raises:
            TypeError, ValueError: a value is of the wrong kind; names its position, and its mention if there are
                several.
        """
        require_lists(entities=mentions, candidates=candidates, entity_types=types, lefts=lefts, rights=rights)
        count = len(mentions)
        types = [None] * count if types is None else types
        lefts, rights = ([""] * count if side is None else side for side in (lefts, rights))
        if any(len(column) != count for column in (candidates, types, lefts, rights)):
            raise ValueError(f"{count} entities need as many candidate lists, types and contexts")
        fault = _Faults(count)
        entities, left, right = (
            fault.texts(key, column) for key, column in (("entity", mentions), ("left", lefts), ("right", rights))
        )
        for row, text in enumerate(mentions):
            if not text.strip():
                fault(row, ValueError, "entity is blank; leave out mentions without text")
        for row, items in enumerate(candidates):
            # A text, a mapping or a data frame would be read as the list of its letters, keys or columns.
            if (
                isinstance(items, str | bytes | Mapping)
                or not isinstance(items, Collection)
                or hasattr(items, "columns")
            ):
                kind = type(items).__name__
                fault(row, TypeError, f"candidates are a {kind}, not a list of names, mappings or objects")
        try:
            own = TypeSets.of(types)
        except TypeError as error:
            (row,) = error.args
            found = [*types][row]
            hint = _pandas_hint(found)
            fault(row, TypeError, f"entity_type must be text or a list of texts, not {reprlib.repr(found)}{hint}")
        resolved, unknown = own.resolved(hierarchy)
        offsets = list_offsets([len(items) for items in candidates])
        items = list(chain.from_iterable(candidates))
        columns = _candidate_columns(items, _Faults(count, offsets), hierarchy, fields, scores)
        keys = [items.index_key if isinstance(items, RetrievedList) else "" for items in candidates]
        return cls(entities, left, right, resolved, offsets, *columns, hierarchy, keys, unknown)

    @classmethod
    def from_rows(
        cls, hierarchy: TypeHierarchy, rows: Sequence[Mapping[str, Any]], scores: Iterable[str] = SCORES
    ) -> CandidateLists:
        """From n mappings with ``entity``, ``candidates`` and, if known, ``entity_type``, ``left`` and ``right``.

        Raises:
            TypeError, ValueError: as `from_objects`.
        """
        columns: list[list[Any]] = [[row.get(key) for row in rows] for key in ("entity", "candidates", "entity_type")]
        mentions, candidates, types = columns
        lefts, rights = ([row.get(side) or "" for row in rows] for side in ("left", "right"))
        return cls.from_objects(hierarchy, mentions, candidates, types, lefts, rights, scores=scores)

    @classmethod
    def from_table(cls, hierarchy: TypeHierarchy, table: pa.Table, scores: Iterable[str] = SCORES) -> CandidateLists:
        """From n rows with the columns of `from_rows`; candidates are lists of names or of structs.

        No Python object is made of a candidate, unless a column has another type than its content asks for.

        Raises:
            TypeError, ValueError: as `from_objects`, or a text is no UTF-8.
        """
        table.validate(full=True)
        table = table.select([name for name in MENTION_FIELDS if name in table.column_names])
        try:
            return _from_columns(hierarchy, {name: _whole(table[name]) for name in table.column_names}, scores)
        except (_OtherwiseError, pa.ArrowInvalid, pa.ArrowNotImplementedError):
            rows = table_rows(table, "{name} cannot be read as {kind} ({error}); give it as text")
            return cls.from_rows(hierarchy, rows, scores)

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
        """From rows of a dictionary.

        Args:
            mentions, types, lefts, rights: n of each.
            offsets: (n + 1,).
            rows: (m,) of the candidates; -1 where the dictionary lacks a concept.
            names: m names that were found.
            scores: (m,) by the names of retrievers.
            cuis: m texts; by default those of the rows.
            fields: what to read of each concept besides its types (`PairTemplate.candidate_fields`).
            index_key: of the index that found all of them.
        """
        distinct, place = np.unique(rows, return_inverse=True)
        kinds, _ = TypeSets.of_lists(concepts.column("semantic_types", distinct)).resolved(concepts.hierarchy)
        # A concept that is not there has no types, as one that the dictionary gives none.
        kinds = TypeSets([*kinds.sets, ()], np.where(distinct < 0, len(kinds.sets), kinds.codes)[place])
        columns = {"preferred_name": "name", "definition": "definition"}
        preferred_names, definitions = (
            concepts.column(column, distinct).take(pa.array(place)) if key in fields else _nothing(len(rows))
            for key, column in columns.items()
        )
        own, unknown = (TypeSets.missing(len(mentions)) if types is None else TypeSets.of(types)).resolved(
            concepts.hierarchy
        )
        empty = [""] * len(mentions)
        return cls(
            mentions,
            empty if lefts is None else lefts,
            empty if rights is None else rights,
            own,
            offsets,
            encoded_texts(names),
            RepeatedTexts(concepts.column("cui", distinct).to_pylist(), place)
            if cuis is None
            else encoded_texts(cuis),
            preferred_names,
            definitions,
            kinds,
            {name: np.asarray(column, np.float64) for name, column in scores.items()},
            concepts.hierarchy,
            [index_key] * len(mentions),
            unknown,
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
        """The lists of a split and its mentions, which are in the same order.

        Args:
            fields: as for `from_concepts`.
            index_key: `core.stage_keys.key_of_lists` of the run; needed wherever lists are decided about.
        """
        table, given = candidates.with_format("arrow")[:], mentions.with_format("arrow")[:]
        lists = _whole(table["cuis"])
        cuis = lists.flatten()
        gold = given["cui"].to_pylist()
        found = cls.from_concepts(
            concepts,
            given["mention"].to_pylist(),
            list_offsets(lists.value_lengths().to_numpy()),
            concepts.rows(cuis),
            _whole(table["names"]).flatten(),
            {
                column.removesuffix(SCORES_SUFFIX): _whole(table[column]).flatten().to_numpy(zero_copy_only=False)
                for column in table.column_names
                if column.endswith(SCORES_SUFFIX)
            },
            given["semantic_types"].to_pylist(),
            given["left"].to_pylist(),
            given["right"].to_pylist(),
            cuis=cuis,
            fields=fields,
            index_key=index_key,
        )
        annotations = Annotations(
            np.array(gold, object),
            np.array(given["doc_id"].to_pylist(), object),
            given["start"].to_numpy(),
            given["end"].to_numpy(),
            table["gold"].to_numpy().astype(np.int64),
            # Lists without a dictionary say it themselves.
            table["in_dictionary"].to_numpy() if "in_dictionary" in table.column_names else concepts.rows(gold) >= 0,
            # Only corrections tell; a split is a random sample.
            given["certifies"].to_numpy() if "certifies" in given.column_names else np.ones(len(gold), bool),
        )
        return found.annotated(annotations)

    def annotated(self, annotations: Annotations) -> AnnotatedLists:
        """The same lists, of which the right concepts are known."""
        own = {column.name: getattr(self, column.name) for column in fields(CandidateLists)}
        return AnnotatedLists(**own, annotations=annotations)

    def __len__(self) -> int:
        return len(self.mentions)

    @cached_property
    def owner(self) -> np.ndarray:
        """(m,) the mention that each candidate belongs to."""
        return list_owner(self.offsets)

    @cached_property
    def concepts(self) -> np.ndarray:
        """(m,) int64, equal for candidates of one list with the same CUI, or without any with the same name."""
        ids, codes = self.ids, self.cuis.codes
        if not all(ids):
            named = zip(RepeatedTexts(ids, codes).to_list(), self.names.to_list(), strict=True)
            ids, codes = number_distinct([cui or name for cui, name in named])
        elif len(set(ids)) < len(ids):
            ids, places = number_distinct(ids)
            codes = places[codes]
        return self.owner * (len(ids) + 1) + codes

    @cached_property
    def ids(self) -> list[str]:
        """The texts of `cuis` in the form of `normalize_cui`, as counts and dictionaries have them; "" for none."""
        return [normalize_cui(text or "") for text in self.cuis.texts]

    def are_of(self, index_key: str) -> np.ndarray:
        """(n,) bool, whether the candidates were retrieved with this key."""
        return np.array([key == index_key for key in self.index_keys], bool)

    def take(self, rows: np.ndarray) -> Self:
        """The lists of some mentions, given as ascending indices or (n,) bool."""
        rows = np.arange(len(self))[rows]
        own, inside = rows.tolist(), np.isin(self.owner, rows)
        return replace(
            self.with_candidates(inside),
            mentions=[self.mentions[row] for row in own],
            lefts=[self.lefts[row] for row in own],
            rights=[self.rights[row] for row in own],
            index_keys=[self.index_keys[row] for row in own],
            types=self.types.take(rows),
            offsets=list_offsets(np.diff(self.offsets)[rows]),
        )

    def with_candidates(self, kept: np.ndarray) -> Self:
        """The same mentions with some of their candidates, (m,) bool."""
        places = np.flatnonzero(kept)
        inside = pa.array(places)
        return replace(
            self,
            names=self.names[places],
            cuis=self.cuis[places],
            preferred_names=self.preferred_names.take(inside),
            definitions=self.definitions.take(inside),
            offsets=list_offsets(kept)[self.offsets],
            candidate_types=self.candidate_types.take(places),
            scores={name: column[places] for name, column in self.scores.items()},
        )

    def with_types(self, types: Sequence[Iterable[str] | None]) -> Self:
        """The same lists with these semantic types of the mentions, n lists of ids or names."""
        resolved, unknown = TypeSets.of(types).resolved(self.hierarchy)
        return replace(self, types=resolved, unknown_types=unknown)


@dataclass(frozen=True)
class AnnotatedLists(CandidateLists):
    """Lists of which the right concepts are known.

    Attributes:
        annotations: of the n mentions.
    """

    annotations: Annotations = field(kw_only=True)

    @property
    def labels(self) -> np.ndarray:
        """(m,) int64, 1 for the right concepts."""
        labels, gold = np.zeros(len(self.names), np.int64), self.annotations.gold
        labels[(self.offsets[:-1] + gold)[gold >= 0]] = 1
        return labels

    def is_right(self, places: np.ndarray) -> np.ndarray:
        """(n,) bool, whether the candidate at a place (n,) of each mention is the right concept; -1 is none."""
        gold = self.annotations.gold
        return (gold >= 0) & (places == self.offsets[:-1] + gold)

    def take(self, rows: np.ndarray) -> Self:
        """The lists of some mentions, given as ascending indices or (n,) bool."""
        return replace(super().take(rows), annotations=self.annotations.take(rows))

    def with_candidates(self, kept: np.ndarray) -> Self:
        """The same mentions with some of their candidates, (m,) bool; a right concept that goes is not in the list."""
        gold, before = self.annotations.gold, list_offsets(kept)
        at, starts = self.offsets[:-1] + gold, self.offsets[:-1]
        gold = np.where((gold >= 0) & np.append(kept, False)[at], before[at] - before[starts], -1)
        return replace(super().with_candidates(kept), annotations=replace(self.annotations, gold=gold))


class _Faults:
    """Raises what is wrong with a mention, or with one of its candidates, by its place."""

    def __init__(self, mentions: int, offsets: np.ndarray | None = None) -> None:
        self.mentions, self.offsets = mentions, offsets

    def __call__(self, place: int, kind: type[Exception], reason: str) -> NoReturn:
        row = place
        if self.offsets is not None:
            row = int(np.searchsorted(self.offsets, place, side="right")) - 1
            reason = f"candidate {place - self.offsets[row]} {reason}"
        raise kind(f"mention {row}: {reason}" if self.mentions > 1 else reason) from None

    def texts(self, key: str, values: Sequence[Any]) -> Sequence[str]:
        """The values, which are texts."""
        self._check_kinds(key, values, str)
        with self._characters(key, values):
            "".join(values).encode()
        return values

    def repeated(self, key: str, values: Sequence[Any], *, may_lack: bool = False) -> RepeatedTexts:
        """A column of texts, or `may_lack` of None as well, equal ones once."""
        self._check_kinds(key, values, (str, type(None)) if may_lack else str)
        with self._characters(key, values):
            return encoded_texts(values)

    def shown(self, key: str, values: Sequence[Any], is_read: bool) -> pa.StringArray:
        """A column of texts or None; of nulls where nothing reads it."""
        self._check_kinds(key, values, (str, type(None)))
        if not is_read:
            return _nothing(len(values))
        with self._characters(key, values):
            return pa.array(values, pa.string())

    def _check_kinds(self, key: str, values: Sequence[Any], wanted: type | tuple[type, ...]) -> None:
        if all(issubclass(kind, wanted) for kind in set(map(type, values))):
            return
        place = next(place for place, text in enumerate(values) if not isinstance(text, wanted))
        found = values[place]
        if key == "name":
            raise LookupError(place)
        if self.offsets is None:
            self(place, TypeError, f"{key} must be text, not {type(found).__name__}")
        hint = _pandas_hint(found)
        self(place, TypeError, f"has a {key} that is no text: {reprlib.repr(found)}; pass a str, or None{hint}")

    @contextmanager
    def _characters(self, key: str, values: Sequence[str | None]) -> Iterator[None]:
        try:
            yield
        except UnicodeEncodeError:
            place = next(place for place, text in enumerate(values) if text and not _is_encodable(text))
            subject = key if self.offsets is None else f"has a {key} that"
            self(place, ValueError, f"{subject} holds half of a surrogate pair, which is no character")


def _pandas_hint(value: Any) -> str:
    """How to make None of the NaN that pandas puts for a missing text."""
    is_nan = isinstance(value, float) and value != value
    return "; pandas gives None by frame.astype(object).where(frame.notna(), None)" if is_nan else ""


def _nothing(rows: int) -> pa.StringArray:
    return pa.nulls(rows, pa.string())


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def encoded_texts(texts: Sequence[str | None] | pa.StringArray | pa.ChunkedArray) -> RepeatedTexts:
    """A column with equal texts once, None among them where one has none.

    Raises:
        UnicodeEncodeError: a text holds half of a surrogate pair.
    """
    if len(texts) <= FEW_TEXTS:
        distinct, codes = number_distinct(texts if isinstance(texts, Sequence) else texts.to_pylist())
        "".join(filter(None, distinct)).encode()
        return RepeatedTexts(distinct, codes)
    column = pa.array(texts, pa.string()) if isinstance(texts, Sequence) else _whole(texts)
    encoded = column.dictionary_encode("encode")
    return RepeatedTexts(encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64))


def as_arrow(texts: RepeatedTexts) -> pa.StringArray:
    """The inverse of `encoded_texts`; null where a row's code is -1."""
    return pa.array(texts.texts, pa.string()).take(pa.array(texts.codes, mask=texts.codes < 0))


def _candidate_columns(
    items: list[Any], fault: _Faults, hierarchy: TypeHierarchy, fields: Sequence[str], scores: Iterable[str]
) -> tuple[RepeatedTexts, RepeatedTexts, pa.StringArray, pa.StringArray, TypeSets, dict[str, np.ndarray]]:
    """What `CandidateLists` holds of candidates, in its order."""
    kinds, score_keys = set(map(type, items)), {name: f"{name}_score" for name in scores}
    columns: dict[str, list[Any]] = {"name": items}
    if not kinds <= {str}:
        read = dict.get if kinds == {dict} else _read
        columns = {key: [] for key in (*CANDIDATE_KEYS, *score_keys.values())}
        for start in range(0, len(items), ITEMS_AT_ONCE):
            part = items[start : start + ITEMS_AT_ONCE]
            for key, column in columns.items():
                column.extend(map(read, part, repeat(key)))
    try:
        names = fault.repeated("name", columns["name"])
    except LookupError as error:
        (place,) = error.args
        fault(
            place,
            TypeError,
            f"({type(items[place]).__name__}) has no text name; pass a str, a mapping with 'name' and 'cui', or an "
            "object with .name and .cui",
        )
    blank = [code for code, text in enumerate(names.texts) if not text.strip()]
    if blank:
        place = int(np.flatnonzero(np.isin(names.codes, blank))[0])
        fault(place, ValueError, "has a blank name; leave out candidates without text")
    nothing = [None] * len(items)
    cuis = fault.repeated("cui", columns.get("cui", nothing), may_lack=True)
    preferred_names, definitions = (
        fault.shown(key, columns[key], key in fields) if key in columns else _nothing(len(items)) for key in FIELDS
    )
    try:
        types, _ = TypeSets.of(columns.get("semantic_types", nothing)).resolved(hierarchy)
    except TypeError as error:
        (place,) = error.args
        found = reprlib.repr(columns["semantic_types"][place])
        fault(place, TypeError, f"has semantic_types that are no list of texts: {found}")
    numbers = {name: _numbers(key, columns.get(key, nothing), fault) for name, key in score_keys.items()}
    return names, cuis, preferred_names, definitions, types, numbers


def _read(item: Any, key: str) -> Any:
    if isinstance(item, str):
        return item if key == "name" else None
    return item.get(key) if isinstance(item, Mapping) else getattr(item, key, None)


def _numbers(key: str, values: list[Any], fault: _Faults) -> np.ndarray:
    if values.count(None) == len(values):
        return np.full(len(values), np.nan)
    try:
        numbers = np.array(values, np.float64)
        if numbers.ndim == 1:
            return numbers
    except (TypeError, ValueError, OverflowError):
        pass
    for place, value in enumerate(values):
        try:
            float("nan" if value is None else value)
        except (TypeError, ValueError, OverflowError):
            fault(place, TypeError, f"has a {key} that is no number: {reprlib.repr(value)}")
    return np.array([float("nan" if value is None else value) for value in values])


class _OtherwiseError(Exception):
    """A column is not of the usual type, or a row is at fault: the objects say which, and why."""


def _from_columns(hierarchy: TypeHierarchy, columns: Mapping[str, pa.Array], scores: Iterable[str]) -> CandidateLists:
    mentions, lists = _text_column(columns["entity"]).to_pylist(), columns["candidates"]
    if not all(text and text.strip() for text in mentions) or lists.null_count or not _is_list(lists.type):
        raise _OtherwiseError
    count = len(mentions)
    left, right = (
        [text or "" for text in _text_column(columns[side]).to_pylist()] if side in columns else [""] * count
        for side in ("left", "right")
    )
    types, unknown = _type_column(columns.get("entity_type"), count).resolved(hierarchy)
    offsets, items = list_offsets(lists.value_lengths().to_numpy()), lists.flatten()
    if pa.types.is_struct(items.type):
        parts = dict(zip((part.name for part in items.type), items.flatten(), strict=True))
    else:
        parts = {"name": items}
    names = _text_column(parts.get("name", _nothing(len(items))))
    if names.null_count:
        raise _OtherwiseError
    shown = encoded_texts(names)
    if not all(text.strip() for text in shown.texts):
        raise _OtherwiseError
    cuis, preferred, definitions = (
        _text_column(parts[key]) if key in parts else _nothing(len(items)) for key in ("cui", *FIELDS)
    )
    kinds, _ = _type_column(parts.get("semantic_types"), len(items)).resolved(hierarchy)
    numbers = {
        name: parts[f"{name}_score"].cast(pa.float64()).to_numpy(zero_copy_only=False)
        if f"{name}_score" in parts
        else np.full(len(items), np.nan)
        for name in scores
    }
    candidates = shown, encoded_texts(cuis), preferred, definitions, kinds, numbers
    return CandidateLists(mentions, left, right, types, offsets, *candidates, hierarchy, [""] * count, unknown)


def _whole(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        column = (
            column.chunk(0)
            if column.num_chunks == 1
            else pa.concat_arrays(column.chunks or [pa.nulls(0, column.type)])
        )
    return column


def table_rows(table: pa.Table, refusal: str) -> list[dict[str, Any]]:
    """The rows of a table as Python objects.

    Args:
        refusal: what to say of a column that cannot be one, with its ``{name}``, ``{kind}`` and the ``{error}``.

    Raises:
        ValueError: a column holds dates or a time zone that Python lacks.
    """
    columns = []
    for name, column in zip(table.column_names, table.itercolumns(), strict=True):
        try:
            columns.append(column.to_pylist())
        # An unknown time zone is a LookupError with pytz installed and a ValueError without it.
        except (OverflowError, LookupError, ValueError) as error:
            raise ValueError(refusal.format(name=name, kind=column.type, error=error)) from None
    return [dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True)]


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def _text_column(column: pa.Array) -> pa.StringArray:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)):
        raise _OtherwiseError
    return column.cast(pa.string())


def _type_column(column: pa.Array | None, rows: int) -> TypeSets:
    if column is None or pa.types.is_null(column.type):
        return TypeSets.missing(rows)
    if not _is_list(column.type):
        encoded = _text_column(column).dictionary_encode()
        codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
        return TypeSets([(name,) for name in encoded.dictionary.to_pylist()], codes)
    column = column.cast(pa.list_(pa.string()))
    if column.flatten().null_count:
        raise _OtherwiseError
    return TypeSets.of_lists(column)
