"""All stages of a recipe in order, each a process of its own."""

from __future__ import annotations

import io
import math
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from ..core.errors import UserError
from ..core.files import read_json
from ..core.keys import recipe_key
from ..core.progress import SECONDS_BETWEEN_LINES
from ..evaluation.metrics import read_metrics
from ..evaluation.render import systems_text
from ..hub.model_folder import METRICS
from .recipe import Recipe
from .shipped import shipped_configs
from .stages import planned_stages, should_run, stage_table
from .validation import verdict

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
# What moves the cursor of a terminal and colors its text.
CURSOR_CODES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# Commands that can share their work among processes.
LAUNCHED = (PREFLIGHT, "build_index", "train")


@dataclass
class LaunchOptions:
    """Launch: the processes of the stages that several can share."""

    accelerate_config: str | None = recipe_key(
        None, "accelerate configuration: a file, or the name of one in the package"
    )
    num_processes: int | None = recipe_key(
        None, "number of processes, in place of the configuration's", least=1
    )


def run_recipe(recipe: Recipe, words: Sequence[str], launch: LaunchOptions) -> int:
    """Run all stages, or only check and list them; return the exit code.

    Args:
        recipe: the recipe.
        words: the command line that names it, for each stage.
        launch: how stages that several processes can share are started.
    """
    if recipe.run.dry_run:
        show_plan(recipe)
        check = run_process([*launcher(launch), "-m", PREFLIGHT, *words])
        show_end(check, "the lines above")
        return check.code
    commands = {stage.command for stage in stage_table(recipe).values()} | {PREFLIGHT, "validate"}
    stages = [name for name in TITLES if name in commands]
    return run_stages(recipe.run.run_dir, stages, words, launcher(launch))


def show_plan(recipe: Recipe) -> None:
    """Say of every stage whether it would be made and why, without starting any."""
    from .sources import fingerprints, input_files

    files = fingerprints(input_files(recipe), Path(recipe.run.cache_dir), printed=True)
    for stage in planned_stages(recipe, recipe.run.run_dir, files).values():
        should_run(stage, recipe.run)


def run_stages(
    folder: Path, stages: Sequence[str], words: Sequence[str], launch: Sequence[str]
) -> int:
    """Run the stages with one line each, then show the results."""
    path = folder / "run.log"
    # The stage that runs ends with this process.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"Output goes to {folder}, the log of the stages to {path}", file=sys.stderr)
    code = 0
    for number, stage in enumerate(stages, 1):
        print(f"{number}/{len(stages)}  {TITLES[stage]:<40}", end="", file=sys.stderr, flush=True)
        started = time.monotonic()
        module = [stage] if stage == PREFLIGHT else ["umls_reranker", stage]
        python = launch if stage in LAUNCHED else [sys.executable]
        with path.open("a", encoding="utf-8") as log:
            log.write(f"== {stage}\n")
            ended = run_process([*python, "-m", *module, *words], log)
        code = ended.code
        minutes, seconds = divmod(round(time.monotonic() - started), 60)
        print(f"{minutes:>4}:{seconds:02}", file=sys.stderr)
        # A missed target ends the run only after the results are shown.
        if (stage, code) == ("validate", 1):
            ended = ended._replace(code=0)
        show_end(ended, path)
        if ended.code:
            return code
    show_results(folder)
    return code


def show_results(folder: Path) -> None:
    """Print how the systems compare, the targets, and where model and report are."""
    metrics = read_metrics(folder / "report" / METRICS)
    checks = read_json(folder / "checklist.json")["checks"]
    print(f"\n{systems_text(metrics['figures'])}\n\n{metrics['verdict']}")
    print(f"targets: {verdict(checks)}")
    print(f"model: {folder / 'model'}; report: {folder / 'report'}")


def show_end(ended: EndedProcess, log: Path | str) -> None:
    """Show the error that a stage has printed, or its last lines without one, or its estimate."""
    shown = [line for line in ended.lines if line.startswith("[estimate]")]
    if ended.code:
        errors = [line for line in ended.lines if line.startswith("error: ")][-1:]
        shown = errors or [*ended.lines[-20:], f"error: this stage failed; see {log}"]
    sys.stderr.writelines(f"{line}\n" for line in shown)


def launcher(options: LaunchOptions) -> list[str]:
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
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", file]
    if options.num_processes is not None:
        command += ["--num_processes", str(options.num_processes)]
    return command


class EndedProcess(NamedTuple):
    """A process that has ended.

    Attributes:
        code: its exit code, of a killed process as a shell reports it.
        lines: what it has printed.
    """

    code: int
    lines: list[str]


def run_process(command: Sequence[str], log: IO[str] | None = None) -> EndedProcess:
    """Run a command; its lines go to the log with the time of day.

    Of a progress bar, one state every half minute is kept.
    """
    lines = []
    shown = -math.inf
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        # Without newline="", each state of a bar would be a line like others.
        output = io.TextIOWrapper(process.stdout, "utf-8", "replace", newline="")  # type: ignore[type-var]
        try:
            for line in output:
                text = CURSOR_CODES.sub("", line).rstrip()
                is_bar = not line.endswith("\n")
                if not text or (is_bar and time.monotonic() < shown + SECONDS_BETWEEN_LINES):
                    continue
                if is_bar:
                    shown = time.monotonic()
                lines.append(text)
                if log is not None:
                    print(time.strftime("%H:%M:%S"), text, file=log, flush=True)
            code = process.wait()
        except BaseException:
            process.terminate()
            raise
    return EndedProcess(code if code >= 0 else 128 - code, lines)
