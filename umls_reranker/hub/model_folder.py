"""Changing a model folder and copying one, so that a killed process leaves a whole one."""

import filecmp
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from os.path import expanduser
from pathlib import Path

from ..core.errors import UserError
from ..core.files import (
    FORMER,
    link_or_copy,
    partial_path,
    replace_folder,
    restore_folder,
    written,
)
from .file_names import CARD, MANIFEST, MODEL_FILES
from .manifest import model_files, read_model_manifest, verify_model, write_model_manifest


def restored(folder: Path) -> Path:
    """The folder, which gets its name again if a killed process left it without."""
    folder = Path(folder).resolve()
    restore_folder(folder.with_name(f".{folder.name}{FORMER}"))
    return folder


@contextmanager
def changing(folder: Path) -> Iterator[Path]:
    """Yield an empty folder for new versions of some files or the card of `folder`.

    At the end they replace the former ones, and the manifest is renewed.

    A complete new folder, with links to the unchanged files, replaces the old one. A process killed
    at any moment leaves one of the two, the old one perhaps under a name that `restored` knows.
    """
    folder = restored(folder)
    info = read_model_manifest(folder)
    new = partial_path(folder)
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()

    def keep(source: str, target: str) -> None:
        """Link a file of the former version, unless there is a new version of it."""
        if not Path(target).exists():
            link_or_copy(source, target)

    try:
        yield new
        write_model_manifest(new, info, info["sha256"])
        # The manifest lists all files except the card.
        names = [name for name in (MANIFEST, CARD) if (new / name).is_file()]
        equal_files, _, _ = filecmp.cmpfiles(folder, new, names, shallow=False)
        if equal_files != names:
            shutil.copytree(folder, new, copy_function=keep, dirs_exist_ok=True)
            replace_folder(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def save_copy(source: Path, folder: Path, backend: str = "torch") -> Path:
    """Write the files of a model folder to another folder, and return that folder.

    Files that do not belong to a reranker stay. Those of a former model are removed.

    Args:
        source: the model folder.
        folder: the other folder.
        backend: backend whose cross-encoder must exist; a download has only that one.

    Raises:
        UserError: the files do not belong together, the folder cannot be written, or it holds other
            files with the names of a model's.
    """
    verify_model(source, backend)
    files = {path.relative_to(source).as_posix(): path for path in model_files(source)}
    target = Path(expanduser(folder)).resolve()
    if target == source.resolve():
        return folder
    present = [name for name in MODEL_FILES if (target / name).exists()]
    if present and not (target / MANIFEST).is_file():
        raise UserError(
            f"{folder} contains {present[0]} of another kind of model; choose another folder"
        )
    try:
        for name in present:
            if name not in files:
                (target / name).unlink()
        # The manifest comes last and reveals an incomplete save.
        without_manifest = [name for name in files if name != MANIFEST]
        for name in [*without_manifest, MANIFEST]:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            with written(target / name) as partial:
                shutil.copyfile(files[name], partial)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror or error}); choose another folder"
        ) from None
    return folder
