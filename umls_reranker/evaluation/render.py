"""``metrics.json`` as tables, the same rows for a terminal, page and card; page and charts.

The template ``charts.svg`` draws charts of their points, which ``metrics.json`` holds. No chart
library, no script, no network; light or dark. All can be drawn again from ``metrics.json`` alone.
"""

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from ..calibration.decisions import ThresholdTable
from ..calibration.reliability import equal_width
from .metrics import COVERAGE_PRECISIONS, FIGURES

Cell = tuple[str, str]
TEMPLATES = Path(__file__).parent.parent / "templates"
TERMINAL_WIDTH = 100
# Titles of figures that are not a `Figure`, and of systems.
TITLES = {
    "ece": "ECE",
    "debiased_ece": "debiased ECE",
    "ece_reduction": "ECE reduction",
    "brier": "Brier score",
    "f1": "F1, dev pairs in training",
    "roc_auc": "ROC-AUC, dev pairs in training",
    "candidate_roc_auc": "ROC-AUC of candidates",
    "scored_share": "candidates that the cross-encoder scored",
    "same_top_candidate": "same top candidate as without pruning",
    "reranker": "this model",
    "cross_encoder": "cross-encoder alone",
    "list_fusion": "list fusion (all but the cross-encoder)",
    "lists_order": "original order",
    "calibrated_scores": "calibrated list scores",
    "exact_match": "exact name of one concept",
    "most_frequent_cui": "most frequent CUI of the string",
    "most_frequent_cui_else_order": "the same, else the first",
    "label_else_exact_match": "most frequent label, else exact name",
}

# Parts of names of figures, and what they add to the title.
AFFIXES = {
    "_raw": ", before calibration",
    "top1_": ", top candidates",
    "worst_group_": ", worst semantic group",
}
BINS = 15
HISTOGRAM_BINS = 20
# Maximum number of points of a risk-coverage curve: more would not be visible.
CURVE_POINTS = 200
# Coverage up to which the precision does not set the scale.
FEW = 0.025
# Ticks of an axis from 0 to 1.
FIFTHS = [(fifth / 5, f"{fifth / 5:.1f}") for fifth in range(6)]
PERCENT_FIFTHS = [(fifth / 5, f"{20 * fifth} %") for fifth in range(6)]


class TableColumn(NamedTuple):
    """A column of a table: its title, the name of the figure, and its format."""

    title: str
    key: str
    format: str = "percent"


class Table(NamedTuple):
    """A table as text: title, header, and rows of cells, each a value and its interval or ""."""

    title: str
    header: list[str]
    rows: list[list[Cell]]


COMPARISON = "Comparison with the original order"
SYSTEM_COLUMNS = [
    TableColumn("acc@1", "acc@1"),
    TableColumn("acc@1 (strict)", "acc@1_strict"),
    TableColumn("gain (points)", "gain", "points"),
    TableColumn("coverage", "accepted_coverage"),
    TableColumn("precision", "accepted_precision"),
    TableColumn("ECE of top candidates", "top1_ece", "number"),
    TableColumn("log loss against this model (nats)", "nats", "nats"),
]
COVERAGE_COLUMNS = [
    TableColumn(f"coverage at precision {p:.2f} *", f"coverage_at_{p:.2f}")
    for p in COVERAGE_PRECISIONS
]
RANKING_COLUMNS = [
    TableColumn("acc@1, gold in dictionary", "acc@1_in_dictionary"),
    TableColumn("MRR", "mrr", "number"),
    TableColumn("recall@5", "recall@5"),
    TableColumn("recall, whole list", "recall"),
    *COVERAGE_COLUMNS,
]
TIERS = "Tiers of the top candidates"
MENTIONS = TableColumn("mentions", "acc@1", "mentions")
TIER_COLUMNS = [
    MENTIONS,
    TableColumn("coverage", "coverage"),
    TableColumn("precision", "acc@1"),
]


def report_tables(metrics: Mapping[str, Any]) -> list[Table]:
    """All tables of ``metrics.json``; tables and columns without a figure are left out."""
    slice_columns = [
        MENTIONS,
        *(TableColumn(one.help, one.name, one.format) for one in FIGURES if one.in_slices),
        TableColumn("debiased ECE", "top1_debiased_ece", "number"),
    ]
    ranking = "Ranking (* thresholds chosen on these mentions, for comparison only)"
    figures = metrics["figures"]
    # Rows of all mentions repeat the figures of the whole.
    subsets = {
        row: label
        for row, label in metrics["rows"].get("subsets", {}).items()
        if figures[f"subsets/{row}/acc@1"]["n"] < metrics["mentions"]
    }
    tables = [
        systems_table(figures),
        _matrix(ranking, "systems", RANKING_COLUMNS, metrics),
        _matrix(TIERS, "tiers", TIER_COLUMNS, metrics),
        _matrix(
            "Seen and unseen in training",
            "subsets",
            slice_columns,
            {**metrics, "rows": {"subsets": subsets}},
        ),
        _matrix("Semantic groups", "groups", slice_columns, metrics),
        _matrix("Semantic types, the most overconfident first", "types", slice_columns, metrics),
        _figures_table(metrics),
    ]
    return [table for table in tables if table.rows]


def _figures_table(metrics: Mapping[str, Any]) -> Table:
    """A row for each figure of the model over all mentions."""
    formats = {column.key: column.format for column in (*SYSTEM_COLUMNS, *RANKING_COLUMNS)}
    formats |= {figure.name: figure.format for figure in FIGURES}
    rows = []
    for key, figure in metrics["figures"].items():
        is_of_all_mentions = "/" not in key
        if is_of_all_mentions and is_there(figure["value"]):
            value = cell(figure, formats.get(key, "fine"))
            rows.append([(title_of(key), ""), value, (_over(figure, metrics), "")])
    return Table("Figures of this model", ["figure", "value", "over"], rows)


def _over(figure: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """What a figure was measured on."""
    population = figure.get("population", "mentions")
    return f"{figure['n']:,} {metrics['split']} {population}" if "n" in figure else ""


def systems_table(
    figures: Mapping[str, Any], columns: Sequence[TableColumn] = tuple(SYSTEM_COLUMNS)
) -> Table:
    """The table of `compare_systems`, or other columns of the systems that have them."""
    keys = {column.key for column in columns}
    keys_of_systems = (key.split("/") for key in figures if key.startswith("systems/"))
    labels = {system: title_of(system) for _, system, key in keys_of_systems if key in keys}
    return _matrix(
        COMPARISON, "systems", columns, {"figures": figures, "rows": {"systems": labels}}
    )


def systems_text(figures: Mapping[str, Any]) -> str:
    """Systems side by side for a terminal: answers and acceptance, coverage at some precisions."""
    text = as_text(systems_table(figures))
    covered = systems_table(figures, COVERAGE_COLUMNS)
    if covered.rows:
        text += (
            f"\n\n{as_text(covered)}\n"
            "* thresholds chosen on these mentions: they describe them and promise nothing for "
            "others"
        )
    return text


def _matrix(
    title: str, table: str, columns: Sequence[TableColumn], metrics: Mapping[str, Any]
) -> Table:
    """A table with a row for each system or slice of the mentions."""
    figures = metrics["figures"]
    labels = metrics["rows"].get(table, {})
    used = [
        column
        for column in columns
        if any(f"{table}/{row}/{column.key}" in figures for row in labels)
    ]
    rows = [
        [(label, ""), *(cell(figures.get(f"{table}/{row}/{c.key}"), c.format) for c in used)]
        for row, label in labels.items()
    ]
    return Table(title, ["", *(column.title for column in used)], rows)


def title_of(key: str) -> str:
    """Title of a figure or a system.

    >>> title_of("top1_ece")
    'ECE, top candidates'
    """
    for affix, note in AFFIXES.items():
        if affix in key:
            return title_of(key.replace(affix, "")) + note
    titles = {column.key: column.title for column in (*SYSTEM_COLUMNS, *RANKING_COLUMNS)}
    titles |= {figure.name: figure.help for figure in FIGURES}
    return (TITLES | titles).get(key, key.replace("_", " "))


def is_there(value: float | None) -> TypeGuard[float]:
    """Whether a value was measured and is finite."""
    return value is not None and math.isfinite(value)


def cell(figure: Mapping[str, Any] | None, format: str) -> Cell:
    """A figure in one of the formats of tables and its interval, or of ``mentions`` its number."""
    if format == "percent":
        return percent(figure), interval(figure)
    if format == "mentions":
        mentions = f"{figure['n']:,}" if figure else ""
        return mentions, ""
    if format == "points":
        gain = f"{100 * figure['value']:+.1f}" if figure else ""
        return gain, interval(figure, separator=" to ")
    if format == "nats":
        nats = f"{figure['value']:+.3f}" if figure else ""
        return nats, interval(figure, 3, 1.0, " to ")
    digits = 3 if format == "number" else 4
    return number(figure, digits), interval(figure, digits, 1.0)


def number(figure: Mapping[str, Any] | float | None, digits: int = 3) -> str:
    """A figure as text, a dash if there is none."""
    value = _value_of(figure)
    # Adding 0 takes its sign from a zero.
    return f"{round(value, digits) + 0.0:.{digits}f}" if is_there(value) else "–"


def percent(figure: Mapping[str, Any] | float | None, digits: int = 1) -> str:
    """A figure in percent, a dash if there is none."""
    value = _value_of(figure)
    return f"{number(100 * value, digits)}\u00a0%" if is_there(value) else "–"


def _value_of(figure: Mapping[str, Any] | float | None) -> float | None:
    return figure["value"] if isinstance(figure, Mapping) else figure


def interval(
    figure: Mapping[str, Any] | None, digits: int = 1, scale: float = 100.0, separator: str = "–"
) -> str:
    """The ends of a figure's 95 % interval, "" if it has none, as for a single document."""
    low = figure.get("low") if figure else None
    high = figure.get("high") if figure else None
    if not is_there(low) or not is_there(high):
        return ""
    if low < 0:
        separator = " to "
    return f"{number(scale * low, digits)}{separator}{number(scale * high, digits)}"


def as_markdown(table: Table) -> str:
    """A table in Markdown, intervals in brackets."""
    rows = [[with_ends(value, ends) for value, ends in row] for row in table.rows]
    return markdown_table(table.header, rows)


def with_ends(value: str, ends: str) -> str:
    """A value with the ends of its `interval` in brackets, if it has one."""
    return f"{value} ({ends})" if ends else value


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with columns of even width."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for cells in (header, ["-" * width for width in widths], *rows):
        padded = (text.ljust(width) for text, width in zip(cells, widths, strict=True))
        lines.append(f"| {' | '.join(padded)} |")
    return "\n".join(lines)


def as_text(table: Table) -> str:
    """A table for a terminal, with intervals below the values."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    printed = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    labels, *figures = table.header
    printed.add_column(labels)
    for title in figures:
        printed.add_column(title, justify="right")
    for row in table.rows:
        # Not markup: names may have brackets.
        printed.add_row(*(Text("\n".join(filter(None, texts))) for texts in row))
    console = Console(width=TERMINAL_WIDTH, file=io.StringIO(), no_color=True, highlight=False)
    with console.capture() as capture:
        console.print(printed)
    return "\n".join(line.rstrip() for line in capture.get().splitlines() if line.strip())


def reliability_points(p: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """Points of a reliability diagram: share of correct pairs in each non-empty equal-width bin.

    Args:
        p: (n,) probabilities.
        y: (n,) labels.

    Returns:
        Lists of equal length: ``lower``, ``upper``, ``count``, ``mean_probability``,
        ``positive_rate``.
    """
    p = np.asarray(p, dtype=np.float64)
    y = np.asarray(y, dtype=np.float64)
    cell = equal_width(p, BINS)
    count = np.bincount(cell, minlength=BINS)
    total = np.maximum(count, 1)
    edges = np.linspace(0.0, 1.0, BINS + 1)
    points = {
        "lower": edges[:-1],
        "upper": edges[1:],
        "count": count,
        "mean_probability": np.bincount(cell, weights=p, minlength=BINS) / total,
        "positive_rate": np.bincount(cell, weights=y, minlength=BINS) / total,
    }
    return {name: values[count > 0].tolist() for name, values in points.items()}


def risk_coverage(score: np.ndarray, correct: np.ndarray) -> dict[str, Any]:
    """Precision against the share of mentions answered, most confident first; ties are one point.

    Args:
        score: (n,) score of each answer; -inf or NaN for no answer.
        correct: (n,) whether it is correct.

    Returns:
        Lists ``coverage`` and ``precision``, at most `CURVE_POINTS` evenly spaced points, including
        the last; and ``area``, the mean share of incorrect answers over all coverages up to the
        last (AURC, Geifman et al. 2019).
    """
    score = np.asarray(score, dtype=np.float64)
    answered = np.flatnonzero(score > -np.inf)
    order = answered[np.argsort(-score[answered], kind="stable")]
    if not len(order):
        return {"coverage": [], "precision": [], "area": float("nan")}
    descending = score[order]
    is_last_of_tie = np.append(descending[1:] < descending[:-1], True)
    ends = np.flatnonzero(is_last_of_tie)
    coverage = (ends + 1) / len(score)
    precision = np.cumsum(np.asarray(correct, dtype=np.float64)[order])[ends] / (ends + 1)
    area = float(np.average(1.0 - precision, weights=np.diff(ends, prepend=-1)))
    points = np.unique(np.searchsorted(coverage, np.linspace(0, coverage[-1], CURVE_POINTS)))
    return {
        "coverage": coverage[points].tolist(),
        "precision": precision[points].tolist(),
        "area": area,
    }


def histogram(values: np.ndarray, correct: np.ndarray) -> dict[str, list]:
    """Correct and incorrect answers by equal-width bins of a value in [0, 1], without NaN."""
    edges = np.linspace(0.0, 1.0, HISTOGRAM_BINS + 1)
    is_number = ~np.isnan(values)
    return {
        "edges": edges.tolist(),
        "correct": np.histogram(values[correct & is_number], edges)[0].tolist(),
        "incorrect": np.histogram(values[~correct & is_number], edges)[0].tolist(),
    }


@dataclass(frozen=True)
class Axes:
    """The plot area of a chart in pixels: linear scales, x from 0 to 1, y from `low` to `high`.

    Attributes:
        x_ticks: values and their labels.
        y_ticks: values and their labels.
        width: width in pixels, small, so that text stays readable on a phone.
        height: height in pixels.
    """

    low: float
    high: float
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    height: int = 300
    width: int = 420
    left: int = 58
    top: int = 12

    @property
    def right(self) -> int:
        return self.width - 20

    @property
    def bottom(self) -> int:
        return self.height - 40

    def x(self, value: float) -> float:
        return self.left + value * (self.right - self.left)

    def y(self, value: float) -> float:
        """Pixel of a value; values below the scale are drawn at its lower end."""
        height = max(0.0, value - self.low) / (self.high - self.low)
        return self.bottom - height * (self.bottom - self.top)


# For `reliability_points`.
RELIABILITY_AXES = Axes(low=0.0, high=1.0, x_ticks=FIFTHS, y_ticks=FIFTHS, height=360)


def risk_axes(curves: Iterable[Mapping[str, Any]], target: float) -> Axes:
    """Axes for some `risk_coverage`, with the precision `target`."""
    points = [zip(curve["coverage"], curve["precision"], strict=True) for curve in curves]
    # The precision of a few answers is mostly noise.
    precisions = [precision for coverage, precision in chain(*points) if coverage > FEW]
    lowest = min([target, *precisions])
    step = 1 if lowest >= 0.4 else 2
    tenths = range(int(lowest * 10), 11, step)
    y_ticks = [(tenth / 10, f"{10 * tenth} %") for tenth in tenths]
    return Axes(low=tenths[0] / 10, high=1.0, x_ticks=PERCENT_FIFTHS, y_ticks=y_ticks)


def marked_points(curve: Mapping[str, Any]) -> list[tuple[float, float]]:
    """Coverage and precision of about twelve points of a `risk_coverage`, and of its end."""
    points = list(zip(curve["coverage"], curve["precision"], strict=True))
    return [*points[:: max(1, len(points) // 12)], points[-1]]


def histogram_axes(counts: Mapping[str, Sequence[int]]) -> Axes:
    """Axes for a `histogram`, with ticks at every 1, 2, 5, 10, 20, 50, ..."""
    most = max(1, *map(sum, zip(counts["correct"], counts["incorrect"], strict=True)))
    steps = (factor * 10**power for power in range(20) for factor in (1, 2, 5))
    step = next(step for step in steps if step >= most / 4)
    y_ticks = [(value, f"{value:,}") for value in range(0, most + 1, step)]
    return Axes(low=0.0, high=most * 1.08, x_ticks=FIFTHS, y_ticks=y_ticks, height=240)


def report_page(metrics: Mapping[str, Any], title: str, thresholds: ThresholdTable) -> str:
    """Write the page.

    Args:
        metrics: content of ``metrics.json``.
        title: name of the run.
        thresholds: those of the model; the default threshold of acceptance is marked in the
            histogram of the scores.

    Returns:
        HTML text without external references.
    """
    return rendered(
        "report.html",
        metrics=metrics,
        curves=metrics["curves"],
        tables=report_tables(metrics),
        title=title,
        target_precision=thresholds.target_precision,
        is_certified=thresholds.is_certified,
        accept=thresholds.for_type().accept,
        risk_curves=_named(metrics["curves"]["risk_coverage"]),
        pair_curves=_pair_curves(metrics["curves"]),
    )


def card_charts(metrics: Mapping[str, Any], target_precision: float) -> tuple[str, str]:
    """Reliability and risk-coverage charts as SVG files for the model card."""
    pair_curves = _pair_curves(metrics["curves"])
    legend = {"after calibration": "series1"}
    if len(pair_curves) > 1:
        legend["before calibration"] = "series2"
    legend["perfect calibration"] = "ideal"
    reliability = _chart_file(
        "Reliability of candidate probabilities", legend, RELIABILITY_AXES, pair_curves
    )
    systems = _named(metrics["curves"]["risk_coverage"])
    legend = {}
    for position, (name, curve) in enumerate(systems.items(), start=1):
        if curve["coverage"]:
            precision = curve["precision"][-1]
            name += f": precision {precision:.1%} at coverage {curve['coverage'][-1]:.0%}"
        legend[name] = f"series{position}"
    axes = risk_axes(systems.values(), target_precision)
    return reliability, _chart_file(
        "Precision-coverage curve", legend, axes, systems, target_precision
    )


def _chart_file(
    title: str,
    legend: Mapping[str, str],
    axes: Axes,
    curves: Mapping[str, Any],
    target_precision: float | None = None,
) -> str:
    """A chart with a title and a legend above it: label -> class of its element."""
    return (
        rendered(
            "chart_file.svg",
            title=title,
            legend=legend,
            axes=axes,
            curves=curves,
            target_precision=target_precision,
        ).strip()
        + "\n"
    )


def rendered(template: str, /, **content: Any) -> str:
    """A template of the package; a name that it lacks is an error. HTML and SVG are escaped."""
    return _environment().get_template(template).render(content)


@cache
def _environment() -> Environment:
    """The templates, which are compiled once."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(("html", "svg")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "zip": zip,
        "number": number,
        "histogram_axes": histogram_axes,
        "marked_points": marked_points,
        "reliability_axes": RELIABILITY_AXES,
        "risk_axes": risk_axes,
        "style": (TEMPLATES / "chart.css").read_text(encoding="utf-8"),
    }
    return environment


def _pair_curves(curves: Mapping[str, Any]) -> dict[str, Any]:
    """Points of the reliability diagram of candidates, by their names in legends."""
    points = curves["reliability"]
    names = {"raw": "before calibration", "calibrated": "after calibration"}
    return {name: points[key] for key, name in names.items() if key in points}


def _named(systems: Mapping[str, Any]) -> dict[str, Any]:
    return {title_of(name): values for name, values in systems.items()}
