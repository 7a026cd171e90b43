"""Rerank the candidates of a JSON Lines, CSV, TSV, Parquet or Arrow file of any size.

    umls-reranker rerank MODEL input.jsonl output.jsonl
    accelerate launch --config_file FILE -m umls_reranker rerank MODEL input.parquet output.parquet

One line (or row) per mention: {"entity": "cold", "candidates": [{"name": "Common Cold", "cui":
"C0009443"}, "Cold"], "entity_type": "T047", "left": "", "right": ""}; the last three are optional.
CSV and TSV have one candidate per row (mention_id, mention, cui, name, score). MODEL is a folder, a
Hub id, or a recipe that names one (umls-reranker recipes copy production). The input may be a
folder of files. Mentions without candidates are the input of umls-reranker link.

The output is JSON Lines, CSV, TSV, Parquet or Arrow, with one line or row per mention. It repeats
what the input brought and adds "ranked"; tables add the columns answer, answer_name, answer_score,
tier, accepted, second, second_name and second_score (CSV and TSV without "ranked"). A row that
cannot be ranked gets "error", and the exit code is 1. The output appears only when it is complete.
"""

from pathlib import Path

from umls_reranker.pipeline.command import DICTIONARY_HELP, CommandParser
from umls_reranker.pipeline.file_jobs import add_output_options, add_ranking_options, rerank_file


def main() -> int:
    parser = CommandParser(__doc__)
    parser.add_argument("model", help="folder or Hub id of the reranker, or a recipe that names it")
    add_ranking_options(parser)
    parser.add_argument(
        "--exhaustive",
        action="store_true",
        help="also score pruned candidates (else logit is null)",
    )
    parser.add_argument("--dictionary", type=Path, help=DICTIONARY_HELP)
    add_output_options(parser, "--dictionary, or ids that are codes")
    return rerank_file(parser.parse_args())
