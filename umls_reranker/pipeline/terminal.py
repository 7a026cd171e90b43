"""What somebody types at a terminal: words to search for, and mentions to link."""

import argparse
import sys

from ..core.errors import UserError, printable
from ..lists.read import STDIN
from ..models.arguments import BUILT_IN_FAST
from ..vocab.codes import ConceptCodes
from .file_jobs import link_model

# Options of link that are about files.
OF_FILES = ("reviewed", "format", "codes", "omop_concepts", "for_spreadsheet", "overwrite")


def is_typed(options: argparse.Namespace) -> bool:
    """Whether link reads stdin and writes stdout."""
    return options.input == STDIN and options.output == STDIN


def search_index(options: argparse.Namespace) -> int:
    """Print the concepts that are like some words; return the exit code, 1 if there are none."""
    from ..linking.linker import ConceptLinker
    from ..linking.search import search_concepts, search_lines

    codes = ConceptCodes.load(options.index)
    # No model ranks what is found; this one loads the fastest.
    linker = ConceptLinker.from_pretrained(BUILT_IN_FAST, options.index)
    words = " ".join(options.words)
    found = search_concepts(linker, words)[: options.top]
    if not found:
        print(printable(f"{options.index} has no concept with a name like {words!r}"))
        return 1
    print("\n".join(search_lines(linker.concepts, found, codes)))
    return 0


def link_typed(options: argparse.Namespace) -> int:
    """Link each line of stdin, and print its concepts; the exit code is 1 if one has an error.

    Raises:
        UserError: an option is about files, or a line is JSON.
    """
    from ..linking.linker import ConceptLinker
    from ..linking.search import answer_lines

    for name in OF_FILES:
        if getattr(options, name):
            raise UserError(f"--{name} is about files; give link an output other than -")
    codes = ConceptCodes.load(options.index)
    model, settings = link_model(options)
    linker = ConceptLinker.from_pretrained(model, options.index, verify=options.verify, **settings)
    code = 0
    for number, line in enumerate(sys.stdin, start=1):
        mention = line.strip()
        if mention.startswith("{"):
            raise UserError(
                f"line {number} of stdin is JSON, but with the output - each line is a mention; "
                "give JSON Lines an output file, such as linked.jsonl"
            )
        if not mention:
            continue
        try:
            linked = linker.link(mention)[: options.top or 5]
        except ValueError as error:
            print(printable(f"line {number}: {error}"), file=sys.stderr)
            code = 1
            continue
        print("\n".join(answer_lines(linker.concepts, linked, codes)), flush=True)
    return code
