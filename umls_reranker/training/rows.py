"""The rows that a cross-encoder is trained on, made of users' mentions with their candidates."""

from collections.abc import Iterable, Mapping
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from ..core.arrays import counted_above
from ..lists.index_scores import TEACHER
from ..lists.labels import best_of_each_concept, labelled_lists
from ..lists.rows import Rows
from ..models.pair_rows import pair_rows
from ..models.pair_template import PairTemplate
from ..vocab.types import TypeHierarchy

TEXT_COLUMNS = ("entity", "left", "right")
LIST_COLUMNS = ("names", "labels", "weights")


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
        is_near = counted_above(is_negative, lists.offsets) < nearest_negatives
        lists = lists.with_candidates(~is_negative | is_near)
    weights = np.where(lists.labels == 1, positive_weight, hard_negative_weight)
    table = pair_rows(template or PairTemplate(), lists, weights.astype(np.float32))
    if TEACHER in lists.scores:
        scores = pa.array(lists.scores[TEACHER].astype(np.float32))
        table = table.append_column(
            TEACHER, pa.ListArray.from_arrays(pa.array(lists.offsets, pa.int32()), scores)
        )
    return datasets.Dataset(table)


def table_of_rows(rows: Any, name: str) -> pa.Table:
    """Training rows as a table.

    Args:
        rows: what was given as rows of `training_rows`.
        name: the argument that it was given as.

    Raises:
        ValueError: it is something else, or has no rows; says what makes such rows.
    """
    way_out = "make them of mentions with their candidates by umls_reranker.training_rows"
    if rows is None:
        raise ValueError(f"{name} is missing: it takes rows; {way_out}")
    if isinstance(rows, datasets.Dataset):
        rows = rows.with_format("arrow")[:]
    if not isinstance(rows, pa.Table):
        raise ValueError(f"{name} is a {type(rows).__name__}, not training rows; {way_out}")
    columns = rows.column_names
    missing = [column for column in (*TEXT_COLUMNS, *LIST_COLUMNS) if column not in columns]
    if missing:
        raise ValueError(
            f"{name} has the columns {', '.join(columns)}, and training rows have {missing[0]}; "
            f"{way_out}"
        )
    for column in LIST_COLUMNS:
        kind = rows.schema.field(column).type
        if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
            raise ValueError(f"{name}: {column} is {kind}, not a list for each row; {way_out}")
    if not rows.num_rows:
        raise ValueError(f"{name} has no rows; {way_out}")
    return rows
