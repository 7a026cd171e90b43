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

from umls_reranker.pipeline.command import DICTIONARY_HELP, CommandParser, number_in
from umls_reranker.pipeline.output_options import add_output_options


def make_parser() -> CommandParser:
    parser = CommandParser(__doc__)
    parser.add_argument("model", help="folder or Hub id of the reranker, or a recipe that names it")
    parser.add_argument(
        "input",
        type=Path,
        help="file or folder: .jsonl, .json, .csv, .tsv, .parquet, .arrow; - is stdin",
    )
    parser.add_argument(
        "output", type=Path, help="file to write; its extension sets the format, or --format"
    )
    parser.add_argument("--revision", help="tag, branch or commit on the Hub")
    parser.add_argument(
        "--device", help="cpu, cuda, ... (default: the recipe's, or a GPU if available)"
    )
    parser.add_argument(
        "--dtype", help="auto, float32, bfloat16 or float16 (default: the recipe's, or auto)"
    )
    parser.add_argument(
        "--backend", help="torch, or onnx as written by umls-reranker export (default: torch)"
    )
    parser.add_argument(
        "--token_budget",
        type=number_in(int, 1),
        help="tokens per forward pass (default: 1024, on a GPU 65536)",
    )
    parser.add_argument(
        "--accept_tier", help="lowest tier that is accepted: medium or high (default: medium)"
    )
    parser.add_argument(
        "--exhaustive",
        action="store_true",
        help="also score pruned candidates (else logit is null)",
    )
    parser.add_argument(
        "--batch_mentions",
        type=number_in(int, 1),
        default=1024,
        help="mentions ranked together (default: 1024)",
    )
    parser.add_argument("--dictionary", type=Path, help=DICTIONARY_HELP)
    add_output_options(parser, "--dictionary, or ids that are codes")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    return parser


def main() -> int:
    options = make_parser().parse_args()
    from umls_reranker.pipeline.rerank import rerank_file

    return rerank_file(options)
