"""Training rows: of users' mentions with candidates, and of a sample of a run's dev lists."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from ..core.errors import UserError
from ..lists.candidate_lists import AnnotatedLists
from ..lists.index_scores import TEACHER
from ..lists.labels import best_of_each_concept, labelled_lists
from ..lists.read import Rows
from ..models.pair_rows import pair_rows
from ..models.pair_template import PairTemplate
from ..vocab.types import TypeHierarchy


def training_rows(
    rows: Iterable[Mapping[str, Any]] | datasets.Dataset | Rows,
    template: PairTemplate | None = None,
    *,
    nearest_negatives: int | None = None,
    positive_weight: float = 1.0,
    hard_negative_weight: float = 1.0,
) -> datasets.Dataset:
    """The rows that `RerankerTrainer` learns from: each mention with the names of its candidates.

    The first name of the gold concept is the positive of a mention, and one name of each other
    concept a negative. Gold concepts missing from the candidates are not added. A candidate may
    have ``teacher_score``, log-odds for the loss ``listwise_kl``.

    Args:
        rows: mentions as for ``umls-reranker rerank``, with ``cui``, the gold concept.
        template: how the model reads a pair; by default mention and name alone.
        nearest_negatives: the most negatives of a mention, from the top of its list; None: all.
        positive_weight: weight of a positive pair in the loss.
        hard_negative_weight: weight of a negative pair.

    Raises:
        UserError: a row or one of its candidates lacks a value or has a wrong type; names it.

    >>> names = {"C0009443": "Common Cold", "C0009264": "Cold Temperature"}
    >>> candidates = [{"cui": cui, "name": name} for cui, name in names.items()]
    >>> rows = [{"entity": "a cold", "cui": "C0009443", "candidates": candidates}]
    >>> training_rows(rows)[0]["labels"]
    [1, 0]
    """
    if not isinstance(rows, Rows):
        rows = Rows.of(rows)
    # Documents do not matter here.
    lists = labelled_lists(rows, TypeHierarchy.built_in(), each_row_is_a_document=True)
    lists = lists.with_candidates(best_of_each_concept(lists))
    # Other concepts that are correct, too, are no negatives.
    lists = lists.with_candidates((lists.labels == 1) | ~lists.correct)
    if nearest_negatives is not None:
        is_negative = lists.labels == 0
        before = np.append(0, np.cumsum(is_negative))
        before = before[:-1] - before[lists.offsets[:-1]][lists.owner]
        lists = lists.with_candidates(~is_negative | (before < nearest_negatives))
    weights = np.where(lists.labels == 1, positive_weight, hard_negative_weight)
    table = pair_rows(template or PairTemplate(), lists, weights.astype(np.float32))
    if TEACHER in lists.scores:
        scores = pa.array(lists.scores[TEACHER].astype(np.float32))
        table = table.append_column(
            TEACHER, pa.ListArray.from_arrays(pa.array(lists.offsets, pa.int32()), scores)
        )
    return datasets.Dataset(table)


def dev_rows(lists: AnnotatedLists, template: PairTemplate, most: int, seed: int) -> pa.Table:
    """Training rows of a sample of the dev lists, drawn by `sample_by_document`.

    A mention whose gold concept is not in its list has only incorrect pairs.

    Args:
        lists: lists of the dev split.
        template: template of the model.
        most: maximum number of pairs.
        seed: seed of the sample.

    Raises:
        UserError: `most` is less than the length of the first list.
    """
    sizes = np.diff(lists.offsets)
    drawn = lists.take(sample_by_document(lists.annotations.documents, sizes, most, seed))
    return pair_rows(template, drawn, np.ones(len(drawn.names), np.float32))


def sample_by_document(
    documents: Sequence[str] | np.ndarray, sizes: np.ndarray, most: int, seed: int
) -> np.ndarray:
    """Draw mentions with up to `most` pairs, one from every document before a second one from any.

    Answers within a document are correlated, so few documents tell little about a checkpoint.

    Args:
        documents: (n,) document of each mention.
        sizes: (n,) int, number of pairs of each mention.
        most: maximum number of pairs.
        seed: seed of the sample.

    Returns:
        (m,) int64 numbers of the drawn mentions, ascending.

    Raises:
        UserError: `most` is less than the length of the first list.
    """
    drawn = np.random.default_rng(seed).permutation(len(documents))
    _, document = np.unique(np.asarray(documents), return_inverse=True)
    # Number of earlier draws from the document of each mention.
    grouped = np.argsort(document[drawn], kind="stable")
    starts = np.searchsorted(document[drawn][grouped], document[drawn][grouped])
    before = np.empty(len(drawn), np.int64)
    before[grouped] = np.arange(len(drawn)) - starts
    drawn = drawn[np.argsort(before, kind="stable")]
    count = int(np.searchsorted(np.cumsum(np.asarray(sizes)[drawn]), most, side="right"))
    if not count:
        raise UserError(
            f"max_dev_pairs: {most} is smaller than one candidate list of the dev split; "
            "increase it"
        )
    return np.sort(drawn[:count])
