"""Link the mentions of a file to concepts of a dictionary.

    umls-reranker link INDEX mentions.csv linked.csv
    umls-reranker link INDEX notes.jsonl linked.jsonl --model my_model
    umls-reranker link runs/quickstart annotated_text/ linked.parquet

INDEX is what umls-reranker index made of a dictionary, or a run folder. The input is one of these:

  a table or JSON Lines (.csv, .tsv, .jsonl, .json, .parquet, .arrow; - is JSON Lines on stdin) with
  a mention per row: mention, and optionally document (or text) and start, or left and right;
  entity_type, doc_id, and anything else, which is repeated in the output
  JSON Lines with a document per row: text, and spans, a list of {"start", "end", "label", ...}
  a sheet of Usagi (.csv), whose approved targets are gold concepts
  annotated text: PubTator, BRAT (.ann beside .txt), BioC in XML, or a folder of such files

The output is JSON Lines, where "ranked" has the first concepts of each mention, or a table (.csv,
.tsv, .parquet, .arrow) with a row per mention: what the input brought, then answer (the id of the
top concept), answer_name, answer_score, tier, accepted, second, second_name, second_score, error.

Without --model, the model of the run ranks, or of an index the model built-in (or, three times as
fast, --model built-in-fast). Its scores are not calibrated for your dictionary and text, so tier
and accepted are empty. Abbreviations that a document defines are linked as their long forms. A row
that cannot be linked gets "error", and the exit code is 1. The output appears only when it is
complete.

umls-reranker link INDEX - - is for somebody who types: each line is the text of a mention, and its
first concepts are printed.
"""

from pathlib import Path

from umls_reranker.pipeline.command import CommandParser
from umls_reranker.pipeline.file_jobs import add_output_options, add_ranking_options, link_file


def main() -> int:
    parser = CommandParser(__doc__)
    parser.add_argument("index", type=Path, help="folder of an index, or of a run")
    parser.add_argument(
        "--model",
        help="folder or Hub id of the reranker, or a recipe that names it (default: the run's, "
        "or built-in)",
    )
    parser.add_argument(
        "--reviewed",
        type=Path,
        nargs="+",
        default=(),
        metavar="SHEET",
        help="sheets of reviewed mentions (.csv, .tsv, or of Usagi): their answers stay",
    )
    parser.add_argument(
        "--verify", action="store_true", help="compare the index with the hashes of its files"
    )
    add_ranking_options(parser)
    add_output_options(parser, "the index (umls-reranker index --codes), or ids that are codes")
    return link_file(parser.parse_args())
