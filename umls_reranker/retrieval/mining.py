"""Training pairs: the gold concept of each mention, and near, same-type and random negatives.

Guards against false negatives (`guards`) work on concepts, not on text, and count what they drop.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Features, Value

from ..core.progress import progress
from ..data.arrow import write_dataset
from ..data.candidate_lists import CandidateLists
from ..data.mentions import FEEDBACK_PREFIX
from ..models.template import PairTemplate
from .candidates import gold_positions
from .guards import ConceptGuards, SharedNames
from .listed import ListedConcepts
from .mining_report import POSITIVE, SEMANTIC, SOURCES, MiningReport
from .nearest import NearestConcepts
from .negatives import TypePools, random_bits
from .queries import distinct_queries
from .selection import MiningConfig, PairSelector

if TYPE_CHECKING:
    from datasets import Dataset

    from ..data.concepts import ConceptTable
    from ..data.relations import RelationTable
    from ..models.bi_encoder import BiEncoder
    from .concept_search import Candidates
    from .retriever import Retriever
    from .selection import Names

__all__ = ["PAIR_FEATURES", "mine_listed_pairs", "mine_pairs", "search_share"]

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
# If guards leave too few near concepts, twice and then four times as many are searched.
DEEPER_SEARCHES = 2
# Distinguishes the draw of mentions without types from the draws of negatives.
TYPELESS = len(SOURCES)
# Number of queries whose gold names are compared together; fixed, because padding affects the last bits.
PAIRS = 4_096


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
        mentions, retriever, concepts, config, path: as for `mine_pairs`.
        process, processes: number of this process, from 0, and how many share the work.
    """
    _Searched(_Task(mentions, concepts, config), retriever, config, path).nearest.search_share(process, processes)


def mine_pairs(
    mentions: Dataset,
    retriever: Retriever,
    concepts: ConceptTable,
    config: MiningConfig,
    path: Path,
    fingerprint: str,
    *,
    relations: RelationTable | None = None,
    template: PairTemplate | None = None,
    chunk: int = 8_192,
    keep_shards: bool = False,
) -> dict[str, Any]:
    """Write the pairs of every mention whose gold concept is in the dictionary.

    Rows are in the order of the mentions; within a mention the positive comes first, then semantic negatives in
    the retriever's order, then same-type, then random ones. Positives and semantic negatives carry the name nearest
    to the mention, as serving shows them; the others carry any name of their concept.

    The nearest concepts of each distinct query are kept in shards in `path` until the pairs are complete. Shards of
    other processes (`search_share`) or a killed run are reused.

    Args:
        mentions: the training split.
        retriever, concepts: finds near concepts, as for candidate lists; and the concepts of its indexes.
        config: numbers, guards, weights and seed.
        path: dataset folder to make.
        fingerprint: of everything the pairs depend on.
        relations: which concepts are related; None if unknown.
        template: forms the texts that the model reads as ``mention`` and ``name``; by default only these.
        chunk: mentions processed at once; does not affect the result.
        keep_shards: leave the shards in `path`, for a caller that a kill may still end before all is complete.

    Returns:
        A JSON-able report: pairs per source, drops per guard, missing pairs, cosines, examples.

    Raises:
        UserError: the index was built with another encoder or other concepts.
    """
    task = _Task(mentions, concepts, config)
    near = _Searched(task, retriever, config, path)
    near.nearest.search()
    report = _write_pairs(task, near, path, fingerprint, relations, template or PairTemplate(), chunk)
    if not keep_shards:
        near.nearest.remove_shards()
    return report


def mine_listed_pairs(
    mentions: Dataset,
    candidates: Dataset,
    concepts: ConceptTable,
    config: MiningConfig,
    path: Path,
    fingerprint: str,
    *,
    names_missing_gold: bool,
    relations: RelationTable | None = None,
    template: PairTemplate | None = None,
    chunk: int = 8_192,
) -> dict[str, Any]:
    """`mine_pairs` with near concepts from given candidate lists, in their order.

    Args:
        candidates: lists of the mentions, row by row, best first.
        concepts: a dictionary that knows the concepts of the lists.
        names_missing_gold: a mention whose gold concept is not in its list gets the name of the dictionary that is
            most similar to it; else it is left out.

    Returns:
        The report of `mine_pairs`, without cosines; and ``gold_concept_not_in_list``, mentions left out for that.
    """
    gold = candidates.with_format("arrow")[:]["gold"].to_numpy()
    task = _Task(mentions, concepts, config, None if names_missing_gold else gold >= 0)
    near = ListedConcepts(candidates, concepts, task.table["mention"], task.gold, task.kept)
    report = _write_pairs(task, near, path, fingerprint, relations, template or PairTemplate(), chunk)
    return report | {"gold_concept_not_in_list": task.left_out}


class _Near(Protocol):
    """Source of near concepts.

    Attributes:
        names: by number.
        encoder: for the cosines of the report; None: no cosines.
    """

    @property
    def names(self) -> Names: ...

    @property
    def encoder(self) -> BiEncoder | None: ...

    def gold_names(self) -> tuple[np.ndarray, np.ndarray, int]:
        """The shown name of each gold concept, its cosine or score, and the number of gold concepts that were not
        near.
        """

    def take(self, numbers: np.ndarray) -> Candidates:
        """The concepts near to some mentions, by number."""

    def deepen(self, selector: PairSelector, chunk: int) -> dict[str, int]:
        """Search more if the guards left too few; returns counts by number of searched concepts."""


def _write_pairs(
    task: _Task,
    near: _Near,
    path: Path,
    fingerprint: str,
    relations: RelationTable | None,
    template: PairTemplate,
    chunk: int,
) -> dict[str, Any]:
    concepts, config = task.concepts, task.config
    gold_names, gold_cosines, missed = near.gold_names()
    pools = TypePools(concepts, task.gold, task.table["semantic_types"])
    guards = ConceptGuards(SharedNames(concepts, task.gold), relations)
    selector, report = PairSelector(config, near.names, guards, pools), MiningReport(len(task.gold))
    deeper = near.deepen(selector, chunk)
    ids = task.table["mention_id"].to_numpy()

    def batches() -> Iterator[dict[str, Any]]:
        with progress(total=len(ids), desc="mining", unit=" mentions") as bar:
            for start in range(0, len(ids), chunk):
                part = np.arange(start, min(start + chunk, len(ids)))
                gold = task.gold[part], gold_names[part], gold_cosines[part]
                rows, name_ids, cosines = selector.select(part, ids[part], gold, near.take(part), report)
                mention, column = chosen = np.nonzero(rows >= 0)
                names = near.names.name_array(name_ids[chosen])
                pairs = task.columns(part[mention], selector.sources[column], rows[chosen], names)
                if near.encoder is None:
                    cosines = np.full_like(cosines, np.nan)
                report.count_pairs(pairs, part[mention], cosines[chosen], near.names.name_array(gold[1][mention]))
                shown, offsets = task.shown(template, part[mention]), np.arange(len(mention) + 1)
                # A pair is a list of one candidate.
                lists = CandidateLists.from_concepts(
                    concepts, shown, offsets, rows[chosen], pairs["name"], {}, fields=template.candidate_fields
                )
                yield pairs | {"mention": shown, "name": template.candidate_texts(lists).to_list()}
                bar.update(len(part))

    write_dataset(batches(), PAIR_FEATURES, path, fingerprint)
    wanted = {
        "semantic": config.nearest_negatives,
        "type": config.same_type_negatives,
        "random": config.random_negatives,
    }
    return {
        "mentions": task.mentions,
        "gold_concept_unknown": task.unknown,
        "mentions_not_drawn": task.not_drawn,
        "gold_concept_not_retrieved": missed,
        "types_from_mention": pools.from_mention,
        "relations": 0 if relations is None else len(relations),
        "searched_deeper": deeper,
        **report.to_dict(
            near.encoder,
            wanted={kind: count * len(ids) for kind, count in wanted.items()},
            cosine_floor=config.cosine_floor,
        ),
    }


class _Task:
    """The mentions to mine and their queries, the same in every process.

    Args:
        usable: (n,) bool, which of them may be mined; None for all.

    Attributes:
        table, gold: n mentions, and the rows of their gold concepts.
        kept: (n,) their numbers among those given.
        corrected: (n,) bool, which of them are reviewers' corrections.
        mentions: number of those given.
        unknown, left_out, not_drawn: numbers of mentions left out; `left_out` are not usable.
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
        corrected = np.zeros(len(table), bool)
        if "doc_id" in table.column_names:
            corrected = pc.starts_with(table["doc_id"], FEEDBACK_PREFIX).to_numpy()
        self.not_drawn = 0
        most = config.max_train_mentions
        if most is not None and len(kept) > most:
            self.not_drawn = len(kept) - most
            drawn = kept[np.random.default_rng(config.seed).permutation(len(kept))]
            # Reviewers' corrections come first.
            kept = np.sort(drawn[np.argsort(~corrected[drawn], kind="stable")][:most])
        self.table, self.gold, self.kept = table.take(pa.array(kept)), gold[kept], kept
        self.corrected = corrected[kept]

    def shown(self, template: PairTemplate, mentions: np.ndarray) -> list[str]:
        """The texts of mentions (by number) for the model, some without their types."""
        distinct, place = np.unique(mentions, return_inverse=True)
        rows = self.table.select(["mention_id", "mention", "semantic_types"]).take(pa.array(distinct))
        ids, texts, types = (column.to_pylist() for column in rows.columns)
        share = random_bits(np.array(ids, np.int64), self.config.seed, TYPELESS) / 2.0**64
        typeless = share < self.config.typeless_share
        shown = [
            template.mention_text(text, () if without else kinds, self.concepts.hierarchy)
            for text, kinds, without in zip(texts, types, typeless, strict=True)
        ]
        return [shown[number] for number in place]

    def columns(
        self, mentions: np.ndarray, sources: np.ndarray, rows: np.ndarray, names: pa.ChunkedArray
    ) -> dict[str, Any]:
        """The columns of `PAIR_FEATURES` for pairs of mentions (by number) and concepts with their names."""
        texts = self.table.select(["mention_id", "mention", "left", "right"]).take(pa.array(mentions))
        weights = np.ones(len(SOURCES), np.float32)
        weights[[POSITIVE, SEMANTIC]] = self.config.positive_weight, self.config.hard_negative_weight
        weights = weights[sources]
        if self.config.feedback_weight != 1.0:
            weights = np.where(self.corrected[mentions], weights * np.float32(self.config.feedback_weight), weights)
        return dict(zip(texts.column_names, texts.columns, strict=True)) | {
            "cui": self.concepts.cuis[rows],
            "name": names,
            "label": (sources == POSITIVE).astype(np.int8),
            "weight": weights,
            "source": sources,
        }


class _Searched:
    """Near concepts from the retriever, for the distinct queries of the mentions."""

    def __init__(self, task: _Task, retriever: Retriever, config: MiningConfig, path: Path) -> None:
        retriever.require(task.concepts)
        self.names, self.encoder, self._task = retriever.index, retriever.encoder, task
        self._queries, distinct = distinct_queries(task.table, retriever.reads_context)
        self.nearest = NearestConcepts(distinct, retriever, config.neighbors, path)

    def gold_names(self) -> tuple[np.ndarray, np.ndarray, int]:
        found, queries, gold = self.nearest.first, self._queries, self._task.gold
        position = gold_positions(gold, found.rows, queries)
        names, cosines = found.name_ids[queries, position], found.scores[queries, position]
        missed = np.flatnonzero(position < 0)
        # Each pair of query and concept once.
        pairs, inverse = np.unique(np.stack([queries[missed], gold[missed]], axis=1), axis=0, return_inverse=True)
        best = []
        for part in np.split(pairs, range(PAIRS, len(pairs), PAIRS)):
            vectors, owners = self.nearest.encode(part[:, 0])
            best.append(self.names.best_names(vectors, part[:, 1:], owners))
        for values, column in zip((names, cosines), zip(*best, strict=True), strict=True):
            values[missed] = np.concatenate(column)[inverse.ravel(), 0]
        return names, cosines, len(missed)

    def take(self, numbers: np.ndarray) -> Candidates:
        return self.nearest.take(self._queries[numbers])

    def deepen(self, selector: PairSelector, chunk: int) -> dict[str, int]:
        counts: dict[str, int] = {}
        gold = self._task.gold
        short, searched = np.arange(len(gold)), self.nearest.k
        for _ in range(DEEPER_SEARCHES):
            parts = [short[start : start + chunk] for start in range(0, len(short), chunk)]
            short = np.concatenate(
                [part[~selector.has_enough(gold[part], self.take(part))] for part in parts] or [short]
            )
            if not len(short) or searched >= len(self._task.concepts):
                break
            searched = self.nearest.search_deeper(np.unique(self._queries[short]))
            counts[str(searched)] = len(short)
        return counts
