"""Find a reranker's folder: local, or one snapshot of a Hub repo."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from os.path import expanduser
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ..core.errors import UserError
from ..core.version import __version__
from .model_folder import MANIFEST, loaded_files

if TYPE_CHECKING:
    from huggingface_hub import HfApi

# Name and folder of the model included in the package.
BUILT_IN = "built-in"
BUILT_IN_FOLDER = Path(__file__).resolve().parents[1] / "built_in"
REPO_ID = r"\w[\w.-]*/\w[\w.-]*"


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
        repo_or_path: local folder, Hub repo as ``NAMESPACE/NAME``, or `BUILT_IN`, unless a folder
            has this name.
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
    path = Path(expanduser(repo_or_path))
    if str(repo_or_path) == BUILT_IN and not path.is_dir():
        path = BUILT_IN_FOLDER
    if path.is_dir():
        path /= subfolder
        if (path / "model" / MANIFEST).is_file() and not (path / MANIFEST).is_file():
            raise UserError(f"{repo_or_path} is a run folder; use its model, {path / 'model'}")
        if revision is not None:
            raise UserError(f"{repo_or_path} is not of the Hub, so it has no revision {revision!r}")
        return path
    if path.exists():
        raise UserError(f"{repo_or_path} is a file; give the folder of a model")
    names = files or (MANIFEST, *loaded_files(backend))
    return snapshot(str(repo_or_path), revision, names, is_plain, subfolder, **hub)


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
        near = difflib.get_close_matches(repo_id, [BUILT_IN])
        raise UserError(
            f"{repo_id} is neither a local folder nor a Hub repo of the form NAMESPACE/NAME"
            + (f"; did you mean {BUILT_IN}?" if near else "")
        )

    # Importing the Hub's client takes as long as loading a model without a cross-encoder.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RevisionNotFoundError

    from ..models.model_files import hub_calls

    hub |= {"library_name": "umls_reranker", "library_version": __version__}
    hub["allow_patterns"] = [str(PurePosixPath(subfolder, name)) for name in files]
    with hub_calls(repo_id, token := hub.get("token")):
        try:
            folder = Path(snapshot_download(repo_id, revision=revision, **hub), subfolder)
        except RevisionNotFoundError:
            tags = ", ".join(
                sorted(ref.name for ref in hub_api(token).list_repo_refs(repo_id).tags)
            )
            raise UserError(
                f"{repo_id} has no revision {revision!r}; its tags: {tags or 'none'}"
            ) from None
    if not is_plain and not (folder / MANIFEST).is_file():
        raise UserError(
            f"{repo_id} has no {MANIFEST} at {revision or 'main'}, "
            "so it is not a umls_reranker model"
        )
    return folder


def hub_api(token: str | bool | None) -> HfApi:
    """The Hub client; its requests name this library."""
    from huggingface_hub import HfApi

    return HfApi(token=token, library_name="umls_reranker", library_version=__version__)
