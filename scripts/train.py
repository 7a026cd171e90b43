#!/usr/bin/env python
"""Fine-tune the cross-encoder on mined pairs; an interrupted run resumes from its last checkpoint.

    umls-reranker train quickstart
    accelerate launch --config_file accelerate_configs/multi_gpu_bf16.yaml -m umls_reranker train RECIPE

Writes checkpoints/ into the run folder, with checkpoint-best in it. From the first step on, the curves of all its
trainings are in tensorboard/, a folder for each: tensorboard --logdir RUN/tensorboard
"""

import os
from dataclasses import replace
from datetime import timedelta

from umls_reranker.models.arguments import ModelArguments, RunArguments
from umls_reranker.pipeline.command import run_script
from umls_reranker.pipeline.recipe import parse_recipe
from umls_reranker.pipeline.stages import RunFolder, make_stage, should_run


def main() -> None:
    recipe = parse_recipe(__doc__, (RunArguments, ModelArguments), trains=True)
    run = RunFolder(recipe.run.run_dir)
    stage = make_stage("checkpoints", recipe, run)
    if recipe.run.dry_run and (recipe.run.overwrite or not stage.is_done()):
        from umls_reranker.core.devices import sharing_processes
        from umls_reranker.training.fine_tune import training_arguments

        sharing_processes(recipe.run.device)
        training_arguments(recipe.run, recipe.training, stage.folder)
    if should_run(stage, recipe.run):
        train(recipe, run, stage)


def train(recipe, run, stage) -> None:
    from umls_reranker.core.arrays import open_arrow
    from umls_reranker.core.devices import sharing_processes
    from umls_reranker.lists.labels import read_run_lists
    from umls_reranker.models.pairs import PairTemplate
    from umls_reranker.training.dev_metrics import dev_rows
    from umls_reranker.training.fine_tune import fine_tune
    from umls_reranker.training.training_arguments import RerankerTrainingArguments
    from umls_reranker.vocab.concepts import ConceptTable

    patience = timedelta(seconds=recipe.training.get("ddp_timeout", 1800))
    state = sharing_processes(recipe.run.device, patience)
    concepts, template = ConceptTable.load(run.path / "concepts"), PairTemplate.from_recipe(recipe.model)
    limits = recipe.training.get("max_dev_pairs", RerankerTrainingArguments.max_dev_pairs), recipe.run.seed
    dev = dev_rows(read_run_lists(run.path, "dev", concepts), template, *limits)
    rows = open_arrow(run.path / "pairs" / "train.arrow")
    model = recipe.model
    if model.start_from_encoder:
        model = replace(model, model=str(run.path / "encoder"), model_revision=None)
    # Not in the folder of the stage, which is hidden until its end.
    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(run.path / "tensorboard" / stage.key[:12]))
    # One process owns the run folder; the others only read it once it is ready.
    main = state.is_main_process
    with run.locked(owner=main), stage.writing(recipe.run.overwrite, owner=main) as (folder, summary):
        state.wait_for_everyone()
        summary |= fine_tune(recipe.run, model, recipe.training, rows, dev, folder)
        state.wait_for_everyone()
    if main:
        dev = "  ".join(f"{name} {value:.4f}" for name, value in summary["dev"].items())
        print(f"best checkpoint: step {summary['best_step']} of {summary['steps']}; dev pairs: {dev}")


if __name__ == "__main__":
    run_script(main)
