#!/usr/bin/env python
"""Run all stages of a recipe in order, from raw data to a validated model folder, ready for the Hub.

    umls-reranker run quickstart
    umls-reranker run RECIPE --accelerate_config multi_gpu_fp16

Shows one line per stage, with the remaining time if the recipe says how long stages take (stage_minutes). The output
of the stages is in run.log of the run folder. Finished stages are skipped, so the same command resumes after a stop.
--dry_run lists the stages: which are up to date, which would run, and why.
--accelerate_config, a file or the name of one in the package, launches embedding, mining and training with accelerate.
The exit code is 0 if all targets of the recipe are met, otherwise 1.
"""

import os
import sys
from pathlib import Path

from umls_reranker.core.errors import UserError
from umls_reranker.core.launch import LAUNCHED, begin, launch_options, launched_processes, shell_code
from umls_reranker.core.progress import StageLines
from umls_reranker.core.recipe import parse_recipe
from umls_reranker.core.script import run_script, should_run
from umls_reranker.core.settings import RunArguments
from umls_reranker.core.stage_keys import planned_stages

STAGES = {
    "prepare_data": "reading concepts and mentions",
    "train_encoder": "training the bi-encoder",
    "build_index": "embedding names, retrieving candidates",
    "mine_negatives": "mining training pairs",
    "train": "training the cross-encoder",
    "calibrate": "calibrating probabilities",
    "evaluate": "evaluating on the test split",
    "validate": "checking the model folder",
}
# Stages that user-provided candidate lists replace.
RETRIEVAL = ("train_encoder", "build_index")
LOG = "run.log"


def main() -> int:
    words = sys.argv[1:]
    options, without_launch = launch_options(words)
    # Errors in the recipe are reported before the first stage.
    recipe = parse_recipe(__doc__, (RunArguments,), without_launch)

    def command(stage: str) -> list[str]:
        return [stage, *(words if stage in LAUNCHED else without_launch)]

    if recipe.run.dry_run:
        return show_plan(recipe, options)
    return run(recipe.run, stages_of(recipe), command)


def show_plan(recipe, options) -> int:
    """Say of every stage whether it would be made and why, without starting any."""
    from umls_reranker.data.sources import fingerprints, input_files

    if "WORLD_SIZE" not in os.environ:
        # It determines the pairs per training step, unless the recipe does.
        os.environ["WORLD_SIZE"] = str(launched_processes(options))
    code = 0
    files = fingerprints(input_files(recipe), Path(recipe.run.cache_dir), printed=True)
    for stage in planned_stages(recipe, recipe.run.run_dir, files).values():
        try:
            should_run(stage, recipe.run)
        except UserError as error:
            print(f"[{stage.name}] error: {error}", file=sys.stderr)
            code = 2
    return code


def stages_of(recipe) -> dict[str, str]:
    """The stages of a recipe, in order, and what they do."""
    left_out = RETRIEVAL if recipe.mentions.candidate_lists else ()
    return {name: does for name, does in STAGES.items() if name not in left_out}


def run(settings, stages, command) -> int:
    """Run the stages with one line each, then show the results."""
    folder, code = settings.run_dir, 0
    lines = StageLines(stages, minutes(settings))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"Output goes to {folder}, the log of the stages to {folder / LOG}", file=sys.stderr)
    log = folder / LOG
    for stage in stages:
        with log.open("a", encoding="utf-8") as file:
            file.write(f"== {stage}\n")
        begins, made = size(log), size(folder / "stages.jsonl")
        lines.begin(stage)
        code = wait(begin(command(stage), log), lines)
        lines.end(worked=bool(code) or stage == "validate" or size(folder / "stages.jsonl") > made)
        # A missed target ends the run only after the results are shown.
        if code and (stage, code) != ("validate", 1):
            print(reason(log, begins), file=sys.stderr)
            return code
    summary = begin(command("summarize"))
    summary.join()
    return shell_code(summary.exitcode) or code


def minutes(settings) -> dict[str, float]:
    try:
        return {stage: float(value) for stage, value in (settings.stage_minutes or {}).items()}
    except (TypeError, ValueError):
        raise UserError("stage_minutes must map commands to minutes") from None


def wait(process, lines) -> int:
    """Wait for the end of a command, redraw the line of its stage every second, and return the exit code."""
    try:
        while process.exitcode is None:
            process.join(timeout=1.0)
            lines.show()
    except BaseException:
        print(file=sys.stderr)
        process.terminate()
        raise
    return shell_code(process.exitcode)


def reason(log: Path, begins: int) -> str:
    """Why a stage failed: its error line, or the end of its output."""
    printed = log.read_bytes()[begins:].decode("utf-8", errors="replace").splitlines()
    errors = [line for line in printed[-1:] if line.startswith("error: ")]
    return "\n".join(errors or [*printed[-20:], f"error: this stage failed; see {log}"])


def size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


if __name__ == "__main__":
    run_script(main)
