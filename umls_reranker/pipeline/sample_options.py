"""The options of a sample: how many documents are drawn, in which order."""

import argparse

from ..core.errors import UserError
from ..serving.samples import Sample


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Add the seed of a drawn order."""
    parser.add_argument("--seed", type=int, default=13, help="seed of the draw (default: 13)")


def drawn_sample(options: argparse.Namespace) -> Sample | None:
    """The sample of ``--sample``; None: all documents.

    Raises:
        UserError: it is no sample.
    """
    if options.sample is None:
        return None
    try:
        return Sample.parse(options.sample, options.seed)
    except ValueError:
        raise UserError(
            f"--sample: {options.sample!r} is neither a number of documents, such as 200, nor "
            "those that follow, such as 201-400"
        ) from None
