#!/usr/bin/env python
"""Run all stages of a recipe in order, from raw data to a validated model folder that is ready for the Hub.

    umls-reranker run quickstart
    umls-reranker run RECIPE --accelerate_config multi_gpu_fp16

Finished stages are skipped, so the same command resumes after a stop. With --accelerate_config, a file or the name of
one that comes with the package, embedding, mining and training are launched with accelerate. The exit code is that of
the validation: 0 when all targets of the recipe are met, 1 when one is missed.
"""

import sys
from pathlib import Path

from umls_reranker.core.arguments import RunArguments
from umls_reranker.core.launch import LAUNCHED, launch_options, start
from umls_reranker.core.recipe import parse_recipe
from umls_reranker.core.script import run_script

STAGES = ("prepare_data", "train_encoder", "build_index", "mine_negatives", "train", "calibrate", "evaluate")


def main() -> int:
    options, words = launch_options(sys.argv[1:])
    # What is wrong with the recipe is said before the first stage.
    parse_recipe(__doc__, (RunArguments,), words)

    def run(stage: str) -> int:
        script = Path(__file__).with_name(f"{stage}.py")
        return start(script, words, options if stage in LAUNCHED else None)

    for stage in STAGES:
        if code := run(stage):
            return code
    validated, summarized = run("validate"), run("summarize")
    return validated or summarized


if __name__ == "__main__":
    run_script(main)
