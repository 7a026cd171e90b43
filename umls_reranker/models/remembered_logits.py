"""The logits of pairs that a cross-encoder computed in earlier calls."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from hashlib import blake2b
from itertools import islice

import numpy as np

from .batches import PairKey


class RememberedLogits:
    """Logits of pairs, from call to call; safe to use from several threads.

    It holds hashes, so no text of a call outlives the call.

    Args:
        capacity: maximum number of pairs. A call that would exceed it makes it forget all others.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._logits: dict[bytes, float] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._logits)

    def recall(self, hashes: Sequence[bytes]) -> np.ndarray:
        """Logits of n pairs by their `hash_pair`, (n,) float32; NaN for pairs it does not have."""
        # One dictionary for all, because another thread may put a new one in its place.
        remembered = self._logits
        logits = (remembered.get(pair_hash, np.nan) for pair_hash in hashes)
        return np.fromiter(logits, np.float32, len(hashes))

    def add(self, hashes: Sequence[bytes], logits: np.ndarray) -> None:
        """Remember the (n,) logits of pairs, or of the first `capacity`."""
        with self._lock:
            if len(self._logits) + len(hashes) > self.capacity:
                self._logits = {}
            new = zip(hashes, logits.tolist(), strict=True)
            self._logits.update(islice(new, self.capacity))


def hash_pair(key: PairKey) -> bytes:
    """16 bytes that stand for a pair: few enough to hold many, enough not to collide."""
    first_length, ids = key
    return blake2b(b"%d " % first_length + ids, digest_size=16).digest()
