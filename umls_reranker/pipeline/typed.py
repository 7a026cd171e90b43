"""The commands for somebody who types: search, and link with - for its input and output."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..core.errors import UserError, printable
from ..models.arguments import BUILT_IN_FAST
from ..vocab.concept_codes import ConceptCodes

if TYPE_CHECKING:
    from ..linking.linker import ConceptLinker

NOTHING_FOUND = "nothing found"
# Of a table that is no terminal's, where nothing wraps.
WIDEST = 10_000


def search_index(options: argparse.Namespace) -> int:
    """Print the concepts of an index that words find; the exit code is 1 if there is none."""
    from ..linking.linker import ConceptLinker
    from ..linking.search import search_concepts
    from ..serving.candidate_descriptions import describe_candidates

    linker = ConceptLinker.from_pretrained(BUILT_IN_FAST, options.index)
    try:
        found = search_concepts(linker, " ".join(options.words), options.top)
    except ValueError as error:
        raise UserError(str(error)) from None
    if not found:
        print(NOTHING_FOUND)
        return 1
    about = describe_candidates(found, linker.concepts, ConceptCodes.load(options.index))
    rows = [
        (item["cui"], item["preferred_name"], text) for item, text in zip(found, about, strict=True)
    ]
    print_columns(("id", "name", "about"), rows)
    return 0


def link_typed(linker: ConceptLinker, top: int) -> int:
    """Link each line of standard input, the text of a mention, and print its first concepts.

    Returns:
        The exit code, 1 if a line could not be linked.
    """
    exit_code = 0
    type_name = linker.concepts.hierarchy.name
    for number, line in enumerate(sys.stdin, 1):
        mention = line.strip()
        if not mention:
            continue
        if mention.startswith("{"):
            raise UserError(
                f"line {number}: with - for the output, a line is the text of a mention; rows in "
                "JSON take a file for the output, such as linked.jsonl"
            )
        try:
            concepts = linker.link(mention)[:top]
        except ValueError as error:
            print(f"line {number}: {printable(str(error))}", file=sys.stderr)
            exit_code = 1
            continue
        if concepts:
            rows = [
                (
                    f"{concept.score:.3f}",
                    concept.tier or "no tier",
                    str(concept.cui),
                    concept.preferred_name,
                    "; ".join(map(type_name, concept.semantic_types)),
                )
                for concept in concepts
            ]
            print_columns(("score", "tier", "id", "name", "types"), rows)
        else:
            print(NOTHING_FOUND, flush=True)
    return exit_code


def print_columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table without lines; on a terminal long cells wrap, in a file they do not."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in header:
        table.add_column(title, overflow="fold")
    for cells in rows:
        # What a name has in brackets is no markup.
        table.add_row(*(Text(printable(cell)) for cell in cells))
    width = None if sys.stdout.isatty() else WIDEST
    console = Console(width=width, highlight=False)
    with console.capture() as printed:
        console.print(table)
    for line in printed.get().splitlines():
        print(line.rstrip(), flush=True)
