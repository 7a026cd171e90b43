"""Training pairs from candidate lists: gold concepts; nearest, same-type and random negatives.

Filters of false negatives work on concepts, not on text, and count what they drop.
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
from ..core.parallel import progress
from ..lists.annotated_lists import AnnotatedLists
from ..lists.columns import as_arrow, encoded_texts
from ..lists.index_scores import TEACHER
from ..lists.run_lists import write_list_rows
from ..models.cross_encoder import PairScorer, score_lists
from ..models.pair_rows import pair_rows
from ..models.pair_template import PairTemplate
from ..vocab.concept_table import ConceptTable
from ..vocab.relations import RelationTable
from .arguments import MiningArguments
from .chosen_pairs import (
    ChosenPairs,
    PairSource,
    TypePools,
    choose_nearest,
    draw_pairs,
    drop_distant,
)
from .false_negatives import ConceptFilters, SharedNames
from .name_likeness import name_likeness
from .retrievers import Dense
from .training_mentions import drawn_rows

# Share of the mentions whose types the template hides, so that the model can handle both cases.
TYPELESS_SHARE = 0.2


@dataclass(frozen=True)
class PairMiner:
    """Makes training pairs of candidate lists.

    Attributes:
        concepts: dictionary with the concepts of the lists.
        settings: numbers, weights and maximum of mentions.
        seed: seed of all draws.
        relations: synonyms of the concepts; None if unknown.
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

        They are rows of `models.pair_rows.pair_rows` with ``cuis`` and ``sources`` (numbers of
        `PairSource`), one for each mention, in their order. In a row the positive comes
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
        counts = np.bincount(pairs.sources[is_pair], minlength=len(PairSource)).tolist()
        pair_counts = {
            f"{source.name.lower()}_pairs": count
            for source, count in zip(PairSource, counts, strict=True)
        }
        return {
            "mentions": len(lists),
            "mined_mentions": len(mined),
            "gold_concept_not_in_list": int((mined.annotations.gold < 0).sum()),
            **pair_counts,
            "missing_pairs": int((~is_pair).sum()),
            **{name: count for name, count in filtered.items() if count},
        }

    def _choose(
        self, lists: AnnotatedLists, rng: np.random.Generator
    ) -> tuple[ChosenPairs, Counter[str]]:
        """Choose the pairs of n mentions.

        A negative of the same type that cannot be drawn, as for a concept without types, is
        replaced by a random concept.

        Returns:
            The pairs, and how many concepts each filter dropped: ``dropped_FILTER_SOURCE``; and
            ``below_min_nearest_cosine``, nearest negatives that are left out, without a substitute.
        """
        settings = self.settings
        nearest = settings.nearest_negatives
        numbers = [1, nearest, settings.same_type_negatives, settings.random_negatives]
        sources: np.ndarray = np.tile(
            np.repeat(np.arange(len(PairSource)), numbers), (len(lists), 1)
        )
        gold = self.concepts.rows(lists.annotations.trainable.tolist())
        rows: np.ndarray = np.full(sources.shape, -1, np.int64)
        rows[:, 0] = gold
        candidates = np.full(sources.shape, -1, np.int64)
        positions = lists.annotations.gold
        candidates[:, 0] = np.where(positions < 0, -1, lists.offsets[:-1] + positions)
        pairs = ChosenPairs(rows, candidates, sources)
        filters = ConceptFilters(SharedNames(self.concepts, gold), self.relations)
        listed = self.concepts.rows(lists.ids)[lists.cuis.codes]
        counts = choose_nearest(pairs, lists.offsets, listed, filters, nearest)
        least = settings.min_nearest_cosine
        if least is not None:
            cosines = lists.scores[Dense.score_name]
            counts["below_min_nearest_cosine"] = drop_distant(pairs, cosines, least)
        pools = TypePools(self.concepts, gold)
        is_typeless = pools.sizes(np.arange(len(lists))) == 0

        def draw_any(mentions: np.ndarray) -> np.ndarray:
            return rng.integers(len(self.concepts), size=len(mentions))

        for column in range(1 + nearest, rows.shape[1]):
            sources[is_typeless & (sources[:, column] == PairSource.TYPE), column] = (
                PairSource.RANDOM
            )
            counts.update(
                draw_pairs(pairs, column, PairSource.TYPE, partial(pools.draw, rng=rng), filters)
            )
            sources[(sources[:, column] == PairSource.TYPE) & (rows[:, column] < 0), column] = (
                PairSource.RANDOM
            )
            counts.update(draw_pairs(pairs, column, PairSource.RANDOM, draw_any, filters))
        return pairs, counts

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
        weights = np.ones(len(PairSource), np.float32)
        weights[PairSource.POSITIVE] = self.settings.positive_weight
        weights[PairSource.NEAREST] = self.settings.hard_negative_weight
        columns = {"cuis": as_arrow(mined.cuis), "sources": pa.array(sources.astype(np.int8))}
        if self.teachers:
            logits = [score_lists(teacher, mined).logits for teacher in self.teachers]
            columns[TEACHER] = pa.array(np.mean(logits, axis=0))
        elif TEACHER in lists.scores:
            scores = np.append(lists.scores[TEACHER], np.nan)[pairs.candidates[is_pair]]
            columns[TEACHER] = pa.array(scores.astype(np.float32))
        rows = pair_rows(self.template, mined, weights[sources])
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
            likeness = partial(name_likeness, lists.mentions[first + owner[pair]])
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
