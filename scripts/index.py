"""Make an index of dictionaries, in which mentions are found: without training and a network.

    umls-reranker index META my_index --semantic_types DISO
    umls-reranker index hp.obo my_index
    umls-reranker index META hp.obo our_names.csv my_index
    umls-reranker index names.csv my_index --encoder cambridgeltl/SapBERT-from-PubMedBERT-fulltext
    umls-reranker index names.csv my_index --add_names open_synonyms.tsv

A DICTIONARY is the folder META of a UMLS release (MRCONSO.RRF alone is enough); an ontology in OBO
format, or its URL; or a file of names: a table (.csv, .tsv, .jsonl, .parquet) of id, name and
optionally preferred and semantic_type, or lines id|id||name|name. Of several, concepts with the
same id are joined: all names stay, and the preferred name and the types of the first count. Names
are found by their character trigrams, as they are and in a normal form in which "renal tumour" is
"Carcinomas of the Kidney"; with --encoder also by their vectors. OUTPUT appears only when it is
complete; an interrupted command goes on with its vectors. Its index.json says what it was made of.
The folder contains the names of the dictionaries: store it where their licenses allow.
"""

from pathlib import Path

from umls_reranker.pipeline.command import CommandParser, would_make
from umls_reranker.pipeline.options import add_options
from umls_reranker.pipeline.recipe import KEYS
from umls_reranker.pipeline.recipe_keys import pick

# The recipe keys that are options: of the release, of the encoder and its index.
READING = ("sources", "languages", "identifiers")
INDEXING = (
    "encoder_revision",
    "encoder_pooling",
    "encoder_max_length",
    "encoder_dtype",
    "index_factory",
    "index_parameters",
)


def _parser() -> CommandParser:
    parser = CommandParser(__doc__)
    parser.add_argument(
        "dictionaries", nargs="+", metavar="DICTIONARY", help="META, OBO file or URL, or names"
    )
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
        help="bi-encoder whose vectors find names too: Hub id, local folder, or built-in, the "
        "package's (default: none)",
    )
    parser.add_argument(
        "--codes",
        nargs="+",
        default=[],
        metavar="SAB",
        help="vocabularies of a release whose codes are kept, for link --codes, such as "
        "SNOMEDCT_US ICD10CM RXNORM MSH (default: those and others that are there)",
    )
    names = ("add_names", *READING, *INDEXING, "cache_dir", "device", "dry_run")
    add_options(parser, "Keys of recipes", pick(KEYS, names).values())
    return parser


def main() -> None:
    options = _parser().parse_args()
    from umls_reranker.core.files import require_new
    from umls_reranker.linking.dictionary_index import make_index, planned_stages
    from umls_reranker.pipeline.sources import named_dictionary
    from umls_reranker.retrieval.index_settings import IndexSettings
    from umls_reranker.vocab.types import TypeHierarchy

    require_new(options.output)
    types = [name for name in options.semantic_types if TypeHierarchy.built_in().resolve(name)]
    reading = pick(vars(options), READING) | {
        "concept_types": types,
        "semantic_groups": [name for name in options.semantic_types if name not in types],
    }
    cache = Path(options.cache_dir)
    first, *others = options.dictionaries
    dictionaries = [
        named_dictionary(first, reading | {"add_names": options.add_names}, cache),
        *(named_dictionary(name, reading, cache) for name in others),
    ]
    retrievers = ["lexical", "forms"]
    if options.encoder:
        retrievers.insert(0, "dense")
    settings = IndexSettings(
        **pick(vars(options), INDEXING),
        encoder=options.encoder,
        retrievers=retrievers,
        expand_abbreviations=True,
    )
    if options.encoder:
        from umls_reranker.pipeline.model_configs import model_config

        model_config(
            "encoder",
            options.encoder,
            options.encoder_revision,
            {"encoder_max_length": options.encoder_max_length},
        )
    stages = planned_stages(dictionaries, options.output, settings, options.codes, cache)
    if options.dry_run:
        for name in stages:
            would_make(name, options.output / name)
        would_make("index folder", options.output)
        return
    make_index(dictionaries, options.output, settings, stages, options.codes, options.device)
