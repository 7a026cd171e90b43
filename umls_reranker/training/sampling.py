"""The rows of each training step, the same for any number of processes.

The order of an epoch depends only on seed and epoch. It is divided into global batches of rows of similar length, and
then each global batch is divided over processes and accumulated passes. So a run is one sequence of global batches for
any number of processes, and a killed run resumes inside it. If a loss compares the pairs of a mention, a batch holds
whole mentions instead of rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from ..core.arrays import expand_ranges

# Rows of this many batches are sorted by length together: more would reduce padding, but also randomness.
SORTED_BATCHES = 100


class MentionLists:
    """The rows of each mention, which are consecutive.

    Args:
        mention_ids: (n,) int64, the mention of each row.

    Attributes:
        starts: (mentions,) int64, first row of each mention.
        sizes: (mentions,) int64, number of rows of each mention.
    """

    def __init__(self, mention_ids: np.ndarray) -> None:
        self.starts = np.flatnonzero(np.diff(mention_ids, prepend=mention_ids[:1] - 1))
        self.sizes = np.diff(self.starts, append=len(mention_ids))

    def __len__(self) -> int:
        return len(self.starts)

    def rows(self, mentions: np.ndarray) -> np.ndarray:
        """All rows of mentions (by number), one mention after the other."""
        starts = self.starts[mentions]
        return expand_ranges(starts, starts + self.sizes[mentions])[1]

    def longest(self, lengths: np.ndarray) -> np.ndarray:
        """Length of the longest row of each mention, (mentions,)."""
        return np.maximum.reduceat(lengths, self.starts)

    def per_batch(self, rows: int) -> int:
        """Number of mentions whose rows come closest to this number."""
        return max(1, round(rows / float(self.sizes.mean())))


class EpochOrder(Sampler[int]):
    """Every row (or mention) once per epoch, in a new order each epoch.

    Args:
        rows: number of rows.
        seed: seed of the run.
    """

    def __init__(self, rows: int, seed: int) -> None:
        self.rows = rows
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def generator(self, purpose: int) -> np.random.Generator:
        """Random numbers of this epoch, independent for each purpose."""
        return np.random.default_rng((self.seed, self.epoch, purpose))

    def draw(self) -> np.ndarray:
        """Row numbers of this epoch in order, (rows,) int64."""
        return self.generator(0).permutation(self.rows)

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[int]:
        return iter(self.draw().tolist())


class Pass(NamedTuple):
    """Rows of one forward pass; `counts` is False if they only fill up a pass."""

    rows: list[int]
    counts: bool = True


class GlobalBatches(Sampler[Pass]):
    """One process's share of each global batch, pass by pass.

    Rows of a global batch have similar lengths. With n processes, each takes every n-th row and divides its share into
    passes of similar length; all have the same number of passes, so none waits. The last batch of an epoch holds the
    remaining rows. A share without rows gets one row in a `Pass` that does not count.

    With `lists` this holds for mentions instead of rows: a pass gets all rows of its mentions.

    Args:
        sampler: the order of an epoch.
        lengths: (n,) int, tokens of each row.
        batch_size: rows, or mentions, of a global batch.
        lists: the rows of each mention; None: rows are drawn on their own.
        passes: forward passes of a process per global batch.
        process_index: number of this process.
        num_processes: number of processes.
    """

    def __init__(
        self,
        sampler: EpochOrder,
        lengths: np.ndarray,
        batch_size: int,
        *,
        lists: MentionLists | None = None,
        passes: int = 1,
        process_index: int = 0,
        num_processes: int = 1,
    ) -> None:
        # Accelerate sets the epoch on the attribute `sampler`.
        self.sampler = sampler
        self.batch_size = batch_size
        self._lengths = lengths if lists is None else lists.longest(lengths)
        self._lists = lists
        self._passes = passes
        self._process_index = process_index
        self._num_processes = num_processes

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.batch_size) * self._passes

    def __iter__(self) -> Iterator[Pass]:
        for batch in self.global_batches():
            share = batch[self._process_index :: self._num_processes]
            for part in np.array_split(share, self._passes):
                yield Pass(self._rows(part).tolist()) if len(part) else Pass([int(self._rows(batch[:1])[0])], False)

    def _rows(self, drawn: np.ndarray) -> np.ndarray:
        return drawn if self._lists is None else self._lists.rows(drawn)

    def global_batches(self) -> Iterator[np.ndarray]:
        """The epoch's global batches, each sorted by length."""
        order = self.sampler.draw()
        complete = len(order) - len(order) % self.batch_size
        pool = SORTED_BATCHES * self.batch_size
        for start in range(0, complete, pool):
            part = order[start : min(start + pool, complete)]
            part[:] = part[np.argsort(self._lengths[part], kind="stable")]
        batches = order[:complete].reshape(-1, self.batch_size)
        for number in self.sampler.generator(1).permutation(len(batches)):
            yield batches[number]
        if complete < len(order):
            rest = order[complete:]
            yield rest[np.argsort(self._lengths[rest], kind="stable")]
