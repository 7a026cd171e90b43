"""Linking a file of any size, and writing the candidate lists of its mentions."""

from __future__ import annotations

import argparse
import warnings

from ..hub.download import BUILT_IN
from ..linking.link_files import CandidatesJob, LinkJob
from ..linking.linker import ConceptLinker
from .output_options import format_settings, usagi_sheets
from .rerank import report, served, shared_processes

NOT_CALIBRATED = (
    "scores are not calibrated for this dictionary and text, so there are no tiers: label some "
    "mentions (umls-reranker candidates INDEX INPUT sheet.csv), then umls-reranker calibrate "
    f"{BUILT_IN} --lists sheet.csv --output my_model, and link with --model my_model"
)


def link_file(options: argparse.Namespace) -> int:
    """Link the mentions of a file; return the exit code, which is 1 if a row has an error."""
    of_run = options.index / "model"
    if options.model is None:
        options.model = str(of_run) if of_run.is_dir() else BUILT_IN
    settings = served(options)
    job = LinkJob(
        options.input,
        options.output,
        options.batch_mentions,
        top=options.top,
        overwrite=options.overwrite,
        format_name=options.format,
        format_settings=format_settings(options, settings["model"], index=options.index),
        sheets=usagi_sheets(options),
    )
    processes = shared_processes(settings)
    linker = ConceptLinker.from_pretrained(settings.pop("model"), options.index, **settings)
    if not linker.is_calibrated:
        # No tier is given, so it does not matter which model would be certified.
        warnings.filterwarnings("ignore", "missing inputs")
    counts = job.run(linker, processes)
    # A launcher kills the other processes when one ends with an error: only the process that wrote
    # the output tells.
    if not processes.is_main_process:
        return 0
    report(job, counts, linker.reranker.calibration.counts, has_tiers=linker.is_calibrated)
    if not linker.is_calibrated:
        print(NOT_CALIBRATED)
    return int(counts["error"] > 0)


def write_candidates(options: argparse.Namespace) -> int:
    """Write the candidate lists of a file's mentions; the exit code is as for `link_file`."""
    job = CandidatesJob(
        options.input,
        options.output,
        options.batch_mentions,
        overwrite=options.overwrite,
        sheets=usagi_sheets(options),
    )
    settings = {"device": options.device or "auto"}
    processes = shared_processes(settings)
    linker = ConceptLinker.from_pretrained(BUILT_IN, options.index, **settings)
    counts = job.run(linker, processes)
    if not processes.is_main_process:
        return 0
    print(
        f"lists of {counts['mentions']:,} mentions with {counts['candidates']:,} candidates, "
        f"{counts['error']:,} rows with an error, written to {job.target}"
    )
    if job.first_error:
        print(f"the first error: {job.first_error}")
    if counts["gold"]:
        share = counts["in_list"] / counts["gold"]
        print(f"the gold concept is in the list of {share:.1%} of {counts['gold']:,} with one")
    lists = f"umls-reranker calibrate {BUILT_IN} --lists {job.target} --output my_model"
    print(f"give each mention its gold concept, then: {lists}")
    return int(counts["error"] > 0)
