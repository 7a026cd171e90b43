"""Ranking a file of any size, by the command line and the recipe that names a model."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from ..calibration.string_counts import StringCounts
from ..calibration.thresholds import TIERS
from ..core.arrays import started_processes
from ..hub.download import BUILT_IN
from ..serving.bulk import BulkJob, OneProcess
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
    processes: Any = OneProcess()
    if started_processes() > 1:
        from ..core.devices import sharing_processes

        processes = sharing_processes(settings["device"])
        settings["device"] = str(processes.device)
    model = settings.pop("model")
    reranker = UMLSReranker.from_pretrained(model, exhaustive=options.exhaustive, **settings)
    counts = job.run(reranker, processes)
    # A launcher kills the other processes when one ends with an error: only the process that wrote
    # the output tells.
    if not processes.is_main_process:
        return 0
    print(
        f"{counts['ranked']:,} mentions ranked, {counts['error']:,} with an error, "
        f"written to {options.output}"
    )
    if not counts["ranked"] + counts["error"]:
        print(f"{options.input} holds no mentions")
    if job.format.counts:
        print(said_of_output(job.format.counts))
    if job.first_error:
        print(f"the first error: {job.first_error}")
    if counts["ranked"]:
        print(summary_of(counts))
    if distance := distance_from_calibration(counts, reranker.calibration.counts):
        print(f"caution: {distance}; scores and tiers hold for text and lists like those")
    if counts["candidates"] and not counts["known"] and len(reranker.calibration.counts):
        print(
            "caution: the model has counted no concept of these candidates; "
            "are ids missing, or of another kind?"
        )
    if model == BUILT_IN and counts["ranked"]:
        print(
            "scores and tiers are not calibrated for your lists: umls-reranker calibrate "
            f"{BUILT_IN} --lists FILE"
        )
    return int(counts["error"] > 0)


def distance_from_calibration(counts: Mapping[str, int], strings: StringCounts) -> str:
    """How far mentions and scores are from what calibration saw, or "" if they are not far.

    Args:
        counts: those of `BulkJob.run`.
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


def summary_of(counts: Mapping[str, int]) -> str:
    """Share of each tier and of what is accepted, and accuracy where gold concepts are known."""
    ranked = counts["ranked"]
    in_tier = {tier: counts[tier] for tier in TIERS}
    if sum(in_tier.values()) < ranked:
        in_tier["no candidates"] = ranked - sum(in_tier.values())
    tiers = ", ".join(f"{tier} {count / ranked:.1%}" for tier, count in in_tier.items())
    summary = f"{tiers}; accepted {counts['accepted'] / ranked:.1%}"
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
