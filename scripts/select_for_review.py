"""Select ranked rows to review: a random sample and the most doubtful ones.

    umls-reranker select_for_review predictions.jsonl to_review.csv --count 200

Reads JSON Lines of umls-reranker rerank or link. Each row says whether it was drawn at random
(is_random_sample); the others have the smallest margins, each string once. A .csv is a sheet with a
line per mention: set gold_cui. Its rows are beside it: umls-reranker calibrate MODEL --lists
my_lists.jsonl --add to_review.lists.jsonl --answers to_review.csv --output NEW_MODEL. Those of link
have no lists: umls-reranker candidates INDEX to_review.mentions.jsonl makes them. In JSON Lines,
set cui.
"""

from pathlib import Path

from umls_reranker.core.files import require_another
from umls_reranker.pipeline.command import EACH_ROW_IS_A_DOCUMENT, CommandParser, number_in
from umls_reranker.pipeline.file_jobs import add_sheet_options
from umls_reranker.pipeline.sample_options import add_seed


def main() -> None:
    parser = CommandParser(__doc__)
    parser.add_argument(
        "predictions", type=Path, help="JSON Lines that umls-reranker rerank or link wrote"
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
        "--each_row_is_a_document", action="store_true", help=EACH_ROW_IS_A_DOCUMENT
    )
    add_sheet_options(parser, "candidates in a line of the sheet (default: 5)")
    add_seed(parser)
    options = parser.parse_args()
    require_another(options.output, [options.predictions])
    from umls_reranker.serving.ranked_rows import read_ranked
    from umls_reranker.serving.review_queue import RANDOM_SAMPLE, select_for_review, write_queue

    rows = list(read_ranked(options.predictions))
    selected = select_for_review(rows, options.count, options.random_share, options.seed)
    beside = write_queue(
        selected,
        options.output,
        each_row_is_a_document=options.each_row_is_a_document,
        top=options.top,
        for_spreadsheet=options.for_spreadsheet,
    )
    drawn = sum(row[RANDOM_SAMPLE] for row in selected)
    print(f"{len(selected):,} of {len(rows):,} rows, {drawn:,} of them drawn at random")
    if beside is not None:
        print(f"what the answers are joined with: {beside}")
