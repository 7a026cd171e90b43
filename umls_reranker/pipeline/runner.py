"""All stages of a recipe in order, each a process of its own."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

from ..core.errors import UserError
from .recipe import Recipe
from .shipped import shipped_configs
from .stages import planned_stages, should_run, stage_table

PREFLIGHT = "umls_reranker.pipeline.preflight"
TITLES = {
    PREFLIGHT: "checking the recipe, disk and memory",
    "prepare_data": "reading concepts and mentions",
    "train_encoder": "training the bi-encoder",
    "build_index": "embedding names, retrieving candidates",
    "mine_negatives": "mining training pairs",
    "train": "training the cross-encoder",
    "calibrate": "calibrating probabilities",
    "evaluate": "evaluating on the test split",
    "validate": "checking the model folder",
}
# Commands that can share their work among processes.
LAUNCHED = (PREFLIGHT, "build_index", "train")


def run_recipe(recipe: Recipe, words: list[str], launch: argparse.Namespace) -> int:
    """Run all stages, or only check and list them; return the exit code.

    Args:
        recipe: the recipe.
        words: the command line that names it, for each stage.
        launch: `accelerate_config` and `num_processes`, None where not given.
    """
    if recipe.run.dry_run:
        show_plan(recipe)
        with tempfile.TemporaryFile() as file:
            code = wait([*launcher(launch), "-m", PREFLIGHT, *words], file)
            file.seek(0)
            show_end(code, file.read(), "the lines above")
        return code
    commands = {stage.command for stage in stage_table(recipe).values()} | {PREFLIGHT, "validate"}
    stages = [name for name in TITLES if name in commands]
    return run_stages(recipe.run.run_dir, stages, words, launcher(launch))


def show_plan(recipe: Recipe) -> None:
    """Say of every stage whether it would be made and why, without starting any."""
    from .sources import fingerprints, input_files

    files = fingerprints(input_files(recipe), Path(recipe.run.cache_dir), printed=True)
    for stage in planned_stages(recipe, recipe.run.run_dir, files).values():
        should_run(stage, recipe.run)


def run_stages(folder: Path, stages: list[str], words: list[str], launch: list[str]) -> int:
    """Run the stages with one line each, then show the results."""
    log = folder / "run.log"
    # The stage that runs ends with this process.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"Output goes to {folder}, the log of the stages to {log}", file=sys.stderr)
    code = 0
    for number, stage in enumerate(stages, 1):
        print(f"{number}/{len(stages)}  {TITLES[stage]:<40}", end="", file=sys.stderr, flush=True)
        started = time.monotonic()
        begins = log.stat().st_size if log.exists() else 0
        with log.open("a", encoding="utf-8") as file:
            file.write(f"== {stage}\n")
            file.flush()
            module = [stage] if stage == PREFLIGHT else ["umls_reranker", stage]
            code = wait(
                [*(launch if stage in LAUNCHED else [sys.executable]), "-m", *module, *words], file
            )
        minutes, seconds = divmod(round(time.monotonic() - started), 60)
        print(f"{minutes:>4}:{seconds:02}", file=sys.stderr)
        # A missed target ends the run only after the results are shown.
        failed = 0 if (stage, code) == ("validate", 1) else code
        show_end(failed, log.read_bytes()[begins:], log)
        if failed:
            return code
    return wait([sys.executable, "-m", "umls_reranker", "summarize", *words]) or code


def show_end(code: int, output: bytes, log: Path | str) -> None:
    """Of what a stage has printed, show its error, or its last lines if it has named none, or its
    estimate.
    """
    printed = output.decode("utf-8", errors="replace").splitlines()
    shown = [line for line in printed if line.startswith("[estimate]")]
    if code:
        errors = [line for line in printed if line.startswith("error: ")][-1:]
        shown = errors or [*printed[-20:], f"error: this stage failed; see {log}"]
    sys.stderr.writelines(f"{line}\n" for line in shown)


def launcher(options: argparse.Namespace) -> list[str]:
    """The command that starts a stage which several processes can share."""
    name = options.accelerate_config
    if name is None:
        return [sys.executable]
    configs = {name: file for name, file in shipped_configs().items() if file.suffix == ".yaml"}
    if not Path(name).is_file() and name not in configs:
        raise UserError(
            f"--accelerate_config: {name} is neither a file nor one of {', '.join(configs)}"
        )
    file = name if Path(name).is_file() else str(configs[name])
    processes = ["--num_processes", options.num_processes] if options.num_processes else []
    return [sys.executable, "-m", "accelerate.commands.launch", "--config_file", file, *processes]


def wait(command: list[str], log: IO | None = None) -> int:
    """Run a command and return its exit code, of a killed process as a shell reports it."""
    with subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            code = process.wait()
        except BaseException:
            process.terminate()
            raise
    return code if code >= 0 else 128 - code
