"""The commands that read a file of mentions of any size and write one: rerank, link, candidates.

``--help`` imports no more than the options need.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..core.errors import UserError
from ..core.files import require_another
from ..core.locators import portable_locator
from ..core.parallel import started_processes
from ..linking.mentions import UsagiSheets
from ..lists.read import STDIN
from ..models.arguments import BUILT_IN
from ..serving.omop_vocabulary import OmopVocabulary
from ..serving.output_format import FormatSettings
from ..serving.outputs import OUTPUT_FORMATS
from ..vocab.concept_codes import ConceptCodes
from .command import CommandParser, number_in
from .options import add_options, load_serving_recipe
from .recipe import KEYS, Recipe
from .sample_options import drawn_sample
from .typed import link_typed

if TYPE_CHECKING:
    from accelerate import PartialState

    from ..serving.file_jobs import FileJob

CODES_HELP = (
    "vocabularies (SAB), such as SNOMEDCT_US ICD10CM RXNORM MSH: adds the codes of each answer's "
    "concept, those of preferred atoms first"
)


# Argument of `UMLSReranker.from_pretrained`, and option of commands -> the recipe's key.
MODEL_KEYS = {
    "revision": "served_revision",
    "device": "device",
    "dtype": "scoring_dtype",
    "backend": "backend",
    "token_budget": "token_budget",
    "accept_tier": "accept_tier",
}


def add_ranking_options(parser: CommandParser) -> None:
    """Add to a command how a model is loaded and ranks."""
    keys = [replace(KEYS[key], name=name, default=None) for name, key in MODEL_KEYS.items()]
    add_options(parser, "How the model is loaded and ranks (default: as the recipe says)", keys)
    add_file_options(parser)


def model_settings(recipe: Recipe, options: argparse.Namespace | None = None) -> dict[str, Any]:
    """How a model is loaded: as options of `add_ranking_options` say, or else the recipe."""
    settings = {name: recipe.to_dict()[key] for name, key in MODEL_KEYS.items()}
    stated = {} if options is None else vars(options)
    return settings | {name: stated[name] for name in settings if stated.get(name) is not None}


def add_file_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a command that reads a file of mentions in batches and writes one."""
    parser.add_argument(
        "input",
        type=Path,
        help="file or folder of mentions; - is stdin",
    )
    parser.add_argument("output", type=Path, help="file to write; its extension sets the format")
    parser.add_argument(
        "--batch_mentions",
        type=number_in(int, 1),
        default=1024,
        help="mentions ranked or searched together (default: 1024)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")


def add_output_options(parser: argparse.ArgumentParser, codes_from: str) -> None:
    """Add the options of the output to a command.

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
        "--only",
        choices=("accepted", "all"),
        default="accepted",
        help="answers in sssom, omop and fhir (default: accepted; the rest goes to a sheet)",
    )
    add_sheet_options(parser, "link: concepts in ranked (default: 5); further ones in csv, sssom")
    add_omop_option(parser)


def add_sheet_options(parser: argparse.ArgumentParser, top_help: str) -> None:
    """Add the options of tables that people read, with the help text of ``--top``."""
    parser.add_argument("--top", type=number_in(int, 1), help=top_help)
    parser.add_argument(
        "--for_spreadsheet",
        action="store_true",
        help="write an apostrophe before texts that a spreadsheet would run as formulas",
    )


def add_omop_option(parser: argparse.ArgumentParser) -> None:
    """Add the files of an OMOP vocabulary to a command that reads or writes its concepts."""
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
    # OMOP maps codes of any vocabulary, so all are loaded where --codes names none.
    if options.codes or options.omop_concepts:
        if index is not None:
            codes = codes_of_index(index, options.codes)
        elif dictionary is not None:
            codes = ConceptCodes.read(dictionary, options.codes)
    return FormatSettings(
        codes,
        portable_locator(model),
        options.omop_concepts or (),
        only_accepted=options.only == "accepted",
        top=options.top,
        for_spreadsheet=options.for_spreadsheet,
    )


def usagi_sheets(options: argparse.Namespace, reviewed: Sequence[Path] = ()) -> UsagiSheets:
    """How sheets of Usagi are read, with the codes of the index."""
    files = [options.input, *reviewed]
    if not any(UsagiSheets.recognizes(file) for file in files):
        return UsagiSheets()
    vocabulary = OmopVocabulary(*options.omop_concepts) if options.omop_concepts else None
    return UsagiSheets(codes_of_index(options.index), vocabulary)


def codes_of_index(folder: Path, sources: Sequence[str] | None = None) -> ConceptCodes:
    """The codes of an index, as `ConceptCodes.load`; a folder that is no index is named as such."""
    from ..retrieval.index_settings import IndexSettings

    IndexSettings.load(folder)
    return ConceptCodes.load(folder, sources)


def rerank_file(options: argparse.Namespace) -> int:
    """Rank the rows of a file; return the exit code, which is 1 if a row has an error."""
    from ..serving.rerank_files import BulkJob
    from ..serving.reranker import UMLSReranker

    recipe = load_serving_recipe(options.model)
    settings = model_settings(recipe, options)
    model = str(recipe.serving.served_model)
    job = BulkJob(
        options.input,
        options.output,
        options.batch_mentions,
        overwrite=options.overwrite,
        dictionary=options.dictionary,
        format_name=options.format,
        format_settings=format_settings(options, model, dictionary=options.dictionary),
    )
    settings["exhaustive"] = options.exhaustive
    return run_job(job, partial(UMLSReranker.from_pretrained, model), settings, [model])


def link_file(options: argparse.Namespace) -> int:
    """Link the mentions of a file; the exit code is as for `rerank_file`."""
    from ..linking.link_files import LinkJob
    from ..linking.linker import ConceptLinker

    model_of_run = options.index / "model"
    default_model = str(model_of_run) if model_of_run.is_dir() else BUILT_IN
    recipe = load_serving_recipe(options.model or default_model)
    settings = model_settings(recipe, options)
    model = str(recipe.serving.served_model)
    if options.output == STDIN:
        return _link_typed(options, model, settings)
    sheets = usagi_sheets(options, options.reviewed)
    job = LinkJob(
        options.input,
        options.output,
        options.batch_mentions,
        top=options.top or 5,
        reviewed=options.reviewed or (),
        overwrite=options.overwrite,
        format_name=options.format,
        format_settings=format_settings(options, model, index=options.index),
        sheets=sheets,
    )
    settings["verify"] = options.verify
    load_linker = partial(ConceptLinker.from_pretrained, model, options.index)
    return run_job(job, load_linker, settings, [model, options.index])


def _link_typed(options: argparse.Namespace, model: str, settings: dict[str, Any]) -> int:
    """Link what is typed, line by line; the exit code is as for `rerank_file`."""
    from ..linking.linker import ConceptLinker

    if options.input != STDIN:
        raise UserError("the output - is for mentions that are typed: link INDEX - -")
    for name in ("format", "codes", "omop_concepts", "reviewed", "for_spreadsheet", "overwrite"):
        if getattr(options, name):
            raise UserError(f"--{name} takes a file for the output, in place of -")
    linker = ConceptLinker.from_pretrained(model, options.index, verify=options.verify, **settings)
    return link_typed(linker, options.top or 5)


def write_candidates(options: argparse.Namespace) -> int:
    """Write the candidate lists of a file's mentions; the exit code is as for `rerank_file`."""
    from ..linking.link_files import CandidatesJob
    from ..linking.linker import ConceptLinker

    sample = drawn_sample(options)
    output = options.output if sample is None else sample.named(options.output)
    sheet_settings = FormatSettings(
        codes_of_index(options.index), top=options.top, for_spreadsheet=options.for_spreadsheet
    )
    job = CandidatesJob(
        options.input,
        output,
        options.batch_mentions,
        sample=sample,
        overwrite=options.overwrite,
        sheets=usagi_sheets(options),
        format_settings=sheet_settings,
        each_row_is_a_document=options.each_row_is_a_document,
    )
    # The index is verified, because a model is calibrated on these lists.
    settings = {"device": options.device or "auto", "verify": True}
    load_linker = partial(ConceptLinker.from_pretrained, BUILT_IN, options.index)
    return run_job(job, load_linker, settings, [BUILT_IN, options.index])


class Worker(Protocol):
    """What ranks or searches for the rows of a file: a `UMLSReranker` or a `ConceptLinker`."""

    def advice(self, dtype: str | None, in_batches: bool) -> str | None:
        """A line about a faster dtype than this one, or None."""


def run_job(
    job: FileJob,
    load_worker: Callable[..., Worker],
    settings: Mapping[str, Any],
    loaded: Sequence[str | Path],
) -> int:
    """Run a job with the processes of a launch, or one; return its exit code.

    Args:
        job: reads the input and writes the output.
        load_worker: takes the settings and loads the worker; each process calls it for its device.
        settings: keyword arguments of `load_worker`, one of which is ``device``.
        loaded: folders, files or Hub ids that it loads; the output must not be a file of one.
    """
    from ..serving.file_jobs import OneProcess

    for name in loaded:
        require_another(job.target, Path(name).rglob("*"))
    processes: PartialState | OneProcess = OneProcess()
    device = settings["device"]
    if started_processes() > 1:
        from ..core.devices import sharing_processes

        processes = sharing_processes(device)
        device = str(processes.device)
    worker = load_worker(**{**settings, "device": device})
    advice = worker.advice(settings.get("dtype"), in_batches=True)
    if advice and processes.is_main_process:
        print(advice, file=sys.stderr)
    return job.main(worker, processes)
