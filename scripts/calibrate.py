#!/usr/bin/env python
"""Fit calibrator and thresholds on labelled candidate lists, and write the model folder.

    umls-reranker calibrate quickstart
    umls-reranker calibrate --lists my_lists.parquet --output my_model
    umls-reranker calibrate MODEL --lists my_lists.parquet --output my_model
    umls-reranker calibrate my_model --lists my_lists.parquet --add corrections.jsonl --output my_model_2

The first form calibrates a run's checkpoint on the lists of its calibration split, and writes model/ into the run
folder: weights, tokenizer, reranker.json, calibrator.json with the feature weights, string counts of the training
split, thresholds.json and recipe.yaml.

The other forms need no run. The lists are a few hundred mentions from your own pipeline, in the format of
umls-reranker rerank (JSON Lines, Parquet, Arrow), each with doc_id and cui, its gold concept. Retriever scores are
features too; name them NAME_score in the candidates. CSV and TSV have one candidate per row: mention_id, doc_id,
mention, cui, name, score (read as list_score) or NAME_score, and gold (1 for the gold concept, else 0) or gold_cui.
Without MODEL, the result combines scores, names, types and counts, and is served without a cross-encoder or torch.
MODEL is a reranker or any sequence classifier with one logit, a folder or a Hub id: its cross-encoder is added if it
helps. All forms compare the result with the original order of the lists on held-out documents.
"""

from pathlib import Path

from umls_reranker.calibration.arguments import CalibrationArguments
from umls_reranker.models.arguments import RunArguments
from umls_reranker.pipeline.command import run_script, would_make
from umls_reranker.pipeline.recipe import is_on_lists, lists_parser, parse_recipe
from umls_reranker.pipeline.stages import run_stage

# Recipe keys that are options of the second form too.
FITTING_KEYS = ("calibrator", "target_precision", "confidence", "accept_precision")

ADD_HELP = (
    "file of further rows, such as corrected ones: one with the doc_id and mention_id of a row of LISTS replaces it; "
    'rows with "is_random_sample": false count for weights and thresholds, but not for certificates'
)


MODEL_HELP = "folder or Hub id of a reranker or a sequence classifier with one logit; without it, only the lists count"


def main() -> None:
    parser = lists_parser(__doc__, FITTING_KEYS, nargs="?", help=MODEL_HELP)
    parser.add_argument("--add", type=Path, help=ADD_HELP)
    parser.add_argument(
        "--keep_cross_encoder", action="store_true", help="keep MODEL's cross-encoder even if it is no help"
    )
    if is_on_lists():
        calibrate_on_lists(parser.parse_args())
        return
    parser.description = None
    recipe = parse_recipe(f"{__doc__}\n{parser.format_help()}", (RunArguments, CalibrationArguments))
    run_stage("model", recipe, make)


def make(recipe, run, stage) -> None:
    from umls_reranker.lists.labels import read_run_lists
    from umls_reranker.pipeline.checkpoint import checkpoint_of_run
    from umls_reranker.serving.calibrate import calibrate_lists, calibration_summary, write_calibrated
    from umls_reranker.vocab.concepts import ConceptTable

    source = checkpoint_of_run(recipe, run)
    lists = read_run_lists(run.path, "calibration", ConceptTable.load(run.path / "concepts"))
    # The cross-encoder was trained for this, so it stays.
    new = calibrate_lists(source, lists, recipe.calibration, recipe.run.seed, keep_cross_encoder=True)
    with stage.writing() as (folder, summary):
        write_calibrated(source, new, folder)
        summary |= new.fitted
    print(calibration_summary(new))


def calibrate_on_lists(options) -> None:
    from umls_reranker.calibration.calibrators import CALIBRATORS
    from umls_reranker.core.errors import UserError
    from umls_reranker.lists.labels import read_labelled_lists
    from umls_reranker.serving.calibrate import calibrate_lists, calibration_summary, save_calibrated
    from umls_reranker.serving.model_source import ModelSource
    from umls_reranker.serving.rows import described

    methods = ("auto", *(name for name, kind in CALIBRATORS.items() if kind.fits_lists))
    if options.calibrator not in methods:
        raise UserError(f"calibrator: {options.calibrator!r} is unknown; with lists choose from {', '.join(methods)}")
    if options.output.exists():
        raise UserError(f"{options.output} already exists; choose another folder for the new model")
    source = ModelSource.load(options.model, options.revision, options.device, options.dtype)
    lists = read_labelled_lists(options.lists, source.hierarchy, options.dictionary, add=options.add)
    # Before anything is scored, which may take long.
    print(described(lists, source.reads), flush=True)
    settings = CalibrationArguments(**{key: getattr(options, key) for key in FITTING_KEYS})
    if options.dry_run:
        print(source.needed_documents(lists, settings))
        would_make("calibrate", options.output)
        return
    keep = options.keep_cross_encoder
    new = calibrate_lists(source, lists, settings, options.seed, keep_cross_encoder=keep)
    save_calibrated(source, new, options.output)
    print(f"{calibration_summary(new)}\nthe new model is in {options.output}")


if __name__ == "__main__":
    run_script(main)
