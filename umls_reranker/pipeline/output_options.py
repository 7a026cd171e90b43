"""The options of commands that write ranked mentions: ``--format``, ``--codes`` and more."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from ..core.files import portable_locator
from ..serving.output_formats import OUTPUT_FORMATS
from ..serving.outputs import FormatSettings
from ..vocab.codes import ConceptCodes

CODES_HELP = (
    "vocabularies (SAB), such as SNOMEDCT_US ICD10CM RXNORM MSH: adds the codes of each answer's "
    "concept, those of preferred atoms first"
)


def add_output_options(parser: argparse.ArgumentParser, codes_from: str) -> None:
    """Add the options to a command.

    Args:
        parser: its command line.
        codes_from: where it takes codes from, in words.
    """
    formats = "; ".join(f"{name}: {kind.help}" for name, kind in OUTPUT_FORMATS.items())
    parser.add_argument(
        "--format",
        choices=[*OUTPUT_FORMATS],
        metavar="FORMAT",
        help=f"format of the output, whatever its extension. {formats}",
    )
    parser.add_argument(
        "--codes", nargs="+", metavar="SAB", help=f"{CODES_HELP}; from {codes_from}"
    )
    parser.add_argument(
        "--omop_concepts",
        nargs=2,
        type=Path,
        metavar=("CONCEPT.csv", "CONCEPT_RELATIONSHIP.csv"),
        help="files of an OMOP vocabulary, in which codes are mapped to standard concepts",
    )


def format_settings(
    options: argparse.Namespace,
    model: str,
    *,
    dictionary: Path | None = None,
    index: Path | None = None,
) -> FormatSettings:
    """What the output's format needs besides the rows.

    Args:
        options: options of `add_output_options`.
        model: the model that ranks, as the user named it.
        dictionary: a dictionary that has codes of the concepts.
        index: an index or run folder.

    Raises:
        UserError: there are no such codes, or a file cannot be read.
    """
    codes = ConceptCodes(options.codes or ())
    # Without --codes, all that are known can be mapped.
    if options.codes or options.omop_concepts:
        if index is not None:
            codes = ConceptCodes.load(index, options.codes)
        elif dictionary is not None:
            codes = ConceptCodes.read(dictionary, options.codes)
    return FormatSettings(codes, portable_locator(model), options.omop_concepts or ())


def said_of_output(counts: Mapping[str, int]) -> str:
    """What a format counted, as a line."""
    return ", ".join(f"{name}: {count:,}" for name, count in counts.items())
