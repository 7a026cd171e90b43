"""Ranking a file of any size, by the command line and the recipe that names a model."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from ..calibration.string_counts import StringCounts
from ..calibration.thresholds import TIERS
from ..core.arrays import started_processes
from ..hub.download import BUILT_IN
from ..serving.bulk import BulkJob, FileJob, OneProcess
from ..serving.reranker import UMLSReranker
from .output_options import format_settings, said_of_output
from .recipe import load_served

# Shares of scores and mentions that calibration did not see, above which this is said.
OUTSIDE = 0.05
NEW = 0.5
# With fewer strings counted, most of them are new in text like that of calibration, too.
FEWEST_STRINGS = 5_000


def rerank_file(options: argparse.Namespace) -> int:
    """Rank the rows of a file; return the exit code, which is 1 if a row has an error."""
    settings = served(options)
    job = BulkJob(
        options.input,
        options.output,
        options.batch_mentions,
        overwrite=options.overwrite,
        dictionary=options.dictionary,
        format_name=options.format,
        format_settings=format_settings(options, settings["model"], dictionary=options.dictionary),
    )
    processes = shared_processes(settings)
    model = settings.pop("model")
    reranker = UMLSReranker.from_pretrained(model, exhaustive=options.exhaustive, **settings)
    counts = job.run(reranker, processes)
    # A launcher kills the other processes when one ends with an error: only the process that wrote
    # the output tells.
    if not processes.is_main_process:
        return 0
    report(job, counts, reranker.calibration.counts)
    if model == BUILT_IN and counts["ranked"]:
        print(
            "scores and tiers are not calibrated for your lists: umls-reranker calibrate "
            f"{BUILT_IN} --lists FILE"
        )
    return int(counts["error"] > 0)


def shared_processes(settings: dict[str, Any]) -> Any:
    """The processes of a launch, or one; sets the device of this process in `settings`."""
    if started_processes() == 1:
        return OneProcess()
    from ..core.devices import sharing_processes

    processes = sharing_processes(settings["device"])
    settings["device"] = str(processes.device)
    return processes


def report(
    job: FileJob, counts: Mapping[str, int], strings: StringCounts, *, has_tiers: bool = True
) -> None:
    """Print what became of a file.

    Args:
        job: the finished job.
        counts: those of `FileJob.run`.
        strings: the strings that the model has counted.
        has_tiers: whether tiers were given.
    """
    print(
        f"{counts['ranked']:,} mentions ranked, {counts['error']:,} with an error, "
        f"written to {job.target}"
    )
    if job.format.counts:
        print(said_of_output(job.format.counts))
    if job.first_error:
        print(f"the first error: {job.first_error}")
    if counts["ranked"]:
        print(summary_of(counts, has_tiers))
    if distance := distance_from_calibration(counts, strings):
        print(f"caution: {distance}; scores and tiers hold for text and lists like those")
    if has_tiers and counts["candidates"] and not counts["known"] and len(strings):
        print(
            "caution: the model has counted no concept of these candidates; "
            "are ids missing, or of another kind?"
        )


def distance_from_calibration(counts: Mapping[str, int], strings: StringCounts) -> str:
    """How far mentions and scores are from what calibration saw, or "" if they are not far.

    Args:
        counts: those of `FileJob.run`.
        strings: the strings that the model has counted.
    """
    new = 1 - counts["seen"] / max(1, counts["ranked"])
    outside = counts["outside"] / max(1, counts["scores"])
    is_new = len(strings) >= FEWEST_STRINGS and new > max(NEW, strings.share_once)
    if not counts["ranked"] or (outside <= OUTSIDE and not is_new):
        return ""
    return (
        f"far from what the model was calibrated on: {outside:.1%} of the scores are outside "
        f"its range, and it counted neither string nor words of {new:.1%} of the mentions"
    )


def summary_of(counts: Mapping[str, int], has_tiers: bool = True) -> str:
    """Share of each tier and of what is accepted, and accuracy where gold concepts are known."""
    ranked = counts["ranked"]
    in_tier = {tier: counts[tier] for tier in TIERS}
    without = ranked - sum(in_tier.values())
    if not has_tiers:
        in_tier = {}
    if without or not has_tiers:
        in_tier["no candidates"] = without
    summary = ", ".join(f"{tier} {count / ranked:.1%}" for tier, count in in_tier.items())
    if has_tiers:
        summary += f"; accepted {counts['accepted'] / ranked:.1%}"
    if counts["gold"]:
        accuracy = counts["correct"] / counts["gold"]
        summary += f"; acc@1 {accuracy:.3f} of {counts['gold']:,} with a gold concept"
    return summary


def served(options: argparse.Namespace) -> dict[str, Any]:
    """What to load: from the command line, else from the recipe if one is given."""
    recipe = load_served(options.model)
    serving = recipe.serving
    settings = {
        "model": serving.served_model,
        "revision": serving.served_revision,
        **recipe.run.scoring,
    }
    settings |= {
        name: getattr(serving, name) for name in ("backend", "token_budget", "accept_tier")
    }
    names = ("revision", "device", "dtype", "backend", "token_budget", "accept_tier")
    return settings | {
        name: getattr(options, name) for name in names if getattr(options, name) is not None
    }
