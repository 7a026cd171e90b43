"""The tables of ``metrics.json``, with the same rows for a terminal, the page and the card."""

import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .formatting import Cell, cell, is_there, markdown_table, with_ends
from .metrics import FIGURES
from .score_figures import COVERAGE_PRECISIONS

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
    # Where types have no groups, the broadest types are the groups, and one row of each is enough.
    groups = metrics["rows"].get("groups", {})
    types = {
        row: label for row, label in metrics["rows"].get("types", {}).items() if row not in groups
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
        _matrix(
            "Semantic types, the most overconfident first",
            "types",
            slice_columns,
            {**metrics, "rows": {"types": types}},
        ),
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


def as_markdown(table: Table) -> str:
    """A table in Markdown, intervals in brackets."""
    rows = [[with_ends(value, ends) for value, ends in row] for row in table.rows]
    return markdown_table(table.header, rows)


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
