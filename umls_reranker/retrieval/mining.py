"""Training pairs from candidate lists: the gold concept of each mention, and nearest, same-type and random negatives.

Filters of false negatives (`negatives`) work on concepts, not on text, and count what they drop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

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
from ..vocab.text import normalize_name
from .arguments import MiningArguments
from .candidates import drawn_rows
from .negatives import (
    NEAREST,
    POSITIVE,
    SOURCES,
    ChosenPairs,
    ConceptFilters,
    SharedNames,
    choose_pairs,
)

if TYPE_CHECKING:
    from ..vocab.concepts import ConceptTable
    from ..vocab.rrf import RelationTable

# Share of the mentions whose types the template hides, so that the model can handle both cases.
TYPELESS_SHARE = 0.2
MENTIONS_AT_ONCE = 8_192


def mine_pairs(
    lists: AnnotatedLists,
    concepts: ConceptTable,
    settings: MiningArguments,
    seed: int,
    path: Path,
    *,
    relations: RelationTable | None = None,
    template: PairTemplate | None = None,
    teachers: Sequence[PairScorer] = (),
) -> dict[str, int]:
    """Write the pairs of every mention whose gold concept is in the dictionary, or of those drawn.

    They are rows of `models.pairs.pair_rows` with ``cuis`` and ``sources`` (numbers in `negatives.SOURCES`), one
    for each mention, in their order. In a row the positive comes first, then nearest negatives in the order of the
    list, then same-type, then random ones. Candidates keep the name of the list; a gold concept that is not in its
    list gets its name most similar to the mention, and other concepts get any of their names.

    Args:
        lists: the training lists of a run.
        concepts: dictionary with their concepts.
        settings: numbers, weights and maximum of mentions.
        seed: seed of all draws.
        path: Arrow file to make.
        relations: relations of the concepts; None if unknown.
        template: forms the texts that the model reads; by default only mention and name.
        teachers: models whose mean logits the rows get as ``teacher``; without them, the score of this name that
            candidates of the lists have, if any.

    Returns:
        Counts of mentions, of pairs by source, of missing pairs, and of concepts that filters dropped.
    """
    template, rng, mentions = template or PairTemplate(), np.random.default_rng(seed), len(lists)
    kept = drawn_rows(
        lists.annotations.trainable.tolist(), concepts, settings.max_train_mentions, seed
    )
    lists = lists.take(kept)
    gold, positions = concepts.rows(lists.annotations.trainable.tolist()), lists.annotations.gold
    in_lists = np.where(positions < 0, -1, lists.offsets[:-1] + positions)
    filters = ConceptFilters(SharedNames(concepts, gold), relations)
    rows = concepts.rows(lists.ids)[lists.cuis.codes]
    pairs, dropped = choose_pairs(
        gold, in_lists, lists.offsets, rows, concepts, filters, settings, rng
    )
    of_pairs = pairs.rows >= 0
    typeless = rng.random(len(lists)) < TYPELESS_SHARE
    lists = replace(
        lists, types=replace(lists.types, codes=np.where(typeless, -1, lists.types.codes))
    )
    weights = np.ones(len(SOURCES), np.float32)
    weights[[POSITIVE, NEAREST]] = settings.positive_weight, settings.hard_negative_weight

    def batches() -> Iterator[pa.Table]:
        with progress(total=len(lists), desc="mining", unit=" mentions") as bar:
            for start in range(0, max(len(lists), 1), MENTIONS_AT_ONCE):
                part = slice(start, start + MENTIONS_AT_ONCE)
                of_part = ChosenPairs(*(column[part] for column in pairs))
                names = _names(of_part, lists, start, concepts, rng)
                mined = _as_lists(of_part, names, lists.take(np.arange(len(lists))[part]), concepts)
                source = of_part.sources[of_part.rows >= 0]
                rows = pair_rows(template, mined, mined.labels.astype(np.int8), weights[source])
                columns = {
                    "cuis": as_arrow(mined.cuis),
                    "sources": pa.array(source.astype(np.int8)),
                }
                if teachers:
                    logits = np.mean(
                        [score_lists(teacher, mined).logits for teacher in teachers], axis=0
                    )
                    columns[TEACHER] = pa.array(logits)
                elif TEACHER in lists.scores:
                    at = of_part.candidates[of_part.rows >= 0]
                    columns[TEACHER] = pa.array(
                        np.append(lists.scores[TEACHER], np.nan)[at].astype(np.float32)
                    )
                for name, values in columns.items():
                    column = pa.ListArray.from_arrays(pa.array(mined.offsets, pa.int32()), values)
                    rows = rows.append_column(name, column)
                yield rows
                bar.update(len(mined))

    write_list_rows(batches(), path)
    of_sources = np.bincount(pairs.sources[of_pairs], minlength=len(SOURCES)).tolist()
    return {
        "mentions": mentions,
        "mined_mentions": len(lists),
        "gold_concept_not_in_list": int((positions < 0).sum()),
        **{f"{source}_pairs": count for source, count in zip(SOURCES, of_sources, strict=True)},
        "missing_pairs": int((~of_pairs).sum()),
        **{name: count for name, count in dropped.items() if count},
    }


def _as_lists(
    pairs: ChosenPairs, names: RepeatedTexts, lists: AnnotatedLists, concepts: ConceptTable
) -> AnnotatedLists:
    """The pairs as lists of the same mentions, whose first candidate is the gold concept."""
    is_pair = pairs.rows >= 0
    nothing, first = pa.nulls(int(is_pair.sum()), pa.string()), np.zeros(len(lists), np.int64)
    mined = replace(
        lists,
        offsets=list_offsets(is_pair.sum(axis=1)),
        names=names,
        cuis=encoded_texts(concepts.cuis_of(pairs.rows[is_pair])),
        preferred_names=nothing,
        definitions=nothing,
        scores={},
        annotations=replace(lists.annotations, gold=first),
    )
    return mined.completed(concepts)


def _names(
    pairs: ChosenPairs,
    lists: AnnotatedLists,
    first: int,
    concepts: ConceptTable,
    rng: np.random.Generator,
) -> RepeatedTexts:
    """The name of each pair of the mentions from `first` on."""
    is_pair = pairs.rows >= 0
    rows, candidates = pairs.rows[is_pair], pairs.candidates[is_pair]
    (unlisted,) = np.nonzero(candidates < 0)
    # Of each concept that is not from a list, any name.
    drawn = rng.integers(concepts.name_counts[rows[unlisted]])
    named = concepts.names_at(rows[unlisted], drawn).to_pylist()
    names = np.empty(len(rows), object)
    names[unlisted] = named
    listed = candidates >= 0
    names[listed] = lists.names[candidates[listed]].to_list()
    owner, column = np.nonzero(is_pair)
    for at in np.flatnonzero(~listed & (column == 0)).tolist():
        mention = lists.mentions[first + owner[at]]
        names[at] = max(concepts.names(int(rows[at])), key=lambda name: _likeness(mention, name))
    return encoded_texts(names.tolist())


def _likeness(mention: str, name: str) -> float:
    """Jaccard index of the character trigrams of two normalized texts, 1 if they are equal."""
    first, second = (
        {text[start : start + 3] for start in range(len(text) - 2)}
        for text in (f"  {normalize_name(side)} " for side in (mention, name))
    )
    return len(first & second) / max(1, len(first | second))
