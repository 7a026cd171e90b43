"""What a command and all processes that came from it took: time, CPU time, peak anonymous memory."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil

ROOT = Path(__file__).resolve().parents[1]
SECONDS_BETWEEN_SAMPLES = 0.5


class Taken(NamedTuple):
    """Seconds, CPU seconds, and bytes of anonymous memory of all processes together at their highest."""

    seconds: float
    cpu: float
    peak: int


def measured(
    command: Sequence[Any],
    log: Path,
    *,
    env: Mapping[str, str] | None = None,
    meanwhile: Callable[[], None] | None = None,
    codes: Sequence[int] = (0,),
) -> Taken:
    """Run a command to its end, its output in a log.

    Args:
        env: variables besides those of this process.
        meanwhile: what is done while the command runs, which is then asked to end.
        codes: exit codes that are as they should be.
    """
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)} | dict(env or {})
    began, peaks, failed = time.monotonic(), [0], []
    with log.open("ab") as stream:
        words = list(map(str, command))
        process = subprocess.Popen(words, stdout=stream, stderr=subprocess.STDOUT, env=environment)

        def help_along() -> None:
            try:
                meanwhile()
            except Exception as error:
                failed.append(error)
            finally:
                os.kill(process.pid, signal.SIGTERM)

        if meanwhile:
            threading.Thread(target=help_along, daemon=True).start()
        # Only the caller that waits for a process gets its times, so it must not be polled by others.
        while (ended := os.wait4(process.pid, os.WNOHANG))[0] == 0:
            peaks.append(anonymous(process.pid))
            time.sleep(SECONDS_BETWEEN_SAMPLES)
    process.returncode = os.waitstatus_to_exitcode(ended[1])
    if failed:
        raise failed[0]
    if process.returncode not in codes:
        raise SystemExit(f"{' '.join(words)} failed with {process.returncode}; see {log}")
    return Taken(time.monotonic() - began, ended[2].ru_utime + ended[2].ru_stime, max(peaks))


def anonymous(pid: int) -> int:
    """Bytes of memory that is not pages of files, of a process and its descendants; what they share is shared out."""
    total = 0
    try:
        for process in (parent := psutil.Process(pid), *parent.children(recursive=True)):
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
            found = {line.split(":")[0]: line.split()[1] for line in lines[1:]}
            total += 1024 * int(found["Pss_Anon"])
    except (OSError, psutil.Error, KeyError):
        # A process ended between two steps.
        pass
    return total


def disk(folder: Path) -> int:
    """Bytes of all files; what is linked counts once."""
    files = (path.stat() for path in folder.rglob("*") if path.is_file()) if folder.exists() else ()
    return sum({file.st_ino: file.st_size for file in files}.values())
