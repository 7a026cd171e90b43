"""Files and folders that appear whole or not at all; JSON; SHA-256."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import math
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import UserError
from .version import __version__

__all__ = [
    "MODEL_PATTERNS",
    "file_sha256",
    "fingerprint_path",
    "json_sha256",
    "link_or_copy",
    "model_sha256",
    "naming_full_disk",
    "partial_path",
    "read_json",
    "replace_folder",
    "require_format",
    "write_json",
    "written",
]

CHUNK_BYTES = 1 << 20
# Weights at the top of the repo and in safetensors only; nothing that could run code.
MODEL_PATTERNS = (
    "config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "*token*.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "context.json",  # what an encoder of ours was trained to read
)
FULL_DISK = re.compile("no space left|not enough free space|file write failed|disk quota exceeded", re.IGNORECASE)


def partial_path(path: Path) -> Path:
    """The hidden path next to `path` that holds it in the making."""
    return path.with_name(f".{path.name}.partial")


@contextmanager
def written(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """Give a hidden path next to `path`, for a file or a folder; it becomes `path`, or is removed on failure.

    Args:
        shared: several processes may write `path` at once, so each has a hidden path of its own. What a killed one
            leaves is then not dropped by the next one.
    """
    partial = partial_path(path.with_name(f"{path.name}.{os.getpid()}") if shared else path)
    _remove(partial)
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        _remove(partial)
        raise


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def replace_folder(new: Path, folder: Path) -> None:
    """Put a finished folder in the place of another, which goes.

    Linux exchanges the two names in one step, so that `folder` is whole at every moment. Where the system or the file
    system cannot, a process killed between two renames leaves the former one as ``.NAME.former``.
    """
    former = folder.with_name(f".{folder.name}.former")
    _remove(former)
    if folder.exists() and _exchange(new, folder):
        new.rename(former)
    else:
        if folder.exists():
            folder.rename(former)
        new.rename(folder)
    _remove(former)


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two names; False where that is not to be had."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    current_folder, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of renameat2(2)
    names = os.fsencode(first), os.fsencode(second)
    return renameat2 is not None and renameat2(current_folder, names[0], current_folder, names[1], exchange) == 0


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Give a file a second name, or a copy where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@contextmanager
def naming_full_disk(path: Path) -> Iterator[None]:
    """Turn the error about a full disk, whichever library met it, into one that says what was being written."""
    try:
        yield
    except Exception as error:
        # NumPy, FAISS, torch and safetensors give no error number.
        number = error.errno if isinstance(error, OSError) else None
        if number not in (errno.ENOSPC, errno.EDQUOT) and not FULL_DISK.search(str(error)):
            raise
        raise UserError(f"{path} could not be written, the disk is full; free some space and run again") from None


def write_json(path: Path, content: Any, default: Callable[[Any], Any] | None = None) -> None:
    """Write JSON, whole or not at all; a number that is not finite becomes null.

    Args:
        default: JSON of what has none; by default that is a TypeError.
    """
    text = json.dumps(_strict(content), indent=2, ensure_ascii=False, allow_nan=False, default=default)
    with written(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def _strict(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _strict(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_strict(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def read_json(path: Path) -> Any:
    """Read JSON; a missing or broken file is a `UserError` that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); it was changed or cut short, so make it again") from None


def require_format(path: Path, content: Any, version: int, command: str) -> None:
    """Refuse the content of a file whose ``schema_version`` is not the one that is read.

    Args:
        command: the subcommand that writes the file.

    Raises:
        UserError: it is newer, older, or not there; the message says the way out.
    """
    found = content.get("schema_version") if isinstance(content, dict) else None
    if type(found) is int and found > version:
        raise UserError(
            f"{path} has schema_version {found}, newer than umls_reranker {__version__} can read; "
            "upgrade: pip install -U umls_reranker"
        )
    if found != version or type(found) is not int:
        raise UserError(f"{path} has schema_version {found!r}, not {version}; run umls-reranker {command} again")


def json_sha256(content: Any) -> str:
    """SHA-256 of a JSON-able value, hexadecimal; the order of keys does not count."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    digest = hashlib.sha256()
    _add_bytes(digest, path)
    return digest.hexdigest()


def model_sha256(folder: Path) -> str:
    """SHA-256 of the files that make up a model in a folder: its weights, tokenizer and configurations."""
    files = {path for pattern in MODEL_PATTERNS for path in folder.glob(pattern)}
    return json_sha256({path.name: file_sha256(path) for path in files})


def fingerprint_path(path: Path) -> str:
    """SHA-256 of a file's size and bytes, or of the names, sizes and bytes of a folder's files in sorted order."""
    digest = hashlib.sha256()
    if not path.exists():
        raise UserError(f"{path} does not exist; check the path in the recipe")
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        digest.update(f"{file.relative_to(path)}\0{file.stat().st_size}\0".encode())
        _add_bytes(digest, file)
    return digest.hexdigest()


def _add_bytes(digest: Any, path: Path) -> None:
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
