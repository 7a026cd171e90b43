#!/usr/bin/env python
"""Select the logged predictions that are most useful to review.

    umls-reranker select_for_review MODEL predictions.jsonl to_review.jsonl --count 200

Reads the output of umls-reranker rerank. A share of the lines is a random sample, for metrics (umls-reranker monitor
--feedback). The others are near the threshold, ranked differently by model and retriever, or of rare types; each
string is selected once. Every line gives the reason for its selection. The reviewer adds "chosen" (a CUI, or null),
and umls-reranker add_feedback reads the result.
"""

from collections import Counter
from pathlib import Path

from umls_reranker.core.errors import UserError
from umls_reranker.core.files import require_another
from umls_reranker.core.script import CommandParser, run_script


def make_parser() -> CommandParser:
    parser = CommandParser(__doc__)
    parser.add_argument("model", help="folder or Hub id of the model, with thresholds.json and reference.json")
    parser.add_argument("predictions", type=Path, help="JSON Lines file that umls-reranker rerank wrote")
    parser.add_argument("output", type=Path, help="JSON Lines file to write")
    parser.add_argument("--count", type=int, default=200, help="lines to select (default: 200)")
    parser.add_argument("--random_share", type=float, default=0.2, help="share of the random sample (default: 0.2)")
    parser.add_argument("--seed", type=int, default=13, help="seed of the random sample (default: 13)")
    return parser


def main() -> None:
    options = make_parser().parse_args()
    if options.count < 1 or options.seed < 0 or not 0 <= options.random_share <= 1:
        raise UserError("count must be 1 or more, seed 0 or more, and random_share from 0 to 1")
    require_another(options.output, [options.predictions])
    from umls_reranker.hub.download import download
    from umls_reranker.hub.model_folder import MANIFEST, REFERENCE, THRESHOLDS
    from umls_reranker.review.review_queue import judge_of, select_for_review, write_queue
    from umls_reranker.serving.prediction_log import read_predictions

    judge = judge_of(download(options.model, files=(MANIFEST, REFERENCE, THRESHOLDS)))
    mentions = list(read_predictions(options.predictions))
    if not mentions:
        raise UserError(f"{options.predictions} contains no predictions; give the output of umls-reranker rerank")
    picked = select_for_review(mentions, options.count, judge, random_share=options.random_share, seed=options.seed)
    write_queue(picked, options.output)
    counts = Counter(part for _, reason in picked for part in reason.split(", "))
    print(
        f"{len(picked):,} of {len(mentions):,} predictions: " + ", ".join(f"{n} {r}" for r, n in counts.most_common())
    )


if __name__ == "__main__":
    run_script(main)
