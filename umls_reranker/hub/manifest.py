"""The manifest of a model folder, by which its files are known to belong together.

A reranker is a cross-encoder, a calibrator fitted to its logits, thresholds on the calibrator's
probabilities, and a reference for monitoring; or the same without a cross-encoder, fitted to the
scores, names, types and counts of candidate lists alone. Files of different versions would silently
give wrong probabilities. So one manifest, ``sha256`` in ``reranker.json``, holds the SHA-256 of
every file and of the manifest's own settings. Before anything is loaded or published,
`verify_model` compares them.

It protects against mistakes, not against an attacker, who can also write a manifest.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.files import (
    mode_by_umask,
)
from ..core.hashes import file_sha256, json_sha256
from ..core.json_files import read_json, require_finite, require_format, write_json
from ..models.arguments import BACKENDS
from .file_names import (
    CALIBRATOR,
    CARD,
    CONFIG,
    MAKERS,
    MANIFEST,
    MODEL_FILES,
    SCHEMA_VERSIONS,
    THRESHOLDS,
    loaded_files,
)

# What stands in place of a large file that Git has not fetched.
LFS_POINTER = b"version https://git-lfs"
VERSION_DIGITS = 12


def verify_model(folder: Path, backend: str | None = None) -> dict[str, Any]:
    """Check that a model folder is complete and that its files belong together.

    Args:
        folder: the model folder.
        backend: backend of the cross-encoder to load; the other is not read. None: torch, and all
            other files that exist.

    Returns:
        The content of ``reranker.json``.

    Raises:
        UserError: a file is missing, unreadable, of another format, not listed, or different from
            the listed one; or the backend is unknown.
    """
    folder = Path(folder)
    weights = BACKENDS.get(backend or "torch")
    needed = set(loaded_files(backend or "torch"))
    if not folder.is_dir():
        raise UserError(f"{folder} is not a model folder; umls-reranker calibrate writes one")
    info = read_model_manifest(folder)
    present = {name for name in MODEL_FILES if (folder / name).is_file()}
    if backend and has_cross_encoder(info):
        weights_of_others = {*BACKENDS.values()} - {weights}
        present -= weights_of_others
    listed = info["sha256"].keys()
    unlisted = present - listed
    if unlisted:
        path = folder / min(unlisted)
        raise UserError(
            f"{path} does not belong to this model: {MANIFEST} does not list it; remove it"
        )
    # The cross-encoder may have been left out or never exported.
    required = {weights} if has_cross_encoder(info) else set()
    verify_files(folder, sorted(required | ((needed | present) & listed)))
    for name in (CALIBRATOR, THRESHOLDS):
        content = read_json(folder / name)
        require_format(folder / name, content, SCHEMA_VERSIONS[name], "calibrate")
        require_finite(folder / name, content)
    return info


def verify_files(folder: Path, names: Iterable[str]) -> dict[str, Any]:
    """Check some files against the manifest; returns the content of ``reranker.json``.

    Raises:
        UserError: one is missing or different from the listed one.
    """
    info = read_model_manifest(folder)
    for name in names:
        path = folder / name
        maker = MAKERS.get(name, "calibrate")
        if not path.is_file():
            raise UserError(f"{path} is missing; umls-reranker {maker} writes it")
        if file_sha256(path) == info["sha256"].get(name):
            continue
        with path.open("rb") as stream:
            is_pointer = stream.read(len(LFS_POINTER)) == LFS_POINTER
        if is_pointer:
            raise UserError(f"{path} is a Git LFS pointer, not the file; run `git lfs pull`")
        raise UserError(
            f"{path} does not match {MANIFEST}: it was modified or belongs to another version; "
            f"use all files from one revision, or run umls-reranker {maker} --overwrite"
        )
    return info


def has_cross_encoder(info: Mapping[str, Any]) -> bool:
    """Whether a model has a cross-encoder, by the content of its manifest."""
    return info["template"] is not None


def version_digits(info: Mapping[str, Any]) -> str:
    """Name of a version without a tag: the first digits of the manifest's hash."""
    return info["sha256"][MANIFEST][:VERSION_DIGITS]


def model_files(folder: Path) -> list[Path]:
    """The files of a model folder that belong to the model; only these are saved and published."""
    listed = read_model_manifest(folder)["sha256"]
    # The card is not listed, and a name that no model file has is not followed.
    names = {MANIFEST, CARD} | (listed.keys() & {*MODEL_FILES})
    return sorted(folder / name for name in names if (folder / name).is_file())


def read_model_manifest(folder: Path) -> dict[str, Any]:
    """The content of ``reranker.json``.

    Raises:
        UserError: it is missing, of another version, or was modified after it was written.
    """
    require_calibrated(folder, folder)
    info = read_json(folder / MANIFEST)
    require_format(folder / MANIFEST, info, SCHEMA_VERSIONS[MANIFEST], "calibrate")
    listed = info.get("sha256")
    if not isinstance(listed, dict) or info != sealed_manifest(info, listed):
        raise UserError(
            f"{folder / MANIFEST} was modified after it was written, so the model cannot be "
            "trusted; use all files from one revision, or run umls-reranker calibrate --overwrite"
        )
    return info


def require_calibrated(folder: Path, name: str | Path) -> None:
    """Refuse what is no reranker, such as a cross-encoder that a trainer of transformers wrote.

    Args:
        folder: the folder.
        name: as the caller named it.
    """
    files = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if CONFIG in files and files.isdisjoint((MANIFEST, CALIBRATOR)):
        raise UserError(
            f"{name} is a cross-encoder without calibration; next, "
            f"umls-reranker calibrate {name} --lists LISTS --output MODEL"
        )
    if MANIFEST not in files:
        raise UserError(
            f"{name} has no {MANIFEST}, so it is no reranker; give a folder or repo that "
            "umls-reranker calibrate, run or publish wrote"
        )


def write_model_manifest(
    folder: Path, settings: Mapping[str, Any], listed: Mapping[str, str]
) -> None:
    """Write ``reranker.json`` for the files in a folder, and for unchanged ones elsewhere.

    Args:
        folder: the folder.
        settings: the content other than the hashes.
        listed: name -> SHA-256 of further files; those in the folder win.
    """
    present = {
        name: file_sha256(folder / name) for name in MODEL_FILES if (folder / name).is_file()
    }
    for name in present:
        mode_by_umask(folder / name)
    write_json(folder / MANIFEST, sealed_manifest(settings, {**listed, **present}))


def sealed_manifest(settings: Mapping[str, Any], sha256: Mapping[str, str]) -> dict[str, Any]:
    """The content of ``reranker.json``, in which the hash of itself is that of everything else."""
    listed = {name: digest for name, digest in sorted(sha256.items()) if name != MANIFEST}
    own_digest = json_sha256({**settings, "sha256": listed})
    return {**settings, "sha256": listed | {MANIFEST: own_digest}}
