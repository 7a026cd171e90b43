"""The stages that train: the bi-encoder, the pairs of the cross-encoder, and the cross-encoder."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta

from ..core.arrays import open_arrow
from ..core.devices import sharing_processes
from ..core.errors import UserError
from ..core.files import write_json
from ..models.cross_encoder import PairScorer
from ..models.pairs import PairTemplate
from ..retrieval.mining import PairMiner
from ..serving.model_source import ModelSource
from ..training.encoder_training import train_encoder
from ..training.fine_tune import fine_tune, training_arguments
from ..training.rows import dev_rows
from ..training.training_arguments import RerankerTrainingArguments
from ..vocab.concepts import ConceptTable
from ..vocab.rrf import RelationTable
from .recipe import Recipe
from .stages import RunFolder, Stage


def make_encoder(recipe: Recipe, run: RunFolder, stage: Stage) -> None:
    """Fine-tune the bi-encoder."""
    mentions = run.splits("mentions")["train"]
    concepts = ConceptTable.load(run.path / "concepts")
    with stage.writing(recipe.run.overwrite) as (folder, summary):
        summary |= train_encoder(
            recipe.run, recipe.encoder, recipe.index, mentions, concepts, folder
        )
    print(f"encoder trained on {summary['queries']:,} queries in {summary['steps']:,} steps")


def make_pairs(recipe: Recipe, run: RunFolder, stage: Stage) -> None:
    """Mine the pairs of the cross-encoder from the train lists."""
    concepts = ConceptTable.load(run.path / "concepts")
    template = PairTemplate.from_recipe(recipe.model)
    teachers = load_teachers(recipe, template)
    lists = run.lists("train")
    with stage.writing(recipe.run.overwrite) as (folder, summary):
        miner = PairMiner(
            concepts,
            recipe.mining,
            recipe.run.seed,
            relations=RelationTable.load(run.path / "concepts"),
            template=template,
            teachers=teachers,
        )
        summary |= miner.mine(lists, folder / "train.arrow")
        write_json(folder / "mining_report.json", summary)
    for name, count in summary.items():
        print(f"{name.replace('_', ' ')}: {count:,}")


def load_teachers(recipe: Recipe, template: PairTemplate) -> list[PairScorer]:
    """The recipe's teachers; a model that is no reranker reads pairs as the new model will.

    Raises:
        UserError: one has no cross-encoder; names it.
    """
    teachers = []
    for name in recipe.mining.teacher:
        teacher = ModelSource.load(name, **recipe.run.scoring, template=template).cross_encoder
        if teacher is None:
            raise UserError(f"teacher: {name} has no cross-encoder; name a model that has one")
        teachers.append(teacher)
    return teachers


def check_training(recipe: Recipe, stage: Stage) -> None:
    """Refuse devices and training arguments that `make_checkpoints` would refuse."""
    sharing_processes(recipe.run.device)
    training_arguments(recipe.run, recipe.training, stage.folder)


def make_checkpoints(recipe: Recipe, run: RunFolder, stage: Stage) -> None:
    """Fine-tune the cross-encoder; all processes of a launch take part."""
    patience = timedelta(seconds=recipe.training.get("ddp_timeout", 1800))
    state = sharing_processes(recipe.run.device, patience)
    most = recipe.training.get("max_dev_pairs", RerankerTrainingArguments.max_dev_pairs)
    lists = run.lists("dev")
    dev = dev_rows(lists, PairTemplate.from_recipe(recipe.model), most, recipe.run.seed)
    rows = open_arrow(run.path / "pairs" / "train.arrow")
    model = recipe.model
    if model.start_from_encoder:
        model = replace(model, model=str(run.path / "encoder"), model_revision=None)
    # Not in the folder of the stage, which is hidden until its end.
    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(run.path / "tensorboard" / stage.key[:12]))
    # One process owns the run folder; the others only read it once it is ready.
    owner = state.is_main_process
    with (
        run.locked(owner=owner),
        stage.writing(recipe.run.overwrite, owner=owner) as (folder, summary),
    ):
        state.wait_for_everyone()
        summary |= fine_tune(recipe.run, model, recipe.training, rows, dev, folder)
        state.wait_for_everyone()
    if owner:
        figures = "  ".join(f"{name} {value:.4f}" for name, value in summary["dev"].items())
        steps = f"step {summary['best_step']} of {summary['steps']}"
        print(f"best checkpoint: {steps}; dev pairs: {figures}")
