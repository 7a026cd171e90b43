"""Make an index of a dictionary, in which mentions are found: without training and a network.

    umls-reranker index META my_index --semantic_types DISO
    umls-reranker index hp.obo my_index
    umls-reranker index names.csv my_index --encoder cambridgeltl/SapBERT-from-PubMedBERT-fulltext

DICTIONARY is the folder META of a UMLS release (MRCONSO.RRF alone is enough); an ontology in OBO
format, or its URL; or a file of names: a table (.csv, .tsv, .jsonl, .parquet) of id, name and
optionally preferred and semantic_type, or lines id|id||name|name. Names are found by their
character trigrams, as they are and in a normal form in which "renal tumour" is "Carcinomas of the
Kidney"; with --encoder also by their vectors. OUTPUT appears only when it is complete; an
interrupted run goes on where it was. Its index.json says what it was made of. The folder contains
the names of the dictionary: store it where its license allows.
"""

from pathlib import Path

from umls_reranker.pipeline.command import CommandParser
from umls_reranker.pipeline.recipe import KEYS, add_options, pick

# The recipe keys that are options.
OPTIONS = (
    "sources",
    "languages",
    "identifiers",
    "encoder_revision",
    "encoder_pooling",
    "encoder_max_length",
    "encoder_dtype",
    "index_factory",
    "index_parameters",
    "cache_dir",
    "device",
    "dry_run",
)


def make_parser() -> CommandParser:
    parser = CommandParser(__doc__)
    parser.add_argument("dictionary", help="META, OBO file or URL, or names, as above")
    parser.add_argument("output", type=Path, help="folder to write; must not exist")
    parser.add_argument(
        "--semantic_types",
        nargs="*",
        default=[],
        help="keep concepts of these semantic types (T047 or its name), of narrower ones, and of "
        "semantic groups (DISO); default: all",
    )
    parser.add_argument(
        "--encoder",
        default="",
        help="bi-encoder whose vectors find names too: Hub id or local folder (default: none)",
    )
    parser.add_argument(
        "--codes",
        nargs="+",
        default=[],
        metavar="SAB",
        help="vocabularies of a release whose codes are kept, for link --codes, such as "
        "SNOMEDCT_US ICD10CM RXNORM MSH (default: those and others that are there)",
    )
    add_options(parser, "Keys of recipes", pick(KEYS, OPTIONS).values())
    return parser


def main() -> None:
    options = make_parser().parse_args()
    from umls_reranker.pipeline.dictionary_index import index_dictionary

    index_dictionary(vars(options))
