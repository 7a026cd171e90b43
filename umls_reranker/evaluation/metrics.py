"""Figures of a model's answers, declared once: ``metrics.json``, targets, tables and card follow.

``metrics.json`` has them in one flat dict, ``figures``: ``acc@1`` is of the model over all
mentions, and ``TABLE/ROW/acc@1``, such as ``groups/group:DISO/acc@1`` or
``systems/lists_order/acc@1``, of a row of a table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

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
# Of groups, if none is large enough.
NOT_MEASURED = {
    "value": np.nan,
    "n": 0,
    "population": f"groups with {SMALL_SUPPORT:,} mentions",
}


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
        in_slices: whether it is also measured on slices of the mentions, such as semantic groups.
        higher_is_better: whether a higher value is better.
        is_optional: whether it is left out where no mention counts.
        margin: how much worse a version may be and count as as good, as a share of the margin for
            accuracy; None: it is not compared between versions.
    """

    name: str
    help: str
    columns: Callable[[Outcomes], Sequence[np.ndarray]]
    population: str = ""
    statistic: Callable[[np.ndarray], np.ndarray] = ratio
    format: str = "percent"
    in_slices: bool = False
    higher_is_better: bool = True
    is_optional: bool = False
    margin: float | None = None


KNOWN = "with gold in the dictionary"
WITH_CANDIDATES = "with candidates"
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
    # Correct answers, parents and children of gold concepts, and other errors are all answers.
    Figure(
        "parent_answers",
        "parents of the gold concept",
        lambda o: ((o.relation == "parent"), o.has_relations),
        in_slices=True,
        is_optional=True,
    ),
    Figure(
        "child_answers",
        "children of the gold concept",
        lambda o: ((o.relation == "child"), o.has_relations),
        in_slices=True,
        is_optional=True,
    ),
    Figure("accepted_coverage", "coverage", lambda o: (o.accepted, o.every), in_slices=True),
    Figure(
        "accepted_precision",
        "precision",
        lambda o: (o.accepted & o.correct, o.accepted),
        "accepted",
        in_slices=True,
    ),
    # End to end, with abstention: precision over answers given, recall over mentions that have one.
    Figure(
        "correct_answers_f1",
        "F1 of correct answers",
        lambda o: (o.accepted & o.correct, o.accepted, o.in_dictionary),
        KNOWN,
        sums_to_f1,
        margin=1.0,
    ),
    # Where the dictionary lacks the gold concept, no answer is correct; the service should abstain.
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
    # The mean squared error of the top scores rises with a worse order or calibration. Where
    # calibrated answers are correct with p = 0.75, it is p (1 - p) and changes by half of what
    # accuracy does.
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
    """All figures, or those in slices: ``{"value", "low", "high", "n", "population"}`` by name.

    ``n`` is the number of mentions that count, and ``population`` says which they are.
    """
    figures = {}
    for figure in FIGURES:
        if in_slices and not figure.in_slices:
            continue
        columns = figure.columns(outcomes)
        if figure.is_optional and not columns[-1].any():
            continue
        figures[figure.name] = documents.measure(columns, figure.statistic) | {
            "population": f"mentions {figure.population}".rstrip()
        }
    return figures


def top_calibration(outcomes: Outcomes, documents: Documents) -> dict[str, Measure]:
    """Calibration of the top candidates (`calibration_report`)."""
    top = outcomes.select(outcomes.has_candidates)
    report = documents.take(outcomes.has_candidates).calibration(top.score, top.correct)
    over = {"n": len(top), "population": f"mentions {WITH_CANDIDATES}"}
    return {name: figure | over for name, figure in report.items()}


def slice_figures(outcomes: Outcomes, documents: Documents) -> dict[str, Measure]:
    """Figures of a slice of the mentions, with ``top1_debiased_ece`` if there are enough."""
    figures = measure_figures(outcomes, documents, in_slices=True)
    if outcomes.has_candidates.sum() >= SMALLEST_SLICE:
        figures["top1_debiased_ece"] = top_calibration(outcomes, documents)["debiased_ece"]
    return figures


class Slice(NamedTuple):
    """Some of n mentions: a row of a table.

    Attributes:
        table: the table.
        row: key of the row in ``metrics.json``.
        label: title of the row.
        mentions: (n,) bool, the mentions.
    """

    table: str
    row: str
    label: str
    mentions: np.ndarray


def mention_slices(
    outcomes: Outcomes,
    mentions: Sequence[str],
    hierarchy: TypeHierarchy,
    known: Iterable[tuple[str, str]] = (),
) -> list[Slice]:
    """Slices of n mentions.

    Args:
        outcomes: their outcomes.
        mentions: their texts.
        hierarchy: in one without groups, the broadest ancestors take their role.
        known: text and gold CUI of the mentions that the model counts.

    Returns:
        Those of the table ``tiers``; ``subsets`` seen and unseen among `known`, if there are any;
        and if any type is known, ``groups``, the largest first, and ``types`` with at least
        `SMALLEST_SLICE` mentions. A mention counts in each of its types.
    """
    slices = [Slice("tiers", tier, tier, outcomes.tier == tier) for tier in TIERS]
    known = list(known)
    if known:
        strings = {normalize_name(text) for text, _ in known}
        cuis = {cui for _, cui in known}
        seen_string = np.array([normalize_name(text) in strings for text in mentions])
        # Of a mention with several gold concepts, any.
        seen_cui = np.array([not cuis.isdisjoint(gold.split("|")) for gold in outcomes.gold])
        slices += [
            Slice("subsets", "seen_string", "string seen", seen_string),
            Slice("subsets", "unseen_string", "string unseen", ~seen_string),
            Slice("subsets", "seen_cui", "concept seen", seen_cui),
            Slice("subsets", "unseen_cui", "concept unseen", ~seen_cui),
        ]
    types = [set(filter(None, map(hierarchy.resolve, names))) for names in outcomes.types]
    if any(types):
        groups = [
            {(hierarchy.chain(node) or [node])[-1] for node in nodes} or {WITHOUT_TYPE}
            for nodes in types
        ]
        slices += _type_slices("groups", groups, hierarchy, 1)
        slices += _type_slices("types", types, hierarchy, SMALLEST_SLICE)
    return slices


def _type_slices(
    table: str, nodes: Sequence[set[str]], hierarchy: TypeHierarchy, smallest: int
) -> list[Slice]:
    """A slice for each type or group of n mentions with enough of them, the largest first."""
    slices = []
    for node in sorted(set().union(*nodes)):
        label = node if node == WITHOUT_TYPE else hierarchy.name(node)
        mentions = np.array([node in mention_nodes for mention_nodes in nodes])
        if mentions.sum() >= smallest:
            slices.append(Slice(table, node, label, mentions))
    return sorted(slices, key=lambda one: -one.mentions.sum())


def measure_slices(
    outcomes: Outcomes, documents: Documents, slices: Sequence[Slice]
) -> tuple[dict[str, Measure], dict[str, dict[str, str]]]:
    """Figures of slices by ``TABLE/ROW/NAME``, and label by row of each table.

    Tiers also have a ``coverage``. Types are in the order of the lower end of the interval of
    ``overconfidence``, the surest first.
    """
    figures: dict[str, Measure] = {}
    rows: dict[str, dict[str, str]] = {}
    for one in progress(slices, desc="measuring groups and types", unit=" slices"):
        if not one.mentions.any():
            continue
        key = f"{one.table}/{one.row}"
        slice_measures = slice_figures(outcomes.select(one.mentions), documents.take(one.mentions))
        figures |= {f"{key}/{name}": figure for name, figure in slice_measures.items()}
        rows.setdefault(one.table, {})[one.row] = one.label
        if one.table == "tiers":
            figures[f"{key}/coverage"] = documents.measure([one.mentions, outcomes.every])
    if "types" in rows:
        least = {row: figures[f"types/{row}/overconfidence"]["low"] for row in rows["types"]}
        surest_first = sorted(least, key=lambda row: -np.nan_to_num(least[row], nan=-1.0))
        rows["types"] = {row: rows["types"][row] for row in surest_first}
    return figures, rows


def worst_groups(figures: Mapping[str, Measure], groups: Mapping[str, str]) -> dict[str, Measure]:
    """The worst group of `SMALL_SUPPORT` or more mentions, by acc@1 and by debiased ECE."""
    worst = {}
    for name, worst_of in (("acc@1", min), ("top1_debiased_ece", max)):
        by_population = {
            f"mentions of {label}": figures.get(f"groups/{row}/{name}", NOT_MEASURED)
            for row, label in groups.items()
        }
        large = [
            figure | {"population": population}
            for population, figure in by_population.items()
            if figure["n"] >= SMALL_SUPPORT
        ]
        worst[f"worst_group_{name}"] = worst_of(
            large, key=lambda figure: figure["value"], default=NOT_MEASURED
        )
    return worst
