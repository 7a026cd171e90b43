"""Near concepts from given candidate lists, best first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..core.arrays import list_offsets
from ..data.candidate_lists import SCORES_SUFFIX
from ..data.normalization import normalize_name
from .concept_search import Candidates

if TYPE_CHECKING:
    from datasets import Dataset

    from ..data.concepts import ConceptTable
    from .selection import PairSelector

__all__ = ["ListedConcepts"]


class ListedConcepts:
    """The lists of some mentions.

    Args:
        candidates: lists of a split, best first.
        concepts: a dictionary with their concepts.
        mentions, gold, kept: n mentions, the rows of their gold concepts, and the rows of their lists.

    Attributes:
        names: of the dictionary, followed by those of the candidates.
        encoder: None.
    """

    def __init__(
        self,
        candidates: Dataset,
        concepts: ConceptTable,
        mentions: pa.ChunkedArray,
        gold: np.ndarray,
        kept: np.ndarray,
    ) -> None:
        table = candidates.with_format("arrow")[:]
        self._concepts, self._mentions, self._gold, self._kept = concepts, mentions, gold, kept
        self._starts = list_offsets(pc.list_value_length(table["cuis"]).to_numpy())
        self._rows = concepts.rows(pc.list_flatten(table["cuis"]).combine_chunks())
        scores = next((name for name in table.column_names if name.endswith(SCORES_SUFFIX)), None)
        # The first score is used as the cosine.
        self._scores = pc.list_flatten(table[scores]).to_numpy() if scores else np.full(len(self._rows), np.nan)
        self._places = table["gold"].to_numpy().astype(np.int64)
        self.names = _Names(concepts, pc.list_flatten(table["names"]))
        self.encoder = None

    def gold_names(self) -> tuple[np.ndarray, np.ndarray, int]:
        """Names and scores in the lists; for a concept not listed, its name most similar to the mention."""
        places = self._places[self._kept]
        at = self._starts[self._kept] + places
        missed = np.flatnonzero(places < 0)
        at[missed] = 0
        names, scores = self.names.own + at, np.append(self._scores, np.nan)[at].astype(np.float32)
        scores[missed] = np.nan
        texts, starts = self._concepts.names_of(self._gold[missed])
        mentions = self._mentions.take(pa.array(missed)).to_pylist()
        for number, (mention, start, end) in enumerate(zip(mentions, starts[:-1], starts[1:], strict=True)):
            own = texts[start:end].to_pylist()
            best = max(range(len(own)), key=lambda place: _likeness(mention, own[place]))
            names[missed[number]] = self.names.offsets[self._gold[missed[number]]] + best
        return names, scores, len(missed)

    def take(self, numbers: np.ndarray) -> Candidates:
        """The lists of some mentions, by number."""
        lists = self._kept[numbers]
        sizes = np.diff(self._starts)[lists]
        found = Candidates.padding(len(lists), int(sizes.max(initial=1)))
        inside = np.arange(found.rows.shape[1]) < sizes[:, None]
        at = (self._starts[lists][:, None] + np.arange(found.rows.shape[1]))[inside]
        found.rows[inside], found.name_ids[inside] = self._rows[at], self.names.own + at
        found.scores[inside] = self._scores[at]
        return found

    def deepen(self, selector: PairSelector, chunk: int) -> dict[str, int]:
        """Lists cannot be extended."""
        return {}


class _Names:
    """Names by number: all of a dictionary by rows, as in an index, then those of m candidates from `own` on."""

    def __init__(self, concepts: ConceptTable, listed: pa.ChunkedArray) -> None:
        self._concepts, self._listed = concepts, listed
        self.offsets = list_offsets(concepts.name_counts)
        self.own = int(self.offsets[-1])

    def name_array(self, name_ids: np.ndarray) -> pa.ChunkedArray:
        """The strings of names."""
        known = name_ids < self.own
        rows = np.searchsorted(self.offsets, name_ids[known], side="right") - 1
        found = self._concepts.names_at(rows, name_ids[known] - self.offsets[rows])
        others = self._listed.take(pa.array(name_ids[~known] - self.own)).combine_chunks()
        back = np.empty(len(name_ids), np.int64)
        back[known], back[~known] = np.arange(len(found)), len(found) + np.arange(len(others))
        return pa.chunked_array([pa.concat_arrays([found, others]).take(pa.array(back))])


def _likeness(mention: str, name: str) -> float:
    """Jaccard index of the character trigrams of two normalized texts, 1 if they are equal."""
    first, second = (
        {text[place : place + 3] for place in range(len(text) - 2)}
        for text in (f"  {normalize_name(side)} " for side in (mention, name))
    )
    return len(first & second) / max(1, len(first | second))
