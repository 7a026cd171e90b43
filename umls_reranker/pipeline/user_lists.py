"""User-provided candidate lists instead of retrieval: rows in four splits, and their concepts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ..calibration.features import refuse_feature_names
from ..core.errors import UserError
from ..corpora.corpus import CONTEXT_CHARS
from ..corpora.mentions import MENTION_FEATURES, SPLITS, split_writers
from ..lists.candidate_forms import bare_id
from ..lists.candidate_lists import AnnotatedLists
from ..lists.columns import FIELDS, as_arrow
from ..lists.index_scores import TEACHER
from ..lists.labels import (
    best_of_each_concept,
    labelled_lists,
    list_rows,
    refuse_repeated_ids,
    require_documents,
    write_list_rows,
)
from ..lists.read import RowPosition, read_rows
from ..vocab.concepts import Concept
from ..vocab.types import TypeHierarchy

# The split of a document, or None if it is in no document list.
SplitOf = Callable[[str], str | None]


class ListedCandidate(NamedTuple):
    """What a list says about the concept of a candidate."""

    cui: str
    name: str
    preferred_name: str | None
    definition: str | None
    types: tuple[str, ...]


class ListConcepts:
    """The concepts of candidate lists: all names and types, and the first definition.

    Attributes:
        fields: fields of `FIELDS` that any candidate has.
    """

    def __init__(self) -> None:
        self.fields: set[str] = set()
        self._concepts: dict[str, Concept] = {}

    def add(self, lists: AnnotatedLists) -> None:
        """Add the candidates of some lists."""
        candidates = map(
            ListedCandidate,
            lists.cuis.to_list(),
            lists.names.to_list(),
            lists.preferred_names.to_pylist(),
            lists.definitions.to_pylist(),
            lists.candidate_types,
        )
        for candidate in dict.fromkeys(candidates):
            self.fields |= {key for key in FIELDS if getattr(candidate, key)}
            known = self._concepts.get(candidate.cui) or Concept(candidate.cui, "")
            self._concepts[candidate.cui] = replace(
                known,
                name=known.name or (candidate.preferred_name or "").strip(),
                synonyms=tuple(dict.fromkeys((*known.synonyms, candidate.name))),
                semantic_types=tuple(dict.fromkeys((*known.semantic_types, *candidate.types))),
                definition=known.definition or candidate.definition or "",
            )

    def joined(self, dictionary: Iterable[Concept] = ()) -> Iterator[Concept]:
        """The concepts of a dictionary with further names from the lists, then further concepts."""
        rest = dict(self._concepts)
        bare = {bare_id(cui): cui for cui in self._concepts}
        for concept in dictionary:
            ids = [
                cui if cui in rest else bare.get(bare_id(cui), "")
                for cui in (concept.cui, *concept.alternates)
            ]
            for listed in filter(None, [rest.pop(cui, None) for cui in ids]):
                names = {*concept.synonyms, concept.name}
                concept = replace(
                    concept,
                    synonyms=(
                        *concept.synonyms,
                        *(name for name in _names(listed) if name not in names),
                    ),
                    semantic_types=concept.semantic_types or listed.semantic_types,
                    definition=concept.definition or listed.definition,
                    alternates=tuple(
                        dict.fromkeys([*concept.alternates, *{listed.cui} - {concept.cui}])
                    ),
                )
            yield concept
        for concept in rest.values():
            name, *synonyms = _names(concept)
            yield replace(concept, name=name, synonyms=tuple(synonyms))


def _names(concept: Concept) -> list[str]:
    """All names, the preferred one first, if there is one."""
    return [name for name in dict.fromkeys((concept.name, *concept.synonyms)) if name]


class DocumentSplits:
    """The split of each document: by the key ``split`` if any first row has it, else a function.

    Attributes:
        split_of_document: document -> split; None if it is in none.
    """

    def __init__(self, split_of: SplitOf) -> None:
        self.split_of_document: dict[str, str | None] = {}
        self._split_of = split_of
        self._rows_have_splits: bool | None = None

    def add(self, lists: AnnotatedLists) -> np.ndarray:
        """The split of each mention of a batch, (n,) str, "" for those in none.

        Raises:
            UserError: a row has no split, or an unknown one, or its document is in another.
        """
        annotations = lists.annotations
        if self._rows_have_splits is None:
            self._rows_have_splits = any(split is not None for split in annotations.splits)
        splits: list[str] = []
        rows = zip(annotations.documents, annotations.splits, annotations.positions, strict=True)
        for document, split, position in rows:
            if self._rows_have_splits != (split is not None) or (
                self._rows_have_splits and split not in SPLITS
            ):
                raise UserError(
                    f"{position}: split is {split!r}; write one of {SPLITS} in all rows or none"
                )
            split = split if self._rows_have_splits else self._split_of(document)
            if self.split_of_document.setdefault(document, split) != split:
                raise UserError(
                    f"{position}: document {document} is in two splits, "
                    "which must not share documents"
                )
            splits.append(split or "")
        return np.array(splits)


def write_user_lists(
    path: Path,
    hierarchy: TypeHierarchy,
    split_of: SplitOf,
    mentions_folder: Path,
    lists_folder: Path,
) -> tuple[ListConcepts, dict[str, Any]]:
    """Copy rows into the datasets of mentions and of lists, four splits, in the order of the rows.

    Of several candidates of one concept in a list, the first is kept. The gold concept is never
    added to a list.

    Args:
        path: file or folder, as for `read.read_rows`.
        hierarchy: resolves the names of semantic types.
        split_of: function that returns the split of a document if the rows have no key ``split``.
        mentions_folder: folder of the mentions.
        lists_folder: folder of the lists.

    Returns:
        The concepts of the lists, and counts: ``mentions`` and, of these, ``in_list``, by split;
        ``documents``, ``candidates``, ``repeated_candidates``, ``mentions_in_no_list``; and the
        names of the ``scores``.

    Raises:
        UserError: a row is invalid, a mention is repeated, a split is empty, there are too few
            documents, or no list contains its gold concept.
    """
    concepts = ListConcepts()
    splits = DocumentSplits(split_of)
    counts = Counter[str]()
    first_rows: dict[tuple[str, str], RowPosition] = {}
    scores: dict[str, None] = {}
    waiting: dict[str, list[AnnotatedLists]] = {split: [] for split in SPLITS}
    for rows in read_rows(path):
        batch = labelled_lists(rows, hierarchy)
        refuse_feature_names(batch)
        refuse_repeated_ids(batch, first_rows)
        mention_splits = splits.add(batch)
        concepts.add(batch)
        lists = batch.with_candidates(best_of_each_concept(batch))
        scores |= dict.fromkeys(lists.scores)
        counts["candidates"] += len(batch.names)
        counts["repeated_candidates"] += len(batch.names) - len(lists.names)
        counts["mentions_in_no_list"] += int((mention_splits == "").sum())
        for split in SPLITS:
            waiting[split].append(lists.take(mention_splits == split))
    in_split = {split: sum(map(len, split_lists)) for split, split_lists in waiting.items()}
    in_list = {
        split: sum(int(lists.labels.sum()) for lists in split_lists)
        for split, split_lists in waiting.items()
    }
    require_documents(path, splits.split_of_document)
    if empty := [split for split in SPLITS if not in_split[split]]:
        raise UserError(f"{path}: the split {empty[0]!r} is empty (mentions by split: {in_split})")
    if not any(in_list.values()):
        raise UserError(
            f"{path}: no list contains its gold concept; "
            "use one vocabulary for the ids of candidates and cui"
        )
    with split_writers(MENTION_FEATURES.arrow_schema, mentions_folder) as writers:
        for split, split_lists in waiting.items():
            names = [name for name in scores if name != TEACHER or split == "train"]
            tables = _written_mentions(split_lists, writers[split], names)
            write_list_rows(tables, lists_folder / f"{split}.arrow")
    report = {
        "mentions": in_split,
        "in_list": in_list,
        "documents": len(splits.split_of_document),
        "scores": [*scores],
    }
    return concepts, report | counts


def _written_mentions(
    batches: Sequence[AnnotatedLists], writer: pa.RecordBatchStreamWriter, scores: Sequence[str]
) -> Iterator[pa.Table]:
    """Write the mentions of lists, and yield their rows (`labels.list_rows`)."""
    first = 0
    for lists in batches:
        mentions = _mention_rows(lists, first)
        first += len(lists)
        writer.write(mentions)
        candidates = {"cui": as_arrow(lists.cuis), "name": as_arrow(lists.names)}
        missing = np.full(len(lists.names), np.nan)
        candidates |= {
            f"{name}_score": pa.array(lists.scores.get(name, missing)) for name in scores
        }
        yield list_rows(mentions, lists.offsets, candidates)


def _mention_rows(lists: AnnotatedLists, first: int) -> pa.Table:
    annotations = lists.annotations
    numbers = first + np.arange(len(lists))
    columns = {
        "mention_id": numbers,
        "doc_id": annotations.documents.tolist(),
        # The offsets only distinguish mentions.
        "start": numbers,
        "end": numbers + 1,
        "mention": lists.mentions,
        "left": [text[-CONTEXT_CHARS:] for text in lists.lefts],
        "right": [text[:CONTEXT_CHARS] for text in lists.rights],
        "cui": [
            [[cui] for cui in ids] if is_composite else [ids]
            for ids, is_composite in zip(
                annotations.alternatives, annotations.composite, strict=True
            )
        ],
        "semantic_types": list(map(list, lists.types)),
    }
    return pa.Table.from_pydict(columns, MENTION_FEATURES.arrow_schema)
