"""Write the candidates of the mentions of a file, to be labelled or calibrated on.

    umls-reranker candidates INDEX mentions.csv sheet.csv
    umls-reranker candidates INDEX labelled.pubtator lists.jsonl

The input is that of umls-reranker link; a gold concept in it (cui, or in annotated text the id of
an annotation) goes with the list. In a sheet of Usagi it is the concept with the code of the
approved target, which --omop_concepts knows. JSON Lines have the lists, a row per mention: its cui
is the gold concept. A .csv is a sheet with a line per mention, for people: write the id of the
right concept into gold_cui, or CUI-less where the dictionary has none. The lists are beside it:

    umls-reranker calibrate built-in --lists sheet.lists.jsonl --answers sheet.csv --output my_model

after which umls-reranker link INDEX ... --model my_model gives calibrated scores and tiers.

--sample 200 draws 200 documents at random, or terms, in an order by --seed; --sample 201-400 draws
the next in a sheet of its own. The sheet's name says so. Label from the top; what is left open
before the last answer counts as incorrect in the certificate. Calibrate as often as you like, each
time with all labels so far.
"""

from pathlib import Path

from umls_reranker.pipeline.command import EACH_ROW_IS_A_DOCUMENT, CommandParser
from umls_reranker.pipeline.file_jobs import (
    add_file_options,
    add_omop_option,
    add_sheet_options,
    write_candidates,
)
from umls_reranker.pipeline.sample_options import add_seed


def main() -> int:
    parser = CommandParser(__doc__)
    parser.add_argument("index", type=Path, help="folder of an index, or of a run")
    parser.add_argument(
        "--device", help="cpu, cuda, ... of an encoder (default: a GPU if available)"
    )
    parser.add_argument(
        "--each_row_is_a_document", action="store_true", help=EACH_ROW_IS_A_DOCUMENT
    )
    add_file_options(parser)
    add_sheet_options(parser, "candidates in a line of the sheet (default: 5)")
    add_omop_option(parser)
    parser.add_argument(
        "--sample", metavar="N", help="documents to draw at random: 200, or later 201-400"
    )
    add_seed(parser)
    return write_candidates(parser.parse_args())
