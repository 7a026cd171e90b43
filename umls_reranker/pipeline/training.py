"""The stages that train: the bi-encoder, the pairs of the cross-encoder, and the cross-encoder."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..core.arrow_files import open_arrow
from ..core.devices import hardware_name, resolve_device, sharing_processes
from ..core.errors import UserError
from ..core.json_files import write_json
from ..core.stage import Stage
from ..models.cross_encoder import PairScorer
from ..models.pair_template import PairTemplate
from ..retrieval.mining import PairMiner
from ..serving.model_source import ModelSource
from ..training.dev_sample import dev_rows
from ..training.encoder_training import train_encoder
from ..training.fine_tuning import fine_tune
from ..training.recipe_arguments import training_arguments
from ..training.training_arguments import RerankerTrainingArguments
from ..vocab.concept_table import ConceptTable
from ..vocab.relations import RelationTable
from .model_configs import model_config, network
from .recipe import BaseModel, Recipe, typed_training
from .run_folder import RunFolder

# How long processes wait for each other if the recipe does not say, as in transformers.
DDP_TIMEOUT_SECONDS = 1800
# The folder of the learning curves of a run, or of a training on lists.
CURVES = "tensorboard"
# Digits of a stage's key that tell the curves of its trainings apart.
KEY_DIGITS = 12


def make_encoder(recipe: Recipe, run: RunFolder, stage: Stage) -> None:
    """Fine-tune the bi-encoder; all processes of a launch take part."""
    mentions = run.splits("mentions")["train"]
    concepts = ConceptTable.load(run.path / "concepts")
    processes = sharing_processes(recipe.run.device)
    is_owner = processes.is_main_process
    with owned(run, stage, recipe.run.overwrite, is_owner=is_owner) as (folder, summary):
        processes.wait_for_everyone()
        summary |= train_encoder(
            recipe.run, recipe.encoder, recipe.index, mentions, concepts, folder
        )
        processes.wait_for_everyone()
    if is_owner:
        print(f"encoder trained on {summary['queries']:,} queries in {summary['steps']:,} steps")


@contextmanager
def owned(
    run: RunFolder, stage: Stage, overwrite: bool, *, is_owner: bool
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Folder and summary of a stage that all processes of a launch write together.

    One process owns the run folder and locks it; the others only read it once it is ready.

    Args:
        run: the run folder.
        stage: the stage, as for `Stage.writing_together`.
        overwrite: whether what a stopped process left is not used.
        is_owner: whether this process owns the run folder.
    """
    with (
        run.locked(owner=is_owner),
        stage.writing_together(overwrite, is_owner=is_owner) as folder_and_summary,
    ):
        yield folder_and_summary


def make_pairs(recipe: Recipe, run: RunFolder, stage: Stage) -> None:
    """Mine the pairs of the cross-encoder from the train lists."""
    concepts = ConceptTable.load(run.path / "concepts")
    template = PairTemplate.from_recipe(recipe.model)
    teachers = load_teachers(recipe, template)
    with stage.writing(recipe.run.overwrite) as (folder, summary):
        miner = PairMiner(
            concepts,
            recipe.mining,
            recipe.run.seed,
            relations=RelationTable.load(run.path / "concepts"),
            template=template,
            teachers=teachers,
        )
        summary |= miner.mine(run.lists("train"), folder / "train.arrow")
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


def check_training(recipe: Recipe, folder: Path) -> None:
    """Refuse models, devices and arguments that training into the folder would refuse."""
    sharing_processes(recipe.run.device)
    base = recipe.base
    lengths = {"max_length": recipe.model.max_length}
    network(recipe, model_config("model", base.name, base.revision, lengths))
    training_arguments(recipe.run, typed_training(recipe.training), folder)


def make_checkpoints(recipe: Recipe, run: RunFolder, stage: Stage) -> None:
    """Fine-tune the cross-encoder on mined pairs; all processes of a launch take part."""
    max_dev_pairs = typed_training(recipe.training).get(
        "max_dev_pairs", RerankerTrainingArguments.max_dev_pairs
    )
    template = PairTemplate.from_recipe(recipe.model)
    dev = dev_rows(run.lists("dev"), template, max_dev_pairs, recipe.run.seed)
    train = open_arrow(run.path / "pairs" / "train.arrow")
    base = recipe.base
    if recipe.starts_from_trained_encoder:
        base = BaseModel(str(run.path / "encoder"), None)
    train_cross_encoder(recipe.starting_from(base), run, stage, train, dev)


def train_cross_encoder(
    recipe: Recipe, run: RunFolder, stage: Stage, train: pa.Table, dev: pa.Table
) -> bool:
    """Train with all processes of a launch, and print how good the best checkpoint is.

    Args:
        recipe: the recipe, whose `base` the cross-encoder starts from.
        run: the run folder.
        stage: the stage of the checkpoints.
        train: the training rows.
        dev: training rows of the lists that checkpoints are compared on.

    Returns:
        Whether this process owns the run folder.
    """
    training = typed_training(recipe.training)
    timeout = timedelta(seconds=training.get("ddp_timeout", DDP_TIMEOUT_SECONDS))
    processes = sharing_processes(recipe.run.device, timeout)
    is_owner = processes.is_main_process
    # Not in the folder of the stage, which is hidden until its end.
    curves = run.path / CURVES / stage.key[:KEY_DIGITS]
    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(curves))
    with owned(run, stage, recipe.run.overwrite, is_owner=is_owner) as (folder, summary):
        processes.wait_for_everyone()
        started = time.monotonic()
        summary |= fine_tune(recipe.run, recipe.model, training, train, dev, folder)
        summary |= {
            "seconds": round(time.monotonic() - started),
            "hardware": hardware_name(resolve_device(recipe.run.device)),
        }
        processes.wait_for_everyone()
    if is_owner:
        figures = "  ".join(f"{name} {value:.4f}" for name, value in summary["dev"].items())
        steps = f"step {summary['best_step']} of {summary['steps']}"
        print(f"best checkpoint: {steps}; dev: {figures}")
    return is_owner
