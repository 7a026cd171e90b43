"""A sample of a run's dev lists, on which checkpoints are compared during training."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from ..core.errors import UserError
from ..lists.annotated_lists import AnnotatedLists
from ..models.pair_rows import pair_rows
from ..models.pair_template import PairTemplate


def dev_rows(lists: AnnotatedLists, template: PairTemplate, max_pairs: int, seed: int) -> pa.Table:
    """Training rows of a sample of the dev lists, drawn by `sample_by_document`.

    A mention whose gold concept is not in its list has only incorrect pairs.

    Args:
        lists: lists of the dev split.
        template: template of the model.
        max_pairs: maximum number of pairs.
        seed: seed of the sample.

    Raises:
        UserError: `max_pairs` is less than the length of the first list.
    """
    sizes = np.diff(lists.offsets)
    drawn = lists.take(sample_by_document(lists.annotations.documents, sizes, max_pairs, seed))
    return pair_rows(template, drawn, np.ones(len(drawn.names), np.float32))


def sample_by_document(
    documents: Sequence[str] | np.ndarray, sizes: np.ndarray, max_pairs: int, seed: int
) -> np.ndarray:
    """Draw mentions of all documents: one of each before a second one of any.

    Answers within a document are correlated, so few documents tell little about a checkpoint.

    Args:
        documents: (n,) document of each mention.
        sizes: (n,) int, number of pairs of each mention.
        max_pairs: maximum number of pairs of the drawn mentions.
        seed: seed of the sample.

    Returns:
        (k,) int64 numbers of the drawn mentions, ascending.

    Raises:
        UserError: `max_pairs` is less than the length of the first list.
    """
    shuffled = np.random.default_rng(seed).permutation(len(documents))
    _, document_numbers = np.unique(np.asarray(documents), return_inverse=True)
    turns = _earlier_of_same_value(document_numbers[shuffled])
    in_turn = shuffled[np.argsort(turns, kind="stable")]
    pairs_so_far = np.cumsum(np.asarray(sizes)[in_turn])
    count = int(np.searchsorted(pairs_so_far, max_pairs, side="right"))
    if not count:
        raise UserError(
            f"max_dev_pairs: {max_pairs} is smaller than one candidate list of the dev split; "
            "increase it"
        )
    return np.sort(in_turn[:count])


def _earlier_of_same_value(values: np.ndarray) -> np.ndarray:
    """How many earlier items have the same value as each of n items, (n,) int64.

    >>> _earlier_of_same_value(np.array([4, 7, 4, 4, 7])).tolist()
    [0, 0, 1, 2, 1]
    """
    order = np.argsort(values, kind="stable")
    first_of_value = np.searchsorted(values[order], values[order])
    earlier = np.empty(len(values), np.int64)
    earlier[order] = np.arange(len(values)) - first_of_value
    return earlier
