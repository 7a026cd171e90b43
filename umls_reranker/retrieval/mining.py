"""Training pairs from candidate lists: gold concepts; nearest, same-type and random negatives.

Filters of false negatives work on concepts, not on text, and count what they drop.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from ..core.arrays import RepeatedTexts, list_offsets, list_owner
from ..core.parallel import progress
from ..lists.annotated_lists import AnnotatedLists
from ..lists.columns import as_arrow, encoded_texts
from ..lists.index_scores import TEACHER
from ..lists.run_lists import write_list_rows
from ..models.cross_encoder import PairScorer, score_lists
from ..models.pair_rows import pair_rows
from ..models.pair_template import PairTemplate
from ..vocab.concept_table import ConceptTable
from ..vocab.normalization import normalize_name
from ..vocab.relations import RelationTable
from .arguments import MiningArguments
from .retrievers import Dense
from .training_mentions import drawn_rows

# Share of the mentions whose types the template hides, so that the model can handle both cases.
TYPELESS_SHARE = 0.2
FILTERS = ("shared_name", "synonym", "gold_concept", "chosen")
"""Reasons to drop a concept; "chosen": the mention already has it."""

SHARED_NAME, SYNONYM, GOLD, CHOSEN = range(len(FILTERS))
# In place of a filter's number where none applies.
PASSES = -1
# Number of gold concepts whose names are looked up together.
CONCEPTS_PER_BATCH = 16_384


class ConceptFilters:
    """The filters that depend only on the two concepts.

    Args:
        shared: which concepts share a name.
        relations: which concepts are synonyms; None if unknown.
    """

    def __init__(self, shared: SharedNames, relations: RelationTable | None) -> None:
        self._shared = shared
        self._relations = relations or RelationTable(np.empty(0, np.int64))

    def reasons(self, gold: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The filter that drops each of `rows`; of several, the last of `FILTERS`.

        Args:
            gold: rows of gold concepts, which broadcast with `rows`.
            rows: rows of concepts; no filter applies to row -1.

        Returns:
            int8 numbers in `FILTERS`, of the common shape; `PASSES` where none applies.
        """
        reasons = np.full(np.broadcast_shapes(gold.shape, rows.shape), PASSES, np.int8)
        reasons[self._shared.between(gold, rows)] = SHARED_NAME
        reasons[self._relations.related(gold, rows)] = SYNONYM
        reasons[gold == rows] = GOLD
        return reasons


class SharedNames:
    """Which concepts share a normalized name with a gold concept.

    Args:
        concepts: the dictionary.
        gold: concept rows for later calls of `between`.
    """

    def __init__(self, concepts: ConceptTable, gold: np.ndarray) -> None:
        self._concepts = len(concepts)
        distinct = np.unique(gold)
        keys = []
        for start in range(0, len(distinct), CONCEPTS_PER_BATCH):
            rows = distinct[start : start + CONCEPTS_PER_BATCH]
            names, name_offsets = concepts.names_of(rows)
            namesakes, offsets = concepts.rows_named(names)
            owners = np.repeat(np.repeat(rows, np.diff(name_offsets)), np.diff(offsets))
            keys.append(np.unique(owners * self._concepts + namesakes))
        # The last one is larger than any key, so that every key has a position.
        self._keys = np.concatenate([*keys, [np.iinfo(np.int64).max]])

    def between(self, gold: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Whether each of `rows` shares a name with its gold concept, or is the gold concept.

        Args:
            gold: rows of gold concepts, which broadcast with `rows`.
            rows: rows of concepts; row -1 shares nothing.
        """
        keys = gold * self._concepts + rows
        return (rows >= 0) & (self._keys[np.searchsorted(self._keys, keys)] == keys)


SOURCES = ("positive", "nearest", "type", "random")
POSITIVE, NEAREST, TYPE, RANDOM = range(len(SOURCES))
# Maximum draws per negative; reached only with very small dictionaries or types.
MOST_DRAWS = 32


class ChosenPairs(NamedTuple):
    """The pairs of n mentions in w columns: positive, nearest negatives, drawn negatives.

    Attributes:
        rows: (n, w) concept rows, -1 for missing pairs.
        candidates: (n, w) flat position of the candidate in the lists; -1 if the concept is not
            from the list.
        sources: (n, w) numbers in `SOURCES`.
    """

    rows: np.ndarray
    candidates: np.ndarray
    sources: np.ndarray


class TypePools:
    """Concepts with a semantic type of a gold concept.

    Args:
        concepts: the dictionary with its types.
        gold: (n,) concept rows of the mentions' gold concepts.
    """

    def __init__(self, concepts: ConceptTable, gold: np.ndarray) -> None:
        distinct, self._gold = np.unique(gold, return_inverse=True)
        types = [concepts.semantic_types(row) for row in distinct.tolist()]
        types_in_turn = list(chain.from_iterable(types))
        numbers = {kind: number for number, kind in enumerate(sorted({*types_in_turn}))}
        self._types = np.array([numbers[kind] for kind in types_in_turn], np.int64)
        self._type_starts = list_offsets([len(kinds) for kinds in types])
        members = [concepts.type_rows(kind) for kind in numbers]
        self._rows = np.concatenate([*members, [-1]])
        self._row_starts = list_offsets(list(map(len, members)))

    def sizes(self, mentions: np.ndarray) -> np.ndarray:
        """Number of types of the gold concepts of some mentions, by number."""
        return np.diff(self._type_starts)[self._gold[mentions]]

    def draw(self, mentions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A concept row for each mention: a drawn concept of a drawn one of its types.

        All of the mentions have types.
        """
        types = self._types[
            self._type_starts[self._gold[mentions]] + rng.integers(self.sizes(mentions))
        ]
        return self._rows[self._row_starts[types] + rng.integers(np.diff(self._row_starts)[types])]


def _choose_nearest(
    pairs: ChosenPairs,
    offsets: np.ndarray,
    rows: np.ndarray,
    filters: ConceptFilters,
    number: int,
) -> Counter[str]:
    """Write the first `number` candidates of each list that pass, and count what filters found.

    Args:
        pairs: the pairs, whose first column is chosen.
        offsets: (n + 1,) where each mention's candidates start.
        rows: (m,) rows of the candidates.
        filters: exclude false negatives.
        number: the number.
    """
    owner = list_owner(offsets)
    reasons = filters.reasons(pairs.rows[owner, 0], rows)
    passes = (reasons == PASSES) & (rows >= 0)
    # The number of passing candidates before each in its list.
    before: np.ndarray = np.cumsum(passes) - passes
    before -= before[offsets[:-1][owner]]
    is_reached = before < number
    chosen = np.flatnonzero(passes & is_reached)
    target = owner[chosen], 1 + before[chosen]
    pairs.rows[target] = rows[chosen]
    pairs.candidates[target] = chosen
    # Candidates after the last chosen one were not needed, so they do not count as dropped.
    return _counted(NEAREST, reasons[is_reached])


def _drop_distant(pairs: ChosenPairs, cosines: np.ndarray, least: float) -> int:
    """Remove the nearest negatives whose cosine is below the least, and return how many.

    No later candidate takes their place: in a list of one retriever, all that follow are farther.

    Args:
        pairs: the pairs, whose nearest negatives are chosen.
        cosines: (m,) of the candidates with their mentions.
        least: the least cosine.
    """
    rows, columns = np.nonzero((pairs.sources == NEAREST) & (pairs.candidates >= 0))
    is_distant = ~(cosines[pairs.candidates[rows, columns]] >= least)
    distant = rows[is_distant], columns[is_distant]
    pairs.rows[distant] = -1
    pairs.candidates[distant] = -1
    return int(is_distant.sum())


def _draw(
    pairs: ChosenPairs,
    column: int,
    source: int,
    draw: Callable[[np.ndarray], np.ndarray],
    filters: ConceptFilters,
) -> Counter[str]:
    """Draw the pairs of a column and source, and count the concepts that filters found.

    Args:
        pairs: the pairs, whose earlier columns are chosen.
        column: the column to write.
        source: number in `SOURCES`.
        draw: mentions (q,), by number -> a concept row for each.
        filters: exclude false negatives.
    """
    counts: Counter[str] = Counter()
    for _ in range(MOST_DRAWS):
        pending = np.flatnonzero((pairs.sources[:, column] == source) & (pairs.rows[:, column] < 0))
        if not len(pending):
            break
        drawn = draw(pending)
        reasons = filters.reasons(pairs.rows[pending, 0], drawn)
        is_repeated = (pairs.rows[pending, :column] == drawn[:, None]).any(axis=1)
        reasons[is_repeated & (reasons == PASSES)] = CHOSEN
        counts.update(_counted(source, reasons))
        passes = reasons == PASSES
        pairs.rows[pending[passes], column] = drawn[passes]
    return counts


def _counted(source: int, reasons: np.ndarray) -> Counter[str]:
    """``dropped_FILTER_SOURCE`` -> how many concepts of the source it dropped."""
    counts = np.bincount(reasons[reasons != PASSES], minlength=len(FILTERS)).tolist()
    return Counter(
        {
            f"dropped_{name}_{SOURCES[source]}": count
            for name, count in zip(FILTERS, counts, strict=True)
        }
    )


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

        They are rows of `models.pairs.pair_rows` with ``cuis`` and ``sources`` (numbers in
        `SOURCES`), one for each mention, in their order. In a row the positive comes
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
        sources: np.ndarray = np.tile(np.repeat(np.arange(len(SOURCES)), numbers), (len(lists), 1))
        gold = self.concepts.rows(lists.annotations.trainable.tolist())
        rows: np.ndarray = np.full(sources.shape, -1, np.int64)
        rows[:, 0] = gold
        candidates = np.full(sources.shape, -1, np.int64)
        positions = lists.annotations.gold
        candidates[:, 0] = np.where(positions < 0, -1, lists.offsets[:-1] + positions)
        pairs = ChosenPairs(rows, candidates, sources)
        filters = ConceptFilters(SharedNames(self.concepts, gold), self.relations)
        listed = self.concepts.rows(lists.ids)[lists.cuis.codes]
        counts = _choose_nearest(pairs, lists.offsets, listed, filters, nearest)
        least = settings.min_nearest_cosine
        if least is not None:
            cosines = lists.scores[Dense.score_name]
            counts["below_min_nearest_cosine"] = _drop_distant(pairs, cosines, least)
        pools = TypePools(self.concepts, gold)
        is_typeless = pools.sizes(np.arange(len(lists))) == 0

        def draw_any(mentions: np.ndarray) -> np.ndarray:
            return rng.integers(len(self.concepts), size=len(mentions))

        for column in range(1 + nearest, rows.shape[1]):
            sources[is_typeless & (sources[:, column] == TYPE), column] = RANDOM
            counts.update(_draw(pairs, column, TYPE, partial(pools.draw, rng=rng), filters))
            sources[(sources[:, column] == TYPE) & (rows[:, column] < 0), column] = RANDOM
            counts.update(_draw(pairs, column, RANDOM, draw_any, filters))
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
