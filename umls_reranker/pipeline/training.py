"""The stages that train: the bi-encoder, the pairs of the cross-encoder, and the cross-encoder."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..core.arrow_files import open_arrow
from ..core.devices import sharing_processes
from ..core.errors import UserError
from ..core.files import require_new
from ..core.hashes import fingerprint_path
from ..core.json_files import write_json
from ..core.stage import Stage
from ..lists.read import read_rows
from ..models.cross_encoder import PairScorer
from ..models.pair_template import TEMPLATE_FILE, PairTemplate
from ..retrieval.mining import PairMiner
from ..serving.model_source import ModelSource
from ..training.encoder_training import train_encoder
from ..training.pair_dataset import values_of_pairs
from ..training.rows import dev_rows, training_rows
from ..training.trainer import fine_tune, training_arguments
from ..training.training_arguments import RerankerTrainingArguments
from ..vocab.concept_table import ConceptTable
from ..vocab.rrf import RelationTable
from .command import would_make
from .recipe import Recipe, typed_training
from .recipe_keys import pick
from .run_folder import RunFolder


def make_encoder(recipe: Recipe, run: RunFolder, stage: Stage) -> None:
    """Fine-tune the bi-encoder; all processes of a launch take part."""
    mentions = run.splits("mentions")["train"]
    concepts = ConceptTable.load(run.path / "concepts")
    sections = recipe.run, recipe.encoder, recipe.index
    state = sharing_processes(recipe.run.device)
    owner = state.is_main_process
    with owned(run, stage, recipe.run.overwrite, owner) as (folder, summary):
        state.wait_for_everyone()
        summary |= train_encoder(*sections, mentions, concepts, folder)
        state.wait_for_everyone()
    if owner:
        print(f"encoder trained on {summary['queries']:,} queries in {summary['steps']:,} steps")


@contextmanager
def owned(
    run: RunFolder, stage: Stage, overwrite: bool, owner: bool
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """`Stage.writing_together` under the lock of the run.

    One process owns the run folder and locks it; the others only read it once it is ready.
    """
    with run.locked(owner=owner), stage.writing_together(overwrite, is_owner=owner) as written:
        yield written


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
    from .preflight import model_config

    sharing_processes(recipe.run.device)
    model_config("model", *recipe.base, {"max_length": recipe.model.max_length})
    training_arguments(recipe.run, typed_training(recipe.training), folder)


def make_checkpoints(recipe: Recipe, run: RunFolder, stage: Stage) -> None:
    """Fine-tune the cross-encoder on mined pairs; all processes of a launch take part."""
    training = typed_training(recipe.training)
    most = training.get("max_dev_pairs", RerankerTrainingArguments.max_dev_pairs)
    dev = dev_rows(run.lists("dev"), PairTemplate.from_recipe(recipe.model), most, recipe.run.seed)
    rows = open_arrow(run.path / "pairs" / "train.arrow")
    base = recipe.base
    if recipe.starts_from_trained_encoder:
        base = (str(run.path / "encoder"), None)
    train(with_base(recipe, *base), run, stage, rows, dev)


def with_base(recipe: Recipe, model: str, revision: str | None) -> Recipe:
    """The recipe, with a model that the cross-encoder starts from, by folder or Hub id."""
    return replace(recipe, model=replace(recipe.model, model=model, model_revision=revision))


def train_on_lists(recipe: Recipe, files: Sequence[str], output: Path) -> None:
    """Fine-tune a cross-encoder on user-provided lists; all processes of a launch take part.

    Args:
        recipe: the settings; those of mining give the negatives and the weights.
        files: the lists to train on, and those to compare checkpoints on.
        output: folder to write, which `umls-reranker calibrate` takes as its model.

    Raises:
        UserError: the output exists, a row is invalid, or no list contains its gold concept.
    """
    require_new(output, makes_folders=True)
    if recipe.starts_from_trained_encoder:
        raise UserError(
            "model: the encoder is fine-tuned by a run, and lists have none; add --model NAME"
        )
    recipe = with_base(recipe, *recipe.base)
    rows = rows_of_file(Path(files[0]), recipe)
    dev = rows_of_file(Path(files[1]), recipe)
    run = RunFolder(output.with_name(f".{output.name}.training"))
    hashes = {name: fingerprint_path(Path(name)) for name in files}
    stage = Stage(run.path / "checkpoints", recipe.to_dict(), hashes, resumes=True)
    if recipe.run.dry_run:
        check_training(recipe, output)
        would_make("train", output)
        return
    if train(recipe, run, stage, rows, dev):
        best = stage.folder / "checkpoint-best"
        write_json(best / TEMPLATE_FILE, asdict(PairTemplate.from_recipe(recipe.model)))
        os.replace(best, output)
        shutil.rmtree(run.path)
        print(
            f"{output}: next, umls-reranker calibrate {output} --lists OTHER_LISTS --output MODEL"
        )


def rows_of_file(path: Path, recipe: Recipe) -> pa.Table:
    """The training rows of a file of lists; UserError: an invalid row, or no gold in any list."""
    template = PairTemplate.from_recipe(recipe.model)
    names = ("nearest_negatives", "positive_weight", "hard_negative_weight")
    options = pick(vars(recipe.mining), names)
    tables = [training_rows(rows, template, **options).data.table for rows in read_rows(path)]
    # Of some batches, no candidate may have a teacher's score.
    table = pa.concat_tables(tables, promote_options="default") if tables else None
    if table is None or not values_of_pairs(table, "labels").any():
        raise UserError(f"{path}: no list contains its gold concept; cui is that of a candidate")
    return table


def train(recipe: Recipe, run: RunFolder, stage: Stage, rows: pa.Table, dev: pa.Table) -> bool:
    """Train with all processes of a launch; return whether this one owns the run folder."""
    training = typed_training(recipe.training)
    state = sharing_processes(
        recipe.run.device, timedelta(seconds=training.get("ddp_timeout", 1800))
    )
    # Not in the folder of the stage, which is hidden until its end.
    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(run.path / "tensorboard" / stage.key[:12]))
    owner = state.is_main_process
    with owned(run, stage, recipe.run.overwrite, owner) as (folder, summary):
        state.wait_for_everyone()
        summary |= fine_tune(recipe.run, recipe.model, training, rows, dev, folder)
        state.wait_for_everyone()
    if owner:
        figures = "  ".join(f"{name} {value:.4f}" for name, value in summary["dev"].items())
        steps = f"step {summary['best_step']} of {summary['steps']}"
        print(f"best checkpoint: {steps}; dev pairs: {figures}")
    return owner
