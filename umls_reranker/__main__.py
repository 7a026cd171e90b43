"""The command ``umls-reranker``: each script is a subcommand with the same name."""

import difflib
import runpy
import shutil
import sys
import textwrap
from pathlib import Path

from umls_reranker.core.errors import UserError
from umls_reranker.core.version import __version__
from umls_reranker.pipeline.command import run_script
from umls_reranker.pipeline.shipped import shipped

GROUPS = {
    "Start here": ("quickstart", "recipes", "run"),
    "Stages of a run, in order": (
        "prepare_data",
        "train_encoder",
        "build_index",
        "mine_negatives",
        "train",
        "calibrate",
        "evaluate",
        "validate",
    ),
    "From mentions to concepts": ("index", "link", "candidates", "search"),
    "Use and share a model": ("rerank", "serve", "export", "export_index", "publish"),
    "Monitor it and review its answers": ("monitor", "select_for_review"),
}
COMMANDS = [name for names in GROUPS.values() for name in names]
QUICKSTART = "quickstart"  # the recipe of this name, not a script
QUICKSTART_SUMMARY = "Run the recipe quickstart: the full pipeline on open data, on a CPU."
USAGE = "usage: umls-reranker COMMAND ...\n       umls-reranker COMMAND --help"
OWN_LISTS = """\
Calibrate on your own candidate lists, with the scores of any pipeline, and evaluate on others:
  umls-reranker calibrate MODEL --lists FILE --output FOLDER
  umls-reranker evaluate MODEL --lists FILE --output FOLDER
"""
FIRST_STEPS = """\
First steps, on open data and a CPU, with the extra quickstart:

    umls-reranker quickstart

Copy a recipe, change it, and run the copy:

    umls-reranker recipes copy hpo-minilm
    umls-reranker run hpo-minilm

RECIPE is a YAML file, a folder with config.yaml, or the name of a recipe in the package or the
working folder. --key value sets any key of a recipe. To use all GPUs of a machine:

    umls-reranker run RECIPE --accelerate_config multi_gpu_bf16"""


def main() -> None:
    """Run the subcommand that the command line names, and exit with its code."""
    run_script(dispatch)


def dispatch() -> int:
    """Run the subcommand, or print help or version; return the exit code."""
    words = sys.argv[1:] or ["--help"]
    name = words.pop(0)
    if name in ("-h", "--help"):
        print(overview())
        return 0
    if name == "--version":
        print(__version__)
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.5)
        ending = f"did you mean {near[0]}?" if near else "see umls-reranker --help"
        raise UserError(f"unknown command {name!r}; {ending}")
    if name == QUICKSTART:
        name = "run"
        words = [QUICKSTART, *words]
    script = shipped("scripts") / f"{name}.py"
    sys.argv = [str(script), *words]
    return runpy.run_path(str(script), run_name=name)["main"]() or 0


def overview() -> str:
    """The subcommands with the first line of each script, and the first steps."""
    width = max(map(len, COMMANDS)) + 4
    lines = [USAGE, "", OWN_LISTS]
    for group, names in GROUPS.items():
        lines.append(f"{group}:")
        for name in names:
            lines += textwrap.wrap(
                QUICKSTART_SUMMARY
                if name == QUICKSTART
                else summary(shipped("scripts") / f"{name}.py"),
                width=max(shutil.get_terminal_size().columns - 1, 60),
                initial_indent=f"  {name:<{width - 2}}",
                subsequent_indent=" " * width,
            )
        lines.append("")
    return "\n".join([*lines, FIRST_STEPS])


def summary(script: Path) -> str:
    """First line of a script's docstring, read without importing it."""
    return script.read_text(encoding="utf-8").split('"""')[1].splitlines()[0]


if __name__ == "__main__":
    main()
