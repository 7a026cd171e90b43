#!/usr/bin/env python
"""Install each system of systems/ in its own environment, name those that fail, and run the rest.

    python benchmarks/peers/run.py runs/peers [SYSTEM ...]

Environments are .venv-peers/ENVIRONMENT, of the packages in systems/ENVIRONMENT.txt, then those in
systems/ENVIRONMENT.no_deps.txt without what they require. A first line `# python3.11` names the
interpreter. What is installed, or linked already, stays; one system runs at a time, with further
options as of peer.py. Needs only the standard library.
"""

import argparse
import importlib
import json
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = HERE.parents[1] / ".venv-peers"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("export", type=Path, help="folder that export.py wrote")
    parser.add_argument("systems", nargs="*", help="modules of systems/ (default: all)")
    parser.add_argument("--install_only", action="store_true")
    arguments, options = parser.parse_known_args()
    for name in arguments.systems or sorted(path.stem for path in (HERE / "systems").glob("*.py")):
        try:
            python = installed(importlib.import_module(f"systems.{name}").ENVIRONMENT)
            if (
                not arguments.install_only
                and not (arguments.export / "rows" / name / "facts.json").exists()
            ):
                run(python, HERE / "peer.py", name, arguments.export, *options)
                print(f"{name}: linked", flush=True)
        except (subprocess.CalledProcessError, FileNotFoundError) as error:
            print(f"{name}: skipped, {error}", flush=True)


def installed(name: str) -> Path:
    """The Python of an environment, made if missing; installed.json has its seconds and size."""
    folder = ENVIRONMENTS / name
    python = folder / "bin" / "python"
    facts = folder / "installed.json"
    if facts.exists():
        return python
    requirements = HERE / "systems" / f"{name}.txt"
    first = requirements.read_text(encoding="utf-8").split("\n", 1)[0].removeprefix("# ")
    began = time.perf_counter()
    run(
        first if first.startswith("python") and "=" not in first else sys.executable,
        "-m",
        "venv",
        "--clear",
        folder,
    )
    empty = size_mb(folder)
    run(python, "-m", "pip", "install", "--quiet", "--requirement", requirements)
    if (bare := requirements.with_suffix(".no_deps.txt")).exists():
        run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--requirement", bare)
    size = {"install_seconds": time.perf_counter() - began, "installed_mb": size_mb(folder) - empty}
    facts.write_text(json.dumps(size), encoding="utf-8")
    return python


def size_mb(folder: Path) -> float:
    return sum(path.lstat().st_size for path in folder.rglob("*")) / 1e6


def run(*command) -> None:
    subprocess.run([*map(str, command)], check=True)


if __name__ == "__main__":
    main()
