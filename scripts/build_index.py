"""Embed all concept names, index them with FAISS, and retrieve candidates for the mentions.

    umls-reranker build_index quickstart
    accelerate launch --config_file multi_gpu_bf16.yaml -m umls_reranker build_index RECIPE

Writes vectors/, index/, the indexes of the recipe's other retrievers, index.json, and lists/ (by
split, the mentions with their candidates) into the run folder. Several processes can share the
embedding; the vectors do not depend on their number. An interrupted run reuses its finished shards,
and another index is built without encoding again. Gold concepts not retrieved are never added.
"""

from umls_reranker.core.run_arguments import RunArguments
from umls_reranker.pipeline.recipe import parse_recipe
from umls_reranker.pipeline.stages import RunFolder, planned_stages, should_run
from umls_reranker.retrieval.arguments import IndexArguments


def main() -> None:
    recipe = parse_recipe(__doc__, (RunArguments, IndexArguments))
    run = RunFolder(recipe.run.run_dir)
    stages = planned_stages(recipe, run.path, command="build_index").values()
    due = [stage for stage in stages if should_run(stage, recipe.run)]
    if due or not (recipe.run.dry_run or (run.path / "index.json").is_file()):
        from umls_reranker.pipeline.indexes import make_indexes

        make_indexes(recipe, run, due)
