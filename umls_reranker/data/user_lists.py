"""User-provided candidate lists instead of index and retrieval: concepts, mentions, candidates.

The files are read twice, batch by batch. `UserLists.read` checks every row, finds the split of every document and
collects the concepts. `UserLists.write` writes the same datasets as a corpus and retrieval would.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
from datasets import Features, List, Value

from ..core.errors import UserError
from .candidate_lists import AnnotatedLists
from .columns import Concept
from .corpus import CONTEXT_CHARS
from .labelled_lists import (
    LabelledLists,
    best_of_each_concept,
    labelled_batches,
    refuse_repeated_ids,
    require_documents,
)
from .list_columns import FIELDS, as_arrow
from .mention_files import RowPosition
from .mentions import MENTION_FEATURES, SPLITS, split_writers

if TYPE_CHECKING:
    from .semantic_types import TypeHierarchy

# The split of a document, or None if it is in no document list.
SplitOf = Callable[[str], str | None]


@dataclass(frozen=True)
class UserLists:
    """The checked content of a recipe's ``candidate_lists``.

    Attributes:
        path: as for `labelled_lists.labelled_batches`.
        hierarchy: as for `labelled_lists.labelled_batches`.
        splits: document -> its split; other documents are left out.
        scores: retrievers whose scores all candidates have.
        concepts: CUI -> its names, the types of all its candidates, and the first definition in the lists.
        fields: fields among ``preferred_name`` and ``definition`` that candidates have.
        report: counts of what was read.
    """

    path: Path
    hierarchy: TypeHierarchy
    splits: Mapping[str, str]
    scores: tuple[str, ...]
    concepts: Mapping[str, Concept]
    fields: tuple[str, ...]
    report: dict[str, Any]

    @classmethod
    def read(cls, path: Path, hierarchy: TypeHierarchy, split_of: SplitOf, listed: bool) -> UserLists:
        """Read and check all rows.

        Args:
            path: as for `labelled_lists.labelled_batches`.
            hierarchy: as for `labelled_lists.labelled_batches`.
            split_of: function that returns the split of a document if the lists have no column ``split``.
            listed: whether it uses lists of documents, which exclude such a column.

        Raises:
            UserError: a split is unknown, missing or empty, a document is in two splits, a mention is repeated, or
                there are too few documents; and as for `labelled_lists.labelled_batches`.
        """
        splits: DocumentSplits | None = None
        first_rows: dict[tuple[str, str], RowPosition] = {}
        names = CollectedNames()
        scores: tuple[str, ...] = ()
        unknown_types: Counter[str] = Counter()
        counts: Counter[str] = Counter()
        unread_keys: dict[str, None] = {}
        for batch in labelled_batches(path, hierarchy):
            if splits is None:
                has_column = any(split is not None for split in batch.splits)
                if has_column and listed:
                    raise UserError(
                        f"{path} has a column split, but the recipe also names document lists; keep one of the two"
                    )
                splits = DocumentSplits(split_of, has_column)
            splits.add(batch)
            refuse_repeated_ids(batch, first_rows)
            names.add(batch.lists)
            scores = scores or tuple(batch.lists.scores)
            unknown_types.update(batch.lists.unknown_types)
            unread_keys |= dict.fromkeys(batch.unread_keys)
            counts["mentions"] += len(batch.lists)
            counts["candidates"] += len(batch.lists.names)
            counts["not_in_list"] += batch.not_in_list
        assert splits is not None  # there is a batch or an error
        require_documents(path, splits.of_documents)
        by_split = {split: splits.mentions[split] for split in SPLITS}
        empty = next((split for split, count in by_split.items() if not count), None)
        if empty:
            raise UserError(
                f"{path}: the split {empty!r} is empty (mentions by split: {by_split}); check the column split or the "
                "document lists, add documents, or use another seed"
            )
        if counts["not_in_list"] == counts["mentions"]:
            raise UserError(
                f"{path}: no list contains its gold CUI; use the same vocabulary for the ids of candidates and cui"
            )
        report = {
            "documents": len(splits.of_documents),
            **counts,
            "mentions_in_no_list": splits.mentions[None],
            "scores": list(scores),
            "unread_keys": list(unread_keys),
            "unknown_types": sorted(unknown_types),
        }
        known_splits = {document: split for document, split in splits.of_documents.items() if split is not None}
        fields = tuple(name for name in FIELDS if name in names.fields)
        return cls(path, hierarchy, known_splits, scores, names.concepts(), fields, report)

    def joined(self, dictionary: Iterable[Concept] = ()) -> Iterator[Concept]:
        """The concepts of a dictionary with further names from the lists, then the concepts that it lacks."""
        rest = dict(self.concepts)
        for concept in dictionary:
            in_lists = rest.pop(concept.cui, None)
            if in_lists is not None:
                known = {concept.name, *concept.synonyms}
                added = tuple(name for name in (in_lists.name, *in_lists.synonyms) if name not in known)
                concept = replace(
                    concept,
                    synonyms=(*concept.synonyms, *added),
                    semantic_types=concept.semantic_types or in_lists.semantic_types,
                    definition=concept.definition or in_lists.definition,
                )
            yield concept
        yield from rest.values()

    def write(self, mentions: Path, candidates: Path, *, has_dictionary: bool) -> dict[str, Any]:
        """Write the datasets of mentions and of candidates, all four splits, in the order of the lists.

        Of several candidates of one concept in a list, the first is kept. The gold concept is never added to a list.

        Args:
            mentions: folder of the mentions.
            candidates: folder of the candidates.
            has_dictionary: whether a dictionary decides which gold concepts are known; without one, all are.

        Returns:
            Counts: ``mentions`` and, of these, ``in_list``, by split; ``repeated_candidates``.
        """
        schema = _candidate_features(self.scores, has_dictionary).arrow_schema
        counts = {name: dict.fromkeys(SPLITS, 0) for name in ("mentions", "in_list")}
        repeated, seen = 0, Counter[str]()
        with (
            split_writers(MENTION_FEATURES.arrow_schema, mentions) as mention_writers,
            split_writers(schema, candidates) as candidate_writers,
        ):
            for batch in labelled_batches(self.path, self.hierarchy):
                lists = batch.lists.with_candidates(best_of_each_concept(batch.lists))
                repeated += len(batch.lists.names) - len(lists.names)
                numbers = _numbers_in_documents(lists.annotations.documents, seen)
                splits = np.array([self.splits.get(document, "") for document in lists.annotations.documents])
                for split in SPLITS:
                    in_split = splits == split
                    subset = lists.take(in_split)
                    ids = counts["mentions"][split] + np.arange(len(subset))
                    columns = _mention_columns(subset, ids, numbers[in_split])
                    mention_writers[split].write(pa.Table.from_pydict(columns, MENTION_FEATURES.arrow_schema))
                    columns = _candidate_columns(subset, ids, self.scores)
                    candidate_writers[split].write(pa.Table.from_pydict(columns, schema))
                    counts["mentions"][split] += len(subset)
                    counts["in_list"][split] += int((subset.annotations.gold >= 0).sum())
        return counts | {"repeated_candidates": repeated}


class DocumentSplits:
    """The split of each document, from a column or from outside.

    Args:
        split_of: function that returns the split of a document if there is no column.
        has_column: whether the column ``split`` decides; then every row needs it.

    Attributes:
        of_documents: document -> split; None if it is in none.
        mentions: number of mentions by split.
    """

    def __init__(self, split_of: SplitOf, has_column: bool) -> None:
        self.of_documents: dict[str, str | None] = {}
        self.mentions: Counter[str | None] = Counter()
        self._split_of, self._has_column = split_of, has_column
        self._first_rows: dict[str, RowPosition] = {}

    def add(self, batch: LabelledLists) -> None:
        """Add the documents of a batch.

        Raises:
            UserError: a row has no split, or an unknown one, or its document is in another.
        """
        rows = zip(batch.lists.annotations.documents, batch.splits, batch.positions, strict=True)
        for document, split, position in rows:
            if split is not None or self._has_column:
                self._check(document, split, position)
                self.of_documents[document] = split
            elif document not in self.of_documents:
                self.of_documents[document] = self._split_of(document)
            self.mentions[self.of_documents[document]] += 1

    def _check(self, document: str, split: Any, position: RowPosition) -> None:
        if not self._has_column or split not in SPLITS:
            reason = "is missing, although other rows have one" if split is None else f"is {split!r}"
            reason += "" if self._has_column else ", but earlier rows have none"
            raise UserError(f"{position}: split {reason}; write one of {', '.join(SPLITS)} in every row")
        first_row = self._first_rows.setdefault(document, position)
        if self.of_documents.get(document, split) != split:
            raise UserError(
                f"{position}: document {document} is in the split {split}, but in {self.of_documents[document]} at "
                f"{first_row}; splits must not share documents"
            )


class NamedCandidate(NamedTuple):
    """Name, types and definition of a candidate's concept."""

    cui: str
    name: str
    preferred_name: str | None
    definition: str | None
    semantic_types: tuple[str, ...]


class CollectedNames:
    """Concepts with the names of the candidates of all lists.

    Attributes:
        fields: fields of `FIELDS` that any candidate has.
    """

    def __init__(self) -> None:
        self.fields: set[str] = set()
        self._concepts: dict[str, _CollectedConcept] = {}

    def add(self, lists: AnnotatedLists) -> None:
        """Add the candidates of some lists."""
        columns = (
            lists.cuis.to_list(),
            lists.names.to_list(),
            lists.preferred_names.to_pylist(),
            lists.definitions.to_pylist(),
            lists.candidate_types,
        )
        for candidate in dict.fromkeys(map(NamedCandidate._make, zip(*columns, strict=True))):
            self.fields |= {name for name in FIELDS if getattr(candidate, name) is not None}
            concept = self._concepts.setdefault(candidate.cui, _CollectedConcept())
            if candidate.preferred_name and candidate.preferred_name.strip():
                concept.preferred_name = concept.preferred_name or candidate.preferred_name
            concept.names.setdefault(candidate.name)
            concept.definition = concept.definition or candidate.definition or ""
            concept.semantic_types |= dict.fromkeys(candidate.semantic_types)

    def concepts(self) -> dict[str, Concept]:
        """CUI -> concept, in the order of their first candidates."""
        return {cui: collected.as_concept(cui) for cui, collected in self._concepts.items()}


@dataclass
class _CollectedConcept:
    preferred_name: str = ""
    definition: str = ""
    names: dict[str, None] = field(default_factory=dict)
    semantic_types: dict[str, None] = field(default_factory=dict)

    def as_concept(self, cui: str) -> Concept:
        name = self.preferred_name or next(iter(self.names))
        synonyms = tuple(synonym for synonym in self.names if synonym != name)
        return Concept(cui, name, synonyms, tuple(self.semantic_types), self.definition)


def _candidate_features(scores: Iterable[str], has_dictionary: bool) -> Features:
    """Columns of candidates, as retrieval writes them; scores keep their dtype, as in serving."""
    columns: dict[str, Any] = {
        "mention_id": Value("int64"),
        "cuis": List(Value("string")),
        "names": List(Value("string")),
        **{f"{name}_scores": List(Value("float64")) for name in scores},
        "gold": Value("int32"),
    }
    return Features(columns if has_dictionary else columns | {"in_dictionary": Value("bool")})


def _numbers_in_documents(documents: np.ndarray, seen: Counter[str]) -> np.ndarray:
    """The number of each mention in its document, (n,) int64; `seen` counts earlier ones, and is updated."""
    numbers = []
    for document in documents:
        numbers.append(seen[document])
        seen[document] += 1
    return np.array(numbers, np.int64)


def _mention_columns(lists: AnnotatedLists, ids: np.ndarray, numbers: np.ndarray) -> dict[str, Any]:
    annotations = lists.annotations
    # The offset only distinguishes mentions within a document.
    return {
        "mention_id": ids,
        "doc_id": annotations.documents.tolist(),
        "start": numbers,
        "end": numbers + 1,
        "mention": lists.mentions,
        "left": [text[max(0, len(text) - CONTEXT_CHARS) :] for text in lists.lefts],
        "right": [text[:CONTEXT_CHARS] for text in lists.rights],
        "cui": annotations.cuis.tolist(),
        "semantic_types": list(map(list, lists.types)),
    }


def _candidate_columns(lists: AnnotatedLists, ids: np.ndarray, scores: Iterable[str]) -> dict[str, Any]:
    offsets = pa.array(lists.offsets, pa.int32())
    columns = {"cuis": as_arrow(lists.cuis), "names": as_arrow(lists.names)}
    columns |= {f"{name}_scores": pa.array(lists.scores.get(name, np.empty(0))) for name in scores}
    return {
        "mention_id": ids,
        **{name: pa.ListArray.from_arrays(offsets, values) for name, values in columns.items()},
        "gold": lists.annotations.gold,
        "in_dictionary": lists.annotations.in_dictionary,
    }
