#!/usr/bin/env python
"""Run all stages of a recipe in order, from raw data to a validated model folder, ready for the Hub.

    umls-reranker run quickstart
    umls-reranker run RECIPE --accelerate_config multi_gpu_bf16 --num_processes 8

Checks the recipe and estimates disk and memory, then shows one line per stage; the output of the stages is in run.log
of the run folder. Finished stages are skipped, so the same command resumes after a stop. --dry_run checks too, and
lists the stages: which are up to date, which would run, and why.
--accelerate_config, a file or the name of one in the package, starts the stages that several processes can share with
accelerate launch --config_file FILE [--num_processes N] -m umls_reranker STAGE RECIPE.
The exit code is 0 if all targets of the recipe are met, otherwise 1.
"""

import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from umls_reranker.core.errors import UserError
from umls_reranker.models.arguments import RunArguments
from umls_reranker.pipeline.command import CommandParser, run_script
from umls_reranker.pipeline.recipe import parse_recipe
from umls_reranker.pipeline.shipped import shipped_configs
from umls_reranker.pipeline.stages import planned_stages, should_run, stage_table

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


def main() -> int:
    parser = CommandParser(add_help=False)
    parser.add_argument("--accelerate_config")
    parser.add_argument("--num_processes")
    launch, words = parser.parse_known_args()
    # Errors in the recipe are reported before the first stage.
    recipe = parse_recipe(__doc__, (RunArguments,), words)
    if recipe.run.dry_run:
        show_plan(recipe)
        with tempfile.TemporaryFile() as file:
            code = wait([*launcher(launch), "-m", PREFLIGHT, *words], file)
            file.seek(0)
            show_end(code, file.read(), "the lines above")
        return code
    commands = {row.command for row in stage_table(recipe).values()} | {PREFLIGHT, "validate"}
    return run(recipe.run.run_dir, [name for name in TITLES if name in commands], words, launcher(launch))


def show_plan(recipe) -> None:
    """Say of every stage whether it would be made and why, without starting any."""
    from umls_reranker.pipeline.sources import fingerprints, input_files

    files = fingerprints(input_files(recipe), Path(recipe.run.cache_dir), printed=True)
    for stage in planned_stages(recipe, recipe.run.run_dir, files).values():
        should_run(stage, recipe.run)


def run(folder: Path, stages: list[str], words: list[str], launch: list[str]) -> int:
    """Run the stages with one line each, then show the results."""
    log = folder / "run.log"
    # The stage that runs ends with this process.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"Output goes to {folder}, the log of the stages to {log}", file=sys.stderr)
    code = 0
    for number, stage in enumerate(stages, 1):
        print(f"{number}/{len(stages)}  {TITLES[stage]:<40}", end="", file=sys.stderr, flush=True)
        started, begins = time.monotonic(), log.stat().st_size if log.exists() else 0
        with log.open("a", encoding="utf-8") as file:
            file.write(f"== {stage}\n")
            file.flush()
            module = [stage] if stage == PREFLIGHT else ["umls_reranker", stage]
            code = wait([*(launch if stage in LAUNCHED else [sys.executable]), "-m", *module, *words], file)
        minutes, seconds = divmod(round(time.monotonic() - started), 60)
        print(f"{minutes:>4}:{seconds:02}", file=sys.stderr)
        # A missed target ends the run only after the results are shown.
        failed = 0 if (stage, code) == ("validate", 1) else code
        show_end(failed, log.read_bytes()[begins:], log)
        if failed:
            return code
    return wait([sys.executable, "-m", "umls_reranker", "summarize", *words]) or code


def show_end(code: int, output: bytes, log: Path | str) -> None:
    """Of what a stage has printed, show its error, or its last lines if it has named none, or its estimate."""
    printed = output.decode("utf-8", errors="replace").splitlines()
    shown = [line for line in printed if line.startswith("[estimate]")]
    if code:
        errors = [line for line in printed if line.startswith("error: ")][-1:]
        shown = errors or [*printed[-20:], f"error: this stage failed; see {log}"]
    sys.stderr.writelines(f"{line}\n" for line in shown)


def launcher(options) -> list[str]:
    """The command that starts a stage which several processes can share."""
    name = options.accelerate_config
    if name is None:
        return [sys.executable]
    configs = {name: file for name, file in shipped_configs().items() if file.suffix == ".yaml"}
    if not Path(name).is_file() and name not in configs:
        raise UserError(f"--accelerate_config: {name} is neither a file nor one of {', '.join(configs)}")
    file = name if Path(name).is_file() else str(configs[name])
    processes = ["--num_processes", options.num_processes] if options.num_processes else []
    return [sys.executable, "-m", "accelerate.commands.launch", "--config_file", file, *processes]


def wait(command: list[str], log=None) -> int:
    """Run a command and return its exit code, of a killed process as a shell reports it."""
    with subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            code = process.wait()
        except BaseException:
            process.terminate()
            raise
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    run_script(main)
