#!/usr/bin/env python
"""Mentions per second of each system: the same test mentions, one by one and in batches, in turns.

    python benchmarks/peers/speed.py runs/minilm-medmentions-cpu runs/peers

Each system that `make peers` installed is set up in a process of its own, and then all take turns
on a machine that does nothing else. Ours is the run's linker, which retrieves as the others do.
Prints Markdown: medians of the rounds, with the best, and the peak memory of the process.
"""

import argparse
import json
import os
import subprocess
import sys
from collections import defaultdict
from importlib import import_module
from pathlib import Path
from statistics import median

from run import ENVIRONMENTS, HERE

BATCHES = {"one by one": 1, "in batches": 256}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="run folder with a model")
    parser.add_argument("export", type=Path, help="folder that export.py wrote of it")
    parser.add_argument("systems", nargs="*", help="ours, or of systems/ (default: all)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--most", type=int, default=256, help="test mentions a turn")
    arguments = parser.parse_args()
    names = arguments.systems or [
        "ours",
        *sorted(path.stem for path in (HERE / "systems").glob("*.py")),
    ]
    processes = {
        name: started(name, arguments.run, arguments.export, arguments.most) for name in names
    }
    rates = defaultdict(list)
    memory = {}
    for number in range(arguments.rounds + 1):
        for name, process in processes.items():
            for way, batch in BATCHES.items():
                answer = asked(process, batch)
                memory[name] = answer["peak_memory_mb"]
                # The first round warms up, and waits until a system is set up.
                if number:
                    rates[name, way].append(arguments.most / answer["seconds"])
            print(f"round {number}, {name}", file=sys.stderr, flush=True)
    print(
        f"| mentions/s on {os.cpu_count()} cores | {' | '.join(BATCHES)} | peak memory, MB |",
        "|---|--:|--:|--:|",
        sep="\n",
    )
    for name in names:
        cells = [
            f"{median(rates[name, way]):,.0f} ({max(rates[name, way]):,.0f})" for way in BATCHES
        ]
        print(f"| {name} | {' | '.join(cells)} | {memory[name]:,.0f} |")


def started(name: str, run: Path, export: Path, most: int) -> subprocess.Popen:
    """The process of a system, which is being set up."""
    options = [export, "--most", most, "--turns"]
    command = [sys.executable, HERE / "ours.py", run, *options]
    if name != "ours":
        environment = import_module(f"systems.{name}").ENVIRONMENT
        command = [ENVIRONMENTS / environment / "bin" / "python", HERE / "peer.py", name, *options]
    return subprocess.Popen(
        [*map(str, command)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def asked(process: subprocess.Popen, batch: int) -> dict:
    """What linking in batches of this size took; a system's own messages are skipped."""
    process.stdin.write(f"{batch}\n")
    process.stdin.flush()
    for line in process.stdout:
        if line.startswith('{"seconds"'):
            return json.loads(line)
    raise SystemExit(f"{' '.join(process.args)} ended with {process.wait()}")


if __name__ == "__main__":
    main()
