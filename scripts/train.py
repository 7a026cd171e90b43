"""Fine-tune the cross-encoder on mined pairs, or on your own labelled lists.

    umls-reranker train quickstart
    accelerate launch --config_file multi_gpu_bf16.yaml -m umls_reranker train RECIPE
    umls-reranker train --lists TRAIN DEV --output FOLDER --model org/base-model --loss listwise

An interrupted training resumes from its last checkpoint. The first forms write checkpoints/ into
the run folder, with checkpoint-best in it. From the first step on, the curves of all its trainings
are in tensorboard/, a folder for each: tensorboard --logdir RUN/tensorboard

The last form needs no run, and a recipe (before --lists) only for its settings. TRAIN and DEV are
files of lists, in the format of umls-reranker calibrate --lists, of different documents. Negatives
are the top incorrect candidates of each list (nearest_negatives); the gold concept is never added.
umls-reranker calibrate FOLDER --lists OTHER_LISTS --output MODEL makes a reranker of the result.
The curves are in FOLDER/tensorboard.
"""

from dataclasses import dataclass
from pathlib import Path

from umls_reranker.core.errors import UserError
from umls_reranker.core.keys import recipe_key
from umls_reranker.pipeline.options import is_on_lists, parse_recipe
from umls_reranker.pipeline.run_folder import RunFolder, make_stage, should_run, tell_other_settings
from umls_reranker.pipeline.stages import stage_table


@dataclass
class ListTraining:
    """Training on your lists: options of the last form."""

    lists: list[str] = recipe_key([], "two files of lists: to train on, to compare checkpoints on")
    output: str | None = recipe_key(None, "folder to write; must not exist")


def main() -> None:
    on_lists = is_on_lists()
    recipe, files = parse_recipe(
        __doc__,
        ("run", "model", "mining", "training"),
        ListTraining,
        needs_recipe=not on_lists,
    )
    if on_lists:
        if len(files.lists) != 2 or not files.output:
            raise UserError("give --lists TRAIN DEV and --output FOLDER")
        from umls_reranker.pipeline.list_training import train_on_lists

        train_lists, dev_lists = files.lists
        return train_on_lists(recipe, train_lists, dev_lists, Path(files.output))
    run = RunFolder(recipe.run.run_dir)
    stage = make_stage("checkpoints", recipe, run)
    tell_other_settings(recipe, run, stage_table(recipe)["checkpoints"].needs)
    if recipe.run.dry_run and (recipe.run.overwrite or not stage.is_done()):
        from umls_reranker.pipeline.training import check_training

        check_training(recipe, stage.folder)
    if should_run(stage, recipe.run):
        from umls_reranker.pipeline.training import make_checkpoints

        make_checkpoints(recipe, run, stage)
