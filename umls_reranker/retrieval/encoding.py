"""Vectors of all distinct names, encoded in shards by any number of processes; a killed encoding goes on.

A shard is a fixed range of names and its vectors depend on nothing else, so that the result is the same to the last
bit whoever encoded it, and however often the work was interrupted.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ..progress import progress
from .encoder import CHUNK
from .grouping import open_strings, write_strings

if TYPE_CHECKING:
    from .encoder import BiEncoder

__all__ = ["NameVectors"]

STRINGS_FOLDER, STATE_FILE = "strings", "state.json"
# A multiple of what the encoder computes together, so that a shard's end changes nothing: 25 MB at 384 dimensions.
SHARD = CHUNK


class NameVectors:
    """A scratch folder with the distinct names and their vectors, one file per shard.

    Args:
        folder: made by `prepare`; a process needs memory for one shard and the strings stay on disk.
        dimension: of a vector.
    """

    def __init__(self, folder: Path, dimension: int) -> None:
        self._folder = folder
        self._strings = open_strings(folder / STRINGS_FOLDER)
        self.dimension = dimension
        shards = -(-len(self._strings) // SHARD)
        self._files = [folder / f"{number:05}-of-{shards:05}.npy" for number in range(shards)]

    @staticmethod
    def is_prepared(folder: Path) -> bool:
        """Whether `prepare` has finished, in this process or in one that was killed later."""
        return (folder / STRINGS_FOLDER / STATE_FILE).is_file()

    @staticmethod
    def prepare(folder: Path, strings: pa.Array, fingerprint: str) -> None:
        """Write the strings to be encoded into a new folder."""
        folder.mkdir(exist_ok=True)
        write_strings(strings, folder / STRINGS_FOLDER, fingerprint)

    def __len__(self) -> int:
        return len(self._strings)

    def encode_share(self, encoder: BiEncoder, process: int, processes: int) -> None:
        """Encode every `processes`-th shard; a shard that is there already is left as it is.

        Args:
            encoder: the bi-encoder, on this process's device.
            process: number of this process, from 0.
        """
        mine = range(process, len(self._files), processes)
        total = sum(self._size(number) for number in mine)
        with progress(total=total, desc="encoding names", unit=" names") as bar:
            for number in mine:
                if not self._files[number].is_file():
                    texts = self._strings.slice(number * SHARD, SHARD).to_pylist()
                    partial = self._files[number].with_suffix(".partial")
                    with partial.open("wb") as stream:
                        np.save(stream, encoder.encode(texts), allow_pickle=False)
                    partial.replace(self._files[number])
                bar.update(self._size(number))

    def shards(self) -> Iterator[tuple[int, np.ndarray]]:
        """Number of the first name and the vectors, (names, dimension) float32, shard by shard."""
        for number, file in enumerate(self._files):
            yield number * SHARD, np.load(file, mmap_mode="r", allow_pickle=False)

    def take(self, names: np.ndarray) -> np.ndarray:
        """Vectors of some names, by ascending number."""
        parts = [np.empty((0, self.dimension), np.float32)]
        for start, vectors in self.shards():
            first, last = np.searchsorted(names, [start, start + len(vectors)])
            parts.append(vectors[names[first:last] - start])
        return np.concatenate(parts)

    def sample(self, size: int) -> np.ndarray:
        """Numbers of `size` names drawn without replacement, ascending; all of them when there are no more."""
        if len(self) <= size:
            return np.arange(len(self))
        return np.sort(np.random.default_rng(0).choice(len(self), size, replace=False))

    def remove(self) -> None:
        """Remove the folder, when what was made of it is complete."""
        # First what says that it is whole: the rest goes away in any order.
        (self._folder / STRINGS_FOLDER / STATE_FILE).unlink()
        shutil.rmtree(self._folder)

    def _size(self, number: int) -> int:
        return min(SHARD, len(self) - number * SHARD)
