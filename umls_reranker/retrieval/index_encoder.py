"""The bi-encoder of an index: the one that the run trained, a copy in an index folder, or that of the recipe."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..core.arguments import EncoderArguments, IndexArguments, RunArguments
from ..core.fetch import resolve_model
from ..core.files import MODEL_PATTERNS, read_json, write_json
from ..core.recipe import portable_locator
from ..core.stage_keys import ENCODER_FOLDER
from ..core.stages import RunFolder
from ..models.bi_encoder import BiEncoder

__all__ = ["copy_encoder", "load_encoder"]

SOURCE_FILE = "source.json"


def copy_encoder(target: Path, model: str, revision: str | None) -> None:
    """Copy a bi-encoder into an index folder, where `load_encoder` finds it.

    Args:
        target: the index folder.
        model, revision: of the recipe.
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
    model, revision = index.encoder, index.encoder_revision
    source = _exported_encoder(run.run_dir, model, revision)
    if encoder.encoder_training_steps:
        model, revision = "trained", RunFolder(run.run_dir).key_of(ENCODER_FOLDER, "train_encoder")
        source = run.run_dir / ENCODER_FOLDER
    loaded = BiEncoder.from_pretrained(
        str(source or model),
        None if source else revision,
        pooling=index.encoder_pooling,
        max_length=index.encoder_max_length,
        device=run.device,
        dtype=index.encoder_dtype,
    )
    # A published model names its encoder without the original path.
    loaded.identity |= {"model": portable_locator(model), "revision": revision}
    return loaded


def _exported_encoder(folder: Path, model: str, revision: str | None) -> Path | None:
    """The copy of a bi-encoder in an index folder, or None if there is none of this model and revision."""
    source = folder / ENCODER_FOLDER / SOURCE_FILE
    if not source.is_file():
        return None
    content = read_json(source)
    return (
        source.parent
        if (content.get("model"), content.get("revision")) == (portable_locator(model), revision)
        else None
    )
