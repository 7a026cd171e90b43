"""Tables for a terminal: results beside baselines, figures of the reranker, reranked examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .names import figure_name

if TYPE_CHECKING:
    from rich.table import Table

    from ..calibration.decisions import RankedCandidate

__all__ = ["examples_table", "figures_table", "linking_table"]

SYSTEMS = ("reranker", "retriever", "exact_match", "most_frequent_cui", "most_frequent_cui_else_retriever")
SHOWN_CANDIDATES = 3


def linking_table(report: dict[str, Any]) -> Table:
    """acc@1, MRR and recall of every system over all mentions, and acc@1 over those the dictionary can answer."""
    from rich.table import Table

    losses = report["losses"]
    table = Table(
        title=f"Linking, {report['mentions']:,} {report['split']} mentions in {report['documents']:,} documents "
        "(95 % intervals by document)",
        caption=f"Counted as errors: {losses['out_of_dictionary']:,} mentions whose concept is not in the dictionary, "
        f"{losses['not_retrieved']:,} whose concept was not retrieved. Systems that give one answer have no MRR.",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("system")
    for title in ("acc@1", "acc@1 in dictionary", "MRR", "recall@32", "answered"):
        table.add_column(title, justify="right")
    for name in SYSTEMS:
        row = report["linking"][name]
        ranks_all = name in ("reranker", "retriever")
        table.add_row(
            figure_name(name),
            _with_interval(row["acc@1"]),
            _with_interval(row["in_dictionary"]["acc@1"]),
            f"{row['mrr']['value']:.3f}" if ranks_all else "",
            f"{row['recall@32']['value']:.3f}" if ranks_all else "",
            f"{row['answered']['value']:.1%}" if "answered" in row else "100.0%",
            style="bold" if name == "reranker" else None,
        )
    return table


def figures_table(report: dict[str, Any]) -> Table:
    """Pair metrics, calibration before and after, and what serving would show."""
    from rich.table import Table

    pair, calibration, serving = report["pair"], report["calibration"], report["serving"]
    high = report["tiers"]["high"]
    table = Table(title="Scores and decisions", title_justify="left")
    for title, justify in (("figure", "left"), ("value", "right"), ("measured on", "left")):
        table.add_column(title, justify=justify)
    candidates, mentions = f"{report['candidates']:,} candidates", f"{report['mentions']:,} mentions"
    rows = [
        ("pair F1", _with_interval(pair["f1"]), pair["f1"]["population"]),
        ("pair ROC-AUC", _with_interval(pair["roc_auc"]), pair["roc_auc"]["population"]),
        ("ECE before calibration", f"{calibration['ece_raw']['value']:.4f}", candidates),
        ("ECE after calibration", f"{calibration['ece']['value']:.4f}", candidates),
        ("ECE of top candidates, after", f"{calibration['top1_ece']['value']:.4f}", mentions),
        ("high-confidence share", _with_interval(serving["high_confidence_share"]), mentions),
        ("precision of the high-confidence tier", _with_interval(high["precision"]), f"{high['count']:,} mentions"),
        ("accepted share", _with_interval(serving["accepted_share"]), mentions),
        ("precision of accepted", _number(serving["accepted_precision"]), "accepted mentions"),
        ("mean top score", f"{serving['mean_top_score']['value']:.3f}", mentions),
        ("mean margin top-1 to top-2", f"{serving['mean_margin']['value']:.3f}", mentions),
    ]
    for row in rows:
        table.add_row(*row)
    return table


def examples_table(
    mentions: Sequence[str], gold_cuis: Sequence[str], ranked: Sequence[Sequence[RankedCandidate]]
) -> Table:
    """The best candidates of some mentions, the gold concept marked."""
    from rich.table import Table

    table = Table(title="Examples from the test split, from a confident to an unsure one", title_justify="left")
    for title in ("mention", "candidate", "CUI", "gold", "score", "margin", "tier", "decision"):
        table.add_column(title, justify="right" if title in ("score", "margin") else "left")
    for mention, gold, candidates in zip(mentions, gold_cuis, ranked, strict=True):
        for candidate in candidates[:SHOWN_CANDIDATES]:
            first = candidate.rank == 1
            table.add_row(
                mention if first else "",
                candidate.name,
                candidate.cui or "",
                "yes" if candidate.cui == gold else "",
                f"{candidate.cross_encoder_score:.3f}",
                f"{candidate.margin:+.3f}" if first else "",
                candidate.tier,
                ("accept" if candidate.accepted else "abstain") if first else "",
                end_section=candidate.rank == min(SHOWN_CANDIDATES, len(candidates)),
            )
    return table


def _number(entry: dict[str, float | None]) -> str:
    return "-" if entry["value"] is None else f"{entry['value']:.3f}"


def _with_interval(entry: dict[str, float | None]) -> str:
    if entry["value"] is None:
        return "-"
    return f"{entry['value']:.3f} ({entry['low']:.3f}-{entry['high']:.3f})"
