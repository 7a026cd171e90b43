"""The figures that targets can name, out of ``metrics.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .checklist import SMALL_SUPPORT, Measured

__all__ = ["measured_figures"]


def measured_figures(report: Mapping[str, Any]) -> dict[str, Measured]:
    """By the names used in recipes; figures over pairs have the support of the mentions that the pairs belong to."""
    linking, split, mentions = report["linking"]["reranker"], report["split"], report["mentions"]
    everywhere = f"{mentions:,} {split} mentions", mentions
    known = f"{report['in_dictionary']:,} {split} mentions with gold in the dictionary", report["in_dictionary"]
    candidates = f"{report['candidates']:,} candidates", mentions

    figures = {name: _measured(entry, entry["population"], mentions) for name, entry in report["pair"].items()}
    figures |= {
        f"candidate_{name}": _measured(entry, entry["population"], mentions)
        for name, entry in report["candidate_pair"].items()
    }
    for name in ("acc@1", "mrr", "recall@5", "recall@32"):
        figures[name] = _measured(linking[name], *everywhere)
        figures[f"{name}_in_dictionary"] = _measured(linking["in_dictionary"][name], *known)
    figures["acc@1_gain_over_retriever"] = _measured(report["gain_over_retriever"], *known)
    for name, entry in report["calibration"].items():
        figures[name] = _measured(entry, *(everywhere if name.startswith("top1_") else candidates))
    figures |= _worst_groups(report["groups"])
    accepted = report["answering"]["answering"]["given"]
    for name, entry in report["serving"].items():
        support = accepted if name == "accepted_precision" else mentions
        figures[name] = _measured(entry, entry["population"], support)
    for reading, entry in report["answering"].items():
        support = {"precision": entry["given"], "recall": entry["wanted"], "f1": mentions}
        for name, count in support.items():
            figures[f"{reading}_{name}"] = _measured(entry[name], f"{count:,} {split} mentions", count)
    high = report["tiers"]["high"]
    in_tier = f"{high['count']:,} mentions in the high tier", high["count"]
    figures["high_confidence_precision"] = _measured(high["precision"], *in_tier)
    near = report["near_misses"]["reranker"]["share"]
    figures["near_miss_share"] = _measured(near, near["population"], mentions)
    for precision, entry in report["coverage"]["reranker"].items():
        figures[f"coverage_at_{precision}"] = _measured(entry, *everywhere)
    return figures


def _measured(entry: Mapping[str, float | None], population: str, support: int) -> Measured:
    value = float("nan") if entry["value"] is None else entry["value"]
    return Measured(value, entry.get("low"), entry.get("high"), population, support)


def _worst_groups(groups: Mapping[str, Mapping[str, Any]]) -> dict[str, Measured]:
    """The worst semantic group of enough mentions, by debiased ECE of top scores and by acc@1."""
    large = [group for group in groups.values() if group["mentions"] >= SMALL_SUPPORT and "debiased_ece" in group]
    if not large:
        nothing = Measured(float("nan"), population=f"no semantic group has {SMALL_SUPPORT:,} mentions", support=0)
        return {"worst_group_top1_debiased_ece": nothing, "worst_group_acc@1": nothing}
    by_ece = max(large, key=lambda group: group["debiased_ece"]["value"])
    by_accuracy = min(large, key=lambda group: group["acc@1"]["value"])
    return {
        name: _measured(group[figure], f"{group['mentions']:,} mentions of {group['name']}", group["mentions"])
        for name, figure, group in (
            ("worst_group_top1_debiased_ece", "debiased_ece", by_ece),
            ("worst_group_acc@1", "acc@1", by_accuracy),
        )
    }
