"""Run all stages of a recipe in order, from raw data to a validated model folder.

    umls-reranker run quickstart
    umls-reranker run RECIPE --accelerate_config multi_gpu_bf16

Checks the recipe and estimates disk and memory, then shows one line per stage; the output of the
stages is in run.log of the run folder. Finished stages are skipped, so the same command resumes
after a stop. --dry_run checks too, and lists the stages: which are up to date, which would run, and
why.

--accelerate_config, a file or the name of one in the package, starts the stages that several
processes can share with accelerate launch --config_file FILE [--num_processes N] -m umls_reranker
STAGE RECIPE.

The exit code is 0 if all targets of the recipe are met, otherwise 1.
"""

from umls_reranker.pipeline.command import CommandParser
from umls_reranker.pipeline.options import parse_recipe
from umls_reranker.pipeline.recipe_keys import keys_of
from umls_reranker.pipeline.runner import LaunchOptions, run_recipe


def main() -> int:
    # Errors in the recipe are reported before the first stage.
    recipe, launch = parse_recipe(__doc__, ("run",), LaunchOptions)
    parser = CommandParser(add_help=False)
    for name in keys_of(LaunchOptions):
        parser.add_argument(f"--{name}")
    _, words = parser.parse_known_args()
    return run_recipe(recipe, words, launch)
