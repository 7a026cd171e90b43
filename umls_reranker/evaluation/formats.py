"""Formats of figures in tables, page and card: names, numbers, intervals, and Markdown tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeGuard

from . import figures

# Readable names for metrics and systems of ``metrics.json`` that are not a `Figure`.
NAMES = {
    "f1": "F1",
    "roc_auc": "ROC-AUC",
    "mrr": "MRR",
    "ece": "ECE",
    "debiased_ece": "debiased ECE",
    "ece_reduction": "ECE reduction",
    "brier": "Brier score",
    "brier_miscalibration": "Brier miscalibration",
    "brier_discrimination": "Brier discrimination",
    "brier_uncertainty": "Brier uncertainty",
    "log_loss": "log loss",
    "reranker": "this model",
    "cross_encoder": "cross-encoder alone",
    "features_without_cross_encoder": "all features except the cross-encoder",
    "retriever": "retriever alone",
    "lists_order": "original order",
    "model_before": "previous model",
    "calibrated_scores": "calibrated list scores",
    "exact_match": "exact name match",
    "most_frequent_cui": "most frequent CUI of the string",
    "most_frequent_cui_else_retriever": "most frequent CUI, else retriever",
    "seen_cui": "concept seen",
    "unseen_cui": "concept unseen",
    "seen_string": "string seen",
    "unseen_string": "string unseen",
}


def figure_name(key: str) -> str:
    """Display name of a figure.

    >>> figure_name("top1_ece")
    'ECE, top candidates'
    """
    for affix, note in (("_raw", ", before calibration"), ("top1_", ", top candidates")):
        if affix in key:
            return figure_name(key.replace(affix, "")) + note
    names = NAMES | {figure.name: figure.help for figure in figures.FIGURES}
    return names.get(key, key.replace("_", " "))


def inputs_label(name: str, names: Iterable[str]) -> str:
    """Name of a model's inputs in a table, with a note about the mention's type.

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

    >>> recall_in_list({"acc@1": ..., "recall@5": ..., "recall@16": ...})
    'recall@16'
    """
    return max((name for name in row if name.startswith("recall@")), key=lambda name: int(name.split("@")[1]))


def is_there(value: float | None) -> TypeGuard[float]:
    """Whether a value was measured and is finite."""
    return value is not None and math.isfinite(value)


def number(figure: Mapping[str, Any] | float | None, digits: int = 3) -> str:
    """A figure as text, a dash if there is none."""
    value = figure["value"] if isinstance(figure, Mapping) else figure
    return f"{value:.{digits}f}" if is_there(value) else "–"


def percent(figure: Mapping[str, Any] | float | None, digits: int = 1) -> str:
    """A figure in percent, a dash if there is none."""
    value = figure["value"] if isinstance(figure, Mapping) else figure
    return f"{100 * value:.{digits}f}\u00a0%" if is_there(value) else "–"


def interval(figure: Mapping[str, Any] | None, digits: int = 1, scale: float = 100.0, separator: str = " – ") -> str:
    """The ends of a figure's 95 % interval, "" if it has none, as for a single document."""
    low, high = (figure or {}).get("low"), (figure or {}).get("high")
    if not is_there(low) or not is_there(high):
        return ""
    return f"{scale * low:.{digits}f}{separator}{scale * high:.{digits}f}"


def with_interval(figure: Mapping[str, Any] | None, digits: int = 3) -> str:
    """`number` and `interval` of a figure.

    >>> with_interval({"value": 0.5, "low": 0.25, "high": 0.75}, 2)
    '0.50 (0.25-0.75)'
    """
    ends = interval(figure, digits, 1.0, "-")
    return number(figure, digits) + (f" ({ends})" if ends else "")


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with columns of even width."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for cells in (header, ["-" * width for width in widths], *rows):
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        lines.append(f"| {' | '.join(padded)} |")
    return "\n".join(lines)


# For templates.
FORMATS: dict[str, Any] = {
    "figure_name": figure_name,
    "inputs_label": inputs_label,
    "recall_in_list": recall_in_list,
    "number": number,
    "percent": percent,
    "interval": interval,
    "with_interval": with_interval,
}
