"""`AnnotatedLists`: candidate lists whose mentions have gold concepts and documents."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.arrays import (
    values_at,
)
from .candidate_lists import CandidateLists
from .gold import trainable

if TYPE_CHECKING:
    from typing_extensions import Self

    from .dictionary import Dictionary


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
        positions: (n,) file and row of the mention (`rows.RowPosition`), for messages.
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
class AnnotatedLists(CandidateLists):
    """Lists with known gold concepts.

    Attributes:
        annotations: annotations of the n mentions.
        dictionary: the dictionary that completed the candidates of a user's file, if any did.
    """

    annotations: Annotations = field(kw_only=True)
    dictionary: Dictionary | None = field(default=None, kw_only=True)

    @classmethod
    def of(cls, lists: CandidateLists, annotations: Annotations) -> AnnotatedLists:
        """The same lists with annotations."""
        columns = {column.name: getattr(lists, column.name) for column in fields(CandidateLists)}
        return cls(**columns, annotations=annotations)

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

    def example(self) -> dict[str, Any] | None:
        """A mention that shows how to ask: that of the most documents, so of no one patient.

        Returns:
            Its text as ``mention``, the names of its ``types``, and ``ids`` of its gold concept and
            of another candidate; None if no mention has both.
        """
        gold_positions = self.annotations.gold
        ids_of_text: dict[str, tuple[int, list[str]]] = {}
        documents_of_text = defaultdict(set)
        for row in np.flatnonzero(gold_positions >= 0).tolist():
            cuis = self.cuis[slice(*self.offsets[row : row + 2])].to_list()
            candidates = [(text or "").strip() for text in cuis]
            gold = candidates[gold_positions[row]]
            others = [name for name in candidates if name not in ("", gold)]
            if gold and others:
                text = self.mentions[row]
                ids_of_text.setdefault(text, (row, [gold, others[0]]))
                documents_of_text[text].add(self.annotations.documents[row])
        if not ids_of_text:
            return None
        text = min(ids_of_text, key=lambda text: (-len(documents_of_text[text]), text))
        row, two_ids = ids_of_text[text]
        return {
            "mention": text,
            "types": self.hierarchy.names(self.types[row]),
            "ids": two_ids,
        }

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
