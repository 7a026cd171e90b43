"""The folders of indexes: their common description, the vectors of all names, the bi-encoder, and a deployment's copy.

An index folder has the concepts, indexes and encoder of one run, and nothing else:

    concepts/       the dictionary: CUIs, names, semantic types
    index/          names and their vectors
    lexical/        and so on: the indexes of further retrievers, if the run uses them
    encoder/        the bi-encoder that the run trained or used

It has the layout of a run folder, so a run folder works as well. It holds names of the release that it was built from:
keep it where that release's license allows. It is never published with the model.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from ..core.arrays import arrow_writer, open_arrow, write_numbers
from ..core.fetch import commit_of, resolve_model
from ..core.files import MODEL_PATTERNS, link_or_copy, read_json, require_format, write_json, written
from ..core.recipe import portable_locator
from ..core.script import progress
from ..core.settings import EncoderArguments, IndexArguments, RunArguments, index_folders
from ..core.stages import ENCODER_FOLDER, STAGE_MANIFEST, RunFolder, read_manifest
from ..core.text_files import UserError
from ..lists.columns import trainable
from ..models.bi_encoder import CHUNK, BiEncoder
from ..vocab.rrf import RELATIONS_FILE
from .concept_search import sole_documents

if TYPE_CHECKING:
    from typing_extensions import Self

    from ..vocab.concepts import ConceptTable
    from .concept_search import NameGrouping

NAMES_FILE, STRINGS_FILE, VECTORS_FILE = "names.arrow", "strings.arrow", "vectors.json"
SOURCE_FILE = "source.json"
# A multiple of the encoder's chunk, so that the end of a shard changes nothing: 25 MB at 384 dimensions.
SHARD = CHUNK


class ConceptIndex:
    """An index in a folder, opened by `load`. Its files are memory-mapped.

    Args:
        path: the folder.
        description: the content of its JSON file: ``concepts``, the number of concepts, and ``encoder``, the
            `BiEncoder.identity`, if it holds vectors.

    Attributes:
        title: its name in messages.
        file: file of the description.
        schema_version: version of the description.
        grouping: its names (or mentions) and their concepts.
    """

    title: ClassVar[str]
    file: ClassVar[str]
    schema_version: ClassVar[int]
    grouping: NameGrouping

    def __init__(self, path: Path, description: dict[str, Any]) -> None:
        self.description = description

    def __len__(self) -> int:
        return len(self.grouping.rows)

    @classmethod
    def describe(cls, path: Path, concepts: int, **content: Any) -> None:
        """Write the description, the last file of an index."""
        write_json(path / cls.file, {"schema_version": cls.schema_version, "concepts": concepts} | content)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Open an index.

        Raises:
            UserError: a file is missing or cannot be read, or the index is of another version.
        """
        description = read_json(path / cls.file)
        require_format(path / cls.file, description, cls.schema_version, "build_index")
        try:
            return cls(path, description)
        # FAISS raises a RuntimeError, Arrow a ValueError.
        except (RuntimeError, OSError, ValueError, KeyError) as error:
            reason = str(error).splitlines()[-1]
            raise UserError(
                f"{path} contains no readable index ({reason}); run umls-reranker build_index again"
            ) from None

    def require(self, concepts: ConceptTable, encoder: BiEncoder | None = None) -> None:
        """Refuse concepts or an encoder other than those of the index.

        Args:
            concepts: the dictionary.
            encoder: the encoder; not needed for an index without vectors.

        Raises:
            UserError: they differ; names them.
        """
        for key, value in self.description.get("encoder", {}).items():
            if encoder is not None and encoder.identity[key] != value:
                raise UserError(
                    f"{self.title} was built with the encoder {key} {value!r}, not {encoder.identity[key]!r}; run "
                    "umls-reranker build_index again"
                )
        if len(concepts) != self.description["concepts"]:
            raise UserError(
                f"{self.title} was built over {self.description['concepts']:,} concepts, but there are "
                f"{len(concepts):,} now; run umls-reranker build_index again"
            )


def write_names(
    concepts: ConceptTable,
    path: Path,
    forms: Callable[[Sequence[str]], list[str]] | None = None,
    mentions: pa.Table | None = None,
) -> pa.Array:
    """Write concept row and string number of every name, and the name unless forms of them are taken.

    Args:
        concepts: the dictionary.
        path: Arrow file to make.
        forms: function that maps names that count as the same to one form; by default names must be equal.
        mentions: columns ``mention``, ``cui`` and ``doc_id``, if mentions are further names of their concepts. The
            file has a column ``document`` then (`sole_documents`; 0 for names of the dictionary).

    Returns:
        The distinct strings (or forms) by number.
    """
    rows, names = [], []
    for batch_rows, batch in concepts.iter_names():
        rows.append(np.asarray(batch_rows, dtype=np.int32))
        names.append(pa.array(forms(batch) if forms else batch, pa.string()))
    if forms and mentions is not None:
        gold = concepts.rows(trainable(mentions["cui"].to_pylist()))
        known = mentions.filter(pa.array(gold >= 0))
        rows.append(gold[gold >= 0].astype(np.int32))
        names.append(pa.array(forms(known["mention"].to_pylist()), pa.string()))
    # A chunked array is encoded against one dictionary.
    encoded = pa.chunked_array(names, pa.string()).dictionary_encode()
    columns: Sequence[str] = ("row", "string") if forms else ("name", "row", "string")
    kinds = {"name": pa.string(), "row": pa.int32(), "string": pa.int32()}
    schema = pa.schema({column: kinds[column] for column in columns})
    if forms and mentions is not None:
        _write_with_mentions(path, np.concatenate(rows), encoded, known["doc_id"].to_pylist())
        return encoded.chunks[-1].dictionary
    with arrow_writer(path, schema) as writer:
        for row, name, code in zip(rows, names, encoded.chunks, strict=True):
            writer.write(pa.Table.from_pydict({"name": name, "row": row, "string": code.indices}, schema))
    return encoded.chunks[-1].dictionary


def _write_with_mentions(path: Path, rows: np.ndarray, strings: pa.ChunkedArray, documents: list[str]) -> None:
    """Write names of the dictionary and of its last rows, mentions in these documents, each once, by concept."""
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in strings.chunks])
    names = len(rows) - len(documents)
    of_mentions, entry = np.unique(np.stack([rows[names:], codes[names:]]), axis=1, return_inverse=True)
    sole = sole_documents(entry, documents, of_mentions.shape[1])
    columns = {
        "row": np.append(rows[:names], of_mentions[0]),
        "string": np.append(codes[:names], of_mentions[1]),
        "document": np.append(np.zeros(names, np.uint64), sole),
    }
    order = np.argsort(columns["row"], kind="stable")
    table = pa.table({name: column[order] for name, column in columns.items()})
    with arrow_writer(path, table.schema) as writer:
        writer.write(table)


class NameVectors:
    """A folder with all names, the distinct strings and their vectors, encoded in shards by any number of processes.

    A shard is a fixed range of names, and its vectors depend on nothing else. So the result is bitwise the same for
    any number of processes and interruptions. Every index is built from these vectors.

    Args:
        folder: folder that `prepare` wrote; a process needs memory for one shard, and the strings stay on disk.

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
        shards = -(-len(self._strings) // SHARD)
        self._files = [folder / f"{number:05}-of-{shards:05}.npy" for number in range(shards)]

    @classmethod
    def prepare(cls, concepts: ConceptTable, encoder: BiEncoder, folder: Path) -> NameVectors:
        """Write the names and the strings to encode, unless a killed run wrote them.

        Args:
            concepts: the dictionary.
            encoder: the bi-encoder that will encode them.
            folder: folder to write into.
        """
        if not (folder / VECTORS_FILE).is_file():
            folder.mkdir(exist_ok=True)
            strings = pa.table({"string": write_names(concepts, folder / NAMES_FILE)})
            with arrow_writer(folder / STRINGS_FILE, strings.schema) as writer:
                writer.write(strings)
            description = {"encoder": encoder.identity, "dimension": encoder.dimension, "concepts": len(concepts)}
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
                    texts = self._strings.slice(number * SHARD, SHARD).to_pylist()
                    write_numbers(self._files[number], encoder.encode(texts))
                bar.update(self._size(number))

    def shards(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield for each shard the number of its first name and its vectors, (names, dimension) float32.

        Raises:
            UserError: a shard is missing or cannot be read.
        """
        for number, file in enumerate(self._files):
            try:
                vectors = np.load(file, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise UserError(
                    f"{file} cannot be read ({error}); run umls-reranker build_index with --overwrite"
                ) from None
            yield number * SHARD, vectors

    def take(self, names: np.ndarray) -> np.ndarray:
        """Vectors of some names, by ascending number."""
        of_shards = [np.empty((0, self.dimension), np.float32)]
        for start, vectors in self.shards():
            first, last = np.searchsorted(names, [start, start + len(vectors)])
            of_shards.append(vectors[names[first:last] - start])
        return np.concatenate(of_shards)

    def sample(self, size: int) -> np.ndarray:
        """Numbers of `size` names drawn without replacement, ascending; all if there are not more."""
        if len(self) <= size:
            return np.arange(len(self))
        return np.sort(np.random.default_rng(0).choice(len(self), size, replace=False))

    def _size(self, number: int) -> int:
        return min(SHARD, len(self) - number * SHARD)


def load_encoder(run: RunArguments, encoder: EncoderArguments, index: IndexArguments) -> BiEncoder:
    """Load the recipe's bi-encoder, or the one that the run trained, onto its device.

    A trained encoder is identified by its stage's key, so it can be moved with its index. An exported one is loaded
    from the index folder.
    """
    model, revision, folder = index.encoder, index.encoder_revision, run.run_dir / ENCODER_FOLDER
    is_trained = encoder.encoder_training_steps > 0
    in_folder = is_trained or (folder / SOURCE_FILE).is_file()
    if is_trained:
        model, revision = "trained", RunFolder(run.run_dir).key_of(ENCODER_FOLDER, "train_encoder")
    loaded = BiEncoder.from_pretrained(
        str(folder) if in_folder else model,
        None if in_folder else revision,
        pooling=index.encoder_pooling,
        max_length=index.encoder_max_length,
        device=run.device,
        dtype=index.encoder_dtype,
    )
    if not is_trained:
        # The commit: if main has moved, the encoder is not that of the index.
        revision = read_json(folder / SOURCE_FILE)["revision"] if in_folder else loaded.identity["revision"]
    # A published model names its encoder without the original path.
    loaded.identity |= {"model": portable_locator(model), "revision": revision}
    return loaded


def copy_encoder(target: Path, model: str, revision: str | None) -> None:
    """Copy a bi-encoder into an index folder, where `load_encoder` finds it.

    Args:
        target: the index folder.
        model: model of the recipe.
        revision: its revision.
    """
    source, folder = Path(resolve_model(model, revision)), target / ENCODER_FOLDER
    folder.mkdir(parents=True)
    for file in sorted({file for pattern in MODEL_PATTERNS for file in source.glob(pattern)}):
        shutil.copyfile(file, folder / file.name)
    made_from = {"schema_version": 1, "model": portable_locator(model), "revision": commit_of(source) or revision}
    write_json(folder / SOURCE_FILE, made_from)


def index_parts(retrievers: Iterable[str], trained: bool) -> list[str]:
    """Folders of a run that a deployment needs.

    Args:
        retrievers: retrievers of the recipe.
        trained: whether the run trained the encoder.
    """
    return ["concepts", *index_folders(retrievers), *([ENCODER_FOLDER] if trained else [])]


def export_index(
    run: Path, target: Path, names: list[str], model: str, revision: str | None, *, dry_run: bool = False
) -> None:
    """Collect the folders of a run that a deployment needs; `target` appears only when it is complete.

    On the run's file system the files are linked, which takes neither time nor space, because stages replace files and
    never change them. On another file system they are copied.

    Args:
        run: run folder in which these folders are finished.
        target: folder to make.
        names: names of the folders, as `index_parts` returns them.
        model: bi-encoder of the recipe, copied unless the run trained one.
        revision: its revision.
        dry_run: only check.

    Raises:
        UserError: `target` exists, or a folder of the run is missing or from another run.
    """
    if target.exists():
        raise UserError(f"{target} already exists; choose a new folder and switch the deployment over to it")
    require_one_run(run, names)
    if dry_run:
        return
    # Files for training only are left out.
    left_out = RELATIONS_FILE, "read_report.json"
    files = (file for name in names for file in (run / name).rglob("*") if file.name not in left_out)
    size = sum(file.stat().st_size for file in files if file.is_file())
    with written(target) as partial, progress(total=size, desc="collecting", unit="B") as bar:

        def collect(source: str, target: str) -> None:
            link_or_copy(source, target)
            bar.update(Path(target).stat().st_size)

        ignore = shutil.ignore_patterns(*left_out)
        for name in names:
            shutil.copytree(run / name, partial / name, ignore=ignore, copy_function=collect)
        if ENCODER_FOLDER not in names:
            copy_encoder(partial, model, revision)


def require_one_run(folder: Path, names: list[str]) -> None:
    """Refuse folders that are missing or do not belong together, by the keys in their manifests.

    Raises:
        UserError: a folder is missing or from another run; names it.
    """
    manifests = {}
    for name in names:
        if not (folder / name / STAGE_MANIFEST).is_file():
            raise UserError(
                f"{folder} has no {name}/; give a folder written by umls-reranker export_index, or a run folder"
            )
        manifests[name] = read_manifest(folder / name)
    for name, manifest in manifests.items():
        for other, key in manifest["inputs"].items():
            if other in manifests and manifests[other]["key"] != key:
                raise UserError(
                    f"{folder / name} was not built from the {other}/ next to it; run umls-reranker build_index or "
                    "export_index again"
                )
