"""Where a model is: in a folder, in the package, or on the Hub, from which it is downloaded."""

import difflib
import re
from collections.abc import Sequence
from os.path import expanduser
from pathlib import Path, PurePosixPath
from typing import Any

from ..core.errors import UserError
from ..core.version import __version__
from ..models.arguments import BUILT_IN_FOLDERS
from .file_names import MANIFEST, loaded_files
from .manifest import require_calibrated

# Regular expression of the id of a repo on the Hub, NAMESPACE/NAME.
REPO_ID = r"\w[\w.-]*/\w[\w.-]*"


def local_folder(name: str | Path) -> Path:
    """The folder of this name, or else of the model in the package; it need not exist."""
    path = Path(expanduser(name))
    return path if path.is_dir() else BUILT_IN_FOLDERS.get(str(name), path)


def download(
    repo_or_path: str | Path,
    revision: str | None = None,
    backend: str = "torch",
    files: Sequence[str] | None = None,
    is_plain: bool = False,
    subfolder: str = "",
    **hub: Any,
) -> Path:
    """Folder of a reranker: a local one unchanged, or one snapshot of a Hub repo at one revision.

    Args:
        repo_or_path: local folder, Hub repo as ``NAMESPACE/NAME``, or a name of `BUILT_IN_FOLDERS`,
            unless a folder has this name.
        revision: tag, branch or commit on the Hub; None is the head of ``main``.
        backend: backend whose cross-encoder is downloaded, if the model has a cross-encoder.
        files: those to download, by default all that a reranker loads; a local folder stays whole.
        is_plain: whether a cross-encoder without calibration is accepted.
        subfolder: folder of the reranker in the folder or repo.
        hub: options of `huggingface_hub.snapshot_download`, such as ``token`` and ``cache_dir``.

    Raises:
        UserError: the folder, repo or revision does not exist, access is denied, or the Hub cannot
            be reached.
    """
    if not str(repo_or_path):
        raise UserError(
            "the model has no name; give a Hub repo or a folder ('.' for the working directory)"
        )
    path = local_folder(repo_or_path)
    if path.is_dir():
        path /= subfolder
        _require_model(path, repo_or_path, is_plain)
        if revision is not None:
            raise UserError(f"{repo_or_path} is not of the Hub, so it has no revision {revision!r}")
        return path
    if path.exists():
        raise UserError(f"{repo_or_path} is a file; give the folder of a model")
    names = files or (MANIFEST, *loaded_files(backend))
    return snapshot(str(repo_or_path), revision, names, is_plain, subfolder, **hub)


def _require_model(folder: Path, name: str | Path, is_plain: bool) -> None:
    """Refuse the folder of a run or of a checkpoint, whose model is another folder.

    Args:
        folder: the folder.
        name: as the caller named it.
        is_plain: whether a cross-encoder without calibration is accepted.
    """
    if (folder / MANIFEST).is_file():
        return
    if (folder / "model" / MANIFEST).is_file():
        raise UserError(f"{name} is a run folder; use its model, {folder / 'model'}")
    if folder.parent.name == "checkpoints" and not is_plain:
        model = folder.parent.parent / "model"
        raise UserError(
            f"{name} is a checkpoint of a training, which is not calibrated; use the "
            f"model of its run, {model}, which umls-reranker calibrate writes"
        )


def snapshot(
    repo_id: str,
    revision: str | None,
    files: Sequence[str] = (MANIFEST,),
    is_plain: bool = False,
    subfolder: str = "",
    **hub: Any,
) -> Path:
    """Like `download`, of a Hub repo only."""
    if not re.fullmatch(REPO_ID, repo_id):
        near = difflib.get_close_matches(repo_id, BUILT_IN_FOLDERS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(
            f"{repo_id} is neither a local folder nor a Hub repo of the form NAMESPACE/NAME{hint}"
        )

    # Importing the Hub's client takes as long as loading a model without a cross-encoder.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RevisionNotFoundError

    from ..models.hub_calls import hub_api, hub_calls

    hub |= {"library_name": "umls_reranker", "library_version": __version__}
    hub["allow_patterns"] = [str(PurePosixPath(subfolder, name)) for name in files]
    token = hub.get("token")
    with hub_calls(repo_id, token):
        try:
            folder = Path(snapshot_download(repo_id, revision=revision, **hub), subfolder)
        except RevisionNotFoundError:
            refs = hub_api(token).list_repo_refs(repo_id)
            tags = ", ".join(sorted(tag.name for tag in refs.tags))
            raise UserError(
                f"{repo_id} has no revision {revision!r}; its tags: {tags or 'none'}"
            ) from None
    if is_plain:
        return folder
    require_calibrated(folder, repo_id)
    return folder
