"""Fit calibrator and thresholds on labelled candidate lists, and write the model folder.

    umls-reranker calibrate quickstart
    umls-reranker calibrate --lists my_lists.parquet --output my_model
    umls-reranker calibrate MODEL --lists my_lists.parquet --output my_model
    umls-reranker calibrate my_model --lists my_lists.parquet --add new.jsonl --output my_model_2

The first form calibrates a run's checkpoint on the lists of its calibration split, and writes
model/ into the run folder: weights, tokenizer, reranker.json, calibrator.json with the feature
weights, string counts of the training split, thresholds.json and recipe.yaml.

The other forms need no run. The lists are a few hundred mentions from your own pipeline, in the
format of umls-reranker rerank (JSON Lines, Parquet, Arrow), each with doc_id and cui, its gold
concept. Retriever scores are features too; name them NAME_score in the candidates. CSV and TSV have
one candidate per row: mention_id, doc_id, mention, cui, name, score (read as list_score) or
NAME_score, and gold (1 for the gold concept, else 0) or gold_cui. Without MODEL, the result
combines scores, names, types and counts, and is served without a cross-encoder or torch. MODEL is a
reranker or any sequence classifier with one logit, a folder or a Hub id: its cross-encoder is one
of the features, and what it gains is said. All forms compare the result with the lists' original
order on held-out documents.

Give all labels so far each time. A certificate holds however often one calibrates while labels are
added; --one_look certifies with fewer documents, once.
"""

from pathlib import Path

from umls_reranker.pipeline.command import number_in
from umls_reranker.pipeline.options import lists_parser, parse_form
from umls_reranker.pipeline.recipe import Recipe


def main() -> None:
    parser = lists_parser(
        __doc__,
        ("calibrator", "target_precision", "accept_precision"),
        nargs="?",
        help="folder or Hub id of a reranker or a sequence classifier with one logit; without it, "
        "only the lists count",
    )
    parser.add_argument(
        "--confidence",
        type=number_in(float, 0.01, 0.999),
        default=0.95,
        help="confidence of the certificate (default: 0.95)",
    )
    parser.add_argument(
        "--add",
        type=Path,
        help="file of further rows, such as corrected ones: one with the doc_id and mention_id of "
        'a row of LISTS replaces it; rows with "is_random_sample": false count for weights and '
        "thresholds, but not for certificates",
    )
    parser.add_argument(
        "--answers",
        type=Path,
        nargs="+",
        default=(),
        metavar="SHEET",
        help="sheets of reviewed mentions (.csv, .tsv, or of Usagi), such as umls-reranker "
        "candidates wrote beside LISTS; rows without an answer are left out",
    )
    parser.add_argument(
        "--one_look",
        action="store_true",
        help="these documents were chosen before any of their labels was known, and are tested "
        "this once: fewer of them certify",
    )
    given = parse_form(parser, ("run", "calibration"))
    from umls_reranker.pipeline.calibrating import calibrate_file, calibrate_run

    if isinstance(given, Recipe):
        calibrate_run(given)
    else:
        calibrate_file(given)
