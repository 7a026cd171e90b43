"""Summarize a finished run on one screen: examples, results, baselines and targets.

    umls-reranker summarize quickstart

Reads the output of the other stages and changes nothing.
"""

from umls_reranker.evaluation.arguments import EvaluationArguments
from umls_reranker.pipeline.recipe import parse_recipe
from umls_reranker.pipeline.stages import RunFolder
from umls_reranker.training.arguments import RunArguments


def main() -> None:
    recipe = parse_recipe(__doc__, (RunArguments, EvaluationArguments))
    run = RunFolder(recipe.run.run_dir)
    run.key_of("report", "evaluate")
    from umls_reranker.pipeline.summary import summarize

    summarize(recipe, run)
