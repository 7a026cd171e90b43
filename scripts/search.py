"""Search a dictionary for concepts by words or by an id.

    umls-reranker search INDEX "heart attack"
    umls-reranker search INDEX C0027051

INDEX is what umls-reranker index made of a dictionary, or a run folder. A line for each concept,
those with the most similar names first: its id, which goes into gold_cui of a sheet, its preferred
name, its semantic types, and about: the name that was found, if it is another, the beginning of the
definition, and of concepts with one name what tells them apart. No model ranks them: link does,
also what is typed (umls-reranker link INDEX - -). The exit code is 1 if nothing is found.
"""

from pathlib import Path

from umls_reranker.pipeline.command import CommandParser, number_in
from umls_reranker.pipeline.terminal import search_index


def main() -> int:
    parser = CommandParser(__doc__)
    parser.add_argument("index", type=Path, help="folder of an index, or of a run")
    parser.add_argument("words", nargs="+", help="words of a name, or an id")
    parser.add_argument(
        "--top", type=number_in(int, 1), default=10, help="concepts to show (default: 10)"
    )
    return search_index(parser.parse_args())
