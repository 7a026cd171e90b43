"""All stages of a recipe in order, in processes that `run` starts one after the other."""

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
from typing import IO

from ..core.errors import UserError
from ..core.json_files import read_json
from ..core.keys import recipe_key
from ..core.parallel import SECONDS_BETWEEN_LINES
from ..evaluation.metrics import read_metrics
from ..evaluation.tables import systems_text
from ..evaluation.targets import verdict_on_targets
from ..hub.file_names import METRICS_FILE
from .command import MISSED_TARGET
from .recipe import Recipe
from .run_folder import planned_stages, should_run
from .shipped import shipped_configs
from .stages import stage_table

PREFLIGHT = "umls_reranker.pipeline.preflight"
# calibrate, evaluate and validate.
FINISH = "umls_reranker.pipeline.model"
# What `run` starts: commands, and modules.
TITLES = {
    PREFLIGHT: "checking the recipe, disk and memory",
    "prepare_data": "reading concepts and mentions",
    "train_encoder": "training the bi-encoder",
    "build_index": "embedding names, retrieving candidates",
    "mine_negatives": "mining training pairs",
    "train": "training the cross-encoder",
    FINISH: "calibrating, evaluating, checking",
}
# Those that can share their work among processes.
LAUNCHED = (PREFLIGHT, "train_encoder", "build_index", "train")
# num_processes of a launch configuration that does not say it.
OPEN_NUMBER = -1
# What moves the cursor of a terminal and colors its text.
CURSOR_CODES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# Ends a line of a terminal that may have been longer.
CLEARED = "\x1b[K"
# In a progress bar.
TIME_LEFT = re.compile(r"<(\d[\d:]*)")


@dataclass
class LaunchOptions:
    """Launch: the processes of the stages that several can share."""

    accelerate_config: str | None = recipe_key(
        None, "accelerate configuration: a file, or the name of one in the package"
    )
    num_processes: int | None = recipe_key(
        None,
        "number of processes; empty: the configuration's, which of one for several GPUs is the "
        "number of GPUs that are seen",
        least=1,
    )


def run_recipe(recipe: Recipe, words: Sequence[str], options: LaunchOptions) -> int:
    """Run all stages with one line a process, or only check and list them; return the exit code.

    Args:
        recipe: the recipe.
        words: the command line that names it, for each process.
        options: how stages that several processes can share are started.
    """
    launch = launcher(options)
    if recipe.run.dry_run:
        show_plan(recipe)
        return show_end(*run_process([*launch, "-m", PREFLIGHT, *words]), "the lines above")
    commands = {stage.command for stage in stage_table(recipe).values()} | {PREFLIGHT, FINISH}
    steps = [name for name in TITLES if name in commands]
    on_terminal = sys.stderr.isatty()
    folder = recipe.run.run_dir
    path = folder / "run.log"
    # The process that runs ends with this one.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"Output goes to {folder}, the log of the stages to {path}", file=sys.stderr)
    for number, name in enumerate(steps, 1):
        title = f"{number}/{len(steps)}  {TITLES[name]:<40}"
        title_of_bars = title if on_terminal else ""
        print(title, end="", file=sys.stderr, flush=True)
        started = time.monotonic()
        python = launch if name in LAUNCHED else [sys.executable]
        module = [name] if "." in name else ["umls_reranker", name]
        with path.open("a", encoding="utf-8") as log:
            log.write(f"== {name.rpartition('.')[2]}\n")
            code, lines = run_process([*python, "-m", *module, *words], log, title_of_bars)
        minutes, seconds = divmod(round(time.monotonic() - started), 60)
        print(f"{minutes:>4}:{seconds:02}", file=sys.stderr)
        if code != MISSED_TARGET and show_end(code, lines, path):
            return code
    show_results(folder)
    return int(code == MISSED_TARGET)


def show_plan(recipe: Recipe) -> None:
    """Say of every stage whether it would be made and why, without starting any."""
    from .sources import check_documents, fingerprints, input_files

    files = input_files(recipe)
    check_documents(recipe, files)
    hashes = fingerprints(files, Path(recipe.run.cache_dir), printed=True)
    for stage in planned_stages(recipe, recipe.run.run_dir, hashes).values():
        should_run(stage, recipe.run)


def show_results(folder: Path) -> None:
    """Print how the systems compare, the targets, and where model and report are."""
    metrics = read_metrics(folder / "report" / METRICS_FILE)
    checks = read_json(folder / "checklist.json")["checks"]
    print(
        f"\n{systems_text(metrics['figures'])}\n\n{metrics['verdict']}\n"
        f"targets: {verdict_on_targets(checks)}\n"
        f"model: {folder / 'model'}; report: {folder / 'report'}"
    )


def show_end(code: int, lines: Sequence[str], log: Path | str) -> int:
    """Show what was checked, or an error, or the last lines without one; return the code."""
    shown = [line for line in lines if line.startswith(("[devices]", "[estimate]"))]
    if code:
        errors = [line for line in lines if line.startswith("error: ")][-1:]
        shown = errors or [*lines[-20:], f"error: this stage failed; see {log}"]
    sys.stderr.writelines(f"{line}\n" for line in shown)
    return code


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
    processes = options.num_processes or gpus_to_use(Path(file))
    if processes is not None:
        command += ["--num_processes", str(processes)]
    return command


def gpus_to_use(config: Path) -> int | None:
    """Number of visible GPUs, if a launch configuration leaves the number of processes open.

    Raises:
        UserError: it does, and there are not several GPUs.
    """
    # They take seconds to import.
    import torch
    from accelerate.commands.config.config_args import load_config_from_file

    if load_config_from_file(str(config)).num_processes != OPEN_NUMBER:
        return None
    visible = torch.cuda.device_count()
    if visible < 2:
        raise UserError(
            f"--accelerate_config: {config.stem} is for several GPUs, and {visible} can be used "
            "here; leave it out"
        )
    return visible


def run_process(
    command: Sequence[str], log: IO[str] | None = None, title: str = ""
) -> tuple[int, list[str]]:
    """Run a command; its lines go to the log with the time of day.

    Of a progress bar, one state every half minute is kept.

    Args:
        command: the words of the command.
        log: an open text file.
        title: on a terminal, how the line begins in which the time left is shown; empty: none.

    Returns:
        Its exit code, of a killed process as a shell reports it, and the lines that it printed.
    """
    lines = []
    shown = -math.inf
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        # Without newline "", each state of a bar would be a line like others.
        out = io.TextIOWrapper(process.stdout, "utf-8", "replace", "")  # type: ignore[type-var]
        try:
            for line in out:
                text = CURSOR_CODES.sub("", line).rstrip()
                is_bar = not line.endswith("\n")
                left = TIME_LEFT.search(text) if is_bar else None
                if title and left:
                    print(f"\r{title}{left[1]:>7} left", end=CLEARED, file=sys.stderr, flush=True)
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
        if title:
            print(f"\r{title}", end=CLEARED, file=sys.stderr, flush=True)
    if code < 0:
        # As a shell says of a process that a signal ended.
        code = 128 - code
    return code, lines
