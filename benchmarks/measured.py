"""What a command and all processes it started took: time, CPU time, peak anonymous memory."""

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil

ROOT = Path(__file__).resolve().parents[1]
SECONDS_BETWEEN_SAMPLES = 0.5


class Taken(NamedTuple):
    """Seconds, CPU seconds, and peak bytes of anonymous memory of all processes together."""

    seconds: float
    cpu: float
    peak: int


class Sample(NamedTuple):
    """A moment: seconds, CPU seconds so far, anonymous bytes, and a run's finished stages."""

    seconds: float
    cpu: float
    memory: int
    finished: int


def measured(
    command: Sequence[Any],
    log: Path,
    *,
    env: Mapping[str, str] | None = None,
    meanwhile: Callable[[], None] | None = None,
    codes: Sequence[int] = (0,),
    stages: Path | None = None,
    by_stage: dict[str, Taken] | None = None,
) -> Taken:
    """Run a command to its end, its output in a log.

    Args:
        env: variables besides those of this process.
        meanwhile: what is done while the command runs, which is then asked to end.
        codes: exit codes that are as they should be.
        stages: ``stages.jsonl`` of a run.
        by_stage: gets what each stage took that the command added to it, if there are several.
    """
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)} | dict(env or {})
    former = finished_stages(stages)
    began = time.monotonic()
    failed = []
    samples = [Sample(began, 0.0, 0, len(former))]
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
        # Only the caller that waits for a process gets its times, so nobody else must poll it.
        ended = 0
        while not ended:
            samples.append(
                Sample(time.monotonic(), *used(process.pid), len(finished_stages(stages)))
            )
            time.sleep(SECONDS_BETWEEN_SAMPLES)
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
    process.returncode = os.waitstatus_to_exitcode(status)
    if failed:
        raise failed[0]
    if process.returncode not in codes:
        raise SystemExit(f"{' '.join(words)} failed with {process.returncode}; see {log}")
    seconds = time.monotonic() - began
    names = finished_stages(stages)[len(former) :]
    last = samples[0]
    for number, name in enumerate(names if by_stage is not None and len(names) > 1 else ()):
        of_stage = [each for each in samples if each.finished == len(former) + number] or [last]
        end = of_stage[-1]
        memory = max(each.memory for each in of_stage)
        by_stage[name] = Taken(end.seconds - last.seconds, max(0.0, end.cpu - last.cpu), memory)
        last = end
    return Taken(seconds, usage.ru_utime + usage.ru_stime, max(each.memory for each in samples))


def finished_stages(path: Path | None) -> list[str]:
    """Names of the stages in ``stages.jsonl``, in the order of their ends."""
    return (
        [json.loads(line)["stage"] for line in path.read_text().splitlines()]
        if path and path.is_file()
        else []
    )


def used(pid: int) -> tuple[float, int]:
    """CPU seconds, and bytes of memory not mapped to files, of a process and its descendants.

    Memory that they share is shared out.
    """
    cpu = 0.0
    total = 0
    # A process may end between two steps.
    with suppress(OSError, psutil.Error, IndexError):
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            cpu += sum(process.cpu_times()[:4])
            memory = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
            total += 1024 * int(re.findall(r"^Pss_Anon:\s+(\d+)", memory, re.MULTILINE)[0])
    return cpu, total


def disk(folder: Path) -> int:
    """Bytes of all files; what is linked counts once."""
    files = (path.stat() for path in folder.rglob("*") if path.is_file()) if folder.exists() else ()
    return sum({file.st_ino: file.st_size for file in files}.values())
