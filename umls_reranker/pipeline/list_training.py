"""Training on user-provided lists, without a run: two files become a fine-tuned cross-encoder."""

import os
import shutil
import warnings
from pathlib import Path

import pyarrow as pa

from ..core.errors import UserError
from ..core.files import require_new
from ..core.hashes import fingerprint_path
from ..core.stage import Stage
from ..lists.gold import id_text
from ..lists.read import read_rows
from ..lists.table import first_values
from ..models.pair_template import PairTemplate
from ..training.losses import LOSSES
from ..training.pair_dataset import teacher_of_pairs, values_of_pairs
from ..training.recipe_arguments import loss_name
from ..training.rows import training_rows
from ..training.trainer_inputs import require_teacher_scores
from .command import would_make
from .recipe import Recipe, typed_training
from .run_folder import RunFolder
from .training import CURVES, check_training, train_cross_encoder


def train_on_lists(recipe: Recipe, train_lists: str, dev_lists: str, output: Path) -> None:
    """Fine-tune a cross-encoder on user-provided lists; all processes of a launch take part.

    Args:
        recipe: the settings; those of mining give the negatives and the weights.
        train_lists: path of the lists to train on.
        dev_lists: path of the lists to compare checkpoints on.
        output: folder to write, which `umls-reranker calibrate` takes as its model.

    Raises:
        UserError: the output exists, both files are the same, a row is invalid, no list contains
            its gold concept, or none of the candidates has the scores that the loss reads.

    Warns:
        UserWarning: some documents have lists in both files.
    """
    require_new(output, makes_folders=True)
    if recipe.starts_from_trained_encoder:
        raise UserError(
            "model: the encoder is fine-tuned by a run, and lists have none; add --model NAME"
        )
    recipe = recipe.starting_from(recipe.base)
    train, train_documents = rows_of_file(Path(train_lists), recipe)
    dev, dev_documents = rows_of_file(Path(dev_lists), recipe)
    hashes = {name: fingerprint_path(Path(name)) for name in (train_lists, dev_lists)}
    if hashes[train_lists] == hashes[dev_lists]:
        raise UserError(
            f"{dev_lists}: it has the lists of TRAIN, on which every checkpoint looks good; give "
            "DEV lists of other documents"
        )
    shared = len(train_documents & dev_documents)
    if shared and os.environ.get("RANK", "0") == "0":
        warnings.warn(
            f"{shared:,} of the {len(dev_documents):,} documents of DEV are in TRAIN, too, so its "
            "figures are too good; split by document",
            stacklevel=2,
        )
    if LOSSES[loss_name(typed_training(recipe.training))].reads_teacher:
        require_teacher_scores(teacher_of_pairs(train))
    run = RunFolder(output.with_name(f".{output.name}.training"))
    stage = Stage(run.path / "checkpoints", recipe.to_dict(), hashes, resumes=True)
    if recipe.run.dry_run:
        check_training(recipe, output)
        would_make("train", output)
        return
    is_owner = train_cross_encoder(recipe, run, stage, train, dev)
    if is_owner:
        best = stage.folder / "checkpoint-best"
        curves = run.path / CURVES
        if curves.exists():
            os.replace(curves, best / CURVES)
        os.replace(best, output)
        shutil.rmtree(run.path)
        print(
            f"{output}: next, umls-reranker calibrate {output} --lists OTHER_LISTS --output MODEL"
        )


def rows_of_file(path: Path, recipe: Recipe) -> tuple[pa.Table, set[str]]:
    """The training rows of a file of lists, and its documents, as far as the rows say them.

    Raises:
        UserError: a row is invalid, or no list contains its gold concept.
    """
    template = PairTemplate.from_recipe(recipe.model)
    mining = recipe.mining
    tables = []
    documents = set()
    for rows in read_rows(path):
        documents |= {*map(id_text, first_values(rows.content, "doc_id"))}
        dataset = training_rows(
            rows,
            template,
            nearest_negatives=mining.nearest_negatives,
            positive_weight=mining.positive_weight,
            hard_negative_weight=mining.hard_negative_weight,
        )
        tables.append(dataset.data.table)
    no_gold = UserError(f"{path}: no list contains its gold concept; cui is that of a candidate")
    if not tables:
        raise no_gold
    # Of some batches, no candidate may have a teacher's score.
    table = pa.concat_tables(tables, promote_options="default")
    if not values_of_pairs(table, "labels").any():
        raise no_gold
    return table, {document for document in documents if document is not None}
