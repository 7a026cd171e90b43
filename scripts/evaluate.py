#!/usr/bin/env python
"""Evaluate the model and baselines on the candidate lists of the test split, or on your own labelled lists.

    umls-reranker evaluate quickstart
    umls-reranker evaluate MODEL --lists test.jsonl --output REPORT

The first form writes report/ into the run folder: metrics.json, report.html, plots, outcomes.parquet (the answer for
each mention) and reference.json (the reference for monitoring). The files that belong to the model, and its card, are
copied to model/.

The second form needs no run. MODEL is a reranker, a folder or a Hub id. The lists are labelled mentions from your own
pipeline, in the format of umls-reranker calibrate MODEL --lists, from documents that the model was not calibrated on.
Only a calibration of their scores is fitted to them, for comparison. The command compares the model with the original
order of your lists, with intervals, and writes the same report to a new folder.
"""

import shutil
from dataclasses import replace

from umls_reranker.core.errors import UserError
from umls_reranker.core.files import portable_locator, write_json
from umls_reranker.evaluation.arguments import EvaluationArguments
from umls_reranker.models.arguments import RunArguments
from umls_reranker.pipeline.command import run_script, would_make
from umls_reranker.pipeline.recipe import is_on_lists, lists_parser, parse_recipe
from umls_reranker.pipeline.stages import RunFolder, make_stage, read_manifest, should_run


def main() -> None:
    parser = lists_parser(__doc__, {"bootstrap_resamples"}, help="folder or Hub id of a reranker")
    if is_on_lists():
        evaluate_on_lists(parser.parse_args())
        return
    parser.description = None
    recipe = parse_recipe(f"{__doc__}\n{parser.format_help()}", (RunArguments, EvaluationArguments))
    run = RunFolder(recipe.run.run_dir)
    stage = make_stage("report", recipe, run)
    with run.locked(dry_run=recipe.run.dry_run):
        if should_run(stage, recipe.run):
            make(recipe, run, stage)
        if stage.is_done() and not recipe.run.dry_run:
            complete_model_folder(recipe, run)


def evaluate_on_lists(options) -> None:
    from umls_reranker.core.files import written
    from umls_reranker.lists.labels import read_labelled_lists
    from umls_reranker.serving.evaluate import PAGE, evaluate_lists, evaluation_summary, save_report
    from umls_reranker.serving.reranker import UMLSReranker
    from umls_reranker.serving.rows import described

    if options.output.exists():
        raise UserError(f"{options.output} already exists; choose another folder for the report")
    reranker = UMLSReranker.from_pretrained(options.model, options.revision, options.device, options.dtype)
    lists = read_labelled_lists(options.lists, reranker.thresholds.hierarchy, options.dictionary, fitted_on=False)
    # Before anything is scored, which may take long.
    print(described(lists, reranker.template.reads), flush=True)
    if options.dry_run:
        would_make("evaluate", options.output)
        return
    bootstrap = {"resamples": options.bootstrap_resamples, "seed": options.seed}
    metrics, outcomes = evaluate_lists(reranker, lists, "labelled", **bootstrap)
    title = f"{portable_locator(options.model)} on {options.lists.name}"
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with written(options.output) as partial:
        partial.mkdir()
        save_report(metrics, outcomes, reranker, title, partial)
    print(f"{evaluation_summary(metrics)}\nreport written to {options.output}; open {options.output / PAGE}")


def make(recipe, run, stage) -> None:
    from umls_reranker.calibration.string_counts import counted_mentions
    from umls_reranker.hub.model_folder import REFERENCE
    from umls_reranker.lists.labels import read_run_lists
    from umls_reranker.serving.evaluate import evaluate_lists, evaluation_summary, save_report
    from umls_reranker.serving.reranker import UMLSReranker
    from umls_reranker.serving.statistics import Histogram, reference_content
    from umls_reranker.vocab.concepts import ConceptTable

    concepts = ConceptTable.load(run.path / "concepts")
    mentions, lists = run.splits("mentions"), read_run_lists(run.path, "test", concepts)
    # Those that the model counts.
    counted = ("train", "dev", "calibration")
    known = [row[:2] for split in counted for row in counted_mentions(mentions[split])]
    reranker = UMLSReranker.from_pretrained(run.path / "model", **recipe.run.scoring)
    with stage.writing() as (folder, summary):
        bootstrap = {"resamples": recipe.evaluation.bootstrap_resamples, "seed": recipe.run.seed}
        metrics, outcomes = evaluate_lists(reranker, lists, "test", known=known, **bootstrap)
        # They may be published with the model.
        outcomes = replace(outcomes, entity=[None] * len(outcomes))
        dev = read_manifest(run.path / "checkpoints")["summary"]["dev"]
        metrics["figures"] |= {name: {"value": dev[name]} for name in ("f1", "roc_auc")}
        save_report(metrics, outcomes, reranker, recipe.run.run_name, folder)
        histogram = Histogram.of(outcomes.score, outcomes.decided_by > 0, outcomes.document)
        write_json(folder / REFERENCE, reference_content(metrics["figures"], histogram))
        summary |= {"acc@1": metrics["figures"]["acc@1"]["value"]}
    print(evaluation_summary(metrics))


def complete_model_folder(recipe, run) -> None:
    """Write the new version of the model folder, with its card and the files of the evaluation."""
    from umls_reranker.hub.card import folder_card
    from umls_reranker.hub.model_folder import CARD, EVALUATED, changing

    model = run.path / "model"
    with changing(model) as new:
        for name in EVALUATED:
            shutil.copyfile(run.path / "report" / name, new / name)
        card = folder_card(model, recipe.publish.repo_id, recipe.publish.tag, evaluated=new)
        (new / CARD).write_text(card, encoding="utf-8")


if __name__ == "__main__":
    run_script(main)
