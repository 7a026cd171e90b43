"""Training pairs: for every mention its gold concept and near, same-type and random negatives.

Guards against false negatives work on concepts, not on text: a negative is never the mention's gold concept and never
a concept that shares a normalized name with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Features, Value

from ..data.arrow import write_dataset
from ..progress import progress
from .candidates import gold_positions, nearest_names, search_texts
from .index import Candidates
from .negatives import SharedNames, TypePools, random_below, random_bits

if TYPE_CHECKING:
    from datasets import Dataset

    from ..data.concepts import ConceptTable
    from .encoder import BiEncoder
    from .index import NameIndex

__all__ = ["PAIR_FEATURES", "MiningConfig", "mine_pairs"]

SOURCES = ("positive", "semantic", "type", "random")
POSITIVE, SEMANTIC, TYPE, RANDOM = range(4)
PAIR_FEATURES = Features(
    {
        "mention_id": Value("int64"),
        "mention": Value("string"),
        "left": Value("string"),
        "right": Value("string"),
        "cui": Value("string"),
        "name": Value("string"),
        "label": Value("int8"),
        "weight": Value("float32"),
        "source": ClassLabel(names=list(SOURCES)),
    }
)
# Draws per negative before it is given up, which only a dictionary or type of a handful of concepts comes to.
ATTEMPTS = 32
EXAMPLES = 3
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class MiningConfig:
    """How many negatives of each kind a mention gets, and what they weigh.

    Attributes:
        semantic: nearest concepts, by their best-matching name.
        same_type: random concepts that share a semantic type with the gold concept.
        random: random concepts.
        cosine_floor: what a semantic negative's cosine should reach; the nearest below it fill up and are counted.
        positive_weight, semantic_weight, other_weight: weights in the loss; "other" is same-type and random.
        neighbors: concepts searched per mention.
        seed: of all draws. A draw depends on the seed, the mention's id and the draw's number, on nothing else.
    """

    semantic: int = 5
    same_type: int = 2
    random: int = 2
    cosine_floor: float = 0.85
    positive_weight: float = 1.0
    semantic_weight: float = 1.5
    other_weight: float = 1.0
    neighbors: int = 64
    seed: int = 13


def mine_pairs(
    mentions: Dataset,
    index: NameIndex,
    concepts: ConceptTable,
    encoder: BiEncoder,
    config: MiningConfig,
    path: Path,
    fingerprint: str,
    *,
    chunk: int = 8_192,
) -> dict[str, Any]:
    """Write the pairs of every mention whose gold concept is in the dictionary.

    Rows are in the order of the mentions; within a mention the positive comes first, then semantic negatives by
    falling cosine, then same-type, then random ones. Positives and semantic negatives carry the name nearest to the
    mention, as serving shows them; the others carry any name of their concept.

    Args:
        mentions: the training split.
        index, concepts, encoder: index and what it was built from.
        config: numbers, weights and seed.
        path: dataset folder to make.
        fingerprint: of everything the pairs depend on.
        chunk: mentions handled at once; has no influence on the result.

    Returns:
        A JSON-able report: pairs per source, what each guard dropped, what fell short, cosines, examples.

    Raises:
        UserError: the index was built with another encoder or other concepts.
    """
    index.require(concepts, encoder)
    table = mentions.with_format("arrow")[:]
    gold = concepts.rows(table["cui"].to_pylist())
    table, gold = table.take(pa.array(np.flatnonzero(gold >= 0))), gold[gold >= 0]
    strings, found = search_texts(table["mention"], index, encoder, config.neighbors)
    position = gold_positions(gold, found.rows, strings)
    gold_names, missed = found.name_ids[strings, position], np.flatnonzero(position < 0)
    gold_names[missed] = nearest_names(table["mention"].take(pa.array(missed)), gold[missed], index, encoder)
    pools = TypePools(concepts, gold, table["semantic_types"])
    miner = _Miner(config, index, SharedNames(index, gold), pools)
    ids = table["mention_id"].to_numpy()

    def batches() -> Iterator[dict[str, Any]]:
        with progress(total=len(gold), desc="mining", unit=" mentions") as bar:
            for start in range(0, len(gold), chunk):
                part = np.arange(start, min(start + chunk, len(gold)))
                near = found.take(strings[part])
                rows, name_ids = miner.mine(part, ids[part], gold[part], gold_names[part], near)
                yield miner.columns(table.slice(start, chunk), rows, name_ids, concepts)
                bar.update(len(part))

    write_dataset(batches(), PAIR_FEATURES, path, fingerprint)
    return {
        "mentions": len(mentions),
        "gold_concept_unknown": len(mentions) - len(gold),
        "gold_concept_not_retrieved": len(missed),
        "types_from_mention": pools.from_mention,
        **miner.report(len(gold)),
    }


class _Miner:
    """Mines chunk by chunk and counts what happens."""

    def __init__(self, config: MiningConfig, index: NameIndex, guard: SharedNames, pools: TypePools) -> None:
        self._config, self._index, self._guard, self._pools = config, index, guard, pools
        # One column per pair a mention can have; the last ones stand in for same-type negatives that were not found.
        counts = [1, config.semantic, config.same_type, config.random + config.same_type]
        self.sources = np.repeat(np.arange(len(SOURCES)), counts)
        self._numbers = np.concatenate([np.arange(count) for count in counts])
        self._dropped: dict[str, Counter[str]] = {
            "gold_concept": Counter(),
            "shared_name": Counter(),
            "chosen": Counter(),
        }
        self._pairs: Counter[str] = Counter()
        self._named_as_mention = 0
        self._cosines = [np.empty(0, np.float32)]
        self._examples: dict[str, list[dict[str, str]]] = {source: [] for source in SOURCES}

    def mine(
        self, mentions: np.ndarray, ids: np.ndarray, gold: np.ndarray, gold_names: np.ndarray, near: Candidates
    ) -> tuple[np.ndarray, np.ndarray]:
        """Concept rows and name ids of the pairs of m mentions.

        Args:
            mentions: (m,) their numbers in the pools.
            ids: (m,) their mention ids.
            gold, gold_names: (m,) gold concepts and the names shown for them.
            near: the concepts nearest to each.

        Returns:
            Two (m, w) arrays whose columns have the sources `sources`; -1 where a mention lacks a pair.
        """
        rows = np.full((len(gold), len(self.sources)), -1)
        name_ids = rows.copy()
        rows[:, 0], name_ids[:, 0] = gold, gold_names
        self._take_nearest(rows, name_ids, near)
        for column in np.flatnonzero(self.sources >= TYPE):
            self._draw(rows, column, mentions, ids)
            drawn = np.flatnonzero(rows[:, column] >= 0)
            starts, stops = (self._index.offsets[rows[drawn, column] + edge] for edge in (0, 1))
            bits = self._bits(ids[drawn], column, ATTEMPTS)
            name_ids[drawn, column] = starts + random_below(bits, stops - starts)
        return rows, name_ids

    def _take_nearest(self, rows: np.ndarray, name_ids: np.ndarray, near: Candidates) -> None:
        gold, wanted = rows[:, :1], self._config.semantic
        is_gold = near.rows == gold
        shares = self._guard.between(gold, near.rows) & ~is_gold
        good = (near.rows >= 0) & ~is_gold & ~shares
        # What stands behind the last one taken was not needed, and so not dropped.
        reached = np.cumsum(good, axis=1) - good < wanted
        self._count("gold_concept", SEMANTIC, is_gold & reached)
        self._count("shared_name", SEMANTIC, shares & reached)
        mention, place = np.nonzero(good & reached)
        column = 1 + (np.cumsum(good, axis=1) - 1)[mention, place]
        rows[mention, column], name_ids[mention, column] = near.rows[mention, place], near.name_ids[mention, place]
        self._cosines.append(near.scores[mention, place])

    def _draw(self, rows: np.ndarray, column: int, mentions: np.ndarray, ids: np.ndarray) -> None:
        source, number = self.sources[column], self._numbers[column]
        pending = np.arange(len(rows))
        if source == TYPE:
            pending = np.flatnonzero(self._pools.sizes(mentions))
        elif number >= self._config.random:
            pending = np.flatnonzero(rows[:, column - self._config.random - self._config.same_type] < 0)
        for attempt in range(ATTEMPTS):
            if not len(pending):
                break
            bits = self._bits(ids[pending], column, attempt)
            if source == TYPE:
                drawn = self._pools.pick(mentions[pending], bits, self._bits(ids[pending], column, attempt, 1))
            else:
                drawn = random_below(bits, len(self._index.offsets) - 1)
            is_gold = drawn == rows[pending, 0]
            shares = self._guard.between(rows[pending, 0], drawn) & ~is_gold
            again = (rows[pending, 1:column] == drawn[:, None]).any(axis=1) & ~shares
            self._count("gold_concept", source, is_gold)
            self._count("shared_name", source, shares)
            self._count("chosen", source, again)
            bad = is_gold | shares | again
            rows[pending[~bad], column] = drawn[~bad]
            pending = pending[bad]

    def _bits(self, ids: np.ndarray, column: int, *counters: int) -> np.ndarray:
        return random_bits(ids, self._config.seed, self.sources[column], self._numbers[column], *counters)

    def _count(self, guard: str, source: int, dropped: np.ndarray) -> None:
        self._dropped[guard][SOURCES[source]] += int(dropped.sum())

    def columns(
        self, mentions: pa.Table, rows: np.ndarray, name_ids: np.ndarray, concepts: ConceptTable
    ) -> dict[str, Any]:
        """The columns of `PAIR_FEATURES` for what `mine` gave."""
        owner, column = np.nonzero(rows >= 0)
        source = self.sources[column]
        texts = mentions.select(["mention_id", "mention", "left", "right"]).take(pa.array(owner))
        weights = [self._config.positive_weight, self._config.semantic_weight] + 2 * [self._config.other_weight]
        pairs = dict(zip(texts.column_names, texts.columns, strict=True)) | {
            "cui": concepts.cuis[rows[owner, column]],
            "name": self._index.name_array(name_ids[owner, column]),
            "label": (source == POSITIVE).astype(np.int8),
            "weight": np.array(weights, np.float32)[source],
            "source": source,
        }
        self._pairs.update({name: int((source == number).sum()) for number, name in enumerate(SOURCES)})
        same = pc.equal(pc.utf8_lower(pairs["mention"]), pc.utf8_lower(pairs["name"])).to_numpy()
        self._named_as_mention += int((same & (source == SEMANTIC)).sum())
        for number, name in enumerate(SOURCES):
            # The first of its kind of each mention, until there are enough.
            firsts = np.flatnonzero((source == number) & (self._numbers[column] == 0))
            for i in firsts[: EXAMPLES - len(self._examples[name])].tolist():
                self._examples[name].append({key: str(pairs[key][i]) for key in ("mention", "name", "cui")})
        return pairs

    def report(self, mentions: int) -> dict[str, Any]:
        """What `mine` and `columns` counted over `mentions` mentions in all."""
        config, pairs, cosines = self._config, self._pairs, np.concatenate(self._cosines)
        replaced = mentions * config.same_type - pairs["type"]
        quantiles = np.quantile(cosines, QUANTILES).tolist() if len(cosines) else [None] * len(QUANTILES)
        return {
            "pairs": dict(pairs),
            "dropped": {guard: dict(counts) for guard, counts in self._dropped.items()},
            "cosine_floor": config.cosine_floor,
            "semantic_below_floor": int((cosines < config.cosine_floor).sum()),
            "semantic_cosine": {
                str(q): value and round(value, 4) for q, value in zip(QUANTILES, quantiles, strict=True)
            },
            "semantic_named_as_mention": self._named_as_mention,
            "semantic_missing": mentions * config.semantic - pairs["semantic"],
            "type_replaced_by_random": replaced,
            "random_missing": mentions * config.random + replaced - pairs["random"],
            "examples": self._examples,
        }
