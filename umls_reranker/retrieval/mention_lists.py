"""Candidate lists of a run's mentions, made as in serving, and the recall of each retriever."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ..core.arrays import list_offsets
from ..core.parallel import progress
from ..lists.gold import trainable
from ..lists.run_lists import list_rows, write_list_rows
from ..vocab.concept_table import ConceptTable
from .candidates import Candidates
from .distinct_queries import distinct_queries, query_blocks

if TYPE_CHECKING:
    from datasets import Dataset

from .retriever import Retriever

# Ranks at which recall is reported.
RECALL_AT = (1, 8, 32, 64)
# Mentions whose lists are made at a time; it changes no result.
LISTS_PER_BATCH = 4_096


def search_mentions(
    mentions: pa.Table,
    retriever: Retriever,
    k: int,
    *,
    is_known: bool = False,
    block: int = 8_192,
) -> tuple[np.ndarray, Candidates]:
    """Search each distinct query of `mentions` (`distinct_queries`) once for k concepts.

    Args:
        mentions: n mentions.
        retriever: finds the concepts.
        k: concepts per query.
        is_known: whether indexes have mentions of their documents, which must not find themselves.
        block: queries encoded and searched together; padding affects the last bits of the scores.

    Returns:
        (n,) int64, number of each row's query, and the candidates of the queries.
    """
    by_document = is_known and any(method.leaves_out_documents for method in retriever.methods)
    query_of, queries = distinct_queries(mentions, retriever.reads_context, by_document)
    blocks = []
    with progress(total=len(queries), desc="searching mentions", unit=" strings") as bar:
        for start, end in query_blocks(queries, block) or [(0, 0)]:
            columns = queries.slice(start, end - start).to_pydict()
            contexts = (columns["left"], columns["right"]) if "left" in columns else None
            blocks.append(retriever.search(columns["mention"], k, contexts, columns.get("doc_id")))
            bar.update(end - start)
    return query_of, Candidates.concatenate(blocks)


def gold_positions(
    gold_rows: np.ndarray, rows: np.ndarray, query_of: np.ndarray, batch: int = LISTS_PER_BATCH
) -> np.ndarray:
    """The position of each mention's gold concept among its candidates.

    Args:
        gold_rows: (n,) concept rows, -1 where the gold concept is not in the dictionary.
        rows: (m, k) candidates of the distinct queries.
        query_of: (n,) number of each mention's query.
        batch: mentions looked at together.

    Returns:
        (n,) int32 positions, -1 if the gold concept is not a candidate.
    """
    positions = np.full(len(query_of), -1, np.int32)
    for start in range(0, len(query_of), batch):
        part = slice(start, start + batch)
        gold = gold_rows[part, None]
        is_gold = (rows[query_of[part]] == gold) & (gold >= 0)
        positions[part] = np.where(is_gold.any(axis=1), is_gold.argmax(axis=1), -1)
    return positions


def write_lists(
    mentions: Dataset,
    retriever: Retriever,
    concepts: ConceptTable,
    k: int,
    path: Path,
    *,
    is_known: bool = False,
    batch: int = LISTS_PER_BATCH,
) -> dict[str, Any]:
    """Write the k nearest concepts of every mention, in their order, as `run_lists.list_rows`.

    A candidate has ``cui``, ``name``, and the score of each retriever, such as ``lexical_score``.

    Args:
        mentions: a split, or some of it.
        retriever: retriever of the candidates.
        concepts: dictionary of its index.
        k: candidates per mention; fewer only if the dictionary has fewer concepts.
        path: Arrow file to make.
        is_known: as for `search_mentions`.
        batch: mentions whose lists are made at a time.

    Returns:
        Counts: ``mentions``; ``in_dictionary``, whose gold concept has names; ``retrieved``, whose
        list has it; and ``recall``: retriever -> rank -> share of the mentions in the dictionary
        whose gold concept that retriever ranks so high.

    Raises:
        UserError: an index was built with another encoder or other concepts.
    """
    retriever.require(concepts)
    table = mentions.with_format("arrow")[:]
    query_of, candidates = search_mentions(table, retriever, k, is_known=is_known)
    gold_rows = concepts.rows(trainable(table["cui"].to_pylist()))
    gold = gold_positions(gold_rows, candidates.rows, query_of, batch)

    def batches() -> Iterator[pa.Table]:
        """The rows of some mentions at a time, in order."""
        for start in range(0, max(len(query_of), 1), batch):
            part = candidates.take(query_of[start : start + batch])
            is_candidate = part.rows >= 0
            columns = {
                "cui": concepts.cuis_of(part.rows[is_candidate]),
                "name": retriever.name_array(part.name_ids[is_candidate]),
            }
            for name, scores in retriever.scores_of(part).items():
                columns[f"{name}_score"] = pa.array(scores[is_candidate])
            offsets = list_offsets(is_candidate.sum(axis=1))
            yield list_rows(table.slice(start, batch), offsets, columns, retriever.index_key)

    write_list_rows(batches(), path)
    return {
        "mentions": len(query_of),
        "in_dictionary": int((gold_rows >= 0).sum()),
        "retrieved": int((gold >= 0).sum()),
        "recall": {
            name: _recall(gold_rows, rows, query_of) for name, rows in candidates.lists.items()
        },
    }


def _recall(gold_rows: np.ndarray, rows: np.ndarray, query_of: np.ndarray) -> dict[str, float]:
    """Rank -> share of the mentions in the dictionary whose gold concept is ranked so high."""
    is_in_dictionary = gold_rows >= 0
    ranks = gold_positions(gold_rows[is_in_dictionary], rows, query_of[is_in_dictionary])
    recall = {}
    for k in RECALL_AT:
        is_found = (ranks >= 0) & (ranks < k)
        recall[str(k)] = round(float(is_found.sum() / max(1, len(ranks))), 4)
    return recall
