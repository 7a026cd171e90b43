"""The options of a study: which documents are drawn, and what their certificate is for."""

import argparse

from ..calibration.looks import planned_looks
from ..core.errors import UserError
from ..serving.study_files import Sample, StudySettings
from .command import number_in


def add_study_options(parser: argparse.ArgumentParser) -> None:
    """Add what a study is for to a command that writes one beside a sheet."""
    target = StudySettings.target_precision
    confidence = StudySettings.confidence
    looks = planned_looks(target, confidence)
    numbers = [str(look.documents) for look in looks]
    group = parser.add_argument_group("The study, which is written before the first label")
    group.add_argument("--seed", type=int, default=13, help="seed of the draw (default: 13)")
    group.add_argument(
        "--looks",
        type=number_in(int, 1),
        metavar="N",
        help=f"look once, at N documents and {1 - confidence:.0%}% (default: four looks, at "
        f"{', '.join(numbers[:-1])} and {numbers[-1]} documents for a target of {target}; more "
        "where they are of unequal size)",
    )
    group.add_argument(
        "--target_precision",
        type=number_in(float, 0.01, 0.999),
        default=target,
        help=f"precision to certify, as calibrate will be told (default: {target})",
    )
    group.add_argument(
        "--confidence",
        type=number_in(float, 0.01, 0.999),
        default=confidence,
        help=f"confidence of all looks together (default: {confidence})",
    )


def study_settings(options: argparse.Namespace) -> StudySettings:
    """What a study is for, by the options of `add_study_options`."""
    return StudySettings(options.target_precision, options.confidence, options.looks)


def drawn_sample(options: argparse.Namespace) -> Sample | None:
    """The sample of ``--sample``; None: all documents.

    Raises:
        UserError: it is no sample, or a look is planned without one.
    """
    if options.sample is None:
        if options.looks is not None:
            raise UserError("--looks is about a study, which --sample N writes; give both")
        return None
    try:
        return Sample.parse(options.sample, options.seed)
    except ValueError:
        raise UserError(
            f"--sample: {options.sample!r} is neither a number of documents, such as 200, nor "
            "those that follow, such as 201-400"
        ) from None
