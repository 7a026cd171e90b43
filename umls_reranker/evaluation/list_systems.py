"""Systems side by side on the same labelled lists: is one better than the original order of the lists?"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..calibration.reliability import calibration_report
from ..calibration.resampling import ratio
from .comparison import FEWEST_DOCUMENTS
from .formats import figure_name, interval, is_there, markdown_table, number, percent
from .linking import Documents, Measure
from .outcomes import Outcomes

# If telling two systems apart takes more than this many times the available mentions, they are about equal.
MOST_TIMES_MENTIONS = 20
TERMINAL_WIDTH = 100
HEADER = ("system", "acc@1", "gain (points)", "coverage", "precision", "ECE of top candidates")


class System(NamedTuple):
    """The answers of one system for n mentions.

    Attributes:
        ranks: (n,) rank of the gold concept, 0 is the top, -1 if missing.
        score: (n,) confidence of its top candidate, NaN without candidates; None if the system has no scores. For
            `compare_systems` it is a calibrated probability.
        answered: (n,) bool, for a system with one answer or none.
        accepted: (n,) bool, for a system with a threshold; None: everything is accepted.
    """

    ranks: np.ndarray
    score: np.ndarray | None = None
    answered: np.ndarray | None = None
    accepted: np.ndarray | None = None

    @classmethod
    def of(cls, outcomes: Outcomes) -> System:
        """The answers of a model with calibrated scores and thresholds."""
        return cls(outcomes.rank, outcomes.score, accepted=outcomes.accepted)

    def take(self, rows: np.ndarray) -> System:
        """The answers for some mentions: indices or (n,) bool."""
        score, answered, accepted = (column if column is None else column[rows] for column in self[1:])
        return System(self.ranks[rows], score, answered, accepted)


def compare_systems(systems: Mapping[str, System], documents: Documents) -> list[dict[str, Any]]:
    """Figures of each system, and the paired difference of its acc@1 to that of the first one.

    Args:
        systems: name -> answers, the order of the lists first.
        documents: documents of the mentions; all intervals, also of differences, use the same resamples.

    Returns:
        Rows for ``metrics.json``: ``name``, ``acc@1``, ``gain`` (None in the first row), ``accepted_share``,
        ``accepted_precision`` (NaN if nothing is accepted) and ``top1_ece`` (None without probabilities), each
        ``{"value", "low", "high"}``.
    """
    baseline = next(iter(systems.values())).ranks == 0
    every = np.ones(len(baseline), bool)
    # It is not a measurement, so it has no interval.
    whole = {"value": 1.0, "low": float("nan"), "high": float("nan")}
    rows = []
    for number_of_row, (name, system) in enumerate(systems.items()):
        correct = system.ranks == 0
        accepted = every if system.accepted is None else system.accepted
        difference = correct.astype(np.int64) - baseline
        rows.append(
            {
                "name": name,
                "acc@1": documents.measure([correct, every]),
                "gain": documents.measure([difference, every], _mean_difference) if number_of_row else None,
                "accepted_share": whole if system.accepted is None else documents.measure([accepted, every]),
                "accepted_precision": documents.measure([accepted & correct, accepted]),
                "top1_ece": _top_ece(system, documents),
            }
        )
    return rows


def systems_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of `compare_systems` for a terminal, with intervals below the values."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(HEADER[0])
    for title in HEADER[1:]:
        table.add_column(title, justify="right")
    for row in rows:
        # Not markup: names may have brackets.
        table.add_row(*(Text("\n".join(filter(None, cell))) for cell in system_cells(row)))
    console = Console(width=TERMINAL_WIDTH, file=io.StringIO(), no_color=True, highlight=False)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines() if line.strip())


def systems_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of `compare_systems` as a Markdown table."""
    return markdown_table(
        HEADER, [[value + (f" ({ends})" if ends else "") for value, ends in system_cells(row)] for row in rows]
    )


def verdict(row: Mapping[str, Any], mentions: int, documents: int) -> str:
    """In one line, whether a system is better than the order of the lists.

    Args:
        row: a row of `compare_systems` after the first.
        mentions: number of mentions that it was measured on.
        documents: number of their documents.

    Returns:
        "gain" or "loss" if the interval of the difference excludes 0 and there are at least `FEWEST_DOCUMENTS`; else
        "inconclusive", with about how many mentions more would make the interval around this difference exclude 0.
    """
    value, low, high = (row["gain"][key] for key in ("value", "low", "high"))
    ends = f" ({100 * low:.1f} to {100 * high:.1f})" if is_there(low) and is_there(high) else ""
    difference = f"{100 * value:+.1f} points {'over' if value >= 0 else 'against'} your order{ends}"
    if documents < FEWEST_DOCUMENTS:
        few = f"{documents} documents are" if documents > 1 else "1 document is"
        return f"inconclusive: {difference}; {few} too few for a reliable interval, label at least {FEWEST_DOCUMENTS}"
    if low > 0:
        return f"gain: {difference}"
    if high < 0:
        return f"loss: {difference}"
    # The interval shrinks with the square root of the mentions; one that just touches 0 may do so because it is
    # skewed.
    reach = max(value - low if value > 0 else high - value, (high - low) / 2)
    times_more = (reach / value) ** 2 - 1.0 if value else np.inf
    if times_more > MOST_TIMES_MENTIONS:
        return f"inconclusive: {difference}; the two are about equal on lists like these"
    more = float(f"{max(times_more * mentions, mentions / documents, 1.0):.2g}")
    return f"inconclusive: {difference}; label about {more:,.0f} more mentions"


def _mean_difference(sums: np.ndarray) -> np.ndarray:
    """Like `ratio`, but not treated as a share, so the interval of no difference at all is 0."""
    return ratio(sums)


def _top_ece(system: System, documents: Documents) -> Measure | None:
    if system.score is None:
        return None
    has_candidates = ~np.isnan(system.score)
    if not has_candidates.any():
        return None
    p, correct, of_top = (
        system.score[has_candidates],
        system.ranks[has_candidates] == 0,
        documents.index[has_candidates],
    )
    options = {"resamples": documents.resamples, "seed": documents.seed}
    figure = calibration_report(p, correct, of_top, **options)["ece"]
    if documents.count < 2:
        figure |= {"low": float("nan"), "high": float("nan")}
    return {name: figure[name] for name in ("value", "low", "high", "perfect")}


def system_cells(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Value and interval of each column of `HEADER`; "" for no interval."""
    gain = row["gain"]
    return [
        (figure_name(row["name"]), ""),
        (percent(row["acc@1"]), interval(row["acc@1"], separator="–")),
        (f"{100 * gain['value']:+.1f}" if gain else "", interval(gain, separator=" to ")),
        (percent(row["accepted_share"]), interval(row["accepted_share"], separator="–")),
        (percent(row["accepted_precision"]), interval(row["accepted_precision"], separator="–")),
        (number(row["top1_ece"]), interval(row["top1_ece"], 3, 1.0, "–")),
    ]
