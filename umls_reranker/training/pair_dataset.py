"""Training rows as tokenized pairs, and batches of pairs or of whole lists.

A training row is a mention with its positive and negatives (`models.pairs.pair_rows`). The order of
an epoch depends only on seed and epoch. It is divided into global batches of similar length, and
then each global batch is divided over processes and accumulated passes. So a run is one sequence of
global batches for any number of processes, and a killed run resumes inside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import Sampler

from ..core.arrays import expand_ranges, list_offsets
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
# What this many batches hold is sorted by length together; more would cost randomness.
SORTED_BATCHES = 100


class TokenizedPairs(torch.utils.data.Dataset[tuple[PairBatch, dict[str, np.ndarray]]]):
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
        self.teacher = np.full(len(self.pairs), np.nan, np.float32)
        if TEACHER in rows.column_names:
            self.teacher = values_of_pairs(rows, TEACHER)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitems__(self, numbers: Sequence[int]) -> tuple[PairBatch, dict[str, np.ndarray]]:
        """The pairs with these numbers; number ~n is pair n without label and weight."""
        signed = np.asarray(numbers, np.int64)
        counts = signed >= 0
        rows = np.where(counts, signed, ~signed)
        labels = np.where(counts, self.labels[rows], np.float32(IGNORED_LABEL))
        return self.pairs.take(rows), {
            "labels": labels,
            "weight": np.where(counts, self.weights[rows], np.float32(0)),
            "row": rows,
            "list": np.searchsorted(self.offsets, rows, side="right") - 1,
        }


def values_of_pairs(rows: pa.Table, name: str) -> np.ndarray:
    """A column of lists of numbers, one list after the other, (pairs,) float32; NaN for null."""
    return rows[name].combine_chunks().flatten().to_numpy(zero_copy_only=False).astype(np.float32)


def _encoded(rows: pa.Table, encoder: PairEncoder) -> PairBatch:
    rows = rows.combine_chunks()
    names = rows["names"].combine_chunks()
    owner = np.repeat(np.arange(len(names)), names.value_lengths())
    mentions = rows.select(["entity", "left", "right"]).take(owner).to_pydict()
    return encoder.encode(
        mentions["entity"], names.flatten().to_pylist(), mentions["left"], mentions["right"]
    )[0]


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
    counts = values_of_pairs(rows, "labels") == GOLD_LABEL if gold_pairs_only else True
    total = weights.sum(dtype=np.float64, where=counts)
    if not total > 0:
        raise UserError(
            "the training pairs weigh nothing: there are none, "
            "or the *_weight keys of the recipe are 0"
        )
    return len(weights) / total


class GlobalBatches(Sampler[list[int]]):
    """The pairs of one process's share of each global batch, pass by pass.

    A global batch has single pairs, or whole lists where the loss compares the pairs of a list; in
    both cases they are shuffled, by seed and epoch, and those of a batch have similar lengths.
    Single pairs are shuffled without regard to their lists, so that a batch has pairs of as many
    mentions as possible and its gradient varies least.

    With n processes, each takes every n-th pair or list and divides its share into passes; all have
    the same number of passes, so none waits. The last batch of an epoch holds what remains. An
    empty share gets one pair that does not count.

    Args:
        pairs: the dataset.
        size: pairs of a global batch. It has exactly this number, or the number of whole lists that
            comes closest.
        seed: seed of the run.
        passes: forward passes of a process per global batch.
        process: number of this process.
        processes: number of processes.
        whole_lists: whether lists are not divided.
    """

    def __init__(
        self,
        pairs: TokenizedPairs,
        size: int,
        seed: int,
        passes: int = 1,
        process: int = 0,
        processes: int = 1,
        *,
        whole_lists: bool = True,
    ) -> None:
        # A unit is not divided: a list or a pair.
        self.offsets = pairs.offsets if whole_lists else np.arange(pairs.offsets[-1] + 1)
        self.lengths = np.maximum.reduceat(pairs.pairs.lengths, self.offsets[:-1])
        self.units = units_per_batch(len(self.lengths), int(self.offsets[-1]), size)
        self.seed = seed
        self.passes = passes
        self.process = process
        self.processes = processes
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.units) * self.passes

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.global_batches():
            for units in np.array_split(batch[self.process :: self.processes], self.passes):
                pairs = expand_ranges(self.offsets[units], self.offsets[units + 1])[1]
                yield pairs.tolist() or [~int(self.offsets[batch[0]])]

    def global_batches(self) -> Iterator[np.ndarray]:
        """The units of the epoch's global batches, each sorted by length."""
        random = np.random.default_rng((self.seed, self.epoch))
        order = random.permutation(len(self.lengths))
        complete = len(order) - len(order) % self.units
        pool = SORTED_BATCHES * self.units
        for start in range(0, complete, pool):
            part = order[start : min(start + pool, complete)]
            part[:] = part[np.argsort(self.lengths[part], kind="stable")]
        yield from random.permutation(order[:complete].reshape(-1, self.units))
        if complete < len(order):
            rest = order[complete:]
            yield rest[np.argsort(self.lengths[rest], kind="stable")]


def units_per_batch(units: int, pairs: int, size: int) -> int:
    """Number of units whose pairs come closest to `size`, if all units have as many of `pairs`."""
    return max(1, round(size * units / max(1, pairs)))
