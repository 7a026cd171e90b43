"""The one builder of vectors and indexes: of a run, and of an index folder of dictionaries.

Without vectors it imports no torch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.hashes import json_sha256
from ..core.stage import Stage, StageInputs, read_manifest
from ..models.model_files import model_identity
from .index_settings import IndexSettings
from .index_sources import IndexSources
from .retrievers import chosen_retrievers, index_folders

if TYPE_CHECKING:
    from accelerate import PartialState

VECTORS = "vectors"
ENCODER_KEYS = (
    "encoder",
    "encoder_revision",
    "encoder_pooling",
    "encoder_max_length",
    "encoder_dtype",
)


def index_table(names: Collection[str]) -> dict[str, StageInputs]:
    """The stages of the vectors and indexes of some retrievers, by name, in order."""
    chosen = chosen_retrievers(names)
    table = {}
    if any(VECTORS in retriever.inputs for retriever in chosen):
        table[VECTORS] = StageInputs(
            "build_index", ENCODER_KEYS, ("concepts", "encoder"), version=2, resumes=True
        )
    for retriever in chosen:
        if retriever.folder is None:
            continue
        keys = [*retriever.keys]
        # It embeds names by itself.
        if "encoder" in retriever.inputs and VECTORS not in retriever.inputs:
            keys += ENCODER_KEYS
        table[retriever.folder] = StageInputs(
            "build_index", keys, retriever.inputs, values=retriever.values
        )
    return table


def planned_indexes(
    folder: Path, settings: IndexSettings, concepts: Stage, cache: Path
) -> dict[str, Stage]:
    """The stages of vectors and indexes of concepts alone, as if those before each were finished.

    Args:
        folder: folder of the stages.
        settings: how names are encoded and indexed.
        concepts: the stage of the concepts.
        cache: folder in which the hashes of unchanged files are remembered.
    """
    values: dict[str, Any] = {**vars(settings)}
    if settings.encoder:
        # A model counts by its content, not by its path.
        values["encoder"] = model_identity(settings.encoder, cache)
    keys = {concepts.name: concepts.key}
    stages = {}
    for name, row in index_table(settings.retrievers).items():
        inputs = {need: keys[need] for need in row.needs if need in keys}
        stages[name] = row.stage(folder / name, values, inputs)
        keys[name] = stages[name].key
    return stages


def build_indexes(
    folder: Path,
    settings: IndexSettings,
    due: Mapping[str, Stage],
    device: str,
    processes: PartialState | None,
    *,
    overwrite: bool = False,
) -> bool:
    """Make vectors and indexes; the processes of a launch share the encoding of names.

    Args:
        folder: run or index folder, with what indexes are made from.
        settings: how names are encoded and indexed.
        due: the stages of `index_table` that are to be made, by name; others do not count.
        device: of the encoder, as for `BiEncoder.from_pretrained`.
        processes: the processes; None: this one, which makes no vectors.
        overwrite: drop the vectors that a killed process left.

    Returns:
        Whether this process goes on, alone; the others have done their share.

    Raises:
        UserError: the encoder cannot be loaded, or a retriever cannot index the concepts.
    """
    if VECTORS in due:
        from .name_vectors import encode_names

        assert processes is not None  # whoever has an encoder has processes
        is_owner = processes.is_main_process
        with due[VECTORS].writing_together(overwrite, is_owner=is_owner) as (partial, summary):
            vectors = encode_names(folder, partial, settings, device, processes)
            summary |= {"strings": len(vectors), "dimension": vectors.dimension}
    if processes is not None:
        from ..core.devices import goes_on_alone

        if not goes_on_alone(processes):
            return False
    sources = IndexSources(folder, settings, device)
    for retriever in chosen_retrievers(settings.retrievers):
        if retriever.folder is None or retriever.folder not in due:
            continue
        with due[retriever.folder].writing() as (partial, summary):
            summary |= retriever.build(sources, partial)
        print(counts_line(retriever.folder, summary))
    return True


def counts_line(name: str, counts: Mapping[str, int]) -> str:
    """What a stage made, in one line."""
    return f"{name}: " + ", ".join(f"{each} {count:,}" for each, count in counts.items())


def save_settings(settings: IndexSettings, folder: Path, others: Iterable[str]) -> None:
    """Write index.json of finished indexes, with the keys of the folders of a deployment.

    Args:
        settings: how they were made.
        folder: the run or index folder.
        others: folders of a deployment besides the indexes, such as that of the concepts.
    """
    indexes = index_folders(settings.retrievers)
    settings.folders = {name: read_manifest(folder / name)["key"] for name in (*others, *indexes)}
    # Identity of the encoder and indexes, which decide the retrievers' scores.
    settings.index_key = json_sha256({name: settings.folders[name] for name in indexes})
    settings.save(folder)
