"""Training pairs from candidate lists: gold concepts; nearest, same-type and random negatives.

Filters of false negatives (`negatives`) work on concepts, not on text, and count what they drop.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from ..core.arrays import RepeatedTexts, list_offsets
from ..core.progress import progress
from ..lists.candidate_lists import AnnotatedLists
from ..lists.columns import as_arrow, encoded_texts
from ..lists.index_scores import TEACHER
from ..lists.labels import write_list_rows
from ..models.cross_encoder import PairScorer, score_lists
from ..models.pairs import PairTemplate, pair_rows
from ..vocab.concepts import ConceptTable
from ..vocab.rrf import RelationTable
from ..vocab.text import normalize_name
from .arguments import MiningArguments
from .candidates import drawn_rows
from .negatives import (
    NEAREST,
    POSITIVE,
    SOURCES,
    ChosenPairs,
    ConceptFilters,
    ConceptLists,
    SharedNames,
    choose_pairs,
)

# Share of the mentions whose types the template hides, so that the model can handle both cases.
TYPELESS_SHARE = 0.2


@dataclass(frozen=True)
class PairMiner:
    """Makes training pairs of candidate lists.

    Attributes:
        concepts: dictionary with the concepts of the lists.
        settings: numbers, weights and maximum of mentions.
        seed: seed of all draws.
        relations: relations of the concepts; None if unknown.
        template: forms the texts that the model reads; by default only mention and name.
        teachers: models whose mean logits the rows get as ``teacher``; without them, the score of
            this name that candidates of the lists have, if any.
    """

    concepts: ConceptTable
    settings: MiningArguments
    seed: int
    relations: RelationTable | None = None
    template: PairTemplate = PairTemplate()
    teachers: Sequence[PairScorer] = ()

    def mine(self, lists: AnnotatedLists, path: Path, batch: int = 8_192) -> dict[str, int]:
        """Write the pairs of all mentions, or those drawn, with a gold concept in the dictionary.

        They are rows of `models.pairs.pair_rows` with ``cuis`` and ``sources`` (numbers in
        `negatives.SOURCES`), one for each mention, in their order. In a row the positive comes
        first, then nearest negatives in the order of the list, then same-type, then random ones.
        Candidates keep the name of the list. A concept that is not in the list gets its name most
        similar to the mention, as in the lists: otherwise, that negatives look unlike the mention
        could be learned from how they are drawn.

        Args:
            lists: the training lists of a run.
            path: Arrow file to make.
            batch: mentions whose rows are made at a time; it changes no result.

        Returns:
            Counts of mentions, pairs by source, missing pairs, and concepts that filters found.
        """
        rng = np.random.default_rng(self.seed)
        cuis = lists.annotations.trainable.tolist()
        drawn = drawn_rows(cuis, self.concepts, self.settings.max_train_mentions, self.seed)
        mined = lists.take(drawn)
        pairs, filtered = self._choose(mined, rng)
        is_typeless = rng.random(len(mined)) < TYPELESS_SHARE
        types = replace(mined.types, codes=np.where(is_typeless, -1, mined.types.codes))
        write_list_rows(self._batches(replace(mined, types=types), pairs, batch), path)
        is_pair = pairs.rows >= 0
        counts = np.bincount(pairs.sources[is_pair], minlength=len(SOURCES)).tolist()
        return {
            "mentions": len(lists),
            "mined_mentions": len(mined),
            "gold_concept_not_in_list": int((mined.annotations.gold < 0).sum()),
            **{f"{source}_pairs": count for source, count in zip(SOURCES, counts, strict=True)},
            "missing_pairs": int((~is_pair).sum()),
            **{name: count for name, count in filtered.items() if count},
        }

    def _choose(
        self, lists: AnnotatedLists, rng: np.random.Generator
    ) -> tuple[ChosenPairs, Counter[str]]:
        gold = self.concepts.rows(lists.annotations.trainable.tolist())
        positions = lists.annotations.gold
        concept_lists = ConceptLists(
            gold=gold,
            gold_positions=np.where(positions < 0, -1, lists.offsets[:-1] + positions),
            offsets=lists.offsets,
            rows=self.concepts.rows(lists.ids)[lists.cuis.codes],
        )
        shared = SharedNames(self.concepts, gold)
        filters = ConceptFilters(shared, self.relations, self.settings.negative_filters)
        return choose_pairs(concept_lists, self.concepts, filters, self.settings, rng)

    def _batches(self, lists: AnnotatedLists, pairs: ChosenPairs, size: int) -> Iterator[pa.Table]:
        with progress(total=len(lists), desc="mining", unit=" mentions") as bar:
            for start in range(0, max(len(lists), 1), size):
                part = slice(start, start + size)
                batch = ChosenPairs(pairs.rows[part], pairs.candidates[part], pairs.sources[part])
                yield self._rows(lists, start, batch)
                bar.update(len(batch.rows))

    def _rows(self, lists: AnnotatedLists, first: int, pairs: ChosenPairs) -> pa.Table:
        """Training rows of the pairs of the mentions from `first` on."""
        names = self._names(lists, first, pairs)
        mentions = lists.take(np.arange(first, first + len(pairs.rows)))
        mined = _as_lists(mentions, pairs, names, self.concepts)
        is_pair = pairs.rows >= 0
        sources = pairs.sources[is_pair]
        weights = np.ones(len(SOURCES), np.float32)
        weights[POSITIVE] = self.settings.positive_weight
        weights[NEAREST] = self.settings.hard_negative_weight
        columns = {"cuis": as_arrow(mined.cuis), "sources": pa.array(sources.astype(np.int8))}
        if self.teachers:
            logits = [score_lists(teacher, mined).logits for teacher in self.teachers]
            columns[TEACHER] = pa.array(np.mean(logits, axis=0))
        elif TEACHER in lists.scores:
            scores = np.append(lists.scores[TEACHER], np.nan)[pairs.candidates[is_pair]]
            columns[TEACHER] = pa.array(scores.astype(np.float32))
        rows = pair_rows(self.template, mined, mined.labels.astype(np.int8), weights[sources])
        for name, values in columns.items():
            column = pa.ListArray.from_arrays(pa.array(mined.offsets, pa.int32()), values)
            rows = rows.append_column(name, column)
        return rows

    def _names(self, lists: AnnotatedLists, first: int, pairs: ChosenPairs) -> RepeatedTexts:
        """The name of each pair of the mentions from `first` on."""
        owner, column = np.nonzero(pairs.rows >= 0)
        rows = pairs.rows[owner, column]
        candidates = pairs.candidates[owner, column]
        names = np.empty(len(rows), object)
        listed = np.flatnonzero(candidates >= 0)
        names[listed] = lists.names[candidates[listed]].to_list()
        for pair in np.flatnonzero(candidates < 0).tolist():
            likeness = partial(_likeness, lists.mentions[first + owner[pair]])
            names[pair] = max(self.concepts.names(int(rows[pair])), key=likeness)
        return encoded_texts(pa.array(names.tolist(), pa.string()))


def _as_lists(
    lists: AnnotatedLists, pairs: ChosenPairs, names: RepeatedTexts, concepts: ConceptTable
) -> AnnotatedLists:
    """The pairs as lists of the same mentions, whose first candidate is the gold concept."""
    is_pair = pairs.rows >= 0
    no_texts = pa.nulls(int(is_pair.sum()), pa.string())
    mined = replace(
        lists,
        offsets=list_offsets(is_pair.sum(axis=1)),
        names=names,
        cuis=encoded_texts(concepts.cuis_of(pairs.rows[is_pair])),
        preferred_names=no_texts,
        definitions=no_texts,
        scores={},
        annotations=replace(lists.annotations, gold=np.zeros(len(lists), np.int64)),
    )
    return mined.completed(concepts)


def _likeness(first: str, second: str) -> float:
    """Jaccard index of the character trigrams of two normalized texts, 1 if they are equal."""
    first_trigrams = _trigrams(first)
    second_trigrams = _trigrams(second)
    return len(first_trigrams & second_trigrams) / max(1, len(first_trigrams | second_trigrams))


def _trigrams(text: str) -> set[str]:
    padded = f"  {normalize_name(text)} "
    return {padded[start : start + 3] for start in range(len(padded) - 2)}
