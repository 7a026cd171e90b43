"""Select ranked rows to review: a random sample and the most doubtful ones.

    umls-reranker select_for_review predictions.jsonl to_review.csv --count 200

Reads the output of umls-reranker rerank. Each row says whether it was drawn at random
(is_random_sample); the others have the smallest margins, each string once. A .csv has one line per
candidate with rank and probability, for a spreadsheet: set gold_cui in the first line of a mention.
In JSON Lines, set cui. The result are labelled lists: umls-reranker calibrate MODEL --lists
my_lists.jsonl --add reviewed.csv --output NEW_MODEL.
"""

from pathlib import Path

from umls_reranker.core.files import require_another
from umls_reranker.pipeline.command import EACH_ROW_IS_A_DOCUMENT, CommandParser, number_in


def main() -> None:
    parser = CommandParser(__doc__)
    parser.add_argument(
        "predictions", type=Path, help="JSON Lines file that umls-reranker rerank wrote"
    )
    parser.add_argument("output", type=Path, help="file to write: .jsonl or .csv")
    parser.add_argument(
        "--count", type=number_in(int, 1), default=200, help="rows to select (default: 200)"
    )
    parser.add_argument(
        "--random_share",
        type=number_in(float, 0, 1),
        default=0.2,
        help="share of the random sample (default: 0.2)",
    )
    parser.add_argument(
        "--seed", type=int, default=13, help="seed of the random sample (default: 13)"
    )
    parser.add_argument(
        "--each_row_is_a_document", action="store_true", help=EACH_ROW_IS_A_DOCUMENT
    )
    options = parser.parse_args()
    require_another(options.output, [options.predictions])
    from umls_reranker.serving.review_queue import RANDOM_SAMPLE, select_for_review, write_queue
    from umls_reranker.serving.statistics import read_ranked

    rows = list(read_ranked(options.predictions))
    selected = select_for_review(rows, options.count, options.random_share, options.seed)
    write_queue(selected, options.output, each_row_is_a_document=options.each_row_is_a_document)
    drawn = sum(row[RANDOM_SAMPLE] for row in selected)
    print(f"{len(selected):,} of {len(rows):,} rows, {drawn:,} of them drawn at random")
