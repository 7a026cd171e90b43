"""Fine-tune the cross-encoder on mined pairs; an interrupted run resumes from its last checkpoint.

    umls-reranker train quickstart
    accelerate launch --config_file multi_gpu_bf16.yaml -m umls_reranker train RECIPE

Writes checkpoints/ into the run folder, with checkpoint-best in it. From the first step on, the
curves of all its trainings are in tensorboard/, a folder for each: tensorboard --logdir
RUN/tensorboard
"""

from umls_reranker.models.arguments import ModelArguments
from umls_reranker.pipeline.recipe import parse_recipe
from umls_reranker.pipeline.stages import RunFolder, make_stage, should_run
from umls_reranker.training.arguments import RunArguments


def main() -> None:
    recipe = parse_recipe(__doc__, (RunArguments, ModelArguments), trains=True)
    run = RunFolder(recipe.run.run_dir)
    stage = make_stage("checkpoints", recipe, run)
    if recipe.run.dry_run and (recipe.run.overwrite or not stage.is_done()):
        from umls_reranker.pipeline.training import check_training

        check_training(recipe, stage)
    if should_run(stage, recipe.run):
        from umls_reranker.pipeline.training import make_checkpoints

        make_checkpoints(recipe, run, stage)
