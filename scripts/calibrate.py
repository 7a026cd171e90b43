#!/usr/bin/env python
"""Fit calibrator and thresholds on the candidate lists of the calibration split, and write the model folder.

    umls-reranker calibrate quickstart
    umls-reranker calibrate --lists my_lists.parquet --output my_model
    umls-reranker calibrate MODEL --lists my_lists.parquet --output my_model
    umls-reranker calibrate my_model --lists my_lists.parquet --add corrections.jsonl --output my_model_2

The first form writes model/ into the run folder: weights, tokenizer, reranker.json, calibrator.json with the feature
weights, string counts of the training split, thresholds.json and recipe.yaml.

The other forms need no run. The lists are a few hundred mentions from your own pipeline, in the format of
umls-reranker rerank (JSON Lines, Parquet, Arrow), each with doc_id and cui, its gold concept. Retriever scores are
features too; name them NAME_score in the candidates. CSV and TSV have one candidate per row: mention_id, doc_id,
mention, cui, name, score (read as list_score) or NAME_score, and gold (1 for the gold concept, else 0) or gold_cui.
Without MODEL, the result combines scores, names, types and counts, and is served without a network or torch.
MODEL is a reranker or any sequence classifier with one logit, a folder or a Hub id: its cross-encoder is added if it
helps. The command compares the result with the original order of your lists on held-out documents.
umls-reranker calibrate --lists FILE --help lists the options of these forms.
"""

import sys
from pathlib import Path

from umls_reranker.core.recipe import add_keys, parse_recipe
from umls_reranker.core.script import LISTS_HELP, UMLS_DIR_HELP, CommandParser, run_script, would_make
from umls_reranker.core.settings import CalibrationArguments, RunArguments
from umls_reranker.serving.run_calibration import calibrate_run

# Recipe keys that are options of the second form too.
FITTING_KEYS = ("calibrator", "target_precision", "confidence", "exhaustive")

ADD_HELP = (
    "file of further rows, such as corrected ones: one with the doc_id and mention_id of a row of LISTS replaces it; "
    'rows with "sampled": false count for weights and thresholds, but not for certificates'
)


def main() -> None:
    if any(word.split("=")[0] in ("--lists", "--output") for word in sys.argv[1:]):
        calibrate_on_lists(lists_parser().parse_args())
    else:
        calibrate_run(parse_recipe(__doc__, (RunArguments, CalibrationArguments)))


def lists_parser() -> CommandParser:
    usage = "%(prog)s --output FOLDER [--OPTION VALUE ...]"
    parser = CommandParser(__doc__, usage=usage)
    # Errors refer to the help of this form.
    parser.prog += " [MODEL] --lists FILE"
    parser.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="folder or Hub id of a reranker, or of a sequence classifier with one logit; without it, the lists alone "
        "are calibrated",
    )
    parser.add_argument("--lists", type=Path, required=True, help=LISTS_HELP)
    parser.add_argument("--output", type=Path, required=True, help="folder of the new model; must not exist")
    parser.add_argument("--add", type=Path, help=ADD_HELP)
    parser.add_argument("--umls_dir", type=Path, help=UMLS_DIR_HELP)
    parser.add_argument("--revision", help="tag, branch or commit on the Hub")
    parser.add_argument(
        "--keep_cross_encoder", action="store_true", help="keep MODEL's cross-encoder even if it does not help"
    )
    parser.add_argument("--dtype", help="auto, float32, bfloat16 or float16 (default: auto)")
    add_keys(parser, RunArguments, ("device", "seed", "dry_run"))
    add_keys(parser, CalibrationArguments, FITTING_KEYS)
    return parser


def calibrate_on_lists(options) -> None:
    from umls_reranker.core.errors import UserError
    from umls_reranker.core.settings import CALIBRATORS
    from umls_reranker.data.labelled_lists import read_labelled_lists
    from umls_reranker.serving.list_description import described
    from umls_reranker.serving.recalibration import recalibrate, results, save_recalibrated
    from umls_reranker.serving.source_model import SourceModel

    methods = ("auto", *(name for name, kind in CALIBRATORS.items() if kind.fits_lists))
    if options.calibrator not in methods:
        raise UserError(f"calibrator: {options.calibrator!r} is unknown; with lists choose from {', '.join(methods)}")
    if options.output.exists():
        raise UserError(f"{options.output} already exists; choose another folder for the new model")
    source = SourceModel.load(options.model, options.revision, options.device, options.dtype)
    lists = read_labelled_lists(options.lists, source.hierarchy, options.umls_dir, add=options.add)
    # Before anything is scored, which may take long.
    print(described(lists, source.template.reads), flush=True)
    if options.dry_run:
        would_make("calibrate", options.output)
        return
    settings = CalibrationArguments(**{key: getattr(options, key) for key in FITTING_KEYS})
    keep = options.keep_cross_encoder
    new = recalibrate(source, lists, settings, options.seed, keep_cross_encoder=keep)
    save_recalibrated(source, new, options.output)
    print(results(new))
    print(f"the new model is in {options.output}")


if __name__ == "__main__":
    run_script(main)
