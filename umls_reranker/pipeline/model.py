"""The stages that calibrate and evaluate a model, and the same on user-provided lists."""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace

import numpy as np

from ..calibration.arguments import CalibrationArguments
from ..calibration.calibrators import CALIBRATORS
from ..calibration.string_counts import StringCounts, counted_mentions
from ..core.errors import UserError
from ..core.files import portable_locator, read_json, require_writable, write_json, written
from ..hub.card import folder_card
from ..hub.model_folder import CARD, EVALUATED, REFERENCE, Origin, changing
from ..lists.labels import (
    have_own_documents,
    read_labelled_lists,
    with_joined_documents,
    with_parents,
)
from ..models.cross_encoder import PairScorer
from ..models.pairs import PairTemplate
from ..serving.list_description import describe_lists
from ..serving.model_source import ModelSource
from ..serving.on_lists import (
    NOTHING_CERTIFIED,
    PAGE,
    calibrate_lists,
    calibration_summary,
    evaluate_lists,
    evaluation_summary,
    save_calibrated,
    save_report,
    write_calibrated,
)
from ..serving.reranker import UMLSReranker
from ..serving.statistics import Histogram, reference_content
from ..vocab.concepts import ConceptTable
from .command import would_make
from .recipe import Recipe, keys_of, pick
from .sources import describe_dictionary
from .stages import RunFolder, Stage, read_manifest


def checkpoint_of_run(recipe: Recipe, run: RunFolder) -> ModelSource:
    """The best checkpoint of a run, with the counts of its training mentions."""
    folder = run.path / "checkpoints" / "checkpoint-best"
    template = PairTemplate.from_recipe(recipe.model)
    commit = read_manifest(run.path / "checkpoints")["summary"].get("base_commit")
    model = replace(recipe.model, model_revision=commit or recipe.model.model_revision)
    report = read_json(run.path / "concepts" / "read_report.json")
    origin = Origin(
        recipe=replace(recipe, model=model).to_yaml(),
        base_model=model.model,
        base_revision=model.model_revision,
        dictionary=describe_dictionary(report),
    )
    splits = run.splits("mentions")
    train_counts = StringCounts.from_split(splits["train"])
    return ModelSource(
        folder=folder,
        cross_encoder=PairScorer.from_folder(
            folder, template, recipe.run.device, recipe.run.scoring_dtype
        ),
        origin=origin,
        hierarchy=ConceptTable.load(run.path / "concepts").hierarchy,
        counts=train_counts.plus(StringCounts.from_split(splits["dev"])),
    )


def calibrate_run(recipe: Recipe, run: RunFolder) -> None:
    """Make the model folder of a run, if it is due."""
    with run.due("model", recipe) as stage:
        if stage is not None:
            make_model(recipe, run, stage)


def make_model(recipe: Recipe, run: RunFolder, stage: Stage) -> None:
    """Calibrate the run's checkpoint and write the model folder."""
    source = checkpoint_of_run(recipe, run)
    lists = with_joined_documents(run.lists("calibration"))
    # The cross-encoder was trained for this, so it stays.
    new = calibrate_lists(
        source,
        lists,
        recipe.calibration,
        recipe.run.seed,
        keep_cross_encoder=True,
        each_row_is_a_document=True,
    )
    with stage.writing() as (folder, summary):
        write_calibrated(source, new, folder)
        summary |= new.fitted
    print(calibration_summary(new))


def calibrate_on_lists(options: argparse.Namespace) -> None:
    """Calibrate on user-provided lists, by the options of `recipe.lists_parser`."""
    methods = ("auto", *(name for name, kind in CALIBRATORS.items() if kind.fits_lists))
    if options.calibrator not in methods:
        raise UserError(
            f"calibrator: {options.calibrator!r} is unknown; with lists choose from "
            f"{', '.join(methods)}"
        )
    if options.output.exists():
        raise UserError(f"{options.output} already exists; choose another folder for the new model")
    require_writable(options.output, makes_folders=True)
    loading = {"device": options.device, "dtype": options.dtype}
    source = ModelSource.load(options.model, options.revision, **loading)
    lists = read_labelled_lists(
        options.lists,
        source.hierarchy,
        options.dictionary,
        add=options.add,
        each_row_is_a_document=options.each_row_is_a_document,
    )
    # Before anything is scored, which may take long.
    print(describe_lists(lists, source.reads), flush=True)
    settings = CalibrationArguments(
        **pick(vars(options), keys_of(CalibrationArguments)), confidence=options.confidence
    )
    if options.dry_run:
        if options.each_row_is_a_document or not have_own_documents(lists):
            print(source.needed_documents(lists, settings))
        else:
            print(NOTHING_CERTIFIED)
        would_make("calibrate", options.output)
        return
    new = calibrate_lists(
        source,
        lists,
        settings,
        options.seed,
        keep_cross_encoder=options.keep_cross_encoder,
        each_row_is_a_document=options.each_row_is_a_document,
    )
    save_calibrated(source, new, options.output)
    print(f"{calibration_summary(new)}\nthe new model is in {options.output}")


def evaluate_run(recipe: Recipe, run: RunFolder) -> UMLSReranker | None:
    """Make the report of a run, if it is due, and complete its model folder.

    Returns:
        The model, if it was loaded.
    """
    reranker = None
    with run.due("report", recipe) as stage:
        if stage is not None:
            reranker = UMLSReranker.from_pretrained(run.path / "model", **recipe.run.scoring)
            make_report(recipe, run, stage, reranker)
        if not recipe.run.dry_run:
            complete_model_folder(recipe, run)
    return reranker


def make_report(recipe: Recipe, run: RunFolder, stage: Stage, reranker: UMLSReranker) -> None:
    """Evaluate the model on the test split and write the report."""
    mentions = run.splits("mentions")
    lists = with_parents(run.lists("test"), run.path / "concepts")
    # Those that the model counts.
    counted = ("train", "dev", "calibration")
    known = [row[:2] for split in counted for row in counted_mentions(mentions[split])]
    with stage.writing() as (folder, summary):
        metrics, outcomes = evaluate_lists(
            reranker, lists, "test", known=known, seed=recipe.run.seed
        )
        # They may be published with the model.
        outcomes = replace(outcomes, entity=np.full(len(outcomes), None))
        dev = read_manifest(run.path / "checkpoints")["summary"]["dev"]
        metrics["figures"] |= {name: {"value": dev[name]} for name in ("f1", "roc_auc")}
        save_report(metrics, outcomes, reranker, recipe.run.run_name, folder)
        histogram = Histogram.of_outcomes(outcomes)
        write_json(folder / REFERENCE, reference_content(metrics["figures"], histogram))
        summary |= {"acc@1": metrics["figures"]["acc@1"]["value"]}
    print(evaluation_summary(metrics))


def complete_model_folder(recipe: Recipe, run: RunFolder) -> None:
    """Write the new version of the model folder, with its card and the files of the evaluation."""
    model = run.path / "model"
    with changing(model) as new:
        for name in EVALUATED:
            shutil.copyfile(run.path / "report" / name, new / name)
        card = folder_card(model, recipe.publish.repo_id, recipe.publish.tag, evaluated=new).text()
        (new / CARD).write_text(card, encoding="utf-8")


def evaluate_on_lists(options: argparse.Namespace) -> None:
    """Evaluate a model on user-provided lists, by the options of `recipe.lists_parser`."""
    if options.output.exists():
        raise UserError(f"{options.output} already exists; choose another folder for the report")
    require_writable(options.output, makes_folders=True)
    reranker = UMLSReranker.from_pretrained(
        options.model, options.revision, options.device, options.dtype
    )
    lists = read_labelled_lists(
        options.lists,
        reranker.thresholds.hierarchy,
        options.dictionary,
        fitted_on=False,
        each_row_is_a_document=options.each_row_is_a_document,
    )
    # Before anything is scored, which may take long.
    print(describe_lists(lists, reranker.template.reads), flush=True)
    if options.dry_run:
        would_make("evaluate", options.output)
        return
    metrics, outcomes = evaluate_lists(reranker, lists, "labelled", seed=options.seed)
    title = f"{portable_locator(options.model)} on {options.lists.name}"
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with written(options.output) as partial:
        partial.mkdir()
        save_report(metrics, outcomes, reranker, title, partial)
    print(
        f"{evaluation_summary(metrics)}\nreport written to {options.output}; open "
        f"{options.output / PAGE}"
    )
