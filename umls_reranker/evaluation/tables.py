"""Names of figures, and tables for a terminal: results next to baselines, decisions, examples."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeGuard

from rich.table import Table
from rich.text import Text

__all__ = [
    "examples_table",
    "figure_name",
    "figures_table",
    "inputs_label",
    "is_there",
    "linking_table",
    "number",
    "recall_in_list",
    "with_interval",
]

SYSTEMS = (
    "reranker",
    "features_without_cross_encoder",
    "cross_encoder",
    "retriever",
    "exact_match",
    "most_frequent_cui",
    "most_frequent_cui_else_retriever",
)
SHOWN_CANDIDATES = 3
# Readable names for figures and systems of ``metrics.json``.
NAMES = {
    "f1": "F1",
    "roc_auc": "ROC-AUC",
    "mrr": "MRR",
    "ece": "ECE",
    "debiased_ece": "debiased ECE",
    "ece_reduction": "ECE reduction",
    "brier": "Brier score",
    "log_loss": "log-loss",
    "reranker": "this model",
    "cross_encoder": "cross-encoder alone",
    "features_without_cross_encoder": "all features but the cross-encoder",
    "retriever": "retriever alone",
    "exact_match": "exact name match",
    "most_frequent_cui": "most frequent CUI of the string",
    "most_frequent_cui_else_retriever": "most frequent CUI, else retriever",
    "seen_cui": "concept seen",
    "unseen_cui": "concept not seen",
    "seen_string": "string seen",
    "unseen_string": "string not seen",
}


def figure_name(key: str) -> str:
    """Words for a key.

    >>> figure_name("top1_ece")
    'ECE, top candidates'
    """
    for affix, note in (("_raw", ", before calibration"), ("top1_", ", top candidates")):
        if affix in key:
            return figure_name(key.replace(affix, "")) + note
    return NAMES.get(key, key.replace("_", " "))


def inputs_label(name: str, names: Iterable[str]) -> str:
    """The name of an input model in a table, which says of each whether the mention's type is given.

    >>> [inputs_label(name, ["all", "no type"]) for name in ("all", "no type")]
    ['all, type given', 'all, no type']
    """
    parts = name.split(", ")
    if not any("no type" in other.split(", ") for other in names):
        return name
    if "no type" not in parts:
        return f"{name}, type given"
    return name if parts[0] != "no type" else f"all, {name}"


def recall_in_list(row: Mapping[str, Any]) -> str:
    """The key of a system's recall over whole lists.

    >>> recall_in_list({"acc@1": ..., "recall@1": ..., "recall@5": ..., "recall@16": ...})
    'recall@16'
    """
    return max((name for name in row if name.startswith("recall@")), key=lambda name: int(name.split("@")[1]))


def is_there(value: float | None) -> TypeGuard[float]:
    """Whether a value was measured, and is finite."""
    return value is not None and math.isfinite(value)


def number(figure: Mapping[str, Any] | float | None, digits: int = 3) -> str:
    """A figure as text, a dash if there is none."""
    value = figure["value"] if isinstance(figure, Mapping) else figure
    return f"{value:.{digits}f}" if is_there(value) else "–"


def with_interval(figure: Mapping[str, Any] | None, digits: int = 3) -> str:
    """`number` and its 95 % interval, which figures of one document lack.

    >>> with_interval({"value": 0.5, "low": 0.25, "high": 0.75}, 2)
    '0.50 (0.25-0.75)'
    """
    ends = [(figure or {}).get(end) for end in ("low", "high")]
    text = number(figure, digits)
    return f"{text} ({'-'.join(number(end, digits) for end in ends)})" if all(map(is_there, ends)) else text


def linking_table(report: dict[str, Any]) -> Table:
    """acc@1, MRR and recall of every system over all mentions, and acc@1 over those in the dictionary."""
    losses = report["losses"]
    recall = recall_in_list(report["linking"]["reranker"])
    table = Table(
        title=f"Linking, {report['mentions']:,} {report['split']} mentions in {report['documents']:,} documents "
        "(95 % intervals by document)",
        caption=f"Counted as errors: {losses['out_of_dictionary']:,} mentions whose concept is not in the dictionary, "
        f"{losses['not_retrieved']:,} whose concept was not retrieved. Systems that give one answer have no MRR.",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("system")
    for title in ("acc@1", "acc@1 in dictionary", "MRR", recall, "answered"):
        table.add_column(title, justify="right")
    # Without features there is no fusion without the cross-encoder.
    for name in filter(report["linking"].__contains__, SYSTEMS):
        row = report["linking"][name]
        ranks_all = "answered" not in row
        table.add_row(
            figure_name(name),
            with_interval(row["acc@1"]),
            with_interval(row["in_dictionary"]["acc@1"]),
            f"{row['mrr']['value']:.3f}" if ranks_all else "",
            f"{row[recall]['value']:.3f}" if ranks_all else "",
            f"{row['answered']['value']:.1%}" if "answered" in row else "100.0%",
            style="bold" if name == "reranker" else None,
        )
    return table


def figures_table(report: dict[str, Any]) -> Table:
    """Pair metrics, calibration before and after, and serving figures."""
    pair, calibration, serving = report["pair"], report["calibration"], report["serving"]
    high = report["tiers"]["high"]
    table = Table(title="Scores and decisions", title_justify="left")
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("measured on")
    candidates, mentions = f"{report['candidates']:,} candidates", f"{report['mentions']:,} mentions"
    rows = [
        ("pair F1", with_interval(pair["f1"]), pair["f1"]["population"]),
        ("pair ROC-AUC", with_interval(pair["roc_auc"]), pair["roc_auc"]["population"]),
        ("ECE before calibration", f"{calibration['ece_raw']['value']:.4f}", candidates),
        ("ECE after calibration", f"{calibration['ece']['value']:.4f}", candidates),
        ("ECE of top candidates, after", f"{calibration['top1_ece']['value']:.4f}", mentions),
        ("high-confidence share", with_interval(serving["high_confidence_share"]), mentions),
        ("precision of the high-confidence tier", with_interval(high["precision"]), f"{high['count']:,} mentions"),
        ("accepted share", with_interval(serving["accepted_share"]), mentions),
        ("precision of accepted", number(serving["accepted_precision"]), "accepted mentions"),
        ("mean top score", f"{serving['mean_top_score']['value']:.3f}", "mentions with candidates"),
        (
            "mean margin to the best other concept",
            f"{serving['mean_margin']['value']:.3f}",
            "mentions with candidates",
        ),
    ]
    if "scored" in report:
        rows.append(("scored by the cross-encoder", f"{report['scored']['share']:.1%}", candidates))
    for row in rows:
        table.add_row(*row)
    return table


def examples_table(
    mentions: Sequence[str], gold_cuis: Sequence[str], ranked: Sequence[Sequence[Mapping[str, Any]]]
) -> Table:
    """The best candidates of some mentions, with the fields of the column ``ranked``, with the gold concept marked."""
    table = Table(title="Examples from the test split, from a confident to an unsure one", title_justify="left")
    for title in ("mention", "candidate", "CUI", "gold", "score", "margin", "tier", "decision"):
        table.add_column(title, justify="right" if title in ("score", "margin") else "left")
    for mention, gold, candidates in zip(mentions, gold_cuis, ranked, strict=True):
        for rank, candidate in enumerate(candidates[:SHOWN_CANDIDATES], start=1):
            first = rank == 1
            table.add_row(
                # Not markup: names have brackets.
                Text(mention if first else ""),
                Text(candidate["name"]),
                Text(candidate["cui"] or ""),
                "yes" if candidate["cui"] == gold else "",
                f"{candidate['score']:.3f}",
                f"{candidate['margin']:+.3f}" if first else "",
                candidate["tier"],
                ("accept" if candidate["accepted"] else "abstain") if first else "",
                end_section=rank == min(SHOWN_CANDIDATES, len(candidates)),
            )
    return table
