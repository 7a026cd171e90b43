"""Tables for a terminal: results next to baselines, decisions, examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from .formats import figure_name, number, percent, recall_in_list, with_interval

EXAMPLE_CANDIDATES = 3


def linking_table(report: dict[str, Any]) -> Table:
    """acc@1, MRR and recall of every system over all mentions, and acc@1 over those in the dictionary."""
    losses = report["losses"]
    recall = recall_in_list(report["linking"]["reranker"])
    table = Table(
        title=f"Linking, {report['mentions']:,} {report['split']} mentions in {report['documents']:,} documents "
        "(95 % intervals by document)",
        caption=f"Counted as errors: {losses['out_of_dictionary']:,} mentions whose gold concept is not in the "
        f"dictionary and {losses['not_retrieved']:,} whose gold concept was not retrieved. Systems with a "
        "single answer have no MRR.",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("system")
    for title in ("acc@1", "acc@1, gold in dictionary", "MRR", recall, "answered"):
        table.add_column(title, justify="right")
    for name, row in report["linking"].items():
        table.add_row(
            figure_name(name),
            with_interval(row["acc@1"]),
            with_interval(row["in_dictionary"]["acc@1"]),
            number(row["mrr"]) if "mrr" in row else "",
            number(row[recall]) if recall in row else "",
            percent(row.get("answered", 1.0)),
            style="bold" if name == "reranker" else None,
        )
    return table


def figures_table(report: dict[str, Any]) -> Table:
    """Pair metrics, calibration before and after, and serving figures."""
    table = Table(title="Scores and decisions", title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column("measured on")
    for name in ("f1", "roc_auc"):
        figure = report["pair"][name]
        table.add_row(f"pair {figure_name(name)}", with_interval(figure), figure["population"])
    candidates = f"{report['candidates']:,} candidates"
    for name, population in (("ece_raw", candidates), ("ece", candidates), ("top1_ece", "top candidates")):
        table.add_row(figure_name(name), number(report["calibration"][name], 4), population)
    for name, figure in report["serving"].items():
        table.add_row(figure_name(name), with_interval(figure), figure["population"])
    table.add_row("scored by the cross-encoder", percent(report["scored"]["share"]), candidates)
    return table


def examples_table(
    mentions: Sequence[str], gold_cuis: Sequence[str], ranked: Sequence[Sequence[Mapping[str, Any]]]
) -> Table:
    """The top candidates of some mentions with the fields of the column ``ranked``; the gold concept is marked."""
    table = Table(title="Examples from the test split, most to least confident", title_justify="left")
    for title in ("mention", "candidate", "CUI", "gold", "score", "margin", "tier", "decision"):
        table.add_column(title, justify="right" if title in ("score", "margin") else "left")
    for mention, gold, candidates in zip(mentions, gold_cuis, ranked, strict=True):
        displayed = candidates[:EXAMPLE_CANDIDATES]
        for rank, candidate in enumerate(displayed, start=1):
            is_top = rank == 1
            table.add_row(
                # Not markup: names may contain brackets.
                Text(mention if is_top else ""),
                Text(candidate["name"]),
                Text(candidate["cui"] or ""),
                "yes" if candidate["cui"] == gold else "",
                number(candidate["score"]),
                f"{candidate['margin']:+.3f}" if is_top else "",
                candidate["tier"],
                ("accept" if candidate["accepted"] else "abstain") if is_top else "",
                end_section=rank == len(displayed),
            )
    return table
