"""Features of the calibration lists, whose counts leave out each fold of documents in turn.

The served model counts calibration mentions as well as training mentions. Features to fit on must
be like those of new text, so the mentions of a fold are not counted in its own features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from ..core.parallel import progress
from .feature_table import FeatureTable, feature_table
from .string_counts import StringCounts

if TYPE_CHECKING:
    from ..lists.annotated_lists import AnnotatedLists


def cross_counted_features(
    lists: AnnotatedLists, counts: StringCounts, folds: np.ndarray, names: Sequence[str]
) -> tuple[FeatureTable, StringCounts]:
    """Features that count training mentions and calibration mentions of other folds.

    Args:
        lists: n lists.
        counts: counts of the training split.
        folds: (n,) int64, fold of each mention, from 0; all 0: nothing can be left out, and only
            training mentions are counted.
        names: the features; none: nothing is counted.

    Returns:
        The features, and the counts of training mentions and all calibration mentions together.
    """
    if not names:
        return FeatureTable.of(lists, {}, {}), counts
    if not folds.any():
        return feature_table(lists, counts, names), counts
    fold_counts = [_count(lists, folds == fold) for fold in range(folds.max() + 1)]
    tables = []
    for fold in progress(range(len(fold_counts)), desc="computing features", unit=" folds"):
        other_folds = fold_counts[:fold] + fold_counts[fold + 1 :]
        counts_without_fold = reduce(StringCounts.plus, other_folds, counts)
        tables.append(feature_table(lists.take(folds == fold), counts_without_fold, names))
    candidates = _in_order_of_rows([table.candidates for table in tables], folds[lists.owner])
    about_lists = _in_order_of_rows([table.lists for table in tables], folds)
    all_counts = reduce(StringCounts.plus, fold_counts, counts)
    return FeatureTable.of(lists, candidates, about_lists), all_counts


def _in_order_of_rows(
    fold_columns: Sequence[Mapping[str, np.ndarray]], folds: np.ndarray
) -> dict[str, np.ndarray]:
    """Columns of n rows, in their order, from the columns of each fold.

    Args:
        fold_columns: by fold, the columns of its rows.
        folds: (n,) fold of each row.
    """
    # Where each row is if those of one fold come after those of the other: the inverse of the
    # order that puts them so.
    order_by_fold = np.argsort(folds, kind="stable")
    positions = np.argsort(order_by_fold)
    return {
        name: np.concatenate([columns[name] for columns in fold_columns])[positions]
        for name in fold_columns[0]
    }


def _count(lists: AnnotatedLists, inside: np.ndarray) -> StringCounts:
    """Counts of some mentions, (n,) bool, of those with one gold concept."""
    gold_cuis = lists.annotations.trainable
    rows = zip(lists.mentions, gold_cuis, lists.types, inside, strict=True)
    return StringCounts.fit(
        (text, cui, types) for text, cui, types, is_inside in rows if is_inside and cui
    )
