"""Evaluation of a run's model on its test split, or of a model on user-provided lists."""

import argparse
import shutil
from dataclasses import replace

import numpy as np

from ..calibration.string_counts import counted_mentions
from ..core.files import require_new, written
from ..core.json_files import write_json
from ..core.locators import portable_locator
from ..core.stage import Stage, read_manifest
from ..hub.card import folder_card
from ..hub.file_names import CARD, EVALUATED, REFERENCE
from ..hub.model_folder import changing
from ..lists.labels import read_labelled_lists
from ..serving.drift import Histogram, reference_content
from ..serving.evaluate import REPORT_PAGE, evaluate_lists, evaluation_summary, save_report
from ..serving.list_description import describe_lists
from ..serving.reranker import UMLSReranker
from ..training.training_log import REPORTED_OF_PAIRS
from .command import would_make
from .recipe import Recipe
from .recipe_keys import pick
from .run_folder import RunFolder


def evaluate_run(recipe: Recipe) -> UMLSReranker | None:
    """Make the report of a run, if it is due, and complete its model folder.

    Returns:
        The model, if it was loaded.
    """
    run = RunFolder(recipe.run.run_dir)
    reranker = None
    with run.due("report", recipe) as stage:
        if stage is not None:
            reranker = UMLSReranker.from_pretrained(run.path / "model", **recipe.run.scoring)
            make_report(recipe, run, stage, reranker)
        if not recipe.run.dry_run:
            complete_model_folder(run)
    return reranker


def make_report(recipe: Recipe, run: RunFolder, stage: Stage, reranker: UMLSReranker) -> None:
    """Evaluate the model on the test split and write the report."""
    mentions = run.splits("mentions")
    lists = run.lists("test")
    # Those that the model counts.
    counted = []
    for split in ("train", "dev", "calibration"):
        for text, cui, _types in counted_mentions(mentions[split]):
            counted.append((text, cui))
    with stage.writing() as (folder, summary):
        metrics, outcomes = evaluate_lists(
            reranker, lists, "test", counted=counted, seed=recipe.run.seed
        )
        # Without the texts of mentions, because outcomes may be published with the model.
        outcomes = replace(outcomes, entity=np.full(len(outcomes), None))
        training = read_manifest(run.path / "checkpoints")
        dev = training["summary"]["dev"]
        metrics["training"] = {
            **pick(training["summary"], ("seconds", "hardware", "processes", "dtype")),
            "versions": training["versions"],
        }
        metrics["figures"] |= {
            name: {"value": dev[name]} for name in REPORTED_OF_PAIRS if name in dev
        }
        title = f"the model {recipe.run.run_name} on its test split"
        save_report(metrics, outcomes, reranker, title, folder)
        histogram = Histogram.of_outcomes(outcomes)
        write_json(folder / REFERENCE, reference_content(metrics["figures"], histogram))
        summary |= {"acc@1": metrics["figures"]["acc@1"]["value"]}
    print(evaluation_summary(metrics))


def complete_model_folder(run: RunFolder) -> None:
    """Write the new version of the model folder, with its card and the files of the evaluation."""
    model = run.path / "model"
    with changing(model) as new:
        for name in EVALUATED:
            shutil.copyfile(run.path / "report" / name, new / name)
        card = folder_card(model, evaluated=new).text()
        (new / CARD).write_text(card, encoding="utf-8")


def evaluate_file(options: argparse.Namespace) -> None:
    """Evaluate a model on user-provided lists, by the options of `options.lists_parser`."""
    require_new(options.output, makes_folders=True)
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
    options.output.parent.mkdir(parents=True, exist_ok=True)
    title = f"{portable_locator(options.model)} on {options.lists.name}"
    with written(options.output) as partial:
        partial.mkdir()
        save_report(metrics, outcomes, reranker, title, partial)
    print(
        f"{evaluation_summary(metrics)}\nreport written to {options.output}; open "
        f"{options.output / REPORT_PAGE}"
    )
