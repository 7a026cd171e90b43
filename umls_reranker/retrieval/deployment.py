"""What a deployment opens: one run's concepts, indexes and encoder, described by `index.json`.

    index.json      how names were encoded and indexed, and how mentions are read: `IndexSettings`
    concepts/       the dictionary: CUIs, names, semantic types
    index/          names and their vectors
    lexical/        and so on: the indexes of further retrievers, if the run uses them
    encoder/        the bi-encoder that the run trained or used

A run folder has the same layout, so it works as well. An index folder holds names of the release
that it was built from: keep it where that license allows. It is never published with the model.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from ..core.errors import UserError
from ..core.files import link_or_copy, written
from ..core.locators import portable_locator
from ..core.parallel import progress
from ..models.model_files import commit_of, content_files, resolve_model
from .arguments import ENCODER_FOLDER
from .index_settings import IndexSettings


def export_index(run: Path, target: Path, *, dry_run: bool = False) -> None:
    """Collect what a deployment needs of a run; `target` appears only when it is complete.

    On the run's file system the files are linked, which takes neither time nor space, because
    stages replace files and never change them. On another file system they are copied. An encoder
    that the run did not train is copied too.

    Args:
        run: run folder with finished indexes.
        target: folder to make.
        dry_run: only check.

    Raises:
        UserError: `target` exists, or a folder of the run is missing or was made anew.
    """
    if target.exists():
        raise UserError(
            f"{target} already exists; choose a new folder and switch the deployment over to it"
        )
    settings = IndexSettings.load(run)
    if dry_run:
        return
    files = settings.own_files(run)
    size = sum(file.stat().st_size for file in files)
    with written(target) as partial, progress(total=size, desc="collecting", unit="B") as bar:
        for file in files:
            copy = partial / file.relative_to(run)
            copy.parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(file, copy)
            bar.update(copy.stat().st_size)
        if settings.encoder and not settings.has_encoder:
            settings = _with_copied_encoder(settings, partial)
        settings.save(partial)


def _with_copied_encoder(settings: IndexSettings, folder: Path) -> IndexSettings:
    """Copy the encoder that settings name into a folder, and return the settings of the folder."""
    source = Path(resolve_model(settings.encoder, settings.encoder_revision))
    (folder / ENCODER_FOLDER).mkdir()
    for file in content_files(source):
        shutil.copyfile(file, folder / ENCODER_FOLDER / file.name)
    return replace(
        settings,
        encoder=portable_locator(settings.encoder),
        encoder_revision=commit_of(source) or settings.encoder_revision,
        has_encoder=True,
    )
