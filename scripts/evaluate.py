"""Evaluate the model and baselines on the test split, or on your own labelled lists.

    umls-reranker evaluate quickstart
    umls-reranker evaluate MODEL --lists test.jsonl --output REPORT

The first form writes report/ into the run folder: metrics.json, report.html, plots,
outcomes.parquet (the answer for each mention) and reference.json (the reference for monitoring).
The files that belong to the model, and its card, are copied to model/.

The second form needs no run. MODEL is a reranker, a folder or a Hub id. The lists are labelled
mentions from your own pipeline, in the format of umls-reranker calibrate MODEL --lists, from
documents that the model was not calibrated on. Only a calibration of their scores is fitted to
them, for comparison. The command compares the model with the original order of your lists, with
intervals, and writes the same report to a new folder.
"""

from umls_reranker.pipeline.options import lists_parser, parse_form
from umls_reranker.pipeline.recipe import Recipe


def main() -> None:
    parser = lists_parser(__doc__, (), help="folder or Hub id of a reranker")
    given = parse_form(parser, ("run", "evaluation"))
    from umls_reranker.pipeline.evaluating import evaluate_file, evaluate_run

    if isinstance(given, Recipe):
        evaluate_run(given)
    else:
        evaluate_file(given)
