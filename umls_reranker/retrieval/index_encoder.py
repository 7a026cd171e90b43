"""The bi-encoder of an index: the one that the run trained, a copy in an index folder, or that of the recipe."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..core.fetch import resolve_model
from ..core.files import MODEL_PATTERNS, read_json, write_json
from ..core.recipe import portable_locator
from ..core.settings import EncoderArguments, IndexArguments, RunArguments
from ..core.stage_keys import ENCODER_FOLDER
from ..core.stages import RunFolder
from ..models.bi_encoder import BiEncoder

SOURCE_FILE = "source.json"


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
    made_from = {"schema_version": 1, "model": portable_locator(model), "revision": revision}
    write_json(folder / SOURCE_FILE, made_from)


def load_encoder(run: RunArguments, encoder: EncoderArguments, index: IndexArguments) -> BiEncoder:
    """Load the recipe's bi-encoder, or the one that the run trained, onto its device.

    A trained encoder is identified by its stage's key, so it can be moved with its index. An exported one is loaded
    from the index folder.
    """
    model, revision, folder = index.encoder, index.encoder_revision, run.run_dir / ENCODER_FOLDER
    is_trained = encoder.encoder_training_steps > 0
    in_folder = is_trained or _is_copy(folder, model, revision)
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
    # A published model names its encoder without the original path.
    loaded.identity |= {"model": portable_locator(model), "revision": revision}
    return loaded


def _is_copy(folder: Path, model: str, revision: str | None) -> bool:
    """Whether an index folder holds a copy of this model and revision."""
    if not (folder / SOURCE_FILE).is_file():
        return False
    source = read_json(folder / SOURCE_FILE)
    return (source.get("model"), source.get("revision")) == (portable_locator(model), revision)
