"""What a command and all processes that came from it took: time, processor time, peak anonymous memory, silence."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TICKS = os.sysconf("SC_CLK_TCK")
# A sample takes some 15 ms.
SECONDS_BETWEEN_SAMPLES = 1.0


class Sampler(threading.Thread):
    """Follows a process and its descendants: anonymous memory, processor time, and which part of the work is done.

    Args:
        process: number of the first of them.
        parts: name -> file that is there once this part is done, in order.

    Attributes:
        figures: part -> ``seconds``, ``cpu`` (seconds), ``peak`` (bytes of anonymous memory of all together).
        seen: numbers of all processes.
    """

    def __init__(self, process: int, parts: Mapping[str, Path]) -> None:
        super().__init__(daemon=True)
        self._root, self._parts = process, dict(parts)
        self.figures = {part: {"seconds": 0.0, "cpu": 0.0, "peak": 0} for part in parts}
        self.seen: dict[int, float] = {}
        self._ended = threading.Event()
        self._part, self._since = "", time.monotonic()

    def run(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN_SAMPLES):
            self.sample()

    def stop(self) -> None:
        self._ended.set()
        self.join()

    def sample(self) -> None:
        part = next((name for name, file in self._parts.items() if not file.is_file()), list(self._parts)[-1])
        before, now = sum(self.seen.values()), time.monotonic()
        memory = 0
        for process in descendants(self._root):
            try:
                fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
                self.seen[process] = (int(fields[11]) + int(fields[12])) / TICKS
                memory += anonymous(process)
            except (OSError, IndexError):
                continue
        own = self.figures[part]
        own["seconds"] += now - self._since
        own["cpu"] += sum(self.seen.values()) - before
        own["peak"] = max(own["peak"], memory)
        self._since = now


def descendants(process: int) -> list[int]:
    """The process and all that came from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found = [process]
    for one in found:
        found += children.get(one, [])
    return found


def anonymous(process: int) -> int:
    """Bytes of memory that is not pages of files; what processes share is shared out to them."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    found = {line.split(":")[0]: line.split()[1] for line in lines[1:]}
    return 1024 * int(found.get("Pss_Anon", found["Anonymous"]))


def disk(folder: Path) -> int:
    """Bytes of all files; what is linked counts once."""
    files = (path.stat() for path in folder.rglob("*") if path.is_file()) if folder.exists() else ()
    return sum({file.st_ino: file.st_size for file in files}.values())


def measured(
    command: Sequence[Any],
    log: Path,
    parts: Mapping[str, Path],
    *,
    env: Mapping[str, str] | None = None,
    kill_when: Callable[[], bool] = lambda: False,
    meanwhile: Callable[[], None] | None = None,
    codes: Sequence[int] = (0,),
) -> dict[str, dict[str, float]]:
    """Run a command, its output in a log, and return what each part took.

    Args:
        parts: as for `Sampler`.
        kill_when: kills the command and all that came from it as soon as this is true.
        meanwhile: what is done while the command runs, which is then asked to end.
        codes: exit codes that are as they should be.
    """
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)} | dict(env or {})
    silences, last = [], time.monotonic()
    with subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
    ) as process:
        sampler = Sampler(process.pid, parts)
        sampler.start()
        ended, killed, failed = threading.Event(), threading.Event(), []

        def watch() -> None:
            while not ended.wait(0.1):
                if kill_when():
                    killed.set()
                    for one in reversed(descendants(process.pid)):
                        os.kill(one, signal.SIGKILL)
                    return

        def help_along() -> None:
            try:
                meanwhile()
            except Exception as error:
                failed.append(error)
            finally:
                os.kill(process.pid, signal.SIGTERM)

        # None of them polls whether the process has ended: only the caller that waits for it gets its times.
        helpers = [
            threading.Thread(target=task, daemon=True) for task in (watch, *([help_along] if meanwhile else []))
        ]
        for helper in helpers:
            helper.start()
        with log.open("ab") as stream:
            for line in process.stdout:
                silences.append(time.monotonic() - last)
                last = time.monotonic()
                stream.write(line)
                stream.flush()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        silences.append(time.monotonic() - last)
        ended.set()
        sampler.stop()
    if failed:
        raise failed[0]
    if not killed.is_set() and process.returncode not in codes:
        raise SystemExit(f"{' '.join(map(str, command))} failed with {process.returncode}; see {log}")
    figures = sampler.figures
    # Processes that ended between two samples.
    missed = usage.ru_utime + usage.ru_stime - sum(own["cpu"] for own in figures.values())
    figures[list(parts)[-1]]["cpu"] += max(0.0, missed)
    for own in figures.values():
        own["silence"] = max(silences)
    return figures
