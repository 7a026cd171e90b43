"""Global batches of pairs or of whole lists, and the share of each that a process computes.

The order of an epoch depends only on seed and epoch. It is divided into global batches of similar
length, and then each global batch is divided over processes and accumulated passes. So a run is one
sequence of global batches for any number of processes, and a killed run resumes inside it.
"""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from ..core.arrays import expand_ranges
from .pair_dataset import TokenizedPairs

# What this many batches hold is sorted by length together; more would cost randomness.
SORTED_BATCHES = 100


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
        count = int(pairs.offsets[-1])
        # A unit is not divided: a list or a pair. The first pair of each, and its longest length.
        self.offsets = pairs.offsets if whole_lists else np.arange(count + 1)
        self.lengths = np.maximum.reduceat(pairs.pairs.lengths, self.offsets[:-1])
        self.units_of_batch = units_per_batch(len(self.lengths), count, size)
        self.seed = seed
        self.passes = passes
        self.process = process
        self.processes = processes
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.units_of_batch) * self.passes

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.global_batches():
            share = batch[self.process :: self.processes]
            # A pair that does not count (`TokenizedPairs.__getitems__`).
            uncounted = ~int(self.offsets[batch[0]])
            for units in np.array_split(share, self.passes):
                _, pairs = expand_ranges(self.offsets[units], self.offsets[units + 1])
                yield pairs.tolist() or [uncounted]

    def global_batches(self) -> Iterator[np.ndarray]:
        """The units of the epoch's global batches, each sorted by length."""
        random = np.random.default_rng((self.seed, self.epoch))
        order = random.permutation(len(self.lengths))
        # Units of the batches that are complete, and of a pool that is sorted together.
        complete = len(order) - len(order) % self.units_of_batch
        pool = SORTED_BATCHES * self.units_of_batch
        for start in range(0, complete, pool):
            end = min(start + pool, complete)
            order[start:end] = self._by_length(order[start:end])
        yield from random.permutation(order[:complete].reshape(-1, self.units_of_batch))
        if complete < len(order):
            yield self._by_length(order[complete:])

    def _by_length(self, units: np.ndarray) -> np.ndarray:
        """These units, the shortest first."""
        return units[np.argsort(self.lengths[units], kind="stable")]


def units_per_batch(units: int, pairs: int, size: int) -> int:
    """Number of units whose pairs come closest to `size`, if all units have as many of `pairs`."""
    return max(1, round(size * units / max(1, pairs)))
