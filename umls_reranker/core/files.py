"""Files: atomic writing, locks, JSON, SHA-256, publishable paths; lines of text, plain or gzip."""

import csv
import errno
import glob
import gzip
import hashlib
import io
import json
import math
import os
import platform
import re
import shutil
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal, Protocol, TextIO, TypeVar

from filelock import FileLock, Timeout

from .errors import Malformed, UserError
from .version import __version__

CHUNK_BYTES = 1 << 20
# Ending of a folder that is being replaced.
FORMER = ".former"
# A file that changed more recently could change again within the same tick of the system's clock.
SETTLED_NS = 2_000_000_000
# Workers of a killed process inherit its lock, and take up to five seconds to notice its end.
PATIENCE_SECONDS = 10.0
# The last where a limit of the process is reached, not of the disk.
FULL_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FULL_DISK = re.compile(
    r"no space left|not enough free space|file write failed|disk quota exceeded"
    r"|\d+ requested and \d+ written",
    re.IGNORECASE,
)


def portable_locator(locator: str) -> str:
    """The publishable part of a path or URL; relative paths, Hub ids and other text stay as is."""
    if re.match(r"https?://", locator, re.IGNORECASE):
        # A query may contain a signature.
        return re.sub(r"(?<=://)[^/]*@", "", re.split(r"[?#]", locator)[0])
    path = PureWindowsPath(locator) if PureWindowsPath(locator).drive else PurePosixPath(locator)
    is_local = path.is_absolute() or locator.startswith(("~", "file:")) or ".." in path.parts
    return (path.name or "folder") if is_local else locator


def partial_path(path: Path) -> Path:
    """The hidden path next to `path` that holds it until it is complete."""
    return path.with_name(f".{path.name}.partial")


@contextmanager
def written(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """Yield a hidden path next to `path`, which becomes `path`, or is removed on failure.

    Args:
        path: file or folder to write.
        shared: whether several processes may write `path` at once, each to its own hidden path.
            What killed processes of this machine left is removed.

    Raises:
        UserError: `path` has no name, such as ``.``, or is a device or a pipe.
    """
    if not path.name or (path.exists() and not path.is_file() and not path.is_dir()):
        raise UserError(
            f"{path} is not a file or folder that can be replaced; choose another output"
        )
    if path.is_symlink():
        # The link stays, also one such as /dev/stdout.
        path = path.resolve()
    partial = partial_path(path)
    if shared:
        of_machine = path.with_name(f"{path.name}.{platform.node()}")
        partial = partial_path(path.with_name(f"{of_machine.name}.{os.getpid()}"))
        _remove_left(of_machine)
    remove(partial)
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        remove(partial)
        raise


def _remove_left(of_machine: Path) -> None:
    """Remove what killed processes of this machine left of a file or folder that they shared.

    Args:
        of_machine: the path with the machine's name, before the number of a process.
    """
    for left in of_machine.parent.glob(f".{glob.escape(of_machine.name)}.[0-9]*.partial"):
        try:
            # On Windows such a signal is no question.
            if os.name == "posix":
                os.kill(int(left.name.split(".")[-2]), 0)
        except OSError as error:
            if error.errno == errno.ESRCH:
                remove(left)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def hold(path: Path, refusal: str) -> Iterator[None]:
    """Hold the lock `path`, waiting a few seconds for it.

    It disappears with the processes that hold it.

    Args:
        path: the lock file, which may remain; its folder must exist.
        refusal: text of the error if another process holds the lock.

    Raises:
        UserError: another process holds it.
    """
    try:
        lock = FileLock(path).acquire(timeout=PATIENCE_SECONDS)
    except (Timeout, FileNotFoundError):
        # The holder may have dropped the folder at its end.
        raise UserError(refusal) from None
    with lock:
        yield


def require_another(output: Path, inputs: Iterable[Path]) -> None:
    """Refuse an output that would take the place of an input, also by a link."""
    if output.exists() and any(path.exists() and output.samefile(path) for path in inputs):
        raise UserError(f"{output} is also the input and would be lost; choose another output")


def require_writable(output: Path, *, makes_folders: bool = False) -> None:
    """Refuse an output, before any work, whose folder is missing or cannot be written to.

    Args:
        output: file or folder to write.
        makes_folders: whether missing folders will be made, in the nearest one that exists.
    """
    folder = output.resolve().parent
    while makes_folders and not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise UserError(
            f"{folder} is not an existing folder, so {output} cannot be written; choose another "
            "output"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(
            f"the folder {folder} cannot be written to; choose another output than {output}, or "
            "change its permissions"
        )


def require_new(output: Path, *, makes_folders: bool = False) -> None:
    """Refuse an output that exists or cannot be written; arguments as for `require_writable`."""
    if output.exists():
        raise UserError(f"{output} already exists; choose a new folder or remove it")
    require_writable(output, makes_folders=makes_folders)


def replace_folder(new: Path, folder: Path) -> None:
    """Replace a folder by a finished one, by two renames.

    A process that is killed between them leaves the old folder as ``.NAME.former``, for
    `restore_folder`.
    """
    former = folder.with_name(f".{folder.name}{FORMER}")
    restore_folder(former)
    if folder.exists():
        folder.rename(former)
    new.rename(folder)
    remove(former)


def restore_folder(former: Path) -> None:
    """Rename ``.NAME.former`` back to NAME where there is no such folder; elsewhere remove it."""
    folder = former.with_name(former.name[1 : -len(FORMER)])
    if former.exists() and not folder.exists():
        former.rename(folder)
    remove(former)


def mode_by_umask(path: Path) -> None:
    """Give a file the mode of a new one: safetensors makes files that only the writer can read."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Link a file, or copy it if the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@contextmanager
def naming_full_disk(path: Path) -> Iterator[None]:
    """Turn any library's error about a full disk into one that names the file."""
    try:
        yield
    except Exception as error:
        # NumPy, FAISS, torch and safetensors give no error number.
        number = error.errno if isinstance(error, OSError) else None
        if number not in FULL_DISK_ERRORS and not FULL_DISK.search(str(error)):
            raise
        raise UserError(
            f"{path} could not be written: the disk is full; free some space and run again"
        ) from None


def write_json(path: Path, content: Any, default: Callable[[Any], Any] | None = None) -> None:
    """Write JSON atomically; numbers that are not finite become null.

    Args:
        path: the file.
        content: what to write.
        default: converts values without a JSON form; None raises TypeError.
    """
    text = json.dumps(
        strict(content), indent=2, ensure_ascii=False, allow_nan=False, default=default
    )
    with written(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def strict(content: Any) -> Any:
    """The content with null in place of numbers that are not finite, which JSON lacks."""
    if isinstance(content, dict):
        return {key: strict(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [strict(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def read_json(path: Path) -> Any:
    """Read JSON; a missing or damaged file is a `UserError` that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder, not a file; write it again") from None
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is not valid JSON ({error}); it was modified or truncated, write it again"
        ) from None


def require_format(path: Path, content: Any, version: int, command: str) -> None:
    """Refuse a file with another ``schema_version``.

    Args:
        path: the file.
        content: its content.
        version: the required version.
        command: the subcommand that writes the file.

    Raises:
        UserError: it is newer, older or missing; the message says what to do.
    """
    actual = content.get("schema_version") if isinstance(content, dict) else None
    if type(actual) is int and actual > version:
        raise UserError(
            f"{path} has schema_version {actual}, newer than umls_reranker {__version__} can read; "
            "upgrade: pip install -U umls_reranker"
        )
    if actual != version or type(actual) is not int:
        raise UserError(
            f"{path} has schema_version {actual!r}, not {version}; "
            f"run umls-reranker {command} again"
        )


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


# Of text files.
GZIP_MAGIC = b"\x1f\x8b"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
START_BYTES = 1 << 16
# A line may hold a whole document; and the largest table of a UMLS release has some 10^8 lines. A
# file that unpacks to more would fill the memory.
LONGEST_LINE = 1 << 26
MOST_LINES = 1_000_000_000
# Of a file that is read at once.
MOST_BYTES = 1 << 32
csv.field_size_limit(LONGEST_LINE)


Line = TypeVar("Line", str, bytes, covariant=True)


class HasLines(Protocol[Line]):
    """An open file of text or bytes."""

    def readline(self, size: int, /) -> Line:
        """The next line, or its first `size` characters; empty at the end."""


@contextmanager
def open_binary(path: Path) -> Iterator[io.BufferedReader | gzip.GzipFile]:
    """Open a file, plain or gzip (detected by its first bytes).

    Raises:
        UserError: the file is missing, a folder, unreadable or empty; or, while the stream is read,
            it is a gzip stream that is cut short or corrupt.
    """
    try:
        raw = path.open("rb")
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); check the path and its permissions"
        ) from None
    with raw:
        magic = raw.peek(2)[:2]
        if not magic:
            raise UserError(f"{path} is empty; download it again")
        if magic != GZIP_MAGIC:
            yield raw
            return
        try:
            with gzip.GzipFile(fileobj=raw) as stream:
                yield stream
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise UserError(
                f"{path}: the gzip stream is damaged ({error}); download the file again"
            ) from None


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    r"""Yield ``(number from 1, line without \n or \r\n)``; only ``\n`` ends a line.

    Raises:
        UserError: as `open_binary` and `bounded_lines`.
    """
    with open_binary(path) as stream:
        for number, line in enumerate(bounded_lines(path, stream), start=1):
            if number == 1:
                line = line.removeprefix(BYTE_ORDER_MARK)
            yield number, line.rstrip(b"\r\n")


def read_whole(path: Path, most: int = MOST_BYTES) -> bytes:
    """The unpacked bytes of a file.

    Raises:
        UserError: as `open_binary`; or there are more than `most`.
    """
    with open_binary(path) as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise UserError(f"{path} has more than {most:,} bytes; divide it")
    return content


def bounded_lines(
    path: Path, stream: HasLines[Line], longest: int = LONGEST_LINE, most: int = MOST_LINES
) -> Iterator[Line]:
    """Yield the lines of an open file.

    Args:
        path: the file, for messages.
        stream: the file, of bytes or text.
        longest: bytes or characters of a line, at most.
        most: number of lines, at most.

    Raises:
        UserError: a line is longer, or there are more (names file and line).
    """
    number = 0
    while line := stream.readline(longest + 1):
        number += 1
        if len(line) > longest:
            raise UserError(
                f"{path}:{number}: the line is longer than {longest:,} characters; is it the right "
                "file? Divide the line, or download the file again"
            )
        if number > most:
            raise UserError(
                f"{path}:{number}: the file has more than {most:,} lines; is it the right file? "
                "Divide it, or download it again"
            )
        yield line


def read_table(
    path: Path, stream: TextIO, delimiter: str, has_quotes: bool = True
) -> Iterator[tuple[int, list[str]]]:
    """Yield ``(number of its first line, cells)`` of each row that is not blank, the header first.

    Args:
        path: the file, for messages.
        stream: the file, opened with ``newline=""``.
        delimiter: what separates cells.
        has_quotes: whether quotes may enclose a cell; otherwise they are characters of it.

    Raises:
        UserError: a quote is not closed or not at the edge of its cell, or a row has not as many
            cells as the first (names file and line); or as `bounded_lines`.
    """
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if has_quotes else csv.QUOTE_NONE
    lines = bounded_lines(path, stream)
    reader = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)
    number = 1
    size = None
    try:
        for cells in reader:
            if any(cells):
                size = size or len(cells)
                if len(cells) != size:
                    raise UserError(
                        f"{path}:{number}: the row has {len(cells)} cells, but the first line "
                        f"{size}"
                    )
                yield number, cells
            number = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"{path}:{number}: {error}; a quotation mark inside a cell is doubled, in quotes"
        ) from None


def start_of(path: Path) -> bytes:
    """The first bytes of a file, unpacked and without a byte order mark.

    Raises:
        UserError: as `open_binary`.
    """
    with open_binary(path) as stream:
        return stream.read(START_BYTES).removeprefix(BYTE_ORDER_MARK)


def decode(line: bytes) -> str:
    """Decode UTF-8; raises `Malformed` with the first invalid byte."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed(
            "not UTF-8", f" (byte 0x{line[error.start]:02x} at column {error.start + 1})"
        ) from None


def of_characters(text: str) -> str:
    """The text as it is; ValueError if it has half of a surrogate pair, which no file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("contains a lone surrogate, which is not a character") from None
    return text


def is_finite(number: float) -> bool:
    """Whether a number that was read is finite as a float; an integer may be too large for any."""
    return abs(number) <= sys.float_info.max


def excerpt(text: str) -> str:
    """A piece of the input for messages: short, printable, one line."""
    if len(text) > 60:
        text = text[:57] + "..."
    return ascii(text)
