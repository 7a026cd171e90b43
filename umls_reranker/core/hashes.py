"""SHA-256 of files, folders and JSON-able values."""

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from .errors import UserError
from .json_files import write_json

CHUNK_BYTES = 1 << 20


# A file that changed more recently could change again within the same tick of the system's clock.
SETTLED_NS = 2_000_000_000


def json_sha256(content: Any) -> str:
    """SHA-256 of a JSON-able value, hexadecimal; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    digest = hashlib.sha256()
    _add_bytes(digest, path)
    return digest.hexdigest()


def fingerprint_path(path: Path) -> str:
    """SHA-256 of a file's size and bytes, or of a folder's sorted file names, sizes and bytes."""
    digest = hashlib.sha256()
    if not path.exists():
        raise UserError(f"{path} does not exist; check the path in the recipe")
    for file in _files(path):
        digest.update(f"{file.relative_to(path)}\0{file.stat().st_size}\0".encode())
        _add_bytes(digest, file)
    return digest.hexdigest()


def remembered(hashed: Callable[[Path], str], path: Path, cache: Path) -> str:
    """Return `hashed(path)`, reading again only if a file's size, inode or times have changed.

    Args:
        hashed: a hash function of this module.
        path: file or folder.
        cache: folder that remembers the hashes.
    """
    state: list[list[Any]] = []
    for file in _files(path):
        info = file.stat()
        times = [info.st_mtime_ns, info.st_ctime_ns]
        state.append([str(file.relative_to(path)), info.st_size, info.st_ino, *times])
    memory = cache / "fingerprints" / f"{json_sha256([hashed.__name__, str(path.resolve())])}.json"
    with suppress(OSError, ValueError, TypeError, KeyError):
        known = json.loads(memory.read_text(encoding="utf-8"))
        if known["state"] == state:
            return known["sha256"]
    sha256 = hashed(path)
    if all(time.time_ns() - changed > SETTLED_NS for *_, changed, _ in state):
        # Without the cache it is only slower.
        with suppress(OSError):
            memory.parent.mkdir(parents=True, exist_ok=True)
            write_json(memory, {"path": str(path), "state": state, "sha256": sha256})
    return sha256


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())


def _add_bytes(digest: Any, path: Path) -> None:
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
