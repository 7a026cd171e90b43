"""The commands that read a file of mentions of any size and write one: rerank, link, candidates."""

from __future__ import annotations

import argparse
import warnings
from typing import Any

from ..core.arrays import started_processes
from ..hub.model_folder import BUILT_IN
from ..linking.link_files import CandidatesJob, LinkJob
from ..linking.linker import ConceptLinker
from ..serving.bulk import BulkJob, OneProcess
from ..serving.reranker import UMLSReranker
from .output_options import format_settings, model_settings, usagi_sheets
from .recipe import load_served


def rerank_file(options: argparse.Namespace) -> int:
    """Rank the rows of a file; return the exit code, which is 1 if a row has an error."""
    recipe = load_served(options.model)
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
    processes = shared_processes(settings)
    reranker = UMLSReranker.from_pretrained(model, exhaustive=options.exhaustive, **settings)
    return job.main(reranker, processes)


def link_file(options: argparse.Namespace) -> int:
    """Link the mentions of a file; the exit code is as for `rerank_file`."""
    of_run = options.index / "model"
    default = str(of_run) if of_run.is_dir() else BUILT_IN
    recipe = load_served(options.model or default)
    settings = model_settings(recipe, options)
    model = str(recipe.serving.served_model)
    job = LinkJob(
        options.input,
        options.output,
        options.batch_mentions,
        top=options.top,
        overwrite=options.overwrite,
        format_name=options.format,
        format_settings=format_settings(options, model, index=options.index),
        sheets=usagi_sheets(options),
    )
    processes = shared_processes(settings)
    linker = ConceptLinker.from_pretrained(model, options.index, **settings)
    if not linker.is_calibrated:
        # No tier is given, so it does not matter which model would be certified.
        warnings.filterwarnings("ignore", "missing inputs")
    return job.main(linker, processes)


def write_candidates(options: argparse.Namespace) -> int:
    """Write the candidate lists of a file's mentions; the exit code is as for `rerank_file`."""
    job = CandidatesJob(
        options.input,
        options.output,
        options.batch_mentions,
        overwrite=options.overwrite,
        sheets=usagi_sheets(options),
        each_row_is_a_document=options.each_row_is_a_document,
    )
    settings = {"device": options.device or "auto"}
    processes = shared_processes(settings)
    linker = ConceptLinker.from_pretrained(BUILT_IN, options.index, **settings)
    return job.main(linker, processes)


def shared_processes(settings: dict[str, Any]) -> Any:
    """The processes of a launch, or one; sets the device of this process in `settings`."""
    if started_processes() == 1:
        return OneProcess()
    from ..core.devices import sharing_processes

    processes = sharing_processes(settings["device"])
    settings["device"] = str(processes.device)
    return processes
