"""Training rows as tokenized pairs, and their collator.

A training row is a mention with its positive and negatives (`models.pair_rows.pair_rows`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import Dataset

from ..core.arrays import list_offsets
from ..core.errors import UserError
from ..lists.index_scores import TEACHER
from ..models.batches import PairBatch
from ..models.pairs import PairEncoder
from .losses import GOLD_LABEL

if TYPE_CHECKING:
    import pyarrow as pa

LABEL_NAMES = ["labels", "weight", "row", "list"]
# The Trainer does not count rows with this label.
IGNORED_LABEL = -100.0


class TokenizedPairs(Dataset[tuple[PairBatch, dict[str, np.ndarray]]]):
    """The pairs of training rows, one list after the other, in memory; some 100 bytes per pair.

    Args:
        rows: training rows.
        encoder: tokenizer and template.
        scale: factor of the weights (`weight_scale`).
        lists_at_once: number of lists that are encoded together.

    Attributes:
        pairs: the n pairs.
        offsets: (lists + 1,) int64, the first pair of each list.
        labels: (n,) float32, 1 for the gold concept.
        weights: (n,) float32.
        teacher: (n,) float32, NaN for pairs without a teacher's score.
    """

    def __init__(
        self,
        rows: pa.Table,
        encoder: PairEncoder,
        scale: float = 1.0,
        *,
        lists_at_once: int = 8_192,
    ) -> None:
        batches = [
            _encoded(rows.slice(start, lists_at_once), encoder)
            for start in range(0, rows.num_rows, lists_at_once)
        ]
        self.pairs = PairBatch(
            ids=np.concatenate([batch.ids for batch in batches]),
            lengths=np.concatenate([batch.lengths for batch in batches]),
            first_lengths=np.concatenate([batch.first_lengths for batch in batches]),
        )
        self.offsets = list_offsets(rows["labels"].combine_chunks().value_lengths().to_numpy())
        self.labels = values_of_pairs(rows, "labels")
        self.weights = (values_of_pairs(rows, "weights") * np.float64(scale)).astype(np.float32)
        self.teacher = teacher_of_pairs(rows)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitems__(self, numbers: Sequence[int]) -> tuple[PairBatch, dict[str, np.ndarray]]:
        """The pairs with these numbers; number ~n is pair n without label and weight."""
        signed = np.asarray(numbers, np.int64)
        is_counted = signed >= 0
        rows = np.where(is_counted, signed, ~signed)
        labels = np.where(is_counted, self.labels[rows], np.float32(IGNORED_LABEL))
        weights = np.where(is_counted, self.weights[rows], np.float32(0))
        # The last list that begins at the pair or ahead of it.
        lists = np.searchsorted(self.offsets, rows, side="right") - 1
        return self.pairs.take(rows), {
            "labels": labels,
            "weight": weights,
            "row": rows,
            "list": lists,
        }


def values_of_pairs(rows: pa.Table, name: str) -> np.ndarray:
    """A column of lists of numbers, one list after the other, (pairs,) float32; NaN for null."""
    return rows[name].combine_chunks().flatten().to_numpy(zero_copy_only=False).astype(np.float32)


def teacher_of_pairs(rows: pa.Table) -> np.ndarray:
    """The teacher's scores of training rows, (pairs,) float32; NaN for a pair without one."""
    if TEACHER in rows.column_names:
        return values_of_pairs(rows, TEACHER)
    return np.full_like(values_of_pairs(rows, "labels"), np.nan)


def _encoded(rows: pa.Table, encoder: PairEncoder) -> PairBatch:
    """The pairs of some training rows."""
    rows = rows.combine_chunks()
    names = rows["names"].combine_chunks()
    owner = np.repeat(np.arange(len(names)), names.value_lengths())
    mentions = rows.select(["entity", "left", "right"]).take(owner).to_pydict()
    pairs, _ = encoder.encode(
        mentions["entity"], names.flatten().to_pylist(), mentions["left"], mentions["right"]
    )
    return pairs


@dataclass
class PairCollator:
    """Pads pairs to the longest one of a batch.

    Args:
        pad_token_id: the tokenizer's padding id.
        token_types: whether the model uses ``token_type_ids``.
        multiple: widths are rounded up to this; 8 suits tensor cores, 1 is faster on a CPU.

    A batch of b pairs, w tokens wide:
        input_ids, attention_mask, token_type_ids: (b, w) int64
        labels: (b,) float32, 1.0 for the gold concept; weight: (b,) float32; row, list: (b,) int64,
            numbers of the pair and of its list in the dataset
    """

    pad_token_id: int
    token_types: bool = True
    multiple: int = 8

    def __call__(self, batch: tuple[PairBatch, dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
        pairs, labels = batch
        arrays = pairs.padded(self.pad_token_id, self.multiple)
        if not self.token_types:
            del arrays["token_type_ids"]
        return {name: torch.from_numpy(values) for name, values in (arrays | labels).items()}


def weight_scale(rows: pa.Table, gold_pairs_only: bool) -> float:
    """The factor that scales the weights of training rows to mean 1, so that step sizes stay.

    Args:
        rows: all training rows.
        gold_pairs_only: whether only gold pairs have a loss; their weights are then scaled to the
            number of all pairs.

    Raises:
        UserError: there are no pairs, or all weigh nothing.
    """
    weights = values_of_pairs(rows, "weights")
    has_loss = np.ones(len(weights), bool)
    if gold_pairs_only:
        has_loss = values_of_pairs(rows, "labels") == GOLD_LABEL
    total = weights.sum(dtype=np.float64, where=has_loss)
    if not total > 0:
        raise UserError(
            "the training pairs weigh nothing: there are none, "
            "or the *_weight keys of the recipe are 0"
        )
    return len(weights) / total
