"""Concepts by name: a sorted file of keys, one for each normalized name.

A key is one 64-bit number: the upper 28 bits of `hash_names` of the name, the concept's row in 28 bits, and the name's
position among the concept's names in 8. The same concepts give the same file on every machine. Different names may
have the same hash, so callers compare the names themselves; among eight million names, one search in 34 finds a wrong
match.
"""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..core.arrays import expand_ranges, list_offsets
from ..core.cores import map_in_order
from .arrow import leave_pages, map_numbers, write_numbers
from .normalization import hash_names, normalize_names

__all__ = ["LAST_POSITION", "NameKeys", "write_name_keys"]

KEYS_FILE = "name_keys_xxh3.npy"
NAMES_PER_STEP = 5_000
POSITION_BITS, ROW_BITS = 8, 28
HASH_SHIFT = np.uint64(ROW_BITS + POSITION_BITS)
LOWER_BITS = np.uint64((1 << (ROW_BITS + POSITION_BITS)) - 1)
LAST_POSITION = (1 << POSITION_BITS) - 1
"""Represents itself and all later positions."""


class NameKeys:
    """The keys of a concept folder, by hash and then by row."""

    def __init__(self, keys: np.memmap) -> None:
        # NumPy's annotations lack that the base of a memmap is its mapping.
        self._pages: mmap.mmap = keys.base  # type: ignore[assignment]
        self._keys = keys.view(np.ndarray)

    @classmethod
    def load(cls, folder: Path) -> NameKeys:
        """Memory-map the keys of a concept folder; nothing is read yet.

        Raises:
            UserError: the file is missing or broken.
        """
        return cls(map_numbers(folder / KEYS_FILE))

    def search(self, forms: pa.StringArray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Concepts that may have a name of each normalized form.

        Args:
            forms: (n,) string, `normalize_names` of the names looked for.

        Returns:
            for each match the index of the form, the concept's row and the name's position, all (m,), int64; sorted by
            index, then by row, with repetitions.
        """
        hashes = hash_names(forms) >> HASH_SHIFT << HASH_SHIFT
        order = np.argsort(hashes, kind="stable")
        indices, keys = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.uint64)]
        # In order of the keys, so that pages are read once and released.
        for step in np.split(order, range(NAMES_PER_STEP, len(order), NAMES_PER_STEP)):
            starts = np.searchsorted(self._keys, hashes[step])
            ends = np.searchsorted(self._keys, hashes[step] | LOWER_BITS, side="right")
            owners, hits = expand_ranges(starts, ends)
            indices.append(step[owners])
            keys.append(self._keys[hits])
            leave_pages(self._pages)
        index = np.concatenate(indices)
        by_index = np.argsort(index, kind="stable")
        low = (np.concatenate(keys)[by_index] & LOWER_BITS).astype(np.int64)
        return index[by_index], low >> POSITION_BITS, low & LAST_POSITION


def write_name_keys(concepts: pa.Table, folder: Path) -> None:
    """Write the keys of all names of a concept table into its folder."""
    batches = concepts.to_batches()
    first_rows = list_offsets([batch.num_rows for batch in batches])

    def keys_of(number: int) -> np.ndarray:
        preferred, synonyms = batches[number]["name"], batches[number]["synonyms"]
        owners = pc.list_parent_indices(synonyms).to_numpy()
        rows = first_rows[number] + np.concatenate([np.arange(len(preferred)), owners])
        positions = np.concatenate(
            [np.zeros(len(preferred), np.int64), 1 + np.arange(len(owners)) - synonyms.offsets.to_numpy()[owners]]
        )
        low = rows << POSITION_BITS | np.minimum(positions, LAST_POSITION)
        names = pa.concat_arrays([preferred, pc.list_flatten(synonyms)])
        return (hash_names(normalize_names(names)) >> HASH_SHIFT << HASH_SHIFT) | low.astype(np.uint64)

    keys = np.concatenate([np.empty(0, dtype=np.uint64), *map_in_order(keys_of, range(len(batches)))])
    keys.sort()
    write_numbers(folder / KEYS_FILE, keys)
