"""The stages that calibrate and evaluate a model, its checks, and the same on user-provided lists.

python -m umls_reranker.pipeline.model RECIPE [--KEY VALUE ...] calibrates, evaluates and validates
a run with one loaded model: the process in which `run` ends.
"""

import argparse
import shutil
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from ..calibration.arguments import CalibrationArguments
from ..calibration.calibrators import CALIBRATORS
from ..calibration.ledger import Ledger
from ..calibration.string_counts import StringCounts, counted_mentions
from ..core.errors import UserError, printable
from ..core.files import require_new, written
from ..core.json_files import read_json, write_json
from ..core.keys import NON_INFERIORITY_MARGIN
from ..core.locators import portable_locator
from ..core.stage import Stage, read_manifest
from ..evaluation.metrics import read_metrics
from ..evaluation.targets import (
    FAIL,
    check_targets,
    format_table,
    parse_targets,
    verdict_on_targets,
)
from ..hub.card import folder_card
from ..hub.file_names import CARD, EVALUATED, METRICS_FILE, REFERENCE
from ..hub.manifest import verify_files
from ..hub.model_folder import changing
from ..hub.new_model import Origin
from ..hub.versions import compare_versions
from ..linking.mentions import read_answers
from ..lists.answers import Answers
from ..lists.candidate_lists import AnnotatedLists
from ..lists.duplicates import with_joined_documents
from ..lists.labels import read_labelled_lists
from ..models.arguments import RUN_ENCODER
from ..models.cross_encoder import PairScorer
from ..models.pair_template import PairTemplate
from ..retrieval.deployment import IndexSettings
from ..serving.calibrate import (
    CalibrateOptions,
    calibrate_lists,
    calibration_summary,
    lists_of_look,
    note_look,
    save_calibrated,
    write_calibrated,
)
from ..serving.drift import Histogram, reference_content
from ..serving.evaluate import PAGE, evaluate_lists, evaluation_summary, save_report
from ..serving.list_description import describe_lists
from ..serving.look_plan import LookOptions
from ..serving.model_source import ModelSource
from ..serving.reranker import UMLSReranker
from ..serving.study_files import study_beside
from ..vocab.concept_table import ConceptTable
from .command import MISSED_TARGET, run_script, would_make
from .options import parse_recipe
from .recipe import Recipe
from .recipe_keys import keys_of, pick
from .run_folder import RunFolder, tell_other_settings

REPLAYED_MENTIONS = 200
REPLAYED_SINGLY = 20
# Batches differ in padding, so bfloat16 rounds differently.
LARGEST_GAP = 0.02


def checkpoint_of_run(recipe: Recipe, run: RunFolder) -> ModelSource:
    """The best checkpoint of a run, with the counts of its training mentions."""
    folder = run.path / "checkpoints" / "checkpoint-best"
    template = PairTemplate.from_recipe(recipe.model)
    base, revision = recipe.base
    commit = read_manifest(run.path / "checkpoints")["summary"].get("base_commit")
    model = recipe.model
    if model.model != RUN_ENCODER:
        model = replace(model, model_revision=commit or revision)
    report = read_json(run.path / "concepts" / "read_report.json")
    splits = run.splits("mentions")
    counts = StringCounts.fit(counted_mentions(splits["train"]))
    return ModelSource(
        folder=folder,
        cross_encoder=PairScorer.from_folder(
            folder, template, recipe.run.device, recipe.run.scoring_dtype
        ),
        origin=Origin(
            recipe=replace(recipe, model=model).to_yaml(),
            base_model=base,
            base_revision=commit or revision,
            dictionary=pick(report, ("concepts", "release", "vocabularies")),
        ),
        hierarchy=ConceptTable.load(run.path / "concepts").hierarchy,
        counts=counts.plus(StringCounts.fit(counted_mentions(splits["dev"]))),
    )


def calibrate_run(recipe: Recipe) -> None:
    """Calibrate the checkpoint of a run and write its model folder, if it is due."""
    run = RunFolder(recipe.run.run_dir)
    with run.due("model", recipe) as stage:
        if stage is None:
            return
        IndexSettings.load(run.path).verify(run.path)
        source = checkpoint_of_run(recipe, run)
        new = calibrate_lists(
            source,
            with_joined_documents(run.lists("calibration")),
            recipe.calibration,
            recipe.run.seed,
            each_row_is_a_document=True,
        )
        with stage.writing() as (folder, summary):
            write_calibrated(source, new, folder)
            summary |= new.fitted
        print(calibration_summary(new))


def calibrate_file(options: argparse.Namespace) -> None:
    """Calibrate on user-provided lists, by the options of `recipe.lists_parser`."""
    methods = ("auto", *(name for name, kind in CALIBRATORS.items() if kind.fits_lists))
    if options.calibrator not in methods:
        raise UserError(
            f"calibrator: {options.calibrator!r} is unknown; with lists choose from "
            f"{', '.join(methods)}"
        )
    require_new(options.output, makes_folders=True)
    source = ModelSource.load(
        options.model, options.revision, device=options.device, dtype=options.dtype
    )
    answers = Answers(read_answers(options.answers)) if options.answers else None
    for line in answers.agreement() if answers else ():
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
    study_path, written = study_beside([*options.answers, options.lists, options.add])
    further = CalibrateOptions(
        seed=options.seed,
        each_row_is_a_document=options.each_row_is_a_document,
        look=LookOptions(written, may_look=not options.no_look, is_new_study=options.new_study),
    )
    ledger = Ledger.of_user()
    fitted, plan = lists_of_look(source, lists, settings, further, ledger)
    # Before anything is scored, which may take long.
    print(plan.line)
    print(describe_lists(fitted, source.reads), flush=True)
    if options.dry_run:
        would_make("calibrate", options.output)
        return
    new = calibrate_lists(
        source,
        fitted,
        settings,
        options.seed,
        each_row_is_a_document=options.each_row_is_a_document,
        plan=plan,
    )
    save_calibrated(source, new, options.output)
    note_look(new, lists, ledger, study_path)
    print(f"{calibration_summary(new)}\nthe new model is in {options.output}")


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
    counted = [
        row[:2]
        # Those that the model counts.
        for split in ("train", "dev", "calibration")
        for row in counted_mentions(mentions[split])
    ]
    with stage.writing() as (folder, summary):
        metrics, outcomes = evaluate_lists(
            reranker, lists, "test", counted=counted, seed=recipe.run.seed
        )
        # They may be published with the model.
        outcomes = replace(outcomes, entity=np.full(len(outcomes), None))
        dev = read_manifest(run.path / "checkpoints")["summary"]["dev"]
        metrics["figures"] |= {name: {"value": dev[name]} for name in ("f1", "roc_auc")}
        save_report(
            metrics,
            outcomes,
            reranker,
            f"the model {recipe.run.run_name} on its test split",
            folder,
        )
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
    """Evaluate a model on user-provided lists, by the options of `recipe.lists_parser`."""
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
    with written(options.output) as partial:
        partial.mkdir()
        save_report(
            metrics,
            outcomes,
            reranker,
            f"{portable_locator(options.model)} on {options.lists.name}",
            partial,
        )
    print(
        f"{evaluation_summary(metrics)}\nreport written to {options.output}; open "
        f"{options.output / PAGE}"
    )


def validate(
    recipe: Recipe,
    against: str | None = None,
    *,
    margin: float = NON_INFERIORITY_MARGIN,
    reranker: UMLSReranker | None = None,
) -> bool:
    """Check the targets of the recipe and the model folder; print and write the results.

    Args:
        recipe: the recipe.
        against: a previous version to compare with, as for `compare_versions`; None: none.
        margin: as for `compare_versions`.
        reranker: the model of the run; None: it is loaded.

    Returns:
        Whether no check failed, and the model is not inferior to the previous version.
    """
    run = RunFolder(recipe.run.run_dir)
    report_key = run.key_of("report", "evaluate")
    tell_other_settings(recipe, run, ["report"])
    targets = parse_targets(recipe.evaluation.targets)
    # A new model has none until it is evaluated; until then the report is that of the previous one.
    verify_files(run.path / "model", [METRICS_FILE])
    checks = check_targets(targets, read_metrics(run.path / "report" / METRICS_FILE)["figures"])
    comparison = None
    if against:
        comparison = compare_versions(run.path / "report", against, margin)
    if recipe.run.dry_run:
        would_make("checklist", run.path / "checklist.json")
        return True
    with run.locked():
        if reranker is None:
            reranker = UMLSReranker.from_pretrained(run.path / "model", **recipe.run.scoring)
        checks = replay_checks(reranker, run.lists("test")) + checks
        write_json(
            run.path / "checklist.json",
            {
                "schema_version": 4,
                "report_key": report_key,
                "checks": checks,
                "against": against,
                "comparison": comparison and asdict(comparison),
            },
        )
    print(f"{format_table(checks)}\n\n{verdict_on_targets(checks)}")
    if comparison:
        print(f"\n{comparison.text(str(against))}")
    if any(check["result"] == FAIL for check in checks):
        return False
    return comparison is None or comparison.passes


def replay_checks(reranker: UMLSReranker, lists: AnnotatedLists) -> list[dict[str, Any]]:
    """Replay test mentions as a service does: one at a time, and in one batch.

    Every candidate is returned with a probability, in order, with the same score alone as in a
    batch.

    Args:
        reranker: loaded as by a user.
        lists: the lists of a split.

    Returns:
        the checks, as of `check_targets`.
    """
    lists = lists.take(np.arange(0, len(lists), max(1, len(lists) // REPLAYED_MENTIONS)))
    batch = reranker.decide(lists, "replaying test mentions")
    count = min(len(lists), REPLAYED_SINGLY)
    single = [reranker.decide(lists.take(np.array([row]))).probabilities for row in range(count)]
    gap = float(
        np.abs(np.concatenate(single) - batch.probabilities[: lists.offsets[count]]).max(
            initial=0.0
        )
    )
    ranked = batch.probabilities[batch.order]
    whole = np.array_equal(np.sort(batch.order), np.arange(len(lists.names)))
    in_range = ((ranked >= 0.0) & (ranked <= 1.0)).all()
    ordered = (np.diff(ranked) <= 0)[np.diff(lists.owner) == 0].all()
    figures = {
        "every_candidate_ranked_with_probability": {
            "value": float(whole and in_range and ordered),
            "n": len(lists),
            "population": "replayed mentions",
        },
        "largest_score_gap_single_vs_batch": {
            "value": gap,
            "n": count,
            "population": "replayed mentions",
        },
    }
    return check_targets(dict(zip(figures, (">= 1", f"<= {LARGEST_GAP}"), strict=True)), figures)


def main() -> int:
    """Calibrate, evaluate and validate the run of a recipe."""
    recipe = parse_recipe(__doc__ or "", ("run",))
    calibrate_run(recipe)
    return 0 if validate(recipe, reranker=evaluate_run(recipe)) else MISSED_TARGET


if __name__ == "__main__":
    run_script(main)
