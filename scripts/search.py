"""Search the concepts of an index by words, or by an id.

    umls-reranker search INDEX heart attack
    umls-reranker search INDEX C0027051

Prints id, preferred name, and what tells concepts apart: the name that was found, semantic types,
the beginning of the definition; of two that are alike, another name or a code. The concept with
this id comes first, then those whose names are nearest, as the retrievers of the index find them.
For the answer of a model: umls-reranker link INDEX - - reads the text of a mention a line.
"""

from pathlib import Path

from umls_reranker.pipeline.command import CommandParser, number_in
from umls_reranker.pipeline.typed import search_index


def main() -> int:
    parser = CommandParser(__doc__)
    parser.add_argument("index", type=Path, help="folder of an index, or of a run")
    parser.add_argument("words", nargs="+", help="what to look for")
    parser.add_argument(
        "--top", type=number_in(int, 1), default=10, help="concepts to print (default: 10)"
    )
    return search_index(parser.parse_args())
