"""The figures of a model's answers, declared once: ``metrics.json``, targets of recipes, tables and card follow.

``metrics.json`` has them in one flat dict, ``figures``: ``acc@1`` is of the model over all mentions, and
``TABLE/ROW/acc@1``, such as ``groups/group:DISO/acc@1`` or ``systems/lists_order/acc@1``, of a row of a table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..calibration.reliability import calibration_report
from ..calibration.resampling import ratio
from ..calibration.thresholds import TIERS
from ..core.files import read_json, require_format
from ..core.progress import progress
from ..vocab.text import normalize_name
from ..vocab.types import TypeHierarchy
from .linking import Documents, Measure, sums_to_f1
from .outcomes import Outcomes

# Of ``metrics.json``.
SCHEMA_VERSION = 4
# With fewer mentions, a type is not listed and no calibration metric is given.
SMALLEST_SLICE = 50
# With fewer mentions, the result of a target may be inconclusive, and a group is not the worst.
SMALL_SUPPORT = 1_000
WITHOUT_TYPE = "without type"

Slices = dict[str, tuple[str, np.ndarray]]


@dataclass(frozen=True)
class Figure:
    """A figure of the outcomes of n mentions, as a statistic of sums.

    Attributes:
        name: its name in ``metrics.json`` and in targets of recipes.
        help: its name in tables.
        columns: makes k columns (n,) from outcomes; the last one is 1 for each mention that counts.
        population: mentions that count, such as "with candidates".
        statistic: makes the figure from the columns' sums (..., k).
        format: its format in tables: ``percent`` or ``number``.
        in_slices: whether it is also measured on parts of the mentions, such as semantic groups.
        higher_is_better: whether a higher value is better.
        margin: how much worse a version may be and count as as good, as a share of the margin for accuracy; None: it
            is not compared between versions.
    """

    name: str
    help: str
    columns: Callable[[Outcomes], Sequence[np.ndarray]]
    population: str = ""
    statistic: Callable[[np.ndarray], np.ndarray] = ratio
    format: str = "percent"
    in_slices: bool = False
    higher_is_better: bool = True
    margin: float | None = None


KNOWN, WITH_CANDIDATES = "with gold in the dictionary", "with candidates"
FIGURES = [
    Figure("acc@1", "acc@1", lambda o: (o.correct, o.every), in_slices=True, margin=1.0),
    Figure(
        "acc@1_in_dictionary",
        "acc@1, gold in dictionary",
        lambda o: (o.correct & o.in_dictionary, o.in_dictionary),
        KNOWN,
        in_slices=True,
    ),
    Figure(
        "high_confidence_coverage",
        "high-tier coverage",
        lambda o: (o.high, o.every),
        in_slices=True,
    ),
    Figure(
        "high_confidence_precision",
        "high-tier precision",
        lambda o: (o.high & o.correct, o.high),
        "in the high tier",
        in_slices=True,
    ),
    Figure("accepted_coverage", "coverage", lambda o: (o.accepted, o.every), in_slices=True),
    Figure(
        "accepted_precision",
        "precision",
        lambda o: (o.accepted & o.correct, o.accepted),
        "accepted",
        in_slices=True,
    ),
    # End to end, with abstention: precision over the answers given, recall over the mentions that have one.
    Figure(
        "correct_answers_f1",
        "F1 of correct answers",
        lambda o: (o.accepted & o.correct, o.accepted, o.in_dictionary),
        KNOWN,
        sums_to_f1,
        margin=1.0,
    ),
    # A mention whose gold concept the dictionary lacks has no correct answer; the service should abstain.
    Figure(
        "abstaining_recall",
        "abstentions",
        lambda o: (~o.accepted & ~o.in_dictionary, ~o.in_dictionary),
        "with gold not in the dictionary",
    ),
    Figure(
        "without_candidates_share",
        "share without candidates",
        lambda o: (~o.has_candidates, o.every),
    ),
    # The monitor counts these two likewise.
    Figure(
        "mean_top_score",
        "mean top score",
        lambda o: (o.score_or_0, o.has_candidates),
        WITH_CANDIDATES,
        format="number",
    ),
    Figure(
        "mean_margin",
        "mean margin",
        lambda o: (np.nan_to_num(o.margin), o.has_candidates),
        WITH_CANDIDATES,
        format="number",
    ),
    # The error rate beyond what the scores predict; positive: overconfident.
    Figure(
        "overconfidence",
        "overconfidence",
        lambda o: (o.score_or_0 - o.correct * o.has_candidates, o.has_candidates),
        WITH_CANDIDATES,
        in_slices=True,
    ),
    # The mean squared error of the top scores rises with a worse order or calibration. Where calibrated answers are
    # correct with p = 0.75, it is p (1 - p) and changes by half of what accuracy does.
    Figure(
        "brier_of_top",
        "Brier score of top candidates",
        lambda o: ((o.score_or_0 - o.correct) ** 2, o.every),
        format="number",
        higher_is_better=False,
        margin=0.5,
    ),
]


def register(figure: Figure) -> None:
    """Add a figure from outside the package, before anything is measured.

    Raises:
        ValueError: the name is taken.
    """
    if figure.name in [declared.name for declared in FIGURES]:
        raise ValueError(f"figure {figure.name} is already registered")
    FIGURES.append(figure)


def read_metrics(path: Path) -> dict[str, Any]:
    """Content of a ``metrics.json``.

    Raises:
        UserError: it is missing, damaged or of another format.
    """
    report = read_json(path)
    require_format(path, report, SCHEMA_VERSION, "evaluate")
    return report


def measure_figures(
    outcomes: Outcomes, documents: Documents, *, in_slices: bool = False
) -> dict[str, Measure]:
    """Name -> ``{"value", "low", "high", "n", "population"}`` of all figures, or only of those in slices.

    ``n`` is the number of mentions that count, and ``population`` says which they are.
    """
    return {
        figure.name: documents.measure(figure.columns(outcomes), figure.statistic)
        | {"population": f"mentions {figure.population}".rstrip()}
        for figure in FIGURES
        if figure.in_slices or not in_slices
    }


def slice_figures(outcomes: Outcomes, documents: Documents, rows: np.ndarray) -> dict[str, Measure]:
    """Figures of some mentions, (n,) bool: those in slices, and ``top1_debiased_ece`` if there are enough."""
    inside = outcomes.select(rows)
    figures = measure_figures(inside, documents.take(rows), in_slices=True)
    top = inside.select(inside.has_candidates)
    if len(top) >= SMALLEST_SLICE:
        options = {"resamples": documents.resamples, "seed": documents.seed}
        ece = calibration_report(top.score, top.correct, top.document, **options)["debiased_ece"]
        figures["top1_debiased_ece"] = ece | {
            "n": len(top),
            "population": "mentions with candidates",
        }
    return figures


def mention_slices(
    outcomes: Outcomes,
    mentions: Sequence[str],
    hierarchy: TypeHierarchy,
    known: Iterable[tuple[str, str]] = (),
) -> dict[str, Slices]:
    """Parts of n mentions, by the table that has a row for each.

    Args:
        outcomes: their outcomes.
        mentions: their texts.
        hierarchy: in one without groups, the broadest ancestors take their role.
        known: text and gold CUI of the mentions that the model counts.

    Returns:
        ``tiers``; ``subsets`` seen and unseen among `known`, if there are any; and if any type is known, ``groups``,
        the largest first, and ``types`` with at least `SMALLEST_SLICE` mentions. A mention counts in each of its
        types. Each table maps a row to its label and the mentions, (n,) bool.
    """
    slices: dict[str, Slices] = {"tiers": {tier: (tier, outcomes.tier == tier) for tier in TIERS}}
    if known := list(known):
        strings, cuis = {normalize_name(text) for text, _ in known}, {cui for _, cui in known}
        seen_string = np.array([normalize_name(text) in strings for text in mentions])
        # Of a mention with several gold concepts, any.
        seen_cui = np.array([not cuis.isdisjoint(gold.split("|")) for gold in outcomes.gold])
        slices["subsets"] = {
            "seen_string": ("string seen", seen_string),
            "unseen_string": ("string unseen", ~seen_string),
            "seen_cui": ("concept seen", seen_cui),
            "unseen_cui": ("concept unseen", ~seen_cui),
        }
    types = [set(filter(None, map(hierarchy.resolve, names))) for names in outcomes.types]
    if any(types):
        groups = [
            {(hierarchy.chain(node) or [node])[-1] for node in nodes} or {WITHOUT_TYPE}
            for nodes in types
        ]
        slices["groups"], slices["types"] = (
            _by_node(groups, hierarchy, 1),
            _by_node(types, hierarchy, SMALLEST_SLICE),
        )
    return slices


def measure_slices(
    outcomes: Outcomes, documents: Documents, slices: Mapping[str, Slices]
) -> tuple[dict[str, Measure], dict[str, dict[str, str]]]:
    """Figures of parts of the mentions as ``TABLE/ROW/NAME``, ``coverage`` of tiers; and label by row of each table.

    Types are in the order of the lower end of the interval of ``overconfidence``, the surest first.
    """
    figures: dict[str, Measure] = {}
    rows: dict[str, dict[str, str]] = {table: {} for table in slices}
    parts = [
        (table, row, *part) for table, of_table in slices.items() for row, part in of_table.items()
    ]
    for table, row, label, inside in progress(
        parts, desc="measuring groups and types", unit=" slices"
    ):
        if inside.any():
            of_slice = slice_figures(outcomes, documents, inside)
            figures |= {f"{table}/{row}/{name}": figure for name, figure in of_slice.items()}
            rows[table][row] = label
            if table == "tiers":
                figures[f"tiers/{row}/coverage"] = documents.measure([inside, outcomes.every])
    if "types" in rows:
        excess = {
            row: np.nan_to_num(figures[f"types/{row}/overconfidence"]["low"], nan=-1.0)
            for row in rows["types"]
        }
        rows["types"] = {
            row: rows["types"][row] for row in sorted(excess, key=lambda row: -excess[row])
        }
    return figures, rows


def worst_groups(figures: Mapping[str, Measure], groups: Mapping[str, str]) -> dict[str, Measure]:
    """The worst semantic group with at least `SMALL_SUPPORT` mentions, by acc@1 and debiased ECE of top scores."""
    worst = {}
    for name, sign in (("acc@1", -1), ("top1_debiased_ece", 1)):
        found: Measure = {
            "value": np.nan,
            "n": 0,
            "population": f"groups with {SMALL_SUPPORT:,} mentions",
        }
        for row, label in groups.items():
            figure = figures.get(f"groups/{row}/{name}", found)
            is_worse = found["n"] == 0 or sign * (figure["value"] - found["value"]) > 0
            if figure["n"] >= SMALL_SUPPORT and is_worse:
                found = figure | {"population": f"mentions of {label}"}
        worst[f"worst_group_{name}"] = found
    return worst


def _by_node(nodes: Sequence[set[str]], hierarchy: TypeHierarchy, smallest: int) -> Slices:
    """Mentions of each type or group, the largest first."""
    inside = {
        node: np.array([node in of_row for of_row in nodes]) for node in sorted(set().union(*nodes))
    }
    large = sorted(
        (node for node, rows in inside.items() if rows.sum() >= smallest),
        key=lambda n: -inside[n].sum(),
    )
    return {
        node: (node if node == WITHOUT_TYPE else hierarchy.name(node), inside[node])
        for node in large
    }
