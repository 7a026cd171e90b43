"""Training pairs: the gold concept of each mention, and nearest, same-type and random negatives.

Filters of false negatives (`false_negatives`) work on concepts, not on text, and count what they drop.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Features, Value

from ..core.progress import progress
from ..data.arrow import arrow_writer
from ..data.candidate_lists import CandidateLists
from ..models.pairs import PairTemplate
from .concept_search import distinct_queries
from .false_negatives import ConceptFilters, SharedNames
from .mining_report import NEAREST, POSITIVE, SOURCES, MiningReport
from .nearest_concepts import ListedConcepts, NearestConcepts, SearchedConcepts, ShardedSearch
from .negatives import MiningConfig, PairSelector, TypePools, random_bits

if TYPE_CHECKING:
    from datasets import Dataset

    from ..data.concepts import ConceptTable
    from ..data.relations import RelationTable
    from .retriever import Retriever

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
# Separates the random draw of mentions shown without types from the draws of negatives.
TYPELESS = len(SOURCES)
# Mentions whose pairs are selected together; does not affect the result.
MENTIONS_AT_ONCE = 8_192


def search_share(
    mentions: Dataset,
    retriever: Retriever,
    concepts: ConceptTable,
    config: MiningConfig,
    path: Path,
    process: int,
    processes: int,
) -> None:
    """Do one process's share of the searches of `mine_pairs` and leave the result in `path` for it.

    Args:
        mentions: as for `mine_pairs`.
        retriever: as for `mine_pairs`.
        concepts: as for `mine_pairs`.
        config: as for `mine_pairs`.
        path: as for `mine_pairs`.
        process: number of this process, from 0.
        processes: number of processes that share the work.
    """
    _, search = _search(_Task(mentions, concepts, config), retriever, path)
    search.search_share(process, processes)


def mine_pairs(
    mentions: Dataset,
    retriever: Retriever,
    concepts: ConceptTable,
    config: MiningConfig,
    path: Path,
    *,
    relations: RelationTable | None = None,
    template: PairTemplate | None = None,
) -> dict[str, Any]:
    """Write the pairs of every mention whose gold concept is in the dictionary.

    Rows are in the order of the mentions; within a mention the positive comes first, then nearest negatives in
    the retriever's order, then same-type, then random ones. Positives and nearest negatives have the name nearest to
    the mention, as in serving; the others have any name of their concept.

    The nearest concepts of each distinct query are kept in shards in `path` (``.nearest-*.npz``), which the caller
    removes. Shards of other processes (`search_share`) or a killed run are reused.

    Args:
        mentions: the training split.
        retriever: finds the nearest concepts, as for candidate lists.
        concepts: dictionary of its indexes.
        config: numbers, filters, weights and seed.
        path: folder for the shards; the pairs become the Arrow file of its name.
        relations: relations of the concepts; None if unknown.
        template: forms the texts that the model reads as ``mention`` and ``name``; by default only these.

    Returns:
        A JSON-able report: pairs per source, drops per filter, missing pairs, cosines, examples.

    Raises:
        UserError: the index was built with another encoder or other concepts.
    """
    task = _Task(mentions, concepts, config)
    query_of, search = _search(task, retriever, path)
    near = SearchedConcepts(search, query_of, task.gold)
    return _write_pairs(task, near, path, relations, template or PairTemplate())


def mine_listed_pairs(
    mentions: Dataset,
    candidates: Dataset,
    concepts: ConceptTable,
    config: MiningConfig,
    path: Path,
    *,
    names_missing_gold: bool,
    relations: RelationTable | None = None,
    template: PairTemplate | None = None,
) -> dict[str, Any]:
    """Do `mine_pairs` with the nearest concepts from user-provided candidate lists, in their order.

    Args:
        mentions: as for `mine_pairs`.
        candidates: lists of the mentions, row by row, in their order.
        concepts: a dictionary with the concepts of the lists.
        config: as for `mine_pairs`.
        path: as for `mine_pairs`.
        names_missing_gold: whether a mention whose list lacks its gold concept gets the most similar name of the
            dictionary; otherwise it is left out.
        relations: as for `mine_pairs`.
        template: as for `mine_pairs`.

    Returns:
        The report of `mine_pairs` without cosines, with ``gold_concept_not_in_list``, the mentions left out for that.
    """
    gold = candidates.with_format("arrow")[:]["gold"].to_numpy()
    task = _Task(mentions, concepts, config, None if names_missing_gold else gold >= 0)
    near = ListedConcepts(candidates, concepts, task.table["mention"], task.gold, task.kept)
    report = _write_pairs(task, near, path, relations, template or PairTemplate())
    return report | {"gold_concept_not_in_list": task.left_out}


def _search(task: _Task, retriever: Retriever, path: Path) -> tuple[np.ndarray, ShardedSearch]:
    """The query of each mention, (n,), and the search of the queries."""
    retriever.require(task.concepts)
    query_of, queries = distinct_queries(task.table, retriever.reads_context)
    return query_of, ShardedSearch(queries, retriever, task.config.neighbors, path)


def _write_pairs(
    task: _Task,
    near: NearestConcepts,
    path: Path,
    relations: RelationTable | None,
    template: PairTemplate,
) -> dict[str, Any]:
    concepts, config = task.concepts, task.config
    pools = TypePools(concepts, task.gold, task.table["semantic_types"])
    filters = ConceptFilters(SharedNames(concepts, task.gold), relations)
    selector, report = PairSelector(config, near.names.offsets, filters, pools), MiningReport(len(task.gold))

    def chunks(mentions: np.ndarray) -> list[np.ndarray]:
        return [mentions[start : start + MENTIONS_AT_ONCE] for start in range(0, len(mentions), MENTIONS_AT_ONCE)]

    def has_enough(mentions: np.ndarray) -> np.ndarray:
        enough = [selector.has_enough(task.gold[part], near.take(part)) for part in chunks(mentions)]
        return np.concatenate([np.empty(0, bool), *enough])

    deeper = near.deepen(has_enough)
    ids = task.table["mention_id"].to_numpy()

    def batches() -> Iterator[dict[str, Any]]:
        with progress(total=len(ids), desc="mining", unit=" mentions") as bar:
            for part in chunks(np.arange(len(ids))):
                gold = near.gold.take(part)
                selected = selector.select(part, ids[part], gold, near.take(part), report)
                mention, column = is_pair = np.nonzero(selected.rows >= 0)
                rows, names = selected.rows[is_pair], near.names.name_array(selected.name_ids[is_pair])
                pairs = task.columns(part[mention], selector.sources[column], rows, names)
                cosines = selected.cosines[is_pair]
                if near.encoder is None:
                    cosines[:] = np.nan
                report.count_pairs(pairs, part[mention], cosines, near.names.name_array(gold.name_ids[mention]))
                texts, offsets = task.mention_texts(template, part[mention]), np.arange(len(mention) + 1)
                # A pair is a list with one candidate.
                lists = CandidateLists.from_concepts(
                    concepts, texts, offsets, rows, names, {}, fields=template.candidate_fields
                )
                yield pairs | {"mention": texts, "name": template.candidate_texts(lists)}
                bar.update(len(part))

    schema = PAIR_FEATURES.arrow_schema
    with arrow_writer(path.with_suffix(".arrow"), schema) as writer:
        for columns in batches():
            writer.write(pa.Table.from_pydict(columns, schema))
    per_mention = {
        "nearest": config.nearest_negatives,
        "type": config.same_type_negatives,
        "random": config.random_negatives,
    }
    return {
        "mentions": task.mentions,
        "gold_concept_unknown": task.unknown,
        "mentions_not_drawn": task.not_drawn,
        "gold_concept_not_retrieved": near.missing_gold,
        "types_from_mention": pools.from_mention,
        "relations": 0 if relations is None else len(relations),
        "searched_deeper": deeper,
        **report.to_dict(
            near.encoder,
            requested={source: count * len(ids) for source, count in per_mention.items()},
            cosine_floor=config.cosine_floor,
        ),
    }


class _Task:
    """The mentions to mine and their queries, the same in every process.

    Args:
        usable: (n,) bool, mentions that may be mined; None: all.

    Attributes:
        table: n mentions.
        gold: (n,) rows of their gold concepts.
        kept: (n,) their numbers among all mentions.
        mentions: number of all mentions.
        unknown: number of mentions left out because the dictionary lacks their concept.
        left_out: number of mentions left out because they are not usable.
        not_drawn: number of mentions that were not drawn.
    """

    def __init__(
        self, mentions: Dataset, concepts: ConceptTable, config: MiningConfig, usable: np.ndarray | None = None
    ) -> None:
        self.concepts, self.config, self.mentions = concepts, config, len(mentions)
        table = mentions.with_format("arrow")[:]
        gold = concepts.rows(table["cui"].to_pylist())
        known = gold >= 0
        kept = np.flatnonzero(known if usable is None else known & usable)
        self.unknown = int((~known).sum())
        self.left_out = int(known.sum()) - len(kept)
        self.not_drawn = 0
        most = config.max_train_mentions
        if most is not None and len(kept) > most:
            self.not_drawn = len(kept) - most
            kept = np.sort(kept[np.random.default_rng(config.seed).permutation(len(kept))[:most]])
        self.table, self.gold, self.kept = table.take(pa.array(kept)), gold[kept], kept

    def mention_texts(self, template: PairTemplate, mentions: np.ndarray) -> list[str]:
        """The texts of mentions (by number) for the model, some without their types."""
        distinct, number_of = np.unique(mentions, return_inverse=True)
        rows = self.table.select(["mention_id", "mention", "semantic_types"]).take(pa.array(distinct))
        share = random_bits(rows["mention_id"].to_numpy(), self.config.seed, TYPELESS) / 2.0**64
        texts = []
        for row, is_typeless in zip(rows.to_pylist(), share < self.config.typeless_share, strict=True):
            types = () if is_typeless else row["semantic_types"]
            texts.append(template.mention_text(row["mention"], types, self.concepts.hierarchy))
        return [texts[number] for number in number_of]

    def columns(
        self, mentions: np.ndarray, sources: np.ndarray, rows: np.ndarray, names: pa.ChunkedArray
    ) -> dict[str, Any]:
        """The columns of `PAIR_FEATURES` for pairs of mentions (by number) and concepts with their names."""
        texts = self.table.select(["mention_id", "mention", "left", "right"]).take(pa.array(mentions))
        weights = np.ones(len(SOURCES), np.float32)
        weights[[POSITIVE, NEAREST]] = self.config.positive_weight, self.config.hard_negative_weight
        return dict(zip(texts.column_names, texts.columns, strict=True)) | {
            "cui": self.concepts.cuis_of(rows),
            "name": names,
            "label": (sources == POSITIVE).astype(np.int8),
            "weight": weights[sources],
            "source": sources,
        }
