"""Training pairs: for every mention its gold concept and near, same-type and random negatives.

Guards against false negatives (`guards`) work on concepts, not on text, and count what they drop.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Features, Value

from ..core.progress import progress
from ..data.arrow import write_dataset
from ..data.candidate_lists import CandidateLists
from ..data.mentions import FEEDBACK_PREFIX
from ..data.normalization import normalize_name
from ..models.template import PairTemplate
from .candidates import gold_positions
from .guards import ConceptGuards, SharedNames
from .mining_report import POSITIVE, SEMANTIC, SOURCES, MiningReport
from .nearest import NearestConcepts
from .negatives import TypePools, random_bits
from .queries import distinct_queries
from .selection import MiningConfig, PairSelector

if TYPE_CHECKING:
    from datasets import Dataset

    from ..data.concepts import ConceptTable
    from ..data.relations import RelationTable
    from .retriever import Retriever

__all__ = ["PAIR_FEATURES", "mine_pairs", "search_share"]

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
# Where guards leave too few near concepts, twice as many are searched, and twice as many again.
DEEPER_SEARCHES = 2
# Tells the draw of mentions without types from the draws of negatives.
TYPELESS = len(SOURCES)
# Queries whose gold concepts' names are compared together; it decides who is padded with whom, and so the last bits.
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
    _Task(mentions, retriever, concepts, config, path).nearest.search_share(process, processes)


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
) -> dict[str, Any]:
    """Write the pairs of every mention whose gold concept is in the dictionary.

    Rows are in the order of the mentions; within a mention the positive comes first, then semantic negatives in
    the retriever's order, then same-type, then random ones. Positives and semantic negatives carry the name nearest
    to the mention, as serving shows them; the others carry any name of their concept.

    The nearest concepts of each distinct query are kept in shards in `path` until the pairs are complete; those that
    other processes (`search_share`) or a killed run left there are taken as they are.

    Args:
        mentions: the training split.
        retriever, concepts: what finds near concepts, as for candidate lists, and what its indexes were built over.
        config: numbers, guards, weights and seed.
        path: dataset folder to make.
        fingerprint: of everything the pairs depend on.
        relations: for ``config.guard_relations``; None where none are known.
        template: says what the model reads, which is written as ``mention`` and ``name``; by default those alone.
        chunk: mentions handled at once; has no influence on the result.

    Returns:
        A JSON-able report: pairs per source, what each guard dropped, what fell short, cosines, examples.

    Raises:
        UserError: the index was built with another encoder or other concepts.
    """
    template = template or PairTemplate()
    task = _Task(mentions, retriever, concepts, config, path)
    task.nearest.search()
    gold_names, gold_cosines, missed = task.gold_names()
    pools = TypePools(concepts, task.gold, task.table["semantic_types"])
    guards = ConceptGuards(SharedNames(concepts, task.gold), relations, config.guard_relations)
    selector, report = PairSelector(config, retriever.index, guards, pools), MiningReport(len(task.gold))
    deeper = _search_deeper(task, selector, gold_cosines, chunk)
    ids = task.table["mention_id"].to_numpy()

    def batches() -> Iterator[dict[str, Any]]:
        with progress(total=len(ids), desc="mining", unit=" mentions") as bar:
            for start in range(0, len(ids), chunk):
                part = np.arange(start, min(start + chunk, len(ids)))
                gold = task.gold[part], gold_names[part], gold_cosines[part]
                near = task.nearest.take(task.queries[part])
                rows, name_ids, cosines = selector.select(part, ids[part], gold, near, report)
                mention, column = chosen = np.nonzero(rows >= 0)
                pairs = task.columns(part[mention], selector.sources[column], rows[chosen], name_ids[chosen])
                report.count_pairs(pairs, part[mention], cosines[chosen], retriever.index.name_array(gold[1][mention]))
                shown, offsets = task.shown(template, part[mention]), np.arange(len(mention) + 1)
                # A pair is a list of one candidate.
                lists = CandidateLists.from_concepts(
                    concepts, shown, offsets, rows[chosen], pairs["name"], {}, fields=template.candidate_fields
                )
                yield pairs | {"mention": shown, "name": template.candidate_texts(lists).to_list()}
                bar.update(len(part))

    write_dataset(batches(), PAIR_FEATURES, path, fingerprint)
    task.nearest.remove_shards()
    wanted = {
        "semantic": config.semantic_negatives,
        "type": config.same_type_negatives,
        "random": config.random_negatives,
    }
    return {
        "mentions": len(mentions),
        "gold_concept_unknown": task.unknown,
        "repeated_mentions": task.repeated,
        "repeated_pairs": task.repeated * (1 + sum(wanted.values())),
        "mentions_not_drawn": task.not_drawn,
        "gold_concept_not_retrieved": missed,
        "types_from_mention": pools.from_mention,
        "relations": 0 if relations is None else len(relations),
        "searched_deeper": deeper,
        **report.to_dict(
            retriever.encoder,
            wanted={kind: count * len(ids) for kind, count in wanted.items()},
            cosine_floor=config.cosine_floor,
        ),
    }


class _Task:
    """The mentions to mine and what to search for them: the same in every process.

    Attributes:
        table, gold, queries: n mentions, the rows of their gold concepts, the numbers of their queries.
        nearest: of the distinct queries.
        unknown, repeated, not_drawn: numbers of mentions left out.
    """

    def __init__(
        self,
        mentions: Dataset,
        retriever: Retriever,
        concepts: ConceptTable,
        config: MiningConfig,
        path: Path,
    ) -> None:
        retriever.require(concepts)
        self._index, self._concepts, self._config = retriever.index, concepts, config
        table = mentions.with_format("arrow")[:]
        gold = concepts.rows(table["cui"].to_pylist())
        kept = np.flatnonzero(gold >= 0)
        self.unknown = len(gold) - len(kept)
        if config.mine_per == "string":
            texts = pc.dictionary_encode(table["mention"].combine_chunks())
            forms = pa.array([normalize_name(text) for text in texts.dictionary.to_pylist()], pa.string())
            codes = forms.dictionary_encode().indices.to_numpy()[texts.indices.to_numpy()].astype(np.int64)
            kept = kept[np.sort(np.unique((codes * len(concepts) + gold)[kept], return_index=True)[1])]
        self.repeated = len(gold) - self.unknown - len(kept)
        self.not_drawn = 0
        most = config.max_train_mentions
        if most is not None and len(kept) > most:
            self.not_drawn = len(kept) - most
            kept = kept[np.sort(np.random.default_rng(config.seed).permutation(len(kept))[:most])]
        self.table, self.gold = table.take(pa.array(kept)), gold[kept]
        self.queries, distinct = distinct_queries(self.table, retriever.reads_context)
        self.nearest = NearestConcepts(distinct, retriever, config.neighbors, path)

    def gold_names(self) -> tuple[np.ndarray, np.ndarray, int]:
        """The name shown for each gold concept, its cosine, and how many concepts were not among the nearest."""
        found = self.nearest.first
        position = gold_positions(self.gold, found.rows, self.queries)
        names, cosines = found.name_ids[self.queries, position], found.scores[self.queries, position]
        missed = np.flatnonzero(position < 0)
        # Each pair of query and concept once.
        pairs, inverse = np.unique(
            np.stack([self.queries[missed], self.gold[missed]], axis=1), axis=0, return_inverse=True
        )
        best = []
        for part in np.split(pairs, range(PAIRS, len(pairs), PAIRS)):
            vectors, owners = self.nearest.encode(part[:, 0])
            best.append(self._index.best_names(vectors, part[:, 1:], owners))
        for values, column in zip((names, cosines), zip(*best, strict=True), strict=True):
            values[missed] = np.concatenate(column)[inverse.ravel(), 0]
        return names, cosines, len(missed)

    def shown(self, template: PairTemplate, mentions: np.ndarray) -> list[str]:
        """What the model reads of mentions (by number), some of them without their types."""
        distinct, place = np.unique(mentions, return_inverse=True)
        rows = self.table.select(["mention_id", "mention", "semantic_types"]).take(pa.array(distinct))
        ids, texts, types = (column.to_pylist() for column in rows.columns)
        share = random_bits(np.array(ids, np.int64), self._config.seed, TYPELESS) / 2.0**64
        typeless = share < self._config.typeless_share
        shown = [
            template.mention_text(text, () if without else kinds, self._concepts.hierarchy)
            for text, kinds, without in zip(texts, types, typeless, strict=True)
        ]
        return [shown[number] for number in place]

    def columns(
        self, mentions: np.ndarray, sources: np.ndarray, rows: np.ndarray, name_ids: np.ndarray
    ) -> dict[str, Any]:
        """The columns of `PAIR_FEATURES` for pairs of mentions (by number) and concepts."""
        texts = self.table.select(["mention_id", "mention", "left", "right"]).take(pa.array(mentions))
        weights = np.full(len(SOURCES), self._config.other_negative_weight, np.float32)
        weights[[POSITIVE, SEMANTIC]] = self._config.positive_weight, self._config.hard_negative_weight
        weights = weights[sources]
        if self._config.feedback_weight != 1.0:
            corrected = pc.starts_with(self.table["doc_id"], FEEDBACK_PREFIX).to_numpy()[mentions]
            weights = np.where(corrected, weights * np.float32(self._config.feedback_weight), weights)
        return dict(zip(texts.column_names, texts.columns, strict=True)) | {
            "cui": self._concepts.cuis[rows],
            "name": self._index.name_array(name_ids),
            "label": (sources == POSITIVE).astype(np.int8),
            "weight": weights,
            "source": sources,
        }


def _search_deeper(task: _Task, selector: PairSelector, gold_cosines: np.ndarray, chunk: int) -> dict[str, int]:
    """Search deeper for mentions that the guards left too little; returns how many, by the concepts searched."""
    counts: dict[str, int] = {}
    short, searched = np.arange(len(task.gold)), task.nearest.k
    for _ in range(DEEPER_SEARCHES):
        parts = [short[start : start + chunk] for start in range(0, len(short), chunk)]
        short = np.concatenate(
            [
                part[~selector.has_enough(task.gold[part], gold_cosines[part], task.nearest.take(task.queries[part]))]
                for part in parts
            ]
            or [short]
        )
        if not len(short) or searched >= len(task._concepts):
            break
        searched = task.nearest.search_deeper(np.unique(task.queries[short]))
        counts[str(searched)] = len(short)
    return counts
