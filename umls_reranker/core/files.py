"""Files and folders that are written: beside and then renamed, under a lock, losing nothing."""

import errno
import glob
import os
import platform
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import UserError

# Ending of a folder that is being replaced.
FORMER = ".former"
# Workers of a killed process inherit its lock, and take up to five seconds to notice its end.
PATIENCE_SECONDS = 10.0
# The last where a limit of the process is reached, not of the disk.
FULL_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FULL_DISK = re.compile(
    r"no space left|not enough free space|file write failed|disk quota exceeded"
    r"|\d+ requested and \d+ written",
    re.IGNORECASE,
)


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
        UserError: `path` has no name, such as ``.``, or is a device or a pipe; or the disk is full.
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
        with naming_full_disk(path):
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
        raise UserError(f"{output} already exists; choose another output, or remove it")
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


def weights_by_umask(folder: Path) -> None:
    """`mode_by_umask` of the weights that a library wrote into a folder."""
    for path in folder.glob("*.safetensors"):
        mode_by_umask(path)


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
