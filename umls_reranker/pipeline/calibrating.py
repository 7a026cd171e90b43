"""Calibration of a run's checkpoint, or of a model on user-provided lists."""

import argparse
from dataclasses import replace

from ..calibration.arguments import CalibrationArguments
from ..calibration.calibrated_documents import CalibratedDocuments, document_hashes
from ..calibration.calibrators import require_fits_lists
from ..calibration.string_counts import StringCounts, counted_mentions
from ..core.errors import printable
from ..core.files import require_new
from ..core.json_files import read_json
from ..core.stage import read_manifest
from ..hub.new_model import Origin
from ..linking.mentions import read_answers
from ..lists.answers import Answers
from ..lists.duplicates import with_joined_documents
from ..lists.labels import read_labelled_lists
from ..models.arguments import RUN_ENCODER
from ..models.cross_encoder import PairScorer
from ..models.pair_template import PairTemplate
from ..retrieval.index_settings import IndexSettings
from ..serving.calibrate_lists import about_certificate, calibrate_lists
from ..serving.calibrated import save_calibrated, write_calibrated
from ..serving.calibration_summary import calibration_summary
from ..serving.list_description import describe_lists
from ..serving.model_source import ModelSource
from ..vocab.concept_table import ConceptTable
from .command import would_make
from .recipe import Recipe
from .recipe_keys import keys_of, pick
from .run_folder import RunFolder


def checkpoint_of_run(recipe: Recipe, run: RunFolder) -> ModelSource:
    """The best checkpoint of a run, with the counts of its training mentions."""
    folder = run.path / "checkpoints" / "checkpoint-best"
    template = PairTemplate.from_recipe(recipe.model)
    cross_encoder = PairScorer.from_folder(
        folder, template, recipe.run.device, recipe.run.scoring_dtype
    )
    splits = run.splits("mentions")
    trained_on = [*splits["train"]["doc_id"][:], *splits["dev"]["doc_id"][:]]
    train_counts = StringCounts.fit(counted_mentions(splits["train"]))
    dev_counts = StringCounts.fit(counted_mentions(splits["dev"]))
    return ModelSource(
        folder=folder,
        cross_encoder=cross_encoder,
        origin=origin_of_run(recipe, run),
        hierarchy=ConceptTable.load(run.path / "concepts").hierarchy,
        counts=train_counts.plus(dev_counts),
        trained_on=CalibratedDocuments(earlier=document_hashes(trained_on)),
    )


def origin_of_run(recipe: Recipe, run: RunFolder) -> Origin:
    """What the checkpoint of a run was made of; the base model by its commit, if it has one."""
    base = recipe.base
    commit = read_manifest(run.path / "checkpoints")["summary"].get("base_commit")
    base_revision = commit or base.revision
    model = recipe.model
    if model.model != RUN_ENCODER:
        model = replace(model, model_revision=base_revision)
    report = read_json(run.path / "concepts" / "read_report.json")
    return Origin(
        recipe=replace(recipe, model=model).to_yaml(),
        base_model=base.name,
        base_revision=base_revision,
        dictionary=pick(report, ("concepts", "release", "vocabularies")),
    )


def calibrate_run(recipe: Recipe) -> None:
    """Calibrate the checkpoint of a run and write its model folder, if it is due."""
    run = RunFolder(recipe.run.run_dir)
    with run.due("model", recipe) as stage:
        if stage is None:
            return
        IndexSettings.load(run.path).verify(run.path)
        source = checkpoint_of_run(recipe, run)
        lists = with_joined_documents(run.lists("calibration"))
        new = calibrate_lists(
            source,
            lists,
            recipe.calibration,
            recipe.run.seed,
            each_row_is_a_document=True,
            # Its documents are split by a seed, before any label is read.
            one_look=True,
        )
        with stage.writing() as (folder, summary):
            write_calibrated(source, new, folder)
            summary |= new.fitted
        print(calibration_summary(new))


def calibrate_file(options: argparse.Namespace) -> None:
    """Calibrate on user-provided lists, by the options of `options.lists_parser`."""
    require_fits_lists(options.calibrator)
    require_new(options.output, makes_folders=True)
    source = ModelSource.load(
        options.model, options.revision, device=options.device, dtype=options.dtype
    )
    answers = None
    if options.answers:
        answers = Answers(read_answers(options.answers))
        for line in answers.agreement():
            print(printable(line))
    lists = read_labelled_lists(
        options.lists,
        source.hierarchy,
        options.dictionary,
        add=options.add,
        answers=answers,
        each_row_is_a_document=options.each_row_is_a_document,
    )
    settings = CalibrationArguments(
        **pick(vars(options), keys_of(CalibrationArguments)), confidence=options.confidence
    )
    # Before anything is scored, which may take long.
    look = {
        "each_row_is_a_document": options.each_row_is_a_document,
        "one_look": options.one_look,
    }
    print(about_certificate(source, lists, settings, **look))
    print(describe_lists(lists, source.reads), flush=True)
    if options.dry_run:
        would_make("calibrate", options.output)
        return
    new = calibrate_lists(source, lists, settings, options.seed, **look)
    save_calibrated(source, new, options.output)
    print(f"{calibration_summary(new)}\nthe new model is in {options.output}")
