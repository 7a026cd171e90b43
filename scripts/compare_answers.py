"""Compare the answers of two dictionaries, such as two UMLS releases: what changed, and why.

    umls-reranker compare_answers old.jsonl new.jsonl --indexes old_index new_index --output \
changes.jsonl

Both files have the answers for the same input. A changed answer was merged into another concept
(MRCUI) or retired, is a new concept, was found by a new name, or was decided by other scores.
--models says whose certificates do not hold for the new index.
"""

from pathlib import Path

from umls_reranker.pipeline.command import CommandParser


def main() -> None:
    parser = CommandParser(__doc__)
    parser.add_argument("former", type=Path, help="former answers, which link or rerank wrote")
    parser.add_argument("new", type=Path, help="new answers for the same input")
    parser.add_argument(
        "--indexes",
        nargs=2,
        type=Path,
        required=True,
        metavar=("FORMER", "NEW"),
        help="index or run folders that they are from",
    )
    parser.add_argument(
        "--release",
        type=Path,
        help="folder META of the new release, whose MRCUI.RRF says what was merged",
    )
    parser.add_argument("--models", nargs="+", default=[], help="folders or Hub ids of models")
    parser.add_argument(
        "--output", type=Path, required=True, help="JSON Lines file to write, a line per change"
    )
    options = parser.parse_args()
    from umls_reranker.pipeline.compare_answers import compare_answers, ended_certificates

    answers = (options.former, options.new)
    indexes = tuple(options.indexes)
    for line in compare_answers(answers, indexes, options.release, options.output):
        print(line)
    for line in ended_certificates(options.models, indexes[1]):
        print(line)
