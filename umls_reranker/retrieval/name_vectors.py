"""The vectors of all names of a dictionary, encoded in shards by the processes of a launch."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ..core.arrow_files import arrow_writer, open_arrow, write_numbers
from ..core.errors import UserError
from ..core.json_files import read_json, write_json
from ..core.parallel import progress
from ..models.bi_encoder import CHUNK, BiEncoder
from ..vocab.concept_table import ConceptTable
from .faiss_indexes import new_index, training_size
from .stored_names import NAMES_FILE, write_names

if TYPE_CHECKING:
    from accelerate import PartialState

    from .index_settings import IndexSettings

STRINGS_FILE = "strings.arrow"
VECTORS_FILE = "vectors.json"


class NameVectors:
    """A folder with all names, the distinct strings and their vectors, encoded in shards.

    A shard is a fixed range of names, and its vectors depend on nothing else. So the result is
    bitwise the same for any number of processes and interruptions. All indexes are built from them.

    Args:
        folder: folder that `prepare` wrote; a process needs memory for one shard, and the strings
            stay on disk.

    Attributes:
        names: file of the table of names (`write_names`).
        identity: the encoder's `BiEncoder.identity`.
        dimension: length of a vector.
        concepts: number of concepts that the names belong to.

    Raises:
        UserError: the folder was not prepared.
    """

    def __init__(self, folder: Path) -> None:
        description = read_json(folder / VECTORS_FILE)
        self.names = folder / NAMES_FILE
        self.identity: dict[str, Any] = description["encoder"]
        self.dimension: int = description["dimension"]
        self.concepts: int = description["concepts"]
        self._strings = open_arrow(folder / STRINGS_FILE)["string"]
        # Older folders do not say it.
        self._shard: int = description.get("shard", CHUNK)
        shards = -(-len(self._strings) // self._shard)
        self._files = [folder / f"{number:05}-of-{shards:05}.npy" for number in range(shards)]

    @classmethod
    def prepare(
        cls, concepts: ConceptTable, encoder: BiEncoder, folder: Path, shard: int = CHUNK
    ) -> NameVectors:
        """Write the names and the strings to encode, unless a killed run wrote them.

        Args:
            concepts: the dictionary.
            encoder: the bi-encoder that will encode them.
            folder: folder to write into.
            shard: names per shard: a multiple of the encoder's chunk, so that a shard's end changes
                nothing; 25 MB at 384 dimensions.
        """
        if not (folder / VECTORS_FILE).is_file():
            folder.mkdir(exist_ok=True)
            strings = pa.table({"string": write_names(concepts, folder / NAMES_FILE)})
            with arrow_writer(folder / STRINGS_FILE, strings.schema) as writer:
                writer.write(strings)
            description = {
                "encoder": encoder.identity,
                "dimension": encoder.dimension,
                "concepts": len(concepts),
                "shard": shard,
            }
            write_json(folder / VECTORS_FILE, {"schema_version": 1} | description)
        return cls(folder)

    def __len__(self) -> int:
        return len(self._strings)

    def encode_share(self, encoder: BiEncoder, process: int, processes: int) -> None:
        """Encode every `processes`-th shard, except existing ones.

        Args:
            encoder: the bi-encoder, on this process's device.
            process: number of this process, from 0.
            processes: number of processes.
        """
        numbers = range(process, len(self._files), processes)
        total = sum(self._size(number) for number in numbers)
        with progress(total=total, desc="encoding names", unit=" names") as bar:
            for number in numbers:
                if not self._files[number].is_file():
                    texts = self._strings.slice(number * self._shard, self._shard).to_pylist()
                    write_numbers(self._files[number], encoder.encode(texts))
                bar.update(self._size(number))

    def shards(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the number of each shard's first name, and its vectors (names, dimension) float32.

        Raises:
            UserError: a shard is missing or cannot be read.
        """
        for number, file in enumerate(self._files):
            try:
                vectors = np.load(file, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise UserError(
                    f"{file} cannot be read ({error}); "
                    "run umls-reranker build_index with --overwrite"
                ) from None
            yield number * self._shard, vectors

    def take(self, names: np.ndarray) -> np.ndarray:
        """Vectors of some names, by ascending number."""
        selected = [np.empty((0, self.dimension), np.float32)]
        for start, vectors in self.shards():
            first, last = np.searchsorted(names, [start, start + len(vectors)])
            selected.append(vectors[names[first:last] - start])
        return np.concatenate(selected)

    def sample(self, size: int) -> np.ndarray:
        """Numbers of `size` names, ascending, drawn without replacement; all if there are fewer."""
        if len(self) <= size:
            return np.arange(len(self))
        return np.sort(np.random.default_rng(0).choice(len(self), size, replace=False))

    def _size(self, number: int) -> int:
        return min(self._shard, len(self) - number * self._shard)


def encode_names(
    folder: Path, target: Path, settings: IndexSettings, device: str, state: PartialState
) -> NameVectors:
    """Encode all distinct names for a `NameIndex`; the processes of a launch share the work.

    Args:
        folder: run or index folder with the concepts, and with the encoder if it was trained.
        target: folder to write into; finished shards in it stay.
        settings: the encoder and the index.
        device: as for `BiEncoder.from_pretrained`.
        state: the processes.

    Raises:
        UserError: the encoder cannot be loaded, FAISS does not know the index or a parameter, or
            there are too few names for it.
    """
    encoder = settings.load_encoder(folder, device)
    # An unknown factory or too few names are reported before hours of encoding.
    index = new_index(encoder.dimension, settings.index_factory, settings.index_parameters or "")
    if state.is_main_process:
        if advice := encoder.advice(settings.encoder_dtype):
            print(advice, file=sys.stderr)
        NameVectors.prepare(ConceptTable.load(folder / "concepts"), encoder, target)
    state.wait_for_everyone()
    vectors = NameVectors(target)
    training_size(index, len(vectors))
    vectors.encode_share(encoder, state.process_index, state.num_processes)
    state.wait_for_everyone()
    return vectors
